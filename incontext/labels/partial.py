"""Partial labels: what is unknown, what is known to be no object, and how a model is shown them.

Unknown pixels are neither background nor any id: no patch of a target that shows nothing else is
seen by the model. Negative ones ("not this") are background that was looked at. They are painted
like any background: a color of their own makes the bundled checkpoint paint worse.
"""

from collections.abc import Sequence

import numpy as np

from incontext.errors import InputError
from incontext.images.image import resize_nearest
from incontext.labels.color_mask import MAX_ID
from incontext.labels.encodings import UNKNOWN, IdMap, Labels

UNLABELLED = ("background", "unknown")  # what pixels of value 0 can mean


def mark(labels: Labels, unlabelled: str, negative: int | Sequence[int] | None) -> Labels:
    """Labels with 0 as unknown, if so wanted, and one or more ids as negative.

    Raises:
        InputError: another word, a number that is no id, or an id in a color mask that has none.
    """
    if unlabelled not in UNLABELLED:
        raise InputError(f"unlabelled={unlabelled!r}; accepted: {', '.join(UNLABELLED)}")
    if negative is None and unlabelled == UNLABELLED[0]:
        return labels
    ids = labels.ids.copy()
    if unlabelled == "unknown":
        ids[ids == 0] = UNKNOWN
    several = [negative] if isinstance(negative, int) else list(negative or [])
    for one in several:
        if isinstance(one, bool) or not 1 <= one <= MAX_ID:
            raise InputError(f"negative={one!r}; accepted: an id, 1 … {MAX_ID}")
        if labels.discovered:
            raise InputError(
                "negative names an id, and this color mask has none: pass colors={id: (r, g, b)}"
            )
        ids[labels.ids == one] = 0
    colors = {i: c for i, c in labels.colors.items() if i not in several}
    return Labels(ids, colors, labels.discovered)


def shrink(ids: IdMap, size: int) -> IdMap:
    """An id map (H, W) at a model's size, (size, size): the nearest pixels.

    Known labels are not lost between unknown ones: where the nearest pixel is unknown, another of
    its surroundings counts, so that thin strokes survive.
    """
    small = resize_nearest(ids, (size, size))
    if not (ids == UNKNOWN).any():
        return small
    rows, columns = np.nonzero(ids != UNKNOWN)
    there = rows * size // ids.shape[0], columns * size // ids.shape[1]
    found = np.full((size, size), UNKNOWN, np.int32)
    found[there] = ids[rows, columns]
    return np.where(small == UNKNOWN, found, small)


def fill(ids: IdMap, patch: int) -> IdMap:
    """Unknown pixels of an id map (S, S) get the label that most known ones of their patch have.

    A model reads one target for a patch, so what it shows is better not torn. Patches without any
    known pixel stay unknown.
    """
    filled = np.ascontiguousarray(ids).copy()
    side = len(ids) // patch
    blocks = filled.reshape(side, patch, side, patch).swapaxes(1, 2)  # a view
    known = blocks != UNKNOWN
    mixed = known.any((2, 3)) & ~known.all((2, 3))
    for row, column in zip(*np.nonzero(mixed), strict=True):
        block, inside = blocks[row, column], known[row, column]
        values, counts = np.unique(block[inside], return_counts=True)
        block[~inside] = values[counts.argmax()]
    return filled
