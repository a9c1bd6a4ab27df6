"""Painting: what is painted in the editor, as labels, and back."""

from typing import Any

import numpy as np
from PIL import Image

Array = np.ndarray[Any, Any]

# Ids 1 … 8. The model paints with colors of its own; these are for people.
COLORS = {
    "red": (230, 25, 75), "blue": (0, 110, 220), "green": (60, 180, 75), "yellow": (255, 215, 0),
    "purple": (145, 30, 180), "orange": (245, 130, 49), "cyan": (66, 212, 244),
    "pink": (240, 50, 230),
}  # fmt: skip
NAMES = dict(enumerate(COLORS, 1))
BRUSHES = ["#{:02x}{:02x}{:02x}".format(*rgb) for rgb in COLORS.values()]
OPACITY = 0.65  # of the brushes: what is painted over stays visible
_TABLE = np.array([(0, 0, 0), *COLORS.values()], np.uint8)  # (9, 3), row 0 is the background


def read_editor(value: dict[str, Any] | None) -> tuple[Image.Image, Array] | None:
    """The picture in an editor as RGB, and the ids painted on it, (H, W) uint8; None: no picture.

    A pixel belongs to a layer where that is more than a third opaque; later layers lie over earlier
    ones; its color is the nearest of the brushes.
    """
    if not value or value.get("background") is None:
        return None
    background = value["background"].convert("RGBA")
    white = Image.new("RGBA", background.size, "white")
    picture = Image.alpha_composite(white, background).convert("RGB")
    ids = np.zeros((picture.height, picture.width), np.uint8)
    for layer in value.get("layers") or []:
        if layer.size != picture.size:
            layer = layer.resize(picture.size, Image.Resampling.NEAREST)  # noqa: PLW2901
        rgba = np.asarray(layer.convert("RGBA"))
        there = rgba[..., 3] > 85
        colors, which = np.unique(rgba[there][:, :3], axis=0, return_inverse=True)
        gaps = np.abs(colors[:, None].astype(int) - _TABLE[None, 1:]).sum(2)
        if len(colors):
            ids[there] = (gaps.argmin(1) + 1).astype(np.uint8)[which.ravel()]
    return picture, ids


def write_editor(picture: Image.Image, ids: Array) -> dict[str, Any]:
    """What an editor shows of a picture and its ids."""
    alpha = np.where(ids > 0, round(255 * OPACITY), 0).astype(np.uint8)
    layer = Image.fromarray(np.dstack([_TABLE[ids], alpha]))
    both = picture.copy()
    both.paste(layer, mask=layer)
    return {"background": picture, "layers": [layer], "composite": None}


def overlay(picture: Image.Image, ids: Array) -> Image.Image:
    """A picture with its ids half over it."""
    colored = Image.blend(picture, Image.fromarray(_TABLE[ids]), 0.55)
    return Image.composite(colored, picture, Image.fromarray(ids > 0))


def label_picture(ids: Array) -> Image.Image:
    """Ids as a picture that carries the brushes' colors as its palette."""
    image = Image.fromarray(ids.astype(np.uint8))
    table = np.zeros((256, 3), np.uint8)
    table[: len(_TABLE)] = _TABLE
    image.putpalette(table.tobytes())
    return image


def ids_of_mask(mask: Image.Image, size: tuple[int, int]) -> Array:
    """Ids 1 … 8 of a mask file: the numbers of a palette or gray picture in ascending order, the
    colors of a color picture from the darkest on; black and 0 are the background.

    Raises:
        ValueError: another size, or more than 8 objects.
    """
    if mask.size != size:
        raise ValueError(f"the mask is {mask.width}×{mask.height}, the picture {size[0]}×{size[1]}")
    values = np.asarray(mask if mask.mode in ("1", "L", "P", "I;16") else mask.convert("RGB"))
    if values.ndim == 3:
        values = (values.astype(np.int64) * (65536, 256, 1)).sum(2)
    found, which = np.unique(values, return_inverse=True)
    objects = [v for v in found.tolist() if v]
    if len(objects) > len(COLORS):
        raise ValueError(
            f"the mask has {len(objects)} values; accepted: 0 and up to {len(COLORS)} ids (a mask "
            "saved as JPEG has many: save it as PNG)"
        )
    table = {0: 0, **{v: n for n, v in enumerate(objects, 1)}}
    return np.array([table[v] for v in found.tolist()], np.uint8)[which.reshape(values.shape[:2])]


def read_names(text: str, ids: list[int]) -> dict[int, str]:
    """ "cell, dirt" → {1: "cell", 2: "dirt"}, for those of the ids that are there; colors else."""
    given = [part.strip() for part in (text or "").split(",")]
    return {i: (given[i - 1] if i <= len(given) and given[i - 1] else NAMES[i]) for i in ids}
