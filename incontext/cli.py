"""Command line: parse, call, print. Imports torch only inside the commands that need it."""

import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from incontext.arguments import DEFAULT, PairCommand, color_of, ignore_of, pairs_of
from incontext.cli_training import finetune, train
from incontext.errors import InputError

if TYPE_CHECKING:
    from incontext.batch import Manifest, Target
    from incontext.predictor import Predictor
    from incontext.prompt import Example, Prompt

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain text: an error is one line, not a frame of several
)  # fmt: skip

SHOWN_IDS = 20  # lines of the summary

Pairs = Annotated[
    list[str],
    typer.Option(help="A picture and its mask; repeat for more.", metavar="IMAGE MASK"),
]
Colors = Annotated[
    list[str] | None, typer.Option(help="ID=#rrggbb: meaning of a color in color masks.")
]
Ignore = Annotated[
    str | None,
    typer.Option(help="Mask value that is no label, such as 255; or none: 255 is an id."),
]
Threshold = Annotated[
    float | None, typer.Option(help="For soft masks: this value and above is the object.")
]
Tile = Annotated[
    int | None, typer.Option(help="Cut pictures into overlapping tiles of so many pixels.")
]
Crop = Annotated[
    bool, typer.Option(help="Show examples cropped around their labels (fits --tile).")
]
Chunk = Annotated[int | None, typer.Option(help="Examples attended at once: bounds memory.")]
Checkpoint = Annotated[
    str, typer.Option(help="Bundled name, folder, .safetensors or .pth file, or hub id.")
]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("incontext-seg"))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Segment pictures by example: show a few with masks, get masks for the rest."""


@app.command(cls=PairCommand)
def segment(
    targets: Annotated[list[str], typer.Argument(help="Pictures, folders, or glob patterns.")],
    example: Pairs,
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    checkpoint: Checkpoint = DEFAULT,
    kind: Annotated[
        str, typer.Option(help="semantic: the class; instance: the very object.")
    ] = "semantic",
    color: Colors = None,
    name: Annotated[list[str] | None, typer.Option(help="ID=NAME, for results.json.")] = None,
    ignore: Ignore = None,
    threshold: Threshold = None,
    tile: Tile = None,
    crop: Crop = False,
    batch_size: Annotated[int, typer.Option(help="Pictures in one pass.")] = 8,
    chunk: Chunk = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32, float16, bfloat16.")] = "float32",
    overwrite: Annotated[bool, typer.Option(help="Do finished files again.")] = False,
) -> None:
    """Segment pictures by example; finished files are skipped, so a run can be resumed.

    Writes for each picture its labels (PNG), confidence (PNG) and overlay (JPEG), and one
    results.json. Exit code: 0 all done, 1 some pictures failed, 2 the input was wrong.
    """
    from incontext.batch import Manifest, file_hash, find_targets
    from incontext.checkpoint import locate

    _check_options(out, tile, batch_size, chunk)
    colors = {i: color_of(c) for i, c in pairs_of(color, "--color").items()} or None
    options = {"colors": colors, "ignore": ignore_of(ignore), "threshold": threshold}
    pairs = [tuple(text.split("\0")) for text in example]
    examples = _read_examples(pairs, options)
    found = find_targets(targets, out)
    weights = locate(checkpoint)
    predictor = _predictor(weights, device, dtype)
    names = pairs_of(name, "--name")
    prompt = predictor.prompt(examples, kind=kind, names=names, crop=crop, chunk=chunk)
    settings = {
        "checkpoint": checkpoint, "weights": file_hash(weights), "kind": kind,
        "tile": tile, "crop": crop, "dtype": dtype,
        "examples": [[file_hash(path) for path in pair] for pair in pairs],
        "labels": options, "names": names,
    }  # fmt: skip
    manifest = Manifest.open(out, settings, prompt, overwrite)
    failures = _segment(predictor, prompt, found, manifest, batch_size=batch_size, tile=tile,
                        chunk=chunk)  # fmt: skip
    if failures:
        typer.echo(
            f"{failures} of {len(found)} pictures failed; see {out / 'results.json'}", err=True
        )
        raise typer.Exit(1)


def _check_options(out: Path, tile: int | None, batch_size: int, chunk: int | None) -> None:
    """Say what is wrong before any work."""
    from incontext.tiles import Tiling

    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; accepted: a folder")
    if batch_size < 1 or (chunk is not None and chunk < 1):
        raise InputError("--batch-size and --chunk must be 1 or more")
    if tile is not None:
        Tiling(1, 1, tile)


def _segment(
    predictor: "Predictor", prompt: "Prompt", found: "list[Target]", manifest: "Manifest",
    **options: Any,
) -> int:  # fmt: skip
    """Segment what is not finished, print a summary of all; the number of failures."""
    from incontext.batch import segment_files

    todo = [t for t in found if not manifest.finished(t)]
    if len(todo) < len(found):
        typer.echo(f"{len(found) - len(todo)} of {len(found)} pictures are finished already")
    failures = _run(
        lambda tell: segment_files(predictor, prompt, todo, manifest, tell=tell, **options),
        len(todo),
    )
    done = [t.name for t in found if t.name in manifest.results]
    _summary(prompt, {name: manifest.results[name] for name in done}, manifest.folder)
    return failures


def _read_examples(pairs: list[tuple[str, ...]], options: dict[str, Any]) -> list["Example"]:
    """Examples of the pairs of files; a problem names its pair."""
    from incontext.prompt import Example

    examples = []
    for image, mask in pairs:
        try:
            examples.append(Example(image, mask, **options))
        except InputError as error:
            raise InputError(f"example {image} {mask}: {error}") from None
    return examples


def _run(work: Any, total: int) -> int:
    """Do `work(tell)` behind a progress bar; the number of failures that were told."""
    from tqdm import tqdm

    failures = 0
    with tqdm(total=total, unit="picture", disable=None) as bar:

        def tell(target: "Target", problem: str) -> None:
            nonlocal failures
            bar.update()
            if problem:
                failures += 1
                bar.write(f"failed: {problem}", file=sys.stderr)

        try:
            work(tell)
        except KeyboardInterrupt:
            bar.write("interrupted; finished files are kept", file=sys.stderr)
            raise typer.Exit(130) from None
    return failures


def _summary(prompt: "Prompt", results: dict[str, Any], out: Path) -> None:
    """One line for each id: in how many pictures it was found."""
    for index in prompt.ids[:SHOWN_IDS]:
        entries = [r["ids"][str(index)] for r in results.values()]
        found = sum(e["pixels"] > 0 for e in entries)
        shown = "#{:02x}{:02x}{:02x}".format(*prompt.colors[index])
        where = f"in {found} of {len(entries)} pictures"
        typer.echo(f"id {index} ({prompt.names[index]}, {shown}): {where}")
    if len(prompt.ids) > SHOWN_IDS:
        typer.echo(f"… and {len(prompt.ids) - SHOWN_IDS} more ids, see results.json")
    for name, entry in results.items():
        for note in entry.get("notes", []):
            typer.echo(f"note on {name}: {note}")
    typer.echo(f"results: {out / 'results.json'}")


def _predictor(weights: Path, device: str, dtype: str) -> "Predictor":
    import torch

    from incontext.predictor import Predictor

    if device.partition(":")[0] not in ("auto", "cpu", "cuda", "mps"):
        raise InputError(f"--device {device!r}; accepted: auto, cpu, cuda, cuda:1, mps")
    types = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if dtype not in types:
        raise InputError(f"--dtype {dtype!r}; accepted: {', '.join(types)}")
    try:
        return Predictor.from_pretrained(weights, device=device, dtype=types[dtype])
    except (RuntimeError, AssertionError) as error:  # what torch raises for absent devices
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {device!r} cannot be used here: {reason}") from None


@app.command()
def info(checkpoint: Annotated[str, typer.Argument(help="See --checkpoint of segment.")]) -> None:
    """Print what a checkpoint is: its file, layout, shape and size."""
    from dataclasses import asdict

    from incontext.checkpoint import build, locate, read_config, read_state
    from incontext.convert import layout_of

    path = locate(checkpoint)
    state, config = read_state(path), read_config(path)
    model = build(state, config, path)
    layout = "incontext" if config and "incontext" in config else layout_of(state)
    count = sum(p.numel() for p in model.parameters())
    types = ", ".join(sorted({str(t.dtype).removeprefix("torch.") for t in state.values()}))
    typer.echo(f"file        {path}")
    typer.echo(f"layout      {layout}")
    typer.echo(f"parameters  {count / 1e6:.2f} M, stored as {types}")
    for key, value in asdict(model.config).items():
        typer.echo(f"{key:<18}{value}")


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="Bundled name, folder, file or hub id.")],
    target: Annotated[Path, typer.Argument(help="Folder, or .pth file for official.")],
    layout: Annotated[str, typer.Option(help="official, transformers or incontext.")] = "incontext",
    dtype: Annotated[str | None, typer.Option(help="Store as float32, float16, bfloat16.")] = None,
) -> None:
    """Convert a checkpoint between the official layout, transformers' and ours."""
    import torch

    from incontext.checkpoint import load, save
    from incontext.convert import LAYOUTS

    if layout not in LAYOUTS:
        raise InputError(f"--layout {layout!r}; accepted: {', '.join(LAYOUTS)}")
    types = {None: None, "float32": torch.float32, "float16": torch.float16,
             "bfloat16": torch.bfloat16}  # fmt: skip
    if dtype not in types:
        raise InputError(f"--dtype {dtype!r}; accepted: float32, float16, bfloat16")
    if layout == "official" and target.is_dir():
        raise InputError(f"{target} is a folder; the official layout is one .pth file")
    if layout != "official" and (target.is_file() or target.suffix in (".pth", ".safetensors")):
        raise InputError(
            f"{target}: the {layout} layout is a folder; --layout official is one .pth file"
        )
    typer.echo(f"wrote {save(load(source), target, layout=layout, dtype=types[dtype])}")


app.command()(train)
app.command()(finetune)


def main() -> None:
    """Run the command line; problems become one line, never a traceback.

    INCONTEXT_DEBUG=1 shows tracebacks all the same.
    """
    if os.environ.get("INCONTEXT_DEBUG"):
        app(prog_name="incontext")
    warnings.showwarning = lambda message, *_, **__: typer.echo(f"Warning: {message}", err=True)
    # The hub client logs every attempt to reach it; what comes of them is said in one sentence.
    os.environ.setdefault("HF_HUB_VERBOSITY", "critical")
    try:
        app(prog_name="incontext")
    except InputError as error:
        _stop(str(error), 2)
    except OSError as error:
        _stop(f"{error.filename or 'file'}: {error.strerror or error}", 2)
    except (MemoryError, RuntimeError) as error:
        # torch says so in a RuntimeError of its own, on CPU and on GPU
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        _stop("out of memory; try a smaller --batch-size, --chunk or --tile (segment), --size "
              "(finetune), or fewer pictures a step in the recipe (train)", 2)  # fmt: skip


def _stop(text: str, code: int) -> None:
    typer.echo(f"Error: {text}", err=True)
    sys.exit(code)
