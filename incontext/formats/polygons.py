"""Outlines of masks as polygons along the edges of pixels: exact, holes cut open to the outside."""

from typing import Any, TypeAlias

import numpy as np

from incontext.errors import InputError

Mask: TypeAlias = "np.ndarray[Any, np.dtype[np.bool_]]"
Ring: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"
STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))  # (y, x): right, down, left, up


def polygons(mask: Mask) -> list[Ring]:
    """One polygon for each 4-connected part: corners (x, y), (n, 2) in pixels from the upper left
    corner of the picture, 0 … width and 0 … height.

    A hole is joined to its outline by a cut of no width, so that a polygon is all of its part;
    filling it (even-odd or nonzero) gives back the mask.

    Raises:
        InputError: SciPy is missing.
    """
    ndimage = check_outlines()
    parts, _ = ndimage.label(mask)
    found = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(parts), 1):
        rings = _rings(parts[rows, columns] == number)
        corner = np.array((columns.start, rows.start))
        found.append(_joined(rings) + corner)
    return found


def check_outlines() -> Any:
    """SciPy's ndimage.

    Raises:
        InputError: it is not installed.
    """
    try:
        from scipy import ndimage
    except ImportError:
        raise InputError("outlines need SciPy: pip install 'incontext-seg[export]'") from None
    return ndimage


def _rings(mask: Mask) -> list[Ring]:
    """Closed ways along pixel edges with the mask on the right hand; the outline is the first."""
    padded = np.pad(mask, 1)
    edges: dict[tuple[int, int], list[int]] = {}
    # An edge above a pixel runs right, right of it down, below it left, left of it up.
    for direction, (shift, corner) in enumerate(
        (((-1, 0), (0, 0)), ((0, 1), (0, 1)), ((1, 0), (1, 1)), ((0, -1), (1, 0)))
    ):
        outside = ~np.roll(padded, (-shift[0], -shift[1]), (0, 1))
        for y, x in np.argwhere(padded & outside).tolist():
            edges.setdefault((y - 1 + corner[0], x - 1 + corner[1]), []).append(direction)
    rings = []
    while edges:
        start = min(edges)  # of the outline it is the upper left corner
        at, direction = start, edges[start][0]
        corners: list[tuple[int, int]] = []
        while True:
            # Where two ways cross, turn right: diagonal neighbors are two parts.
            leaving = edges[at]
            turn = min(leaving, key=lambda d: (direction + 1 - d) % 4)
            leaving.remove(turn)
            if not leaving:
                del edges[at]
            if not corners or turn != direction:
                corners.append(at)
            direction = turn
            at = (at[0] + STEPS[turn][0], at[1] + STEPS[turn][1])
            if at == start and (at not in edges or len(corners) > 3):
                break
        rings.append(np.array([(x, y) for y, x in corners], np.int64))
    return rings


def _joined(rings: list[Ring]) -> Ring:
    """The outline with every hole cut open to it at the corners that are nearest."""
    whole = rings[0]
    for hole in sorted(rings[1:], key=lambda ring: (ring[:, 0].min(), ring[:, 1].min())):
        gaps = np.abs(whole[:, None] - hole[None]).sum(2)
        here, there = np.unravel_index(gaps.argmin(), gaps.shape)
        around = np.concatenate([hole[there:], hole[: there + 1]])
        whole = np.concatenate([whole[: here + 1], around, whole[here:]])
    return whole
