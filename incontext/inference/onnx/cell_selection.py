"""Which cells of an example are kept: `incontext.model.thinning` in numpy, for known labels.

Letters: V views, h w rows and columns of a grid, k cells kept of a view.
"""

from typing import Any, NamedTuple

import numpy as np

# As in `incontext.model.thinning`, which says why; a test holds both to the same cells.
COLUMN_STEP, ROW_STEP, EXAMPLE_STEP = 0.7548776662466927, 0.5698402909980532, 0.6180339887498949


class CellSelection(NamedTuple):
    """Cells that stand for all cells of their view."""

    indices: np.ndarray[Any, np.dtype[np.int64]]  # (V, k), ascending, into the flattened grid
    weight: np.ndarray[Any, np.dtype[np.float32]]  # (V, k), log of how many cells each stands for


def select_cells(
    marked: np.ndarray[Any, np.dtype[np.bool_]], keep_ratio: float, start: int, differ: bool = True
) -> CellSelection:
    """Select cells spread evenly over each view, up to half of them with an object.

    Args:
        marked: (V, h, w), the cells that show an object.
        keep_ratio: share of the cells to keep; from 1 on all.
        start: number of the first view.
        differ: each view has a pattern of its own; without it all have that of number 0.
    """
    count, height, width = marked.shape
    if keep_ratio >= 1:
        indices = np.broadcast_to(np.arange(height * width), (count, height * width))
        return CellSelection(indices, np.zeros(indices.shape, np.float32))
    steps = np.arange(height)[:, None] * ROW_STEP + np.arange(width) * COLUMN_STEP
    numbers = np.arange(start, start + count) if differ else np.zeros(count)
    pattern = (steps.ravel() + numbers[:, None] * EXAMPLE_STEP) % 1.0
    is_marked = marked.reshape(count, -1)
    total = max(2, round(keep_ratio * is_marked.shape[1]))
    marked_count = is_marked.sum(1, keepdims=True)
    plain_count = is_marked.shape[1] - marked_count
    marked_quota = np.minimum(marked_count, np.maximum(total - plain_count, total // 2))
    plain_quota = np.minimum(plain_count, total - marked_quota)
    rank = (pattern + ~is_marked).argsort(1).argsort(1)
    keep = is_marked & (rank < marked_quota)
    keep |= ~is_marked & (rank - marked_count < plain_quota)
    indices = (~keep).argsort(1, kind="stable")[:, :total]
    with np.errstate(invalid="ignore"):  # 0 / 0 of a sort that a view does not have
        weight = np.log(np.where(is_marked, marked_count / marked_quota, plain_count / plain_quota))
    kept_weight = np.take_along_axis(weight, indices, 1).astype(np.float32)
    return CellSelection(indices, kept_weight)
