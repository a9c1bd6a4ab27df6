"""Precision: the device and the arithmetic of a model that predicts."""

import torch

from incontext.errors import InputError
from incontext.model import Model
from incontext.model.int8 import Int8Linear

# What a model computes with, by the names that the command line takes.
DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int8": torch.int8,
}


def resolve(
    model: Model, device: str | torch.device, dtype: torch.dtype
) -> tuple[torch.device, torch.dtype]:
    """Return the device and the dtype of all but int8 weights; see `Predictor`.

    Raises:
        InputError: another dtype, int8 on another device than the CPU, or a model that has int8
            weights.
    """
    if any(isinstance(module, Int8Linear) for module in model.modules()):
        raise InputError("this model has int8 weights already; load the checkpoint again")
    if dtype not in DTYPES.values():
        raise InputError(f"dtype {dtype!r}; accepted: torch.{', torch.'.join(DTYPES)}")
    int8 = dtype is torch.int8
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() and not int8 else "cpu"
    device = torch.device(device)
    if int8 and device.type != "cpu":
        raise InputError(f"int8 weights on {device}; accepted: device cpu")
    if int8 and not model.blocks:
        raise InputError(
            "int8 weights are for the linear layers of token blocks, which this checkpoint lacks; "
            "accepted: float32, float16, bfloat16"
        )
    return device, torch.float32 if int8 else dtype
