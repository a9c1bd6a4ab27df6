"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from eval.core.domains import IMAGE_SOURCES
from incontext.errors import InputError

Checkpoint = Annotated[
    str, typer.Option(help="Checkpoint to evaluate: a bundled name, a folder, or a hub name.")
]
Sets = Annotated[Path, typer.Option(help="Folder of the sets, NAME.tar with NAME.json.")]
SetNames = Annotated[str, typer.Option(help="Names of sets, with commas. Default: all.")]
DatasetFolder = Annotated[
    Path, typer.Option(help="Folder that holds the dataset in the layout above.")
]
Kind = Annotated[
    str, typer.Option(help="Kind of prompt: semantic or instance. Default: the checkpoint's own.")
]
Ensemble = Annotated[
    str, typer.Option(help="How examples are combined: feature or spatial (SegGPT, section 3.3).")
]
Dtype = Annotated[
    str, typer.Option(help="Precision of the model: float32, bfloat16, float16 or int8.")
]
TrainedOn = Annotated[
    str,
    typer.Option(
        help="What the checkpoint was trained on, with commas, or none. Accepted: "
        f"{', '.join(IMAGE_SOURCES)}."
    ),
]
Out = Annotated[
    Path | None, typer.Option(help="Folder for the tables, in which an interrupted run goes on.")
]
Threads = Annotated[int, typer.Option(help="CPU threads that PyTorch uses.")]
MaxImages = Annotated[
    int | None, typer.Option(help="Largest number of images. Default: all.", min=1)
]
TunedPrompt = Annotated[
    Path | None,
    typer.Option(help="File of a tuned prompt whose ids are class + 1, as in the label files."),
]


def numbers(text: str, option: str) -> list[int]:
    """Parse whole numbers with commas.

    Raises:
        InputError: something else; the message names the option.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option} {text!r}; accepted: whole numbers with commas, 0,1,2") from None


def words(text: str) -> list[str]:
    """Split a list with commas; an empty text is an empty list."""
    return [word for word in text.split(",") if word]
