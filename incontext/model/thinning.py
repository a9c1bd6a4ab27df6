"""Which tokens of an example are kept where there are more examples than a query needs in full.

Letters: P prompts, N examples, L tokens of an example, K of them kept, d channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# The plane's two most irrational steps (plastic number) and the line's (golden ratio): multiples
# of them, taken modulo 1, fill the unit interval evenly, so that a threshold picks an even pattern.
ACROSS, DOWN, NEXT = 0.7548776662466927, 0.5698402909980532, 0.6180339887498949
# Log weight of what must not count; finite, and within float16: a softmax over nothing else would
# be NaN.
NOTHING = -1e4


@dataclass(frozen=True)
class TokenSelection:
    """Tokens chosen to stand for all tokens of their example."""

    where: Tensor  # (P, N, K), ascending indices into the flattened grid
    weight: Tensor  # (P, N, K), log of how many tokens each stands for

    def gather(self, x: Tensor) -> Tensor:
        """Those of tokens (P, …, N, L, d): (P, …, N, K, d)."""
        where = self.where.view(len(x), *[1] * (x.dim() - 4), *self.where.shape[1:], 1)
        return x.gather(-2, where.expand(*x.shape[:-2], -1, x.shape[-1]))


def select_tokens(
    marked: Tensor, share: float, start: int, known: Tensor | None = None
) -> TokenSelection | None:
    """Spread over each example; half of what is kept is for marked tokens, if there are so many.

    Marked are those with an object: a small one would be thinned away. A token's weight is the
    number of tokens of its sort over the number kept, so that the sums of a softmax are estimated
    without bias. A token that shows nothing known has no weight.

    Args:
        marked: (P, N, h, w) bool.
        share: of the tokens to keep, over 0; from 1 on all, and None is answered without `known`.
        start: number of the first example: each has a pattern of its own.
        known: (P, N, h, w) bool, False where nothing is known; None: all is.
    """
    if known is not None:
        return _choose_known(marked & known, min(share, 1.0), start, known)
    if share >= 1:
        return None
    return _choose_known(marked, share, start, torch.ones_like(marked))


def _choose_known(marked: Tensor, share: float, start: int, known: Tensor) -> TokenSelection:
    """`select_tokens` among three sorts of tokens: marked, other known ones, unknown ones."""
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in marked.shape[2:])
    steps = (rows[:, None] * DOWN + columns * ACROSS).flatten()
    shift = torch.arange(start, start + marked.shape[1], dtype=torch.float64) * NEXT
    pattern = (steps + shift[:, None]) % 1.0  # (N, L)
    flat, sure = marked.flatten(2).cpu(), known.flatten(2).cpu()
    wanted = max(2, round(share * flat.shape[2]))
    many = flat.sum(2, keepdim=True)  # (P, N, 1)
    few = sure.sum(2, keepdim=True) - many
    taken = torch.minimum(many, (wanted - few).clamp(min=wanted // 2))
    rest = torch.minimum(few, wanted - taken)
    # Marked tokens rank 0, 1, … in their pattern's order, the others go on from there, and what is
    # unknown fills up where there is too little.
    rank = (pattern + (~flat).double() + (~sure).double()).argsort(2).argsort(2)
    spare = wanted - taken - rest
    chosen = (flat & (rank < taken)) | (~flat & sure & (rank - many < rest))
    chosen = chosen | (~sure & (rank - many - few < spare))
    # Those that are chosen first, each sort in the grid's order.
    place = torch.arange(flat.shape[2]) + (~chosen).long() * flat.shape[2]
    where = place.argsort(2)[:, :, :wanted]
    each = torch.where(flat, many / taken, few / rest).log().masked_fill(~sure, NOTHING)
    weight = each.gather(2, where).float()
    return TokenSelection(where.to(marked.device), weight.to(marked.device))


def concat_weights(
    several: Sequence[Tensor | None], shapes: Sequence[tuple[int, int, int]], dim: int
) -> Tensor | None:
    """Weights of several prompts side by side along `dim`: those of whole examples are 0.

    `shapes`: (P, N, K) of each. None where all are whole.
    """
    given = next((w for w in several if w is not None), None)
    if given is None:
        return None
    pairs = zip(several, shapes, strict=True)
    return torch.cat([given.new_zeros(shape) if w is None else w for w, shape in pairs], dim)


def object_cells(targets: Tensor, background: tuple[float, ...], grid: tuple[int, int]) -> Tensor:
    """Tokens whose part of the target is not all background: (P, N, 3, …) → (P, N, h, w) bool.

    `background`: its normalized RGB; what is nearer to it than 0.1 is taken for it.
    """
    plain = targets.new_tensor(background).view(3, 1, 1)
    return any_pixel(((targets - plain).abs() > 0.1).any(2), grid)


def any_pixel(pixels: Tensor, grid: tuple[int, int]) -> Tensor:
    """Cells of a grid in which some pixel is True: (P, N, height, width) → (P, N, h, w) bool."""
    return F.adaptive_max_pool2d(pixels.float(), grid) > 0
