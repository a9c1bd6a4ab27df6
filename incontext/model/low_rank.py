"""Low-rank updates of linear maps (LoRA, Hu et al. 2021, §4.1): few weights to learn and store."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

_PARAMETRIZATIONS = ".parametrizations.weight."


class LowRank(nn.Module):
    """weight → weight + up · down; starts as no change, since `up` starts at zero."""

    def __init__(self, outputs: int, inputs: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(rank, inputs) * inputs**-0.5)
        self.up = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """(outputs, inputs) → the same shape."""
        return weight + self.up @ self.down


def add_low_rank(model: nn.Module, rank: int) -> None:
    """Freeze a model but for a low-rank update of every linear map in it, in place."""
    model.requires_grad_(False)
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    for module in linear:
        update = LowRank(module.out_features, module.in_features, rank).to(module.weight)
        parametrize.register_parametrization(module, "weight", update)


def merge(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add the updates to the weights, under a plain model's names.

    A state without updates is returned as it is.
    """
    plain = {name: value for name, value in state.items() if _PARAMETRIZATIONS not in name}
    for name, value in state.items():
        module, separator, part = name.partition(_PARAMETRIZATIONS)
        if separator and part == "original":
            up, down = (
                state[f"{module}{_PARAMETRIZATIONS}0.{factor}"] for factor in ("up", "down")
            )
            plain[f"{module}.weight"] = value + up @ down
    return plain
