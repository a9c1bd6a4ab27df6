"""Any folder of images/ and masks/ (or labels/): binary episodes of each id in turn."""

from pathlib import Path

import numpy as np
from PIL import Image

from eval.core.protocol import VOID, Episode, FewShot, Ids, Item, need
from incontext import Example
from incontext.errors import InputError
from incontext.images.image import SUFFIXES
from incontext.training.validation import binary_episodes

EPISODES = 200


def episodes(folder: Path, fold: int, shots: int) -> list[Episode]:
    """200 episodes, seed 0: each id in turn, pictures that hold it drawn without replacement.

    Masks may be whatever `incontext.Example` reads, so 255 is unknown in id maps and 0/255 masks
    have id 1.
    """
    images = sorted(p for p in need(folder / "images").iterdir() if p.suffix.lower() in SUFFIXES)
    masks = [_mask_of(folder, image) for image in images]
    holders: dict[int, list[int]] = {}
    for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
        for index in _example(image, mask).labels.present:
            holders.setdefault(index, []).append(number)
    drawn = list(binary_episodes(holders, shots, EPISODES))
    if not drawn:
        raise InputError(f"{folder}: no id is on more than {shots} pictures, so nothing to ask")
    found = []
    for episode in drawn:
        items = [_item(images[i], masks[i], episode.index) for i in episode.pictures]
        found.append(Episode(episode.index, tuple(items[:-1]), items[-1]))
    return found


def _mask_of(folder: Path, image: Path) -> Path:
    for place in ("masks", "labels"):
        for suffix in (".png", *sorted(SUFFIXES)):
            path = folder / place / f"{image.stem}{suffix}"
            if path.is_file():
                return path
    raise InputError(f"{image}: no mask of that name in {folder}/masks or {folder}/labels")


def _example(image: Path, mask: Path) -> Example:
    """255 is unknown, unless there is nothing else: then it is white."""
    with Image.open(mask) as picture:
        colors = picture.getcolors() if picture.mode in ("L", "P") else None
    ids = {value for _, value in colors or ()} - {0, VOID}
    return Example(image, mask, ignore=VOID if ids else None)


def _item(image: Path, mask: Path, index: int) -> Item:
    def read() -> tuple[Image.Image, Ids]:
        example = _example(image, mask)
        ids = (example.labels.ids == index).astype(np.int16)
        ids[example.labels.ids < 0] = -1
        return example.image, ids

    return Item(image.stem, read)


PROTOCOL = FewShot(
    "folder", "folder", 1,
    "images/NAME.* and masks/NAME.png (or labels/NAME.png); ids are classes, 255 is unknown",
    "folder", episodes,
)  # fmt: skip
