"""COCO-20i (Nguyen and Todorovic 2019), episodes of HSNet: 1000 a fold."""

from pathlib import Path

from eval.core.protocol import (
    Episode,
    FewShot,
    HSNetSampler,
    Item,
    class_item,
    load_plain_pickle,
    require,
)
from incontext.errors import InputError

EPISODES, FOLDS, CLASSES = 1000, 4, 80


def episodes(folder: Path, fold: int, shots: int) -> list[Episode]:
    """List HSNet's episodes: a class of the fold (FOLD, FOLD + 4, …), a query, examples.

    The split, splits/val/foldI.pkl, says which pictures hold which class (0 … 79); labels are
    annotations/NAME.png with class + 1.
    """
    root = require(folder / "COCO2014")
    images_by_class = load_plain_pickle(root / f"splits/val/fold{fold}.pkl")
    classes = [fold + FOLDS * v for v in range(CLASSES // FOLDS)]
    missing = [c for c in classes if not images_by_class.get(c)]
    if missing:
        raise InputError(f"{root}/splits/val/fold{fold}.pkl: no picture of class {missing[0]}")
    sampler, drawn_episodes = HSNetSampler(), []
    for _ in range(EPISODES):
        index = sampler.draw(classes)
        query = sampler.draw(images_by_class[index])
        names = sampler.draw_examples(images_by_class[index], query, shots)
        items = tuple(_item(root, name, index) for name in names)
        drawn_episodes.append(Episode(index, items, _item(root, query, index)))
    return drawn_episodes


def _item(root: Path, name: str, index: int) -> Item:
    labels = (root / "annotations" / name).with_suffix(".png")
    # In HSNet's maps 255 is never unknown: crowds count as their class.
    return class_item(root / name, labels, index + 1, ignore=False)


PROTOCOL = FewShot(
    "coco-20i", "COCO-20i", FOLDS,
    "COCO2014/val2014/NAME.jpg, COCO2014/annotations/val2014/NAME.png and "
    "COCO2014/splits/val/foldI.pkl (HSNet's)",
    "COCO", episodes,
    (("SegGPT", "56.1 / 67.9 in"), ("Painter", "32.8 / 32.6 in"), ("HSNet", "41.2 / 49.5"),
     ("VAT", "41.3 / 47.9"), ("Matcher", "52.7 / 60.7"), ("SINE", "64.5 / 66.1 in"),
     ("SANSA", "60.2 / 64.3"), ("INSID3", "57.6 / 65.1"), ("FoRIS", "60.9 / 68.4")),
)  # fmt: skip
