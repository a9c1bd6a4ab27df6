"""Label encodings: every usual way to store a mask, read as one integer map.

Ambiguous masks are rejected; the error lists the possible readings and the option for each.
"""

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from einops import rearrange
from PIL import Image

from incontext.errors import InputError, located
from incontext.labels import coco
from incontext.labels.color_mask import GRAY_TINT, MAX_ID, Rgb, ids_of_colors, is_gray
from incontext.labels.id_mask import ids_of_values
from incontext.labels.mask_file import read_mask

if TYPE_CHECKING:
    from torch import Tensor

IdMap: TypeAlias = "np.ndarray[Any, np.dtype[np.int32]]"
LabelsLike: TypeAlias = (
    "str | Path | Image.Image | np.ndarray[Any, Any] | Tensor | dict[str, Any] | list[Any]"
)

# Pixels that do not count, neither as background nor as any id: in id maps, which are int32, and in
# uint8 label maps, as files and training have them.
UNKNOWN = -1
IGNORE_INDEX = 255


@dataclass(frozen=True)
class Labels:
    """An integer map of the caller's ids.

    Attributes:
        ids: (H, W) int32; 0 = background, 1 … 65 535, -1 = unknown.
        colors: those of the source (palette or color mask).
        discovered: ids stand for the colors of a color mask without a table; they hold within this
            map only, until `match_colors` aligns several.
    """

    ids: IdMap
    colors: dict[int, Rgb] = field(default_factory=dict)
    discovered: bool = False

    @property
    def present(self) -> list[int]:
        """Ids that occur, ascending, without background and unknown."""
        return [int(i) for i in np.unique(self.ids) if i > 0]


def read_labels(
    source: "LabelsLike | io.BytesIO",
    size: tuple[int, int],
    *,
    colors: dict[int, Rgb] | None = None,
    ignore: int | str | None = None,
    threshold: int | float | None = None,
    file_name: str | None = None,
    name: str = "",
) -> Labels:
    """Read labels in any of these encodings.

    - bool, or mode 1: True is id 1.
    - Integers and whole floats of any width (images, TIFF, .npy, arrays): {0, 1} and ids as they
      are stored; {0, 255} alone, or {0, 65535}, is a binary mask, id 1. A map in which 255 stands
      beside ids other than 0 needs `ignore`. Of a palette image the indices count; a palette of
      other grays than the indices is refused. The nodata value of a TIFF, if it is not 0, is
      unknown.
    - RGB: each color an id, black is background unless `colors` gives it an id; `colors` maps ids
      to colors, without it the colors that occur are taken (see `match_colors`).
    - COCO: an annotation, a list of them, or the path of a COCO .json (with the image's
      `file_name`): polygons, compressed or plain RLE; ids are `category_id`, 1 if there is none; a
      smaller object lies over a larger one; iscrowd is ignored (-1). In a file whose categories
      begin at 0 ids are one more, and what cannot be drawn is left out with a warning, unless
      nothing of the image can be.

    Args:
        source: as above; also the content of a file, as `io.BytesIO`.
        size: (width, height) that the labels must have.
        name: of the source, for messages; its path by default.
        ignore: value that means "unknown"; "none": 255 is an id like any other.
        threshold: for soft masks (antialiased, JPEG, float): values at or above it are id 1.

    Raises:
        InputError: damaged, ambiguous, of another size, ids outside 0 … 65 535.
    """
    ignore, threshold = _check_options(ignore, threshold)
    annotated = isinstance(source, (dict, list)) or _is_json(source)
    options = {"colors": colors, "ignore": ignore, "threshold": threshold}
    if annotated and any(value is not None for value in options.values()):
        names = ", ".join(name for name, value in options.items() if value is not None)
        raise InputError(f"{names} given, but COCO annotations say themselves what they mean")
    if isinstance(source, (dict, list)):
        labels = Labels(coco.draw(source, size, MAX_ID, UNKNOWN))
    elif isinstance(source, (str, Path)) and annotated:
        annotations = coco.annotations_of(Path(source), file_name, size)
        with located(f"{source}: {file_name}"):
            labels = Labels(coco.draw(annotations, size, MAX_ID, UNKNOWN, omit=True))
    else:
        name = name or (str(source) if isinstance(source, (str, Path)) else "labels")
        labels = _from_pixels(source, size, colors, ignore, threshold, name)
    if labels.ids.shape != (size[1], size[0]):
        height, width = labels.ids.shape
        raise InputError(
            f"labels are {width}×{height}, their picture is {size[0]}×{size[1]}; they must have "
            "the same size (a picture with EXIF rotation counts upright)"
        )
    return labels


def _from_pixels(
    source: Any,
    size: tuple[int, int],
    colors: dict[int, Rgb] | None,
    ignore: int | str | None,
    threshold: float | None,
    name: str,
) -> Labels:
    """Read labels of a file, image or array; a problem names the file."""
    mask = read_mask(source, name, threshold is not None)
    values = _squeeze(mask.values, size) if mask.is_array else mask.values
    try:
        no_data = mask.no_data
        if no_data is not None:
            values = np.where(no_data, 0, values)
        if values.ndim == 3 and threshold is not None:
            values = _one_channel(values)
        if values.ndim == 3:
            ids, table = ids_of_colors(values, colors, ignore)
            labels = Labels(ids, table, discovered=colors is None)
        elif colors is not None:
            raise InputError("colors were given, but these labels are read as one channel")
        else:
            labels = Labels(*ids_of_values(values, mask.palette, ignore, threshold, UNKNOWN))
        if no_data is not None:
            labels.ids[no_data] = UNKNOWN
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    return labels


def _is_json(source: Any) -> bool:
    return isinstance(source, (str, Path)) and Path(source).suffix.lower() == ".json"


def _check_options(ignore: Any, threshold: Any) -> tuple[int | str | None, float | None]:
    """Return both with plain types."""
    if isinstance(ignore, (int, np.integer)):
        ignore = int(ignore)
    elif ignore is not None and not (isinstance(ignore, str) and ignore == "none"):
        raise InputError(f"ignore={ignore!r}; accepted: an integer, 'none', or nothing")
    if threshold is None:
        return ignore, None
    if not isinstance(threshold, (int, float, np.number)) or not np.isfinite(threshold):
        raise InputError(f"threshold={threshold!r}; accepted: a number")
    return ignore, float(threshold)


def _squeeze(array: np.ndarray[Any, Any], size: tuple[int, int]) -> np.ndarray[Any, Any]:
    """Reshape (1, H, W) and (H, W, 1) to (H, W), (3, H, W) uint8 to (H, W, 3)."""
    # Channels come first only if nothing else fits the image: (1, 9, 3) is a row of nine colors
    # under an image of 9×1, and ids under one of 3×9.
    size_yx, shape = (size[1], size[0]), array.shape
    if array.ndim == 3 and shape[:2] != size_yx and shape[1:] == size_yx:
        array = rearrange(array, "c h w -> h w c")
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or array.size == 0 or (array.ndim == 3 and array.shape[-1] != 3):
        raise InputError(
            f"labels of shape {shape}; accepted: (H, W) ids, (H, W, 3) colors, with the "
            f"height {size[1]} and width {size[0]} of their picture"
        )
    if array.ndim == 3 and array.dtype != np.uint8:
        raise InputError(f"a color mask of dtype {array.dtype}; accepted: uint8")
    return array


def _one_channel(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return one channel of a gray image stored as RGB (H, W, 3), for a threshold."""
    if is_gray(values):
        return values[..., 0]
    tint = values.max(-1).astype(int) - values.min(-1)
    if tint.max() > GRAY_TINT:
        raise InputError("threshold reads one channel, and this mask has colors; store it gray")
    return np.round(values.mean(-1))  # what a lossy encoding made of gray


def match_colors(label_maps: list[Labels]) -> list[Labels]:
    """Give the same color the same id in several color masks whose colors were discovered.

    Ids follow the colors in ascending (r, g, b) over all maps.

    Raises:
        InputError: discovered colors and plain ids in one prompt: which is which is unknown.
    """
    if not any(m.discovered for m in label_maps):
        return label_maps
    if not all(m.discovered for m in label_maps):
        raise InputError(
            "some examples have color masks, others ids: pass colors={id: (r, g, b)} to the "
            "color masks"
        )
    order = sorted({rgb for m in label_maps for rgb in m.colors.values()})
    result = []
    for m in label_maps:
        table = np.zeros(max(m.colors, default=0) + 1, np.int32)
        for index, rgb in m.colors.items():
            table[index] = order.index(rgb) + 1
        ids = np.where(m.ids < 0, m.ids, table[np.maximum(m.ids, 0)]).astype(np.int32)
        result.append(Labels(ids, {order.index(c) + 1: c for c in m.colors.values()}, True))
    return result
