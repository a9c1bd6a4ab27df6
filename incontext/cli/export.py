"""The command that writes results, or a checkpoint, for other tools. Parse, call, print."""

from pathlib import Path
from typing import Annotated

import typer

from incontext.cli.arguments import DEFAULT
from incontext.cli.device import Checkpoint
from incontext.errors import InputError

NAMES = "coco, coco-polygons, yolo, voc, label-studio, cvat, geotiff"
ONNX = "onnx"  # instead of a folder of results


def export(
    ctx: typer.Context,
    results: Annotated[
        Path, typer.Argument(help="Folder that `incontext segment` wrote; or the word onnx.")
    ],
    out: Annotated[Path, typer.Option(help="File or folder to write; onnx: a folder.")],
    to: Annotated[str, typer.Option(help=f"Of results: {NAMES}.")] = "coco",
    checkpoint: Checkpoint = DEFAULT,
) -> None:
    """Write results for other tools: COCO, YOLO, Pascal VOC, Label Studio, CVAT, GeoTIFF.

    `incontext export onnx --checkpoint NAME --out FOLDER` writes a checkpoint as ONNX graphs, with
    a JSON file that says how to run them, and checks that they paint what the checkpoint paints.

    Exit code: 0 done, 2 the input was wrong.
    """
    sources = {name: ctx.get_parameter_source(name) for name in ("to", "checkpoint")}
    given = [name for name, s in sources.items() if s is not None and s.name == "COMMANDLINE"]
    # A folder of that name with results in it was meant before the word meant anything else.
    if str(results) == ONNX and not (results / "results.json").is_file():
        if "to" in given:
            raise InputError("--to is for results; ONNX graphs are made of a --checkpoint")
        return _onnx(checkpoint, out)
    if "checkpoint" in given:
        raise InputError(
            f"--checkpoint beside {results}: results are exported as they are; accepted: the word "
            "onnx, which exports the checkpoint"
        )
    from incontext.formats import FORMATS
    from incontext.formats import export as written

    path = written(results, to, out)
    typer.echo(f"wrote {path} ({FORMATS[to].what})")


def _onnx(checkpoint: str, out: Path) -> None:
    """Write a checkpoint's graphs; say how close to PyTorch they are."""
    from incontext.checkpoints.checkpoint import display_name, load
    from incontext.checkpoints.onnx_export import check_input, write

    check_input(out)  # before a large checkpoint is read
    done = write(load(checkpoint), out, name=display_name(checkpoint))
    typer.echo(f"wrote {', '.join(str(done.folder / file) for file in done.files)}")
    for count, difference in done.differences.items():
        examples = "1 example" if count == 1 else f"{count} examples"
        typer.echo(f"{examples}: paintings at most {difference:.1e} from PyTorch's")
