"""Mixer: the votes for one id and the query's features to the id's logits at full size.

Letters: J pairs of a query and an id, H W pixels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Residual(nn.Module):
    """Two 3×3 convolutions, each after a group norm, and a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(8, width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(8, width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(J, width, h, w) → the same shape."""
        return x + self.body(x)


class Summary(nn.Module):
    """Correct every cell by a summary of all: only together do they show that an object is absent.

    The correction starts at zero, so that weights trained without it keep their meaning.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        last = nn.Conv2d(width, width, 1)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.body = nn.Sequential(nn.Conv2d(2 * width, width, 1), nn.ReLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        """(J, width, h, w) → the same shape."""
        summary = torch.cat([x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)], 1)
        return x + self.body(summary)


class Mixer(nn.Module):
    """Weigh votes at stride 8, then upsample to full size along with the query's features.

    Args:
        votes: maps of votes for an id at stride 8.
        self_votes: maps of the query's votes on itself, see `cast_self_votes`.
        copied: channels that the copy path brings at stride 4.
        context: channels of the query's features at stride 8.
        skips: channels of the query's features at strides 4 and 2.
        widths: channels of the mixer at strides 8, 4 and 2.
        blocks: residual blocks after the query's votes on itself.
        summary: correct the state by a `Summary`.
    """

    def __init__(
        self, votes: int, self_votes: int, copied: int, context: int, skips: tuple[int, int],
        widths: tuple[int, ...], blocks: int = 2, summary: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        coarse, middle, fine = widths
        self.copied = nn.Conv2d(copied, 32, 1)
        self.copied_coarse = nn.Conv2d(32, 32, 2, 2)
        self.votes = nn.Conv2d(votes + 32, coarse, 1)
        self.context = nn.Conv2d(context, 32, 1)
        self.join = nn.Conv2d(coarse + 32, coarse, 1)
        self.first = Residual(coarse)
        self.summary = Summary(coarse) if summary else nn.Identity()
        self.guess = nn.Conv2d(coarse, 1, 1)
        self.own = nn.Conv2d(self_votes, coarse, 1)
        self.second = nn.Sequential(*(Residual(coarse) for _ in range(blocks)))
        self.down = nn.Conv2d(coarse, middle, 1)
        self.skip4, self.skip2 = nn.Conv2d(skips[0], 24, 1), nn.Conv2d(skips[1], 12, 1)
        self.up4 = nn.Sequential(nn.Conv2d(middle + 24 + 32, middle, 3, padding=1), nn.ReLU())
        self.mix4 = Residual(middle)
        self.narrow = nn.Conv2d(middle, fine, 1)
        self.up2 = nn.Sequential(
            nn.Conv2d(fine + 12 + 3, fine, 3, padding=1), nn.ReLU(),
            nn.Conv2d(fine, 4, 3, padding=1), nn.PixelShuffle(2),
        )  # fmt: skip

    def narrow_query(self, context: Tensor, skips: Sequence[Tensor], image: Tensor) -> list[Tensor]:
        """Narrow the query's features at strides 8, 4, 2, once for all ids."""
        half = F.interpolate(image, size=skips[1].shape[-2:], mode="bilinear")
        return [
            self.context(context), self.skip4(skips[0]), torch.cat([self.skip2(skips[1]), half], 1)
        ]  # fmt: skip

    def begin(self, votes: Tensor, copied: Tensor, context: Tensor) -> tuple[Tensor, ...]:
        """Mix votes (J, votes, H/8, W/8) and copied (J, copied, H/4, W/4) at stride 8.

        Returns the state (J, width, H/8, W/8), a first guess as logits (J, 1, H/8, W/8), and the
        copied features, narrowed to 32 channels.
        """
        copied = self.copied(copied)
        x = self.votes(torch.cat([votes, self.copied_coarse(copied)], 1))
        x = self.summary(self.first(self.join(torch.cat([x, context], 1))))
        return x, self.guess(x), copied

    def finish(
        self, x: Tensor, self_votes: Tensor, copied: Tensor, query: Sequence[Tensor]
    ) -> Tensor:
        """Upsample state and self-votes at stride 8 to the logits of the pairs (J, H, W)."""
        x = self.down(self.second(x + self.own(self_votes)))
        x = self.up4(torch.cat([_upsample(x, query[1]), query[1], copied], 1))
        x = self.narrow(self.mix4(x))
        return self.up2(torch.cat([_upsample(x, query[2]), query[2]], 1))[:, 0]


def _upsample(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear")
