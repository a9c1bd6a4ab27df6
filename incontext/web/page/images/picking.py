"""Picking: a region from one click or a box, grown here or predicted by SAM."""

from functools import cache
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage import color, filters, morphology, segmentation

Array = np.ndarray[Any, Any]
SIDE = 384  # pixels; larger pictures are grown smaller: quicker, and less taken in by texture
Box = tuple[int, int, int, int]  # left, top, right, bottom


def grow_click(picture: Image.Image, at: tuple[int, int], tolerance: float) -> Array:
    """Return the connected region whose colors are like those at (x, y): (H, W) bool.

    Args:
        tolerance: distance in CIELAB that still belongs, 2 … 60.
    """
    small, scale = _shrink(picture)
    lab = filters.gaussian(color.rgb2lab(np.asarray(small)), 1, channel_axis=2)
    x, y = (min(int(v * scale), limit - 1) for v, limit in zip(at, small.size, strict=True))
    near = lab[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3].reshape(-1, 3)
    gap = np.linalg.norm(lab - np.median(near, 0), axis=2)
    gap[y, x] = 0
    parts, _ = ndimage.label(gap <= tolerance)
    return _enlarge(_smooth(parts == parts[y, x], (x, y)), picture)


def grow_box(picture: Image.Image, box: Box) -> Array:
    """Return what stands out inside a box, (H, W) bool: a random walk from its middle, against its
    surroundings (Grady 2006)."""
    small, scale = _shrink(picture)
    left, top, right, bottom = (round(v * scale) for v in box)
    right, bottom = max(right, left + 3), max(bottom, top + 3)
    pad_x, pad_y = (right - left) // 4 + 2, (bottom - top) // 4 + 2
    x, y = max(0, left - pad_x), max(0, top - pad_y)
    part = np.asarray(small)[y : bottom + pad_y, x : right + pad_x]
    seeds = np.full(part.shape[:2], 2, np.int32)
    seeds[top - y : bottom - y, left - x : right - x] = 0
    y_third, x_third = (bottom - top) // 3, (right - left) // 3
    rows = slice(top - y + y_third, bottom - y - y_third)
    seeds[rows, left - x + x_third : right - x - x_third] = 1
    if not (seeds == 1).any() or not (seeds == 2).any():
        inside = seeds != 2
    else:
        lab = color.rgb2lab(part) / 100
        inside = segmentation.random_walker(lab, seeds, beta=400, mode="cg_j", channel_axis=2) == 1
    mask = np.zeros((small.height, small.width), bool)
    mask[y : y + part.shape[0], x : x + part.shape[1]] = inside
    return _enlarge(mask, picture)


def _shrink(picture: Image.Image) -> tuple[Image.Image, float]:
    scale = min(1.0, SIDE / max(picture.size))
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.BOX), scale


def _enlarge(mask: Array, picture: Image.Image) -> Array:
    """Resize a mask to the image's size, its border smooth."""
    soft = Image.fromarray((mask * 255).astype(np.uint8)).resize(
        picture.size, Image.Resampling.BILINEAR
    )
    return np.asarray(soft) > 127


def _smooth(mask: Array, at: tuple[int, int]) -> Array:
    """Remove holes and hairs, but never the pixel that was clicked."""
    solid = ndimage.binary_fill_holes(mask)
    parts, _ = ndimage.label(morphology.opening(solid, morphology.disk(1)))
    part = parts[at[1], at[0]]
    return parts == part if part else solid


class Sam:
    """A promptable model of transformers (SAM), for clicks and boxes."""

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor

    @classmethod
    @cache
    def cached(cls, name: str) -> "Sam | None":
        """Return the model if its weights are in the hub's cache or in a folder, else None."""
        try:
            from transformers import SamModel, SamProcessor

            model = SamModel.from_pretrained(name, local_files_only=True).eval()
            return cls(model, SamProcessor.from_pretrained(name, local_files_only=True))
        except (ImportError, OSError, ValueError):
            return None

    def pick(self, picture: Image.Image, at: tuple[int, int] | None, box: Box | None) -> Array:
        """Return the region at (x, y), or in a box: (H, W) bool."""
        import torch

        cue: dict[str, Any] = {"input_points": [[list(at)]]} if at else {}
        if box:
            cue["input_boxes"] = [[[float(v) for v in box]]]
        inputs = self.processor(picture, return_tensors="pt", **cue)
        with torch.inference_mode():
            out = self.model(**inputs)
        masks = self.processor.image_processor.post_process_masks(
            out.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"]
        )[0][0]
        return np.asarray(masks[int(out.iou_scores[0, 0].argmax())], bool)
