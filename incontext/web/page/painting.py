"""Painting: layers of the editor to ids, and back."""

from typing import Any

import numpy as np
from PIL import Image

from incontext import InputError

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
    """Return the image in an editor as RGB and the ids painted on it, (H, W) uint8; None if empty.

    A pixel belongs to a layer where that is more than a third opaque; later layers lie over earlier
    ones; its color is the nearest of the brushes.
    """
    if not value or value.get("background") is None or value["background"].size == (1, 1):
        return None  # an editor without a picture has a canvas of one pixel
    background = value["background"].convert("RGBA")
    white = Image.new("RGBA", background.size, "white")
    picture = Image.alpha_composite(white, background).convert("RGB")
    ids = np.zeros((picture.height, picture.width), np.uint8)
    for layer in (value.get("layers") or [])[:8]:
        if layer.size != picture.size:
            layer = layer.resize(picture.size, Image.Resampling.NEAREST)  # noqa: PLW2901
        rgba = np.asarray(layer.convert("RGBA"))
        painted = rgba[..., 3] > 85
        # 32 levels of each channel: few colors to compare, however many a layer has.
        coarse = rgba[painted][:, :3].astype(np.uint32) >> 3
        colors, inverse = np.unique(
            coarse[:, 0] << 10 | coarse[:, 1] << 5 | coarse[:, 2], return_inverse=True
        )
        rgb = np.stack([colors >> 10, colors >> 5 & 31, colors & 31], 1).astype(int) * 8 + 4
        gaps = np.abs(rgb[:, None] - _TABLE[None, 1:]).sum(2)
        if len(colors):
            ids[painted] = (gaps.argmin(1) + 1).astype(np.uint8)[inverse]
    return picture, ids


def write_editor(picture: Image.Image, ids: Array) -> dict[str, Any]:
    """Return the value of an editor that shows an image and its ids."""
    alpha = np.where(ids > 0, round(255 * OPACITY), 0).astype(np.uint8)
    layer = Image.fromarray(np.dstack([_TABLE[ids], alpha]))
    return {"background": picture, "layers": [layer], "composite": None}


def overlay(picture: Image.Image, ids: Array) -> Image.Image:
    """Return an image with its ids half over it."""
    colored = Image.blend(picture, Image.fromarray(_TABLE[ids]), 0.55)
    return Image.composite(colored, picture, Image.fromarray(ids > 0))


def label_picture(ids: Array) -> Image.Image:
    """Return ids as an image with the brushes' colors as its palette."""
    image = Image.fromarray(ids.astype(np.uint8))
    table = np.zeros((256, 3), np.uint8)
    table[: len(_TABLE)] = _TABLE
    image.putpalette(table.tobytes())
    return image


def paintable(ids: Array) -> Array:
    """Return the ids of a mask as the brushes have them; what is unknown is blank.

    Raises:
        InputError: ids that no brush has.
    """
    unknown = sorted({int(i) for i in np.unique(ids) if i > len(COLORS)})
    if unknown:
        raise InputError(
            f"the mask has id {unknown[0]}; the brushes are ids 1 … {len(COLORS)}. Tune, Doctor "
            "and the command line take any ids"
        )
    return np.where(ids > 0, ids, 0).astype(np.uint8)


def parse_brush_names(text: str, ids: list[int]) -> dict[int, str]:
    """Parse "cell, dirt" → {1: "cell", 2: "dirt"}, for the ids given; colors name the others."""
    names = dict(enumerate(_split_names(text), 1))
    return {i: names.get(i) or NAMES[i] for i in ids}


def parse_names(text: str, ids: list[int]) -> dict[int, str]:
    """Parse "cell, dirt" for ids 3 and 7 → {3: "cell", 7: "dirt"}; a name left out is no entry.

    Raises:
        InputError: more names than ids.
    """
    names = _split_names(text)
    if len(names) > len(ids):
        raise InputError(f"{len(names)} names for {len(ids)} ids ({', '.join(map(str, ids))})")
    return {i: name for i, name in zip(ids, names, strict=False) if name}


def _split_names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")] if text and text.strip() else []
