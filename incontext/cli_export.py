"""The command that writes results for other tools. Parse, call, print."""

from pathlib import Path
from typing import Annotated

import typer

NAMES = "coco, coco-polygons, yolo, voc, label-studio, cvat, geotiff"


def export(
    results: Annotated[Path, typer.Argument(help="Folder that `incontext segment` wrote.")],
    out: Annotated[Path, typer.Option(help="File or folder to write.")],
    to: Annotated[str, typer.Option(help=f"{NAMES}.")] = "coco",
) -> None:
    """Write results for other tools: COCO, YOLO, Pascal VOC, Label Studio, CVAT, GeoTIFF.

    Exit code: 0 done, 2 the input was wrong.
    """
    from incontext.formats import FORMATS
    from incontext.formats import export as written

    path = written(results, to, out)
    typer.echo(f"wrote {path} ({FORMATS[to].what})")
