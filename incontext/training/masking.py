"""Canvas: which patches of the targets are hidden, that is, to be painted."""

import torch
from torch import Generator, Tensor


def query_half(batch: int, rows: int, columns: int) -> Tensor:
    """The query's half hidden, the example's shown: (batch, 2·rows, columns) bool, True = paint."""
    hidden = torch.zeros(batch, 2 * rows, columns, dtype=torch.bool)
    hidden[:, rows:] = True
    return hidden


def random_blocks(rng: Generator, batch: int, rows: int, columns: int, share: float) -> Tensor:
    """At least `share` of the canvas hidden in random blocks (BEiT's block-wise pattern).

    The share is rounded down to whole patches.

    Returns:
        (batch, 2·rows, columns) bool, True = paint. A canvas whose query half would be shown
        whole has that half hidden instead: there would be nothing to learn from it.
    """
    hidden = torch.zeros(batch, 2 * rows, columns, dtype=torch.bool)
    wanted = int(share * hidden[0].numel())
    for canvas in hidden:
        while int(canvas.sum()) < wanted:
            height, width = (
                int(torch.randint(1, min(side, max(2, side // 2)) + 1, (1,), generator=rng))
                for side in (rows, columns)
            )
            top = int(torch.randint(0, 2 * rows - height + 1, (1,), generator=rng))
            left = int(torch.randint(0, columns - width + 1, (1,), generator=rng))
            canvas[top : top + height, left : left + width] = True
        if not canvas[rows:].any():
            canvas[rows:] = True
    return hidden
