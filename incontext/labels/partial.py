"""Partial labels: unknown and negative pixels, and labels at a model's size.

Unknown pixels are neither background nor any id: the model does not see patches of a target that
show nothing else. Negative ones ("not this") are background that was looked at. They are painted
like any background: with a color of their own the bundled checkpoint paints worse.
"""

from collections.abc import Sequence

import numpy as np

from incontext.errors import InputError
from incontext.images.image import resize_nearest
from incontext.labels.color_mask import MAX_ID
from incontext.labels.encodings import UNKNOWN, IdMap, Labels

UNLABELLED = ("background", "unknown")  # what pixels of value 0 can mean


def mark(labels: Labels, unlabelled: str, negative: int | Sequence[int] | None) -> Labels:
    """Return labels with 0 as unknown, if `unlabelled` says so, and negative ids as background.

    Raises:
        InputError: another word, a number that is not an id, or an id of a color mask without ids.
    """
    if unlabelled not in UNLABELLED:
        raise InputError(f"unlabelled={unlabelled!r}; accepted: {', '.join(UNLABELLED)}")
    if negative is None and unlabelled == UNLABELLED[0]:
        return labels
    ids = labels.ids.copy()
    if unlabelled == "unknown":
        ids[ids == 0] = UNKNOWN
    negative_ids = [negative] if isinstance(negative, int) else list(negative or [])
    for index in negative_ids:
        if isinstance(index, bool) or not 1 <= index <= MAX_ID:
            raise InputError(f"negative={index!r}; accepted: an id, 1 … {MAX_ID}")
        if labels.discovered:
            raise InputError(
                "negative names an id, and this color mask has none: pass colors={id: (r, g, b)}"
            )
        ids[labels.ids == index] = 0
    colors = {i: c for i, c in labels.colors.items() if i not in negative_ids}
    return Labels(ids, colors, labels.discovered)


def shrink(ids: IdMap, size: int) -> IdMap:
    """Resize an id map (H, W) to a model's size, (size, size): the nearest pixels.

    Where the nearest pixel is unknown, a known one of its surroundings counts, so that thin strokes
    between unknown pixels survive.
    """
    small = resize_nearest(ids, (size, size))
    if not (ids == UNKNOWN).any():
        return small
    rows, columns = np.nonzero(ids != UNKNOWN)
    known_ids = np.full((size, size), UNKNOWN, np.int32)
    known_ids[rows * size // ids.shape[0], columns * size // ids.shape[1]] = ids[rows, columns]
    return np.where(small == UNKNOWN, known_ids, small)


def fill(ids: IdMap, patch: int) -> IdMap:
    """Fill unknown pixels of an id map (S, S) with the most frequent known label of their patch.

    A model reads one target for a patch, so a patch should not be torn. Patches without any known
    pixel stay unknown.
    """
    result = np.ascontiguousarray(ids).copy()
    side = len(ids) // patch
    blocks = result.reshape(side, patch, side, patch).swapaxes(1, 2)  # a view
    valid_mask = blocks != UNKNOWN
    mixed = valid_mask.any((2, 3)) & ~valid_mask.all((2, 3))
    for row, column in zip(*np.nonzero(mixed), strict=True):
        block, valid = blocks[row, column], valid_mask[row, column]
        values, counts = np.unique(block[valid], return_counts=True)
        block[~valid] = values[counts.argmax()]
    return result
