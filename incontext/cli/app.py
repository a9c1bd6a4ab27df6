"""Command line: parse, call, print. Imports torch only inside the commands that need it."""

import os
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from incontext.cli.arguments import DEFAULT, PairCommand
from incontext.cli.checkpoint import convert, info
from incontext.cli.demo import demo
from incontext.cli.device import Checkpoint, Device, Dtype, open_predictor
from incontext.cli.examples import (
    Colors,
    Crop,
    Format,
    From,
    Ignore,
    Images,
    Kind,
    Names,
    Nearest,
    Negative,
    Pairs,
    Shown,
    Source,
    Spill,
    Threshold,
    Unlabelled,
    prompt_file,
)
from incontext.cli.export import export
from incontext.cli.segment import SHOWN_IDS, Engine, Part, Workers, segment_found
from incontext.cli.serve import serve
from incontext.cli.training import finetune, train
from incontext.cli.tuning import doctor, tune
from incontext.cli.video import video
from incontext.errors import InputError, check_count

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain text: an error is one line, not a frame of several
)  # fmt: skip

Tile = Annotated[
    int | None, typer.Option(help="Cut pictures into overlapping tiles of so many pixels.")
]
Chunk = Annotated[int | None, typer.Option(help="Examples attended at once: bounds memory.")]


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
    ctx: typer.Context,
    targets: Annotated[list[str], typer.Argument(help="Pictures, folders, or glob patterns.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    example: Pairs = None,
    examples_from: From = None,
    images: Images = None,
    format: Format = None,
    prompt: Annotated[
        Path | None, typer.Option(help="File of `incontext prompt`, instead of examples.")
    ] = None,
    checkpoint: Checkpoint = DEFAULT,
    kind: Kind = "semantic",
    color: Colors = None,
    name: Names = None,
    ignore: Ignore = None,
    threshold: Threshold = None,
    unlabelled: Unlabelled = "background",
    negative: Negative = None,
    tile: Tile = None,
    crop: Crop = False,
    nearest: Nearest = None,
    batch_size: Annotated[int, typer.Option(help="Pictures in one pass.")] = 8,
    chunk: Chunk = None,
    spill: Spill = False,
    device: Device = "auto",
    dtype: Dtype = "float32",
    overwrite: Annotated[bool, typer.Option(help="Do finished files again.")] = False,
    engine: Engine = "local",
    workers: Workers = None,
    shard: Part = None,
) -> None:
    """Segment pictures by example; finished files are skipped, so a run can be resumed.

    Writes for each picture its labels (PNG), confidence (PNG) and overlay (JPEG), and one
    results.json. Exit code: 0 all done, 1 some pictures failed, 2 the input was wrong.
    """
    from incontext.batch.engines import check_engine
    from incontext.batch.targets import WHOLE, Shard, file_hash, find_targets
    from incontext.checkpoints.checkpoint import locate

    _check_options(out, tile, batch_size, chunk)
    check_engine(engine, workers)
    part = Shard.parse(shard) if shard else WHOLE
    shown = Shown.parse(
        example, color, name, ignore, threshold, unlabelled, negative, kind, crop, nearest,
        Source.parse(examples_from, images, format),
    )  # fmt: skip
    if not shown and not prompt:
        raise InputError(
            "what to look for: --examples-from PATH, --example IMAGE MASK (repeated), or "
            "--prompt FILE"
        )
    if prompt:
        prompt = prompt_file(prompt, ctx)
    examples = shown.read()
    found = [t for t in find_targets(targets, out) if part.holds(t.name)]
    weights = locate(checkpoint)
    predictor = open_predictor(weights, device, dtype, checkpoint)
    used = (
        predictor.load_prompt(prompt)
        if prompt
        else shown.encode(predictor, examples, chunk=chunk, spill=spill)
    )
    settings = {
        "checkpoint": checkpoint, "weights": file_hash(weights), "tile": tile, "dtype": dtype,
        **({"prompt": file_hash(prompt)} if prompt else shown.described()),
    }  # fmt: skip
    segment_found(
        engine, workers, predictor, used, found, out, part, settings, overwrite,
        checkpoint=checkpoint, device=device, dtype=dtype,
        batch_size=batch_size, tile=tile, chunk=chunk,
    )  # fmt: skip


@app.command(cls=PairCommand)
def prompt(
    out: Annotated[Path, typer.Option(help="File to write, .safetensors.")],
    example: Pairs = None,
    examples_from: From = None,
    images: Images = None,
    format: Format = None,
    checkpoint: Checkpoint = DEFAULT,
    kind: Kind = "semantic",
    color: Colors = None,
    name: Names = None,
    ignore: Ignore = None,
    threshold: Threshold = None,
    unlabelled: Unlabelled = "background",
    negative: Negative = None,
    crop: Crop = False,
    nearest: Nearest = None,
    chunk: Chunk = None,
    spill: Spill = False,
    half: Annotated[bool, typer.Option(help="Store float16: half the size.")] = False,
    device: Device = "auto",
    dtype: Dtype = "float32",
) -> None:
    """Encode examples once into a file that `segment --prompt` uses, here or elsewhere."""
    from incontext.checkpoints.checkpoint import locate
    from incontext.inference.prompt import prompt_path

    prompt_path(out)
    check_count("--chunk", chunk)
    shown = Shown.parse(
        example, color, name, ignore, threshold, unlabelled, negative, kind, crop, nearest,
        Source.parse(examples_from, images, format),
    )  # fmt: skip
    if not shown:
        raise InputError("what to encode: --example IMAGE MASK (repeated), or --examples-from PATH")
    examples = shown.read()
    predictor = open_predictor(locate(checkpoint), device, dtype, checkpoint)
    made = shown.encode(predictor, examples, chunk=chunk, half=half, spill=spill)
    made.save(out)
    examples_said = "1 example" if made.examples == 1 else f"{made.examples} examples"
    typer.echo(f"{examples_said}, ids {', '.join(map(str, made.ids[:SHOWN_IDS]))}, "
               f"{made.nbytes / 1e6:.1f} MB: {out}")  # fmt: skip


def _check_options(out: Path, tile: int | None, batch_size: int, chunk: int | None) -> None:
    """Say what is wrong before any work."""
    from incontext.images.tiles import Tiling

    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; accepted: a folder")
    check_count("--batch-size", batch_size)
    check_count("--chunk", chunk)
    if tile is not None:
        Tiling(1, 1, tile)


app.command()(info)
app.command()(convert)
app.command()(train)
app.command()(finetune)
app.command(cls=PairCommand)(tune)
app.command(cls=PairCommand)(doctor)
app.command(cls=PairCommand)(video)
app.command()(demo)
app.command()(serve)
app.command()(export)


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
