"""Color masks: RGB images whose colors stand for ids."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from incontext.errors import InputError
from incontext.labels.coco import is_whole

Rgb: TypeAlias = tuple[int, int, int]

MAX_ID = 65_535
GRAY_TINT = 12  # between the channels of a gray that a lossy encoding has tinted
CLOSE_COLORS, MANY_CLOSE = 4, 8  # distance by which nobody tells colors apart, and how many of them
MAX_COLORS = 64  # a color mask with more is probably antialiased or lossy


def is_gray(values: np.ndarray[Any, Any]) -> bool:
    """Return whether the three channels of (H, W, 3) are equal everywhere."""
    return bool((values == values[..., :1]).all())


def ids_of_colors(
    values: np.ndarray[Any, Any], colors: dict[int, Rgb] | None, ignore: int | str | None
) -> tuple[np.ndarray[Any, np.dtype[np.int32]], dict[int, Rgb]]:
    """Convert a color mask (H, W, 3) uint8 to ids (H, W), and return the color of each id.

    Without a table every color that occurs is an id, in ascending (r, g, b); black is background.

    Raises:
        InputError: colors that the table lacks, or a mask that can mean something else.
    """
    if isinstance(ignore, int):
        raise InputError(
            f"ignore={ignore} is a value of one channel, and this mask has colors; store ids in one"
        )
    if values.max() <= 1 and values.any():
        raise InputError(
            "a color mask whose values are 0 and 1 can be a stack of masks; pass ids (H, W), such "
            "as its argmax over the channels, or colors in 0–255"
        )
    codes = (values.astype(np.int32) * (1 << 16, 1 << 8, 1)).sum(-1)
    present, counts = np.unique(codes, return_counts=True)
    if colors is None:
        if is_gray(values) and not set(np.unique(values)) <= {0, 255}:
            raise InputError(
                "a gray picture stored as RGB can hold ids, colors or a soft mask; pass one "
                "channel for ids, colors={id: (r, g, b)}, or threshold=128"
            )
        if len(present) > MAX_COLORS:
            raise InputError(
                f"{len(present)} different colors: an antialiased or lossy mask? pass "
                "colors={id: (r, g, b)} after storing it with exact colors"
            )
        _check_exact(present)
        table = {index: _rgb(code) for index, code in enumerate(present[present != 0], 1)}
    else:
        table = check_colors(colors)
    lookup = {_code(rgb): index for index, rgb in table.items()}
    lookup.setdefault(0, 0)
    pairs = zip(counts, present, strict=True)
    unknown = sorted(((int(n), int(c)) for n, c in pairs if c not in lookup), reverse=True)
    if unknown:
        text = ", ".join(f"{_rgb(c)} on {n} pixels" for n, c in unknown[:4])
        raise InputError(f"{len(unknown)} colors that colors={{…}} does not name: {text}")
    ids = np.array([lookup[int(c)] for c in present], np.int32)[np.searchsorted(present, codes)]
    return ids, table


def _check_exact(codes: np.ndarray[Any, Any]) -> None:
    """Raise InputError if distinct colors look like few that a lossy encoding has spread.

    That is many grays that are not quite gray, or many colors that are not told apart.
    """
    rgb = np.array([_rgb(code) for code in codes])
    tint = int((rgb.max(1) - rgb.min(1)).max())
    near_gray = 0 < tint <= GRAY_TINT and len(codes) > 3 and rgb.max() > 64
    distances = np.abs(rgb[:, None] - rgb[None]).max(-1)
    distances[np.diag_indices(len(rgb))] = 255
    close = int((distances.min(1) <= CLOSE_COLORS).sum())
    if near_gray or (close > MANY_CLOSE and close > len(codes) / 2):
        raise InputError(
            f"{len(codes)} colors that are nearly the same: a lossy or antialiased mask, whose "
            "values are not exact? pass threshold=128 (--threshold 128) for a gray mask, or "
            "colors={id: (r, g, b)} if they are meant so; store masks as PNG"
        )


def check_colors(colors: dict[int, Rgb]) -> dict[int, Rgb]:
    """Return a table of colors with plain integers.

    Raises:
        InputError: an id or a channel out of range, one color for two ids.
    """
    table: dict[int, Rgb] = {}
    if not isinstance(colors, Mapping):
        raise InputError(f"colors is a {type(colors).__name__}; accepted: {{id: (r, g, b)}}")
    for index, rgb in colors.items():
        if not (isinstance(index, (int, np.integer)) and 0 <= index <= MAX_ID):
            raise InputError(f"colors: {index!r} is no id; accepted: integers 0 … {MAX_ID}")
        triple = list(rgb) if isinstance(rgb, (tuple, list)) or np.ndim(rgb) == 1 else []
        if len(triple) != 3 or not all(is_whole(c) and 0 <= c <= 255 for c in triple):
            raise InputError(f"colors: {rgb!r} of id {index} is no (r, g, b) in 0–255")
        table[int(index)] = (int(rgb[0]), int(rgb[1]), int(rgb[2]))
    if len(set(table.values())) < len(table):
        raise InputError("colors: two ids have the same color")
    return table


def _code(rgb: Rgb) -> int:
    return rgb[0] << 16 | rgb[1] << 8 | rgb[2]


def _rgb(code: int) -> Rgb:
    return (int(code) >> 16, int(code) >> 8 & 255, int(code) & 255)
