"""The command that segments folders of images."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from incontext.cli.common import PrecisionOptions, check_out_folder, option_groups
from incontext.cli.examples import PromptOptions, check_prompt_file
from incontext.errors import InputError, check_count, check_share

if TYPE_CHECKING:
    from incontext.batch.inputs import InputImage, Shard
    from incontext.batch.manifest import Manifest
    from incontext.batch.segment import OnResult
    from incontext.inference.onnx.predictor import OnnxPredictor
    from incontext.inference.predictor import Predictor
    from incontext.inference.prompt import Prompt

Chunk = Annotated[
    int | None, typer.Option(help="Examples attended at once; fewer need less memory.")
]
MAX_LINES = 20  # ids in the summary
MAX_NAMES = 5  # of pictures in one line


@dataclass(frozen=True)
class EngineOptions:
    """Who computes which part of the images."""

    engine: Annotated[
        str,
        typer.Option(help="Where to compute: local (this process), processes, or ray (a cluster)."),
    ] = "local"
    workers: Annotated[
        int | None,
        typer.Option(help="Number of processes; by default one for each GPU, or else each core."),
    ] = None
    shard: Annotated[
        str | None,
        typer.Option(
            help="Part of a job array, 0/8 … 7/8; all may share one --out.", metavar="I/N"
        ),
    ] = None


@dataclass(frozen=True)
class BackendOptions(PrecisionOptions):
    """Which checkpoint computes, in which numbers, and by which library."""

    backend: Annotated[
        str,
        typer.Option(
            help="Library that computes: torch, or onnx (onnxruntime, which starts sooner)."
        ),
    ] = "torch"

    def open_backend(self, weights: Path) -> "Predictor | OnnxPredictor":
        """Open a predictor of the backend; `weights` is where the checkpoint was found.

        Raises:
            InputError: another backend, or options that it does not have; see `ModelOptions.open`.
        """
        if self.backend == "torch":
            return self.open(weights, self.dtype)
        if self.backend != "onnx":
            raise InputError(f"--backend {self.backend!r}; accepted: torch, onnx")
        if self.dtype != "float32" or self.device not in ("auto", "cpu"):
            raise InputError(
                "--backend onnx computes in float32 on the CPU; leave out --dtype, --device"
            )
        from incontext.checkpoints.location import display_name
        from incontext.checkpoints.onnx_sessions import cache_folder, has_graphs
        from incontext.inference.onnx.predictor import OnnxPredictor

        if not has_graphs(cache_folder(weights)):
            typer.echo("making ONNX graphs of the checkpoint, once; takes some minutes", err=True)
        return OnnxPredictor.from_pretrained(weights, name=display_name(self.checkpoint))


@dataclass(frozen=True)
class EarlierOptions:
    """What becomes of the results of earlier runs in the same folder."""

    overwrite: Annotated[
        bool, typer.Option(help="Segment images again that are finished already.")
    ] = False
    prune: Annotated[bool, typer.Option(help="Drop images that are gone from the results.")] = False

    def drop_gone(self, manifest: "Manifest", targets: list[str]) -> None:
        """Drop records of images that are gone: all, or with `overwrite` those of given folders."""
        from incontext.batch.inputs import given_path

        folders = [path for path in map(given_path, targets) if path.is_dir()]
        # Of a shard nothing is dropped: the files of others may hold the same record.
        if not (self.prune or self.overwrite) or manifest.shard.count > 1:
            return
        gone = manifest.results.drop_gone(None if self.prune else folders)
        if gone:
            names = ", ".join(gone[:MAX_NAMES]) + (" …" if len(gone) > MAX_NAMES else "")
            typer.echo(f"dropped the results of {len(gone)} pictures that are gone: {names}")


@dataclass(frozen=True)
class DoubtOptions:
    """What becomes of results that are not sure."""

    presence: Annotated[
        float,
        typer.Option(help="Leave an id's mask empty if its presence, 0–1, is below this."),
    ] = 0.5
    review: Annotated[
        int | None,
        typer.Option(help="Write review.html: this many results most worth a look, worst first."),
    ] = None

    def check(self) -> None:
        """Raise InputError for numbers out of range."""
        check_share("--presence", self.presence)
        check_count("--review", self.review)

    def settings(self) -> dict[str, Any]:
        """Return what must not change where a run is continued; of the default nothing."""
        return {} if self.presence == DoubtOptions.presence else {"presence": self.presence}

    def write_review(self, manifest: "Manifest", names: Iterable[str]) -> None:
        """Write the page of some images' results, if it was asked for."""
        from incontext.batch.review import write_review

        if self.review is not None:
            results = manifest.results
            records = {name: results[name] for name in names if name in results}
            path = write_review(records, manifest.ids, manifest.folder, self.review)
            typer.echo(f"worth a look: {path}")


@dataclass(frozen=True)
class TileOptions:
    """How large images are cut."""

    tile: Annotated[
        int | None, typer.Option(help="Cut images into overlapping tiles of this many pixels.")
    ] = None
    skip_empty: Annotated[
        bool,
        typer.Option(
            "--skip-empty",
            help="Look at several tiles at once first, and skip those where that shows nothing. "
            "Small objects may be lost.",
        ),
    ] = False

    def check(self) -> None:
        """Raise InputError for tiles that are too small, or none to skip."""
        from incontext.images.tiles import Tiling

        if self.tile is not None:
            Tiling(1, 1, self.tile)
        elif self.skip_empty:
            raise InputError("--skip-empty goes with --tile")

    def settings(self) -> dict[str, Any]:
        """Return what must not change where a run is continued."""
        return {"tile": self.tile, **({"skip_empty": True} if self.skip_empty else {})}


@option_groups
def segment(
    ctx: typer.Context,
    targets: Annotated[list[str], typer.Argument(help="Images, folders, or glob patterns.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    *,
    example_options: PromptOptions,
    prompt: Annotated[
        Path | None,
        typer.Option(help="Prompt file of `incontext prompt` or `tune`, instead of examples."),
    ] = None,
    tiles: TileOptions,
    batch_size: Annotated[int, typer.Option(help="Images in one pass.")] = 8,
    chunk: Chunk = None,
    model: BackendOptions,
    doubt: DoubtOptions,
    earlier: EarlierOptions,
    execution: EngineOptions,
) -> None:
    """Segment images by example.

    Writes for each image its labels (PNG), confidence (PNG) and overlay (JPEG), and one
    results.json. Finished files are skipped, so that a run can be resumed. Exit code: 0 all done,
    1 some images failed or labels were left out, 2 the input was wrong.
    """
    from incontext.batch.engines import check_engine
    from incontext.batch.inputs import UNSHARDED, Shard, file_hash, find_images
    from incontext.checkpoints.location import locate

    _check_options(out, batch_size, chunk)
    tiles.check()
    if model.backend == "onnx" and (tiles.tile or execution.engine != "local"):
        raise InputError(
            "--backend onnx sees whole images in this process; leave out --tile, --engine"
        )
    doubt.check()
    check_engine(execution.engine, execution.workers)
    part = Shard.parse(execution.shard) if execution.shard else UNSHARDED
    for option, given in (("--prune", earlier.prune), ("--review", doubt.review)):
        if given and execution.shard:
            raise InputError(
                f"{option} with --shard; accepted: a run without --shard, which joins them"
            )
    files = example_options.files()
    if not files and not prompt:
        raise InputError(
            "nothing to look for: give --examples-from PATH, --example IMAGE MASK (repeated), or "
            "--prompt FILE"
        )
    if prompt:
        check_prompt_file(prompt, ctx)
    examples = files.read()
    images = [image for image in find_images(targets, out) if part.holds(image.name)]
    weights = locate(model.checkpoint)
    predictor = model.open_backend(weights)
    predictor.check_presence(doubt.presence)
    encoded_prompt = (
        predictor.load_prompt(prompt)
        if prompt
        else files.encode(predictor, examples, chunk=chunk, spill=example_options.spill)
    )
    settings = {
        "checkpoint": model.checkpoint, "weights": file_hash(weights),
        **tiles.settings(), "dtype": model.dtype, **doubt.settings(),
        **({"prompt": file_hash(prompt)} if prompt else files.settings()),
    }  # fmt: skip
    _segment_images(
        execution, earlier, doubt, predictor, encoded_prompt, targets, images, out, part, settings,
        checkpoint=model.checkpoint, device=model.device, dtype=model.dtype,
        batch_size=batch_size, chunk=chunk, min_presence=doubt.presence, **asdict(tiles),
    )  # fmt: skip


def _check_options(out: Path, batch_size: int, chunk: int | None) -> None:
    """Raise InputError for what is wrong, before any work."""
    check_out_folder(out)
    check_count("--batch-size", batch_size)
    check_count("--chunk", chunk)


def _segment_images(
    execution: EngineOptions, earlier: EarlierOptions, doubt: DoubtOptions,
    predictor: "Predictor | OnnxPredictor", prompt: "Prompt", targets: list[str],
    images: "list[InputImage]",
    out: Path, shard: "Shard", settings: dict[str, Any], **options: Any,
) -> None:  # fmt: skip
    """Segment what is not finished, print a summary of all; exit with 1 where some failed."""
    from incontext.batch.engines import segment_with
    from incontext.batch.manifest import Manifest, exclusive_run

    with exclusive_run(out, shard):
        manifest = Manifest.open(out, settings, prompt, earlier.overwrite, shard)
        earlier.drop_gone(manifest, targets)
        unfinished = [image for image in images if not manifest.is_finished(image)]
        if len(unfinished) < len(images):
            finished_count = len(images) - len(unfinished)
            typer.echo(f"{finished_count} of {len(images)} pictures are finished already")
        failures = _run(
            lambda on_result: segment_with(
                execution.engine, execution.workers, predictor, prompt, unfinished, manifest,
                on_result=on_result, **options,
            ),
            len(unfinished),
        )  # fmt: skip
    results = manifest.results
    entries = ((image.name, results[image.name]) for image in images if image.name in results)
    _print_summary(prompt, entries, manifest.path)
    doubt.write_review(manifest, (image.name for image in images))
    if failures:
        text = f"{failures} of {len(images)} pictures failed; see {manifest.path}"
        typer.echo(text, err=True)
        raise typer.Exit(1)


def _run(work: "Callable[[OnResult], None]", total: int) -> int:
    """Do `work(on_result)` behind a progress bar; return the number of failures that it told."""
    from tqdm import tqdm

    failures = 0
    with tqdm(total=total, unit="picture", disable=None) as bar:

        def on_result(target: "InputImage", problem: str) -> None:
            nonlocal failures
            bar.update()
            if problem:
                failures += 1
                bar.write(f"failed: {problem}", file=sys.stderr)

        try:
            work(on_result)
        except KeyboardInterrupt:
            bar.write("interrupted; finished files are kept", file=sys.stderr)
            raise typer.Exit(130) from None
    return failures


def _print_summary(
    prompt: "Prompt", entries: Iterable[tuple[str, dict[str, Any]]], path: Path
) -> None:
    """Print for each id in how many images it was found, then the notes on images."""
    ids = prompt.ids[:MAX_LINES]
    image_counts, total, notes = dict.fromkeys(ids, 0), 0, []
    for name, entry in entries:
        total += 1
        for index in ids:
            image_counts[index] += entry["ids"][str(index)]["pixels"] > 0
        notes += [f"note on {name}: {note}" for note in entry.get("notes", [])]
    for index in ids:
        color = "#{:02x}{:02x}{:02x}".format(*prompt.colors[index])
        counts = f"in {image_counts[index]} of {total} pictures"
        typer.echo(f"id {index} ({prompt.names[index]}, {color}): {counts}")
    if len(prompt.ids) > MAX_LINES:
        typer.echo(f"… and {len(prompt.ids) - MAX_LINES} more ids, see {path.name}")
    for note in notes:
        typer.echo(note)
    typer.echo(f"results: {path}")
