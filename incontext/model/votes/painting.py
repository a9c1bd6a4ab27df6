"""Targets and paintings of a voting model: colors to labels, probabilities to colors.

Letters: P prompts (1 or B), B queries, N examples, K ids.
"""

import torch
from torch import Tensor

from incontext.model.config import Config


def read_targets(targets: Tensor, colors: Tensor, config: Config) -> Tensor:
    """Read targets (P, N, 3, H, W) as labels (P, N, K, H, W), 0 or 1, by the nearest color."""
    table = torch.cat([_black(colors, config), colors], 1)[:, None, :, :, None, None]
    nearest = (targets[:, :, None] - table).square().sum(3).argmin(2)  # (P, N, H, W)
    ids = torch.arange(1, colors.shape[1] + 1, device=targets.device).view(-1, 1, 1)
    return (nearest[:, :, None] == ids).to(targets.dtype)


def compose(logits: Tensor, colors: Tensor, config: Config) -> Tensor:
    """Compose a painting (B, 3, H, W) of logits (B, K, H, W) and colors (P, K, 3), normalized."""
    colors = colors.to(logits.dtype)
    table = torch.cat([_black(colors, config), colors], 1).expand(logits.shape[0], -1, -1)
    # The background's logit is 0: an id shows where its own is positive and the largest.
    probabilities = torch.cat([torch.zeros_like(logits[:, :1]), logits], 1).softmax(1)
    return torch.einsum("bkhw,bkc->bchw", probabilities, table)


def _black(colors: Tensor, config: Config) -> Tensor:
    """Return normalized black, the color of the background: (P, 1, 3)."""
    mean, std = (colors.new_tensor(x) for x in (config.mean, config.std))
    return (-mean / std).expand(colors.shape[0], 1, -1)
