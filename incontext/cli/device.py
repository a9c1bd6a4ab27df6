"""What the command line says of checkpoints and devices, for every command that computes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from incontext.errors import InputError

if TYPE_CHECKING:
    from incontext.inference.predictor import Predictor

Checkpoint = Annotated[
    str, typer.Option(help="Bundled name, folder, .safetensors or .pth file, or hub id.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")]
Dtype = Annotated[str, typer.Option(help="float32, float16, bfloat16, int8 (weights; CPU).")]


def open_predictor(
    weights: Path, device: str, dtype: str = "float32", name: str = ""
) -> "Predictor":
    """A predictor on the device asked for; `name` is what the checkpoint was asked by.

    Raises:
        InputError: a device or dtype that is not known, or cannot be used here.
    """
    from incontext.checkpoints.checkpoint import display_name
    from incontext.inference.predictor import DTYPES, Predictor

    if device.partition(":")[0] not in ("auto", "cpu", "cuda", "mps"):
        raise InputError(f"--device {device!r}; accepted: auto, cpu, cuda, cuda:1, mps")
    if dtype not in DTYPES:
        raise InputError(f"--dtype {dtype!r}; accepted: {', '.join(DTYPES)}")
    try:
        return Predictor.from_pretrained(
            weights, device=device, dtype=DTYPES[dtype], name=display_name(name or weights)
        )
    except (RuntimeError, AssertionError) as error:  # what torch raises for absent devices
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {device!r} cannot be used here: {reason}") from None
