"""ADE20K (Zhou et al. 2017), the 150 classes of the scene parsing challenge."""

from pathlib import Path

import numpy as np
from PIL import Image

from eval.core.dense import VOID, Labelled, Map, SemanticSet
from eval.core.protocol import need

CLASSES = 150


def parts(folder: Path) -> tuple[list[Labelled], list[Labelled]]:
    """images/{training,validation}/NAME.jpg and annotations/…/NAME.png, 0: other, left out."""
    root = folder / "ADEChallengeData2016"
    root = root if root.is_dir() else folder

    def part(name: str) -> list[Labelled]:
        images = sorted(need(root / "images" / name).glob("*.jpg"))
        return [_labelled(image, root / f"annotations/{name}/{image.stem}.png") for image in images]

    return part("training"), part("validation")


def _labelled(image: Path, labels: Path) -> Labelled:
    def classes() -> Map:
        ids = np.asarray(Image.open(need(labels)))
        return np.where(ids > 0, ids - 1, VOID).astype(np.uint8)

    return Labelled(image.stem, image, classes)


SET = SemanticSet(
    "ade20k", "ADE20K semantic",
    "[ADEChallengeData2016/]{images,annotations}/{training,validation}/NAME", "ADE20K", CLASSES,
    parts,
    (("SegGPT, tuned prompt", "39.6"), ("SegGPT, 1 example a class", "18.8"),
     ("SegGPT, 32 examples a class", "33.0")),
)  # fmt: skip
