"""Quality: how much a mask will overlap with the true one, from how it is painted.

Letters: K ids, S pixels, or sorts of pixels with a count each.
"""

import torch
from torch import Tensor, nn

FEATURES = 6  # that `MaskSums.features` returns
# How the first look at a mask turns logits to probabilities, whatever the model.
FIRST_SLOPE, FIRST_OFFSET = 0.5, -0.3
EDGE = 2.0  # logits nearer to 0 are an edge
PIXELS = 50_000.0  # areas are counted as if an image had so many, whatever its size


class QualityHead(nn.Module):
    """Read features of masks (…, FEATURES) → the IoU to expect (…), 0–1.

    Args:
        width: of the hidden layer.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("spread", torch.ones(FEATURES))
        self.body = nn.Sequential(nn.Linear(FEATURES, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Standardize and read; what is far out counts as if at 4 deviations."""
        x = ((features - self.mean) / self.spread).clamp(-4, 4)
        return torch.sigmoid(self.body(x).squeeze(-1))


class MaskSums:
    """What quality is read from, summed over the pixels of masks, part by part.

    A pixel's logit says how surely it is the id's: above 0 it belongs to the mask.

    Args:
        slope, offset: logits times slope plus offset are calibrated ones.
    """

    def __init__(self, slope: float, offset: float) -> None:
        self.lines = ((slope, offset), (FIRST_SLOPE, FIRST_OFFSET))
        self.sums: Tensor | None = None  # (8, K)
        self.largest: Tensor | None = None  # (K,)

    def add(self, logits: Tensor, counts: Tensor) -> None:
        """Add pixels: logits (K, S), and how many pixels each stands for, (K, S) or (1, S)."""
        mask = (logits > 0).float() * counts
        rest = counts - mask
        sums = [mask.sum(1), rest.sum(1), (mask * logits).sum(1),
                ((logits.abs() < EDGE) * counts).sum(1)]  # fmt: skip
        probabilities = [torch.sigmoid(slope * logits + offset) for slope, offset in self.lines]
        sums += [(p * part).sum(1) for part in (mask, rest) for p in probabilities]
        largest = torch.where(counts > 0, logits, -torch.inf).amax(1)
        self.sums = torch.stack(sums) + (0 if self.sums is None else self.sums)
        self.largest = largest if self.largest is None else self.largest.maximum(largest)

    def expected_iou(self) -> Tensor:
        """Return the expected intersection over the expected union, as if pixels were independent.

        (K,) in 0–1; 0 for an empty mask.
        """
        assert self.sums is not None
        pixels, _, _, _, inside, _, outside, _ = self.sums
        return inside / (pixels + outside).clamp(min=1e-6)

    def features(self) -> Tensor:
        """Return (K, FEATURES), each of about the same spread.

        The expected IoU and that of the first look, as logits; the mean logit inside; how much of
        the image is edge, beside the mask; the log of the mask's share; the largest logit.
        """
        assert self.sums is not None
        assert self.largest is not None
        total = (self.sums[0] + self.sums[1]).clamp(min=1)
        pixels, _, inner, edge, _, inside, _, outside = self.sums * (PIXELS / total)
        # One right and one wrong pixel more: of a mask of a few, nothing is certain.
        first = (inside + 1) / (pixels + outside + 2)
        ious = torch.stack([self.expected_iou(), first]).clamp(0.02, 0.98)
        return torch.stack([
            *torch.logit(ious),
            inner / (pixels + 1) / 3, (edge / (pixels + 20)).clamp(max=4),
            (pixels / PIXELS + 1e-3).log() / 2, self.largest.clamp(-10, 10) / 3,
        ], 1)  # fmt: skip
