"""Which tokens of an example are kept where there are more examples than a query needs in full.

Letters: P prompts, N examples, L tokens of an example, K of them kept, d channels.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# The plane's two most irrational steps (plastic number) and the line's (golden ratio): multiples
# of them, taken modulo 1, fill the unit interval evenly, so that a threshold picks an even pattern.
ACROSS, DOWN, NEXT = 0.7548776662466927, 0.5698402909980532, 0.6180339887498949


@dataclass(frozen=True)
class Kept:
    """Tokens chosen to stand for all tokens of their example."""

    where: Tensor  # (P, N, K), ascending indices into the flattened grid
    weight: Tensor  # (P, N, K), log of how many tokens each stands for

    def of(self, x: Tensor) -> Tensor:
        """Those of tokens (P, …, N, L, d): (P, …, N, K, d)."""
        where = self.where.view(len(x), *[1] * (x.dim() - 4), *self.where.shape[1:], 1)
        return x.gather(-2, where.expand(*x.shape[:-2], -1, x.shape[-1]))


def choose(marked: Tensor, share: float, start: int) -> Kept | None:
    """Spread over each example; half of what is kept is for marked tokens, if there are so many.

    Marked are those with an object: a small one would be thinned away. A token's weight is the
    number of tokens of its sort over the number kept, so that the sums of a softmax are estimated
    without bias.

    Args:
        marked: (P, N, h, w) bool.
        share: of the tokens to keep, over 0; None is answered from 1 on.
        start: number of the first example: each has a pattern of its own.
    """
    if share >= 1:
        return None
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in marked.shape[2:])
    place = (rows[:, None] * DOWN + columns * ACROSS).flatten()
    shift = torch.arange(start, start + marked.shape[1], dtype=torch.float64) * NEXT
    pattern = (place + shift[:, None]) % 1.0  # (N, L)
    flat = marked.flatten(2).cpu()
    total = flat.shape[2]
    wanted = max(2, round(share * total))
    many = flat.sum(2, keepdim=True)  # (P, N, 1)
    few = total - many
    taken = torch.minimum(many, (wanted - few).clamp(min=wanted // 2))
    rest = wanted - taken
    # Marked tokens rank 0, 1, … in their pattern's order, the others go on from there.
    rank = (pattern + ~flat).argsort(2).argsort(2)
    chosen = torch.where(flat, rank < taken, rank - many < rest)
    where = (~chosen).byte().argsort(dim=2, stable=True)[:, :, :wanted]
    each = torch.where(flat, many / taken, few / rest).log()
    weight = each.gather(2, where).float()
    return Kept(where.to(marked.device), weight.to(marked.device))


def with_objects(targets: Tensor, background: tuple[float, ...], grid: tuple[int, int]) -> Tensor:
    """Tokens whose part of the target is not all background: (P, N, 3, …) → (P, N, h, w) bool.

    `background`: its normalized RGB; what is nearer to it than 0.1 is taken for it.
    """
    plain = targets.new_tensor(background).view(3, 1, 1)
    painted = ((targets - plain).abs() > 0.1).any(2).float()
    return F.adaptive_max_pool2d(painted, grid) > 0
