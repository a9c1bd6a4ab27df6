"""Id masks: one channel of numbers that are ids, a mask of black and white, or a soft mask."""

import warnings
from typing import Any

import numpy as np

from incontext.errors import InputError
from incontext.labels.color_mask import MAX_ID, Rgb

WHITE = ([0, 255], [255], [0, 65_535], [65_535])  # values of a binary mask, of 8 and of 16 bits
MANY_IDS = 64  # more in one mask raise a warning


def ids_of_values(
    values: np.ndarray[Any, Any],
    palette: dict[int, Rgb],
    ignore: int | str | None,
    threshold: float | None,
    unknown: int,
) -> tuple[np.ndarray[Any, np.dtype[np.int32]], dict[int, Rgb]]:
    """Convert one channel (H, W) to ids (H, W), and return the color of each id.

    Args:
        ignore, threshold: see `incontext.labels.encodings.read_labels`.
        unknown: what the value `ignore` becomes.

    Raises:
        InputError: values that are not ids, or a mask that can mean something else.
    """
    if values.dtype == bool:
        return values.astype(np.int32), palette
    floating = values.dtype.kind == "f"
    if values.dtype.kind not in "fiu":
        raise InputError(f"labels of dtype {values.dtype}; accepted: bool, integers, whole floats")
    if floating and not np.isfinite(values).all():
        raise InputError("float labels with NaN or infinite values; accepted: finite numbers")
    if threshold is not None:
        ids = (values >= threshold).astype(np.int32)
        if isinstance(ignore, int):
            ids[values == ignore] = unknown
        return ids, {}
    if floating and (values != np.round(values)).any():
        raise InputError("float labels that are not whole numbers; pass threshold=0.5, say")
    present = [int(v) for v in np.unique(values)]
    if ignore is None and present in WHITE and not palette:
        return (values != 0).astype(np.int32), {}
    if ignore is None and 255 in present:
        _refuse_255(present)
    present = [v for v in present if v != ignore]
    _check_ids(present)
    _check_gray_palette(present, palette)
    _check_background(present, palette)
    # Wide enough for any integer dtype that passed; uint64 values fit after the check above.
    mask = values == ignore if isinstance(ignore, int) else np.zeros(values.shape, bool)
    ids = np.where(mask, 0, values).astype(np.int32)
    ids[mask] = unknown
    return ids, {i: c for i, c in palette.items() if i in present}


def _refuse_255(present: list[int]) -> None:
    """Raise InputError: a mask with 255 among other values has several readings."""
    values = [str(v) for v in present if v not in (0, 255)]
    text = ", ".join(values[:8]) + (" …" if len(values) > 8 else "") or "a palette"
    raise InputError(
        f"255 beside {text} can mean 'ignore', an id, or the inside of a soft mask; pass "
        "ignore=255, ignore='none' or threshold=128 (--ignore 255, --ignore none, --threshold 128)"
    )


def _check_ids(present: list[int]) -> None:
    """Refuse ids out of range; warn of very many."""
    if present and (present[0] < 0 or present[-1] > MAX_ID):
        wrong = present[0] if present[0] < 0 else present[-1]
        raise InputError(f"id {wrong} is outside 0 … {MAX_ID}; pass ignore={wrong} if it is none")
    if len(present) > MANY_IDS:
        warnings.warn(
            f"{len(present)} different ids: is this a photograph? a mask comes after its picture",
            stacklevel=3,
        )


def _check_gray_palette(present: list[int], palette: dict[int, Rgb]) -> None:
    """Refuse a palette of grays other than the indices: GIF renumbers the grays it is given."""
    grays = [palette[i][0] for i in present if i in palette and len(set(palette[i])) == 1]
    if len(set(grays)) < len(present):  # colors, or grays that were never meant to tell ids apart
        return
    binary = [g // 255 for g in grays] if set(grays) <= {0, 255} else grays
    if present not in (grays, binary):
        raise InputError(
            f"a palette of grays: ids can be the indices {present[:8]} or the grays {grays[:8]}; "
            "store it as gray or with a colored palette"
        )


def _check_background(present: list[int], palette: dict[int, Rgb]) -> None:
    """Refuse a palette in which black is an id and index 0 is not: writers may have renumbered it.

    GIF and optimizing PNG writers do so.
    """
    if 0 not in present or palette.get(0, (0, 0, 0)) == (0, 0, 0):
        return
    black = next((i for i in present if palette.get(i) == (0, 0, 0)), None)
    if black is not None:
        raise InputError(
            f"the palette gives 0, the background, the color {palette[0]} and black to id "
            f"{black}; store it as RGB, or with the background at index 0"
        )
