"""`python -m eval look`: results on images drawn before looking, on one sheet for the eye."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from eval.studies.common import ImageSet, set_paths
from incontext import Predictor

SIDE = 128  # pixels of an image on the sheet
COLUMNS = 3


def run(folder: Path, checkpoint: str, count: int, examples: int, out: Path, seed: int = 0) -> None:
    """Write a sheet: for each result the example, the query with its truth, and the prediction.

    Sets, classes and images are drawn by `seed`; the IoU stands above each result.
    """
    predictor = Predictor.from_pretrained(checkpoint)
    sets = [ImageSet.read(path) for path in set_paths(folder)]
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        data = sets[number % len(sets)]
        classes = [c for c, images in data.images_by_class.items() if len(images) > examples]
        index = int(rng.choice(classes))
        *shots, query = rng.choice(data.images_by_class[index], examples + 1, replace=False)
        prompt = predictor.prompt([data.example(i, index) for i in shots], kind="semantic")
        prediction = predictor.predict(data.images[query], prompt).mask(1)
        truth, ignore_mask = data.truth(query, index)
        mask = prediction & ~ignore_mask
        iou = 100 * (mask & truth).sum() / max(1, (mask | truth).sum())
        views = [
            _overlay(data.images[shots[0]], data.binary_ids(shots[0], index) == 1),
            _overlay(data.images[query], truth), _overlay(data.images[query], prediction),
        ]  # fmt: skip
        rows.append(_with_title(f"{number} {data.name} {iou:.0f}", views))
        print(f"{number:3d} {data.name:12s} {data.classes[index]:16s} IoU {iou:5.1f}")
    rows += [np.zeros_like(rows[0])] * (-len(rows) % COLUMNS)
    lines = [np.concatenate(rows[i : i + COLUMNS], 1) for i in range(0, len(rows), COLUMNS)]
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(lines, 0)).save(out)


def _overlay(image: Image.Image, mask: np.ndarray) -> np.ndarray:
    """Draw a mask in red over an image, (SIDE, SIDE, 3)."""
    rgb = np.array(image)
    rgb[mask] = rgb[mask] // 3 + np.array((170, 0, 0), np.uint8)
    return np.asarray(Image.fromarray(rgb).resize((SIDE, SIDE)))


def _with_title(title: str, views: list[np.ndarray]) -> np.ndarray:
    """Put views side by side under a title."""
    bar = Image.new("RGB", (SIDE * len(views) + 6, 14))
    ImageDraw.Draw(bar).text((2, 1), title, fill=(255, 255, 255))
    images = np.concatenate([*views, np.zeros((SIDE, 6, 3), np.uint8)], 1)
    return np.concatenate([np.asarray(bar), images], 0)
