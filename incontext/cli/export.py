"""The command that writes results, or a checkpoint, for other tools."""

from pathlib import Path
from typing import Annotated

import typer

from incontext.cli.common import DEFAULT, Checkpoint, from_command_line, parse_pairs
from incontext.errors import InputError, check_share

FORMAT_NAMES = "coco, coco-polygons, yolo, voc, label-studio, cvat, geotiff, nifti"
ONNX = "onnx"  # instead of a folder of results


def export(
    ctx: typer.Context,
    results: Annotated[
        Path, typer.Argument(help="Folder that `incontext segment` wrote, or the word onnx.")
    ],
    out: Annotated[Path, typer.Option(help="File or folder to write; a folder for onnx.")],
    to: Annotated[str, typer.Option(help=f"Format of exported results: {FORMAT_NAMES}.")] = "coco",
    checkpoint: Checkpoint = DEFAULT,
    name: Annotated[
        list[str] | None,
        typer.Option(help="Name of an id in place of the one in the results, ID=NAME; repeatable."),
    ] = None,
    min_quality: Annotated[
        float, typer.Option(help="Leave out masks whose expected IoU is below this, 0 to 1.")
    ] = 0.0,
    overwrite: Annotated[
        bool, typer.Option(help="Replace exported files that exist already.")
    ] = False,
) -> None:
    """Write results for other tools, or ONNX.

    `incontext export onnx --checkpoint NAME --out FOLDER` writes a checkpoint as ONNX graphs, with
    a JSON file that says how to run them, and checks that they paint what the checkpoint paints.

    Exit code: 0 done, 2 the input was wrong.
    """
    # A folder of that name with results in it was meant before the word meant anything else.
    if str(results) == ONNX and not (results / "results.json").is_file():
        if from_command_line(ctx, "to"):
            raise InputError("--to is for results; ONNX graphs are made of a --checkpoint")
        return _onnx(checkpoint, out)
    if from_command_line(ctx, "checkpoint"):
        raise InputError(
            f"--checkpoint with {results}: results need no checkpoint; to export the checkpoint "
            "itself, give the word onnx in place of the folder"
        )
    from incontext.formats import FORMATS, export_selection
    from incontext.formats.results import LOW_QUALITY, Selection

    check_share("--min-quality", min_quality)
    selection = Selection(min_quality, parse_pairs(name, "--name"))
    path = export_selection(results, to, out, selection, overwrite)
    counts = f"{selection.images} images, {selection.masks} masks"
    if selection.left_out:
        counts += f"; {selection.left_out} of low quality left out"
    typer.echo(f"wrote {path} ({FORMATS[to].description}): {counts}")
    if selection.low:
        typer.echo(
            f"{selection.low} of them have a quality below {LOW_QUALITY}: mostly a few pixels where"
            f" nothing is. --min-quality {LOW_QUALITY} leaves them out"
        )


def _onnx(checkpoint: str, out: Path) -> None:
    """Write a checkpoint's graphs; print how close to PyTorch they are."""
    from incontext.checkpoints.checkpoint import load
    from incontext.checkpoints.location import display_name
    from incontext.checkpoints.onnx_export import check_input, write

    check_input(out)  # before a large checkpoint is read
    result = write(load(checkpoint), out, name=display_name(checkpoint))
    typer.echo(f"wrote {', '.join(str(result.folder / file) for file in result.files)}")
    for count, difference in result.differences.items():
        examples = "1 example" if count == 1 else f"{count} examples"
        typer.echo(f"{examples}: paintings at most {difference:.1e} from PyTorch's")
