"""ADE20K (Zhou et al. 2017), the 150 classes of the scene parsing challenge."""

from pathlib import Path

import numpy as np
from PIL import Image

from eval.core.dense import ClassMap, SemanticImage, SemanticSet
from eval.core.protocol import require
from incontext.data.pictures import IGNORE_INDEX

CLASSES = 150


def read(folder: Path) -> tuple[list[SemanticImage], list[SemanticImage]]:
    """List images/{training,validation}/NAME.jpg with annotations/…/NAME.png; 0 is unknown."""
    root = folder / "ADEChallengeData2016"
    root = root if root.is_dir() else folder

    def part(name: str) -> list[SemanticImage]:
        images = sorted(require(root / "images" / name).glob("*.jpg"))
        return [_image(image, root / f"annotations/{name}/{image.stem}.png") for image in images]

    return part("training"), part("validation")


def _image(image: Path, labels: Path) -> SemanticImage:
    def read_classes() -> ClassMap:
        ids = np.asarray(Image.open(require(labels)))
        return np.where(ids > 0, ids - 1, IGNORE_INDEX).astype(np.uint8)

    return SemanticImage(image.stem, image, read_classes)


SET = SemanticSet(
    "ade20k", "ADE20K semantic",
    "[ADEChallengeData2016/]{images,annotations}/{training,validation}/NAME", "ADE20K", CLASSES,
    read,
    (("SegGPT, tuned prompt", "39.6"), ("SegGPT, 1 example a class", "18.8"),
     ("SegGPT, 32 examples a class", "33.0")),
)  # fmt: skip
