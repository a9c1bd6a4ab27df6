"""Segmentation: what a predictor returns, in the query's own size and the caller's own ids."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from incontext.errors import InputError, former_attributes
from incontext.files import atomic
from incontext.images.data_mask import data_mask
from incontext.images.image import resize_nearest
from incontext.labels.color_mask import Rgb
from incontext.labels.encodings import IdMap

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
# Presence of an id is its mean share of the painting over this share of the image's pixels, those
# where it is painted most, so that a small object counts and a stray pixel does not.
PRESENCE_SHARE = 0.002
PRESENT = 0.5  # below it an id's mask is empty, unless a call says otherwise
JPEG_MAX_SIDE = 65_500  # pixels; the format ends there, a larger picture is written as PNG


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Labels of one image.

    Attributes:
        labels: (H, W) int32, 0 = background, and of pixels without data (nodata, NaN, alpha 0).
        confidence: (H, W) float32 in 0–1, the probability that the pixel's label is right; 0 where
            there is no data.
        presence: for each id of the prompt how sure the model is that it is in the image, 0–1;
            below 0.5 (`min_presence` of `predict`) its mask is empty.
        image: the query, upright RGB.
        paintings: what the model painted, in its own size, one for each pass; with tiles the first
            pass alone, in the image's size.
        colors, names: of the ids, for people.
        quality: for each id of the prompt the IoU of its mask with the true one to expect, 0–1;
            0 without a mask. Sort by it to see the worst first.
    """

    labels: IdMap = field(repr=False)
    confidence: np.ndarray[Any, np.dtype[np.float32]] = field(repr=False)
    presence: dict[int, float]
    image: Image.Image = field(repr=False)
    paintings: tuple[Pixels, ...] = field(repr=False)
    colors: dict[int, Rgb] = field(repr=False)
    names: dict[int, str] = field(repr=False)
    quality: dict[int, float] = field(default_factory=dict)

    __getattr__ = former_attributes(picture="image")

    @cached_property
    def painting(self) -> Pixels:
        """What the model painted in the first pass, repeated to the query's size, (H, W, 3)."""
        return resize_nearest(self.paintings[0], self.labels.shape)

    @property
    def mean_confidence(self) -> float:
        """Mean confidence of the pixels that hold data, 0–1; 0 if none does."""
        mask = data_mask(self.image)
        values = self.confidence if mask is None else self.confidence[mask]
        return float(values.mean()) if values.size else 0.0

    @property
    def score(self) -> float:
        """How good the worst of its ids is likely to be, 0–1: the lowest is worth a look first.

        Of an id with a mask its quality; of one without, the probability that it is not there.
        """
        return rate_labels(self.labels, self.presence, self.quality)

    def mask(self, index: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return the mask of an id, (H, W) bool.

        Raises:
            InputError: an id that the prompt does not have.
        """
        if index not in self.presence:
            raise InputError(f"no id {index}; the prompt has {sorted(self.presence)}")
        return np.asarray(self.labels == index)

    def overlay(self, opacity: float = 0.5) -> Image.Image:
        """Return the image with every id in its color, borders drawn at full strength."""
        return overlay(self.image, self.labels, self.colors, opacity)

    def label_image(self) -> Image.Image:
        """Return labels ready for PNG: mode P with the ids' colors, I;16 for ids over 255."""
        wide = max(self.presence, default=0) > 255
        return label_image(self.labels, self.colors, wide)

    def detections(self) -> Any:
        """Return `supervision.Detections`: one for each id in the image, with its presence.

        Raises:
            InputError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError:
            raise InputError("detections need supervision: pip install supervision") from None
        ids = [i for i in self.presence if (self.labels == i).any()]
        if not ids:
            return supervision.Detections.empty()
        masks = np.stack([self.mask(i) for i in ids])
        return supervision.Detections(
            xyxy=supervision.mask_to_xyxy(masks).astype(np.float32), mask=masks,
            class_id=np.array(ids), confidence=np.array([self.presence[i] for i in ids]),
            data={"class_name": np.array([self.names[i] for i in ids])},
        )  # fmt: skip

    def save(self, folder: str | Path, name: str) -> dict[str, Path]:
        """Write NAME.png (labels), NAME.confidence.png (0–255) and NAME.overlay.jpg.

        Each file appears whole or not at all.

        Returns:
            Path of "labels", "confidence" and "overlay".
        """
        base = Path(folder) / name
        confidence = Image.fromarray(np.round(self.confidence * 255).astype(np.uint8))
        parts: dict[str, tuple[str, Callable[[], Image.Image]]] = {
            "confidence": (".confidence.png", lambda: confidence),
            "overlay": (".overlay.jpg", self.overlay),
            # Last: with a finished label file the other two are finished too.
            "labels": (".png", self.label_image),
        }
        paths = {}
        for part, (suffix, make) in parts.items():
            paths[part] = base.with_name(base.name + suffix)
            write_image(make(), paths[part])
        return paths


def rate_labels(
    labels: IdMap, presence: Mapping[int, float], quality: Mapping[int, float]
) -> float:
    """Return `rate_ids` of the ids of an image, of some of which quality is known."""
    return rate_ids((bool((labels == i).any()), p, quality.get(i)) for i, p in presence.items())


def rate_ids(ids: Iterable[tuple[bool, float, float | None]]) -> float:
    """Return how good the worst of an image's ids is likely to be, see `Segmentation.score`.

    Args:
        ids: of each whether it has a mask, presence, and quality if that is known.
    """
    return min(
        (
            1 - presence if not has_mask else presence if quality is None else quality
            for has_mask, presence, quality in ids
        ),
        default=1.0,
    )


def overlay(
    image: Image.Image, labels: IdMap, colors: Mapping[int, Rgb], opacity: float = 0.5
) -> Image.Image:
    """Return an RGB image with every id in its color, borders drawn at full strength."""
    rgb = np.array(image)
    for index, color in colors.items():
        mask = labels == index
        if not mask.any():
            continue
        for channel, value in enumerate(color):
            plane = rgb[..., channel]
            # A table of the 256 results: huge images never become floats.
            mixed = np.arange(256) * (1 - opacity) + value * opacity
            plane[mask] = mixed.astype(np.uint8)[plane[mask]]
        rgb[_border(mask)] = color
    return Image.fromarray(rgb)


def label_image(labels: IdMap, colors: Mapping[int, Rgb], wide: bool = False) -> Image.Image:
    """Return labels as an image: mode P with the ids' colors; I;16 if `wide` or ids over 255."""
    if wide or labels.max(initial=0) > 255:
        return Image.fromarray(labels.astype(np.uint16))
    image = Image.fromarray(labels.astype(np.uint8))
    table = np.zeros((256, 3), np.uint8)
    for index, color in colors.items():
        table[index] = color
    image.putpalette(table.tobytes())
    return image


def write_image(image: Image.Image, path: Path) -> None:
    """Write an image so that it appears whole or not at all; the suffix names the format."""
    file_format = {".jpg": "JPEG", ".png": "PNG"}[path.suffix.lower()]
    if file_format == "JPEG" and max(image.size) > JPEG_MAX_SIDE:
        file_format = "PNG"
    with atomic(path) as draft:
        image.save(draft, file_format, quality=90)


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 so that it appears whole or not at all."""
    with atomic(path) as draft:
        draft.write_text(text, encoding="utf-8")
    return path


def _border(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return the pixels of a mask that have a 4-neighbor outside it."""
    inner = mask.copy()
    inner[1:] &= mask[:-1]
    inner[:-1] &= mask[1:]
    inner[:, 1:] &= mask[:, :-1]
    inner[:, :-1] &= mask[:, 1:]
    return np.asarray(mask & ~inner)
