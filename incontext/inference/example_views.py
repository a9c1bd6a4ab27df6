"""Views of an example: whole and close up, each also mirrored.

A single example shows its object at one size and from one side. Cells of other views vote beside
its own, so that a query in which the object is larger, or turned, finds more of what is like it.
"""

from collections.abc import Sequence

import numpy as np

from incontext.errors import InputError
from incontext.images.tiles import Box
from incontext.inference.example import Example

VIEWS = 4  # of each example
VIEWED_EXAMPLES = 2  # up to so many gain by being seen in several views (docs/training.md)
EXTENT = 2.4  # side of a close-up, in sides of the labels' box
SMALLEST, LARGEST = 0.3, 0.8  # side of a close-up as a share of the image's; a larger one is whole


def views_of(example: Example) -> list[Example]:
    """Return the `VIEWS` of an example: whole, close up, and both mirrored."""
    close = example.crop_to(close_up(example))
    return [example, close, example.mirror(), close.mirror()]


def expand_views(examples: Sequence[Example], views: bool) -> Sequence[Example]:
    """Return the views of all examples in a row, or the examples as they are."""
    return [view for example in examples for view in views_of(example)] if views else examples


def resolve_views(views: bool | str, count: int, votes: bool) -> bool:
    """Return whether examples are encoded in several views.

    Args:
        views: "auto": where a query sees no more than `VIEWED_EXAMPLES`.
        count: of the examples that a query sees.
        votes: whether the checkpoint's examples vote; others have no views.

    Raises:
        InputError: another value, or views asked of a checkpoint that cannot have them.
    """
    if views not in (True, False, "auto"):
        raise InputError(f"views={views!r}; accepted: True, False, 'auto'")
    if views == "auto":
        return votes and count <= VIEWED_EXAMPLES
    if views and not votes:
        raise InputError(
            "views=True needs a checkpoint whose examples vote, such as incontext-votes"
        )
    return bool(views)


def keep_ratio(thin_to: int | None, count: int, views: bool) -> float:
    """Return the share of the cells or tokens to keep of each of `count` examples, or view.

    Args:
        thin_to: as many cells as so many whole examples have are kept in all; None: all.
    """
    return 1.0 if thin_to is None else min(1.0, thin_to / (count * (VIEWS if views else 1)))


def close_up(example: Example) -> Box:
    """Return the part of an image that a close-up shows; the whole where the labels fill it.

    It has the image's shape, and the labels in its middle where the border allows it.
    """
    height, width = example.labels.ids.shape
    rows, columns = np.nonzero(example.labels.ids > 0)
    whole = (0, 0, width, height)
    if not len(rows):
        return whole
    axes = ((columns, width), (rows, height))
    spans = [(int(x.min()), int(x.max()) + 1, side) for x, side in axes]
    share = max(EXTENT * max((high - low) / side for low, high, side in spans), SMALLEST)
    if share > LARGEST:
        return whole
    starts, sides = [], []
    for low, high, side in spans:
        length = max(1, round(share * side))
        starts.append(min(max((low + high - length) // 2, 0), side - length))
        sides.append(length)
    return starts[0], starts[1], starts[0] + sides[0], starts[1] + sides[1]
