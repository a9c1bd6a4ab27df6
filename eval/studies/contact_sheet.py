"""`python -m eval look`: results on pictures picked before looking, on one sheet for the eye."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from eval.studies.common import ImageSet, binary_ids, still_sets
from incontext import Example, Predictor
from incontext.data.pictures import IGNORE_INDEX

SIDE = 128  # pixels of a picture on the sheet


def run(folder: Path, checkpoint: str, count: int, examples: int, out: Path, seed: int = 0) -> None:
    """Write a sheet: for each result example, query with the truth, query with the answer.

    Sets, classes and pictures are drawn by `seed`; the IoU stands on each row.
    """
    predictor = Predictor.from_pretrained(checkpoint)
    sets = [ImageSet.read(path) for path in still_sets(folder)]
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        data = sets[number % len(sets)]
        index = int(rng.choice([c for c, held in data.holders.items() if len(held) > examples]))
        *shown, query = rng.choice(data.holders[index], examples + 1, replace=False)
        masks = [binary_ids(data.labels[i], index) for i in shown]
        pairs = [Example(data.images[i], m, ignore=-1) for i, m in zip(shown, masks, strict=True)]
        result = predictor.predict(data.images[query], predictor.prompt(pairs, kind="semantic"))
        truth, known = data.labels[query] == index, data.labels[query] != IGNORE_INDEX
        mask = result.mask(1) & known
        iou = 100 * (mask & truth).sum() / max(1, (mask | truth).sum())
        views = [
            _shown(data.images[shown[0]], masks[0] == 1), _shown(data.images[query], truth),
            _shown(data.images[query], result.mask(1)),
        ]  # fmt: skip
        rows.append(_row(f"{number} {data.name} {iou:.0f}", views))
        print(f"{number:3d} {data.name:12s} {data.classes[index]:16s} IoU {iou:5.1f}")
    columns = 3
    rows += [np.zeros_like(rows[0])] * (-len(rows) % columns)
    lines = [np.concatenate(rows[i : i + columns], 1) for i in range(0, len(rows), columns)]
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(lines, 0)).save(out)


def _shown(picture: Image.Image, mask: np.ndarray) -> np.ndarray:
    """The picture with the mask in red over it, (SIDE, SIDE, 3)."""
    rgb = np.array(picture)
    rgb[mask] = rgb[mask] // 3 + np.array((170, 0, 0), np.uint8)
    return np.asarray(Image.fromarray(rgb).resize((SIDE, SIDE)))


def _row(title: str, views: list[np.ndarray]) -> np.ndarray:
    """Views side by side under a title."""
    bar = Image.new("RGB", (SIDE * len(views) + 6, 14))
    ImageDraw.Draw(bar).text((2, 1), title, fill=(255, 255, 255))
    pictures = np.concatenate([*views, np.zeros((SIDE, 6, 3), np.uint8)], 1)
    return np.concatenate([np.asarray(bar), pictures], 0)
