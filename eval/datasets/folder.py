"""Any folder of images/ and masks/ (or labels/): binary episodes of each id in turn."""

from pathlib import Path

import numpy as np
from PIL import Image

from eval.core.protocol import Episode, FewShot, Ids, Item, require
from incontext import Example
from incontext.data.pictures import IGNORE_INDEX
from incontext.errors import InputError
from incontext.images.folder import SUFFIXES, list_images
from incontext.training.validation import binary_episodes

EPISODES = 200


def episodes(folder: Path, fold: int, shots: int) -> list[Episode]:
    """List 200 episodes, seed 0: each id in turn, its images drawn without replacement.

    Masks may be whatever `incontext.Example` reads, so 255 is unknown in id maps and 0/255 masks
    have id 1.

    Raises:
        InputError: an image without a mask, or no id with more than `shots` images.
    """
    images = list_images(require(folder / "images"), recursive=False).paths
    masks = [_find_mask(folder, image) for image in images]
    images_by_id: dict[int, list[int]] = {}
    for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
        for index in _example(image, mask).labels.present:
            images_by_id.setdefault(index, []).append(number)
    plan = list(binary_episodes(images_by_id, shots, EPISODES))
    if not plan:
        raise InputError(f"{folder}: no id is on more than {shots} pictures, so nothing to ask")
    read_episodes = []
    for episode in plan:
        items = [_item(images[i], masks[i], episode.index) for i in episode.images]
        read_episodes.append(Episode(episode.index, tuple(items[:-1]), items[-1]))
    return read_episodes


def _find_mask(folder: Path, image: Path) -> Path:
    for subfolder in ("masks", "labels"):
        for suffix in (".png", *sorted(SUFFIXES)):
            path = folder / subfolder / f"{image.stem}{suffix}"
            if path.is_file():
                return path
    raise InputError(f"{image}: no mask of that name in {folder}/masks or {folder}/labels")


def _example(image: Path, mask: Path) -> Example:
    """Read an example; 255 is unknown, unless there is no other value: then it is white."""
    with Image.open(mask) as stored:
        colors = stored.getcolors() if stored.mode in ("L", "P") else None
    ids = {value for _, value in colors or ()} - {0, IGNORE_INDEX}
    return Example(image, mask, ignore=IGNORE_INDEX if ids else None)


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
