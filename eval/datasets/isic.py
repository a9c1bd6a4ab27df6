"""ISIC 2018 task 1 (Codella et al. 2019): skin lesions; with class folders as in CD-FSS."""

from pathlib import Path

from eval.core.protocol import Episode, FewShot, HSNetSampler, Item, mask_item, require
from incontext.errors import InputError

IMAGES, MASKS = "ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"
ENDING = "_segmentation.png"


def episodes(folder: Path, fold: int, shots: int) -> list[Episode]:
    """List an episode for every image; examples are drawn from its class as for FSS-1000.

    Cross-domain few-shot work (PATNet, CD-FSS) sorts the images into folders 1, 2 and 3 by
    diagnosis; without these there is one class, "lesion".
    """
    root = folder / "ISIC" if (folder / "ISIC").is_dir() else folder
    images = require(root / IMAGES)
    groups = sorted(p for p in images.iterdir() if p.is_dir()) or [images]
    sampler, drawn_episodes = HSNetSampler(), []
    for index, group in enumerate(groups):
        names = [p.stem for p in sorted(group.glob("*.jpg"))]
        if len(names) < 2:
            raise InputError(f"{group}: {len(names)} pictures; an episode needs two or more")
        for name in names:
            examples = sampler.draw_examples(names, name, shots)
            items = tuple(_item(root, group, example) for example in examples)
            drawn_episodes.append(Episode(index, items, _item(root, group, name)))
    return drawn_episodes


def _item(root: Path, group: Path, name: str) -> Item:
    paths = (root / MASKS / f"{name}{ENDING}", root / MASKS / group.name / f"{name}{ENDING}")
    return mask_item(group / f"{name}.jpg", next((p for p in paths if p.is_file()), paths[0]))


PROTOCOL = FewShot(
    "isic", "ISIC 2018", 1,
    f"{IMAGES}/[1,2,3/]NAME.jpg and {MASKS}/NAME_segmentation.png",
    "ISIC", episodes,
)  # fmt: skip
