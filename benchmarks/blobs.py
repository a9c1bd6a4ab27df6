"""Blobs: drawn images and their masks, for benchmarks that need many files."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


def blobs(seed: int, size: tuple[int, int]) -> tuple[Image.Image, Image.Image]:
    """Draw one to three red blobs on gray noise, and their mask of 0 and 1.

    Args:
        size: width and height.
    """
    rng = np.random.default_rng(seed)
    width, height = size
    image = Image.fromarray(rng.integers(90, 130, (height, width, 3), dtype=np.uint8))
    mask = Image.new("L", size)
    for _ in range(rng.integers(1, 4)):
        x, y, radius = rng.integers(width), rng.integers(height), height * rng.uniform(0.08, 0.2)
        box = (x - radius, y - radius, x + radius, y + radius)
        ImageDraw.Draw(image).ellipse(box, fill=(220, 60, 40))
        ImageDraw.Draw(mask).ellipse(box, fill=1)
    return image, mask


def write_blobs(folder: Path, count: int, size: tuple[int, int], suffix: str) -> list[Path]:
    """Write `count` images, FOLDER/00000.png …, and next to FOLDER example.png and mask.png."""
    folder.mkdir(parents=True)
    paths = [folder / f"{number:05d}{suffix}" for number in range(count)]
    for number, path in enumerate(paths):
        blobs(number, size)[0].save(path)
    image, mask = blobs(count, size)
    image.save(folder.parent / "example.png")
    mask.save(folder.parent / "mask.png")
    return paths
