"""Pictures and masks that the tests of the command line write, and the results that they read."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (24, 20)  # width, height of the example
IDS = np.zeros(SIZE[::-1], np.uint8)
IDS[3:12, 4:14] = 1
IDS[10:18, 12:22] = 3
RED, GREEN = (255, 0, 0), (0, 255, 0)
COLORED = np.zeros((*IDS.shape, 3), np.uint8)
COLORED[IDS == 1] = RED
COLORED[IDS == 3] = GREEN


def photo(path: Path, size: tuple[int, int] = SIZE, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def mask(path: Path, array: np.ndarray = IDS, **options: object) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


def palette_mask(path: Path) -> Path:
    image = Image.fromarray(IDS)
    image.putpalette([0, 0, 0, 9, 200, 9, 0, 0, 0, 12, 34, 56])
    image.save(path)
    return path


def results(out: Path) -> dict[str, dict]:
    return json.loads((out / "results.json").read_text())
