"""Outlines of masks as polygons along the edges of pixels: exact, holes cut open to the outside."""

from typing import Any, TypeAlias

import numpy as np

from incontext.errors import InputError

Mask: TypeAlias = "np.ndarray[Any, np.dtype[np.bool_]]"
Ring: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"
STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))  # (y, x): right, down, left, up


def polygons(mask: Mask) -> list[Ring]:
    """Return one polygon for each 4-connected part: corners (x, y), (n, 2) in pixels.

    Corners count from the upper left corner of the image, 0 … width and 0 … height. A hole is
    joined to its outline by a cut of no width, so that a polygon is all of its part; filling it
    (even-odd or nonzero) gives back the mask.

    Raises:
        InputError: SciPy is missing.
    """
    ndimage = _import_ndimage()
    parts, _ = ndimage.label(mask)
    outlines = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(parts), 1):
        rings = _rings(parts[rows, columns] == number)
        corner = np.array((columns.start, rows.start))
        outlines.append(_join_holes(rings) + corner)
    return outlines


def _import_ndimage() -> Any:
    try:
        from scipy import ndimage
    except ImportError:
        raise InputError("outlines need SciPy: pip install 'incontext-seg[export]'") from None
    return ndimage


def _rings(mask: Mask) -> list[Ring]:
    """Return closed paths along pixel edges, the mask on their right; the outline is the first."""
    padded = np.pad(mask, 1)
    edges: dict[tuple[int, int], list[int]] = {}  # start (y, x) → directions
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
            # Where two paths cross, turn right: diagonal neighbors are two parts.
            directions = edges[at]
            turn = min(directions, key=lambda d: (direction + 1 - d) % 4)
            directions.remove(turn)
            if not directions:
                del edges[at]
            if not corners or turn != direction:
                corners.append(at)
            direction = turn
            at = (at[0] + STEPS[turn][0], at[1] + STEPS[turn][1])
            if at == start and (at not in edges or len(corners) > 3):
                break
        rings.append(np.array([(x, y) for y, x in corners], np.int64))
    return rings


def _join_holes(rings: list[Ring]) -> Ring:
    """Return the outline, cut open to every hole where their corners are nearest."""
    outline = rings[0]
    for hole in sorted(rings[1:], key=lambda ring: (ring[:, 0].min(), ring[:, 1].min())):
        gaps = np.abs(outline[:, None] - hole[None]).sum(2)
        i, j = np.unravel_index(gaps.argmin(), gaps.shape)
        around = np.concatenate([hole[j:], hole[: j + 1]])
        outline = np.concatenate([outline[: i + 1], around, outline[i:]])
    return outline
