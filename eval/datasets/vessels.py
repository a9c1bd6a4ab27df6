"""Fundus vessels: DRIVE, CHASE_DB1, STARE, HRF; examples of the training part, all of the test.

A query is scored within the field of view if the dataset has one. Training parts: DRIVE's own; the
first 20 images of CHASE_DB1, 10 of STARE, 5 of each kind of HRF, as is usual.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from eval.core.protocol import Episode, FewShot, HSNetSampler, Item, mask_item, require
from incontext.errors import InputError

Splits = tuple[list[Item], list[Item]]  # images for examples, images for queries


def _drive(root: Path) -> Splits:
    def part(name: str) -> list[Item]:
        items = []
        for image in sorted(require(root / name / "images").glob("*.tif")):
            number = image.name.split("_")[0]
            mask = require(root / name / f"1st_manual/{number}_manual1.gif")
            field = root / name / f"mask/{image.stem}_mask.gif"
            items.append(mask_item(image, mask, field if field.is_file() else None))
        return items

    return part("training"), part("test")


def _chase(root: Path) -> Splits:
    items = [
        mask_item(image, require(image.with_name(f"{image.stem}_1stHO.png")))
        for image in sorted(root.glob("Image_*.jpg"))
    ]
    return items[:20], items[20:]


def _stare(root: Path) -> Splits:
    images = sorted([*root.rglob("im*.ppm")], key=lambda p: p.name)
    images = [p for p in images if p.name.count(".") == 1]  # labels are im0001.ah.ppm
    labels = {p.name.split(".")[0]: p for p in root.rglob("im*.ah.ppm")}
    missing = [p.stem for p in images if p.stem not in labels]
    if missing:
        raise InputError(f"{root}: no {missing[0]}.ah.ppm (Adam Hoover's labels, unpacked)")
    items = [mask_item(image, labels[image.stem]) for image in images]
    return items[:10], items[10:]


def _hrf(root: Path) -> Splits:
    examples: list[Item] = []
    queries: list[Item] = []
    for kind in ("dr", "g", "h"):
        images = sorted([*require(root / "images").glob(f"*_{kind}.[jJ][pP][gG]")])
        for number, image in enumerate(images):
            field = root / f"mask/{image.stem}_mask.tif"
            item = mask_item(
                image,
                require(root / f"manual1/{image.stem}.tif"),
                field if field.is_file() else None,
            )
            (examples if number < 5 else queries).append(item)
    return examples, queries


def episodes(
    name: str, read: Callable[[Path], Splits], folder: Path, fold: int, shots: int
) -> list[Episode]:
    """List an episode for each test image, all with the same examples, drawn once.

    Raises:
        InputError: too few training images, or no test image.
    """
    train_items, test_items = read(require(folder / name))
    if len(train_items) < shots or not test_items:
        raise InputError(
            f"{folder / name}: {len(train_items)} pictures to show and {len(test_items)} to ask "
            f"for; {shots} examples were wanted"
        )
    order = HSNetSampler().rng.permutation(len(train_items))[:shots]
    examples = tuple(train_items[i] for i in order)
    return [Episode(0, examples, query) for query in test_items]


LAYOUTS = {
    "DRIVE": (_drive, "DRIVE/{training,test}/{images,1st_manual,mask}"),
    "CHASE_DB1": (_chase, "CHASE_DB1/Image_NNL.jpg and Image_NNL_1stHO.png"),
    "STARE": (_stare, "STARE/**/im0001.ppm and im0001.ah.ppm"),
    "HRF": (_hrf, "HRF/{images,manual1,mask}"),
}

PROTOCOLS = tuple(
    FewShot(
        name.lower().partition("_")[0], name, 1, layout, "fundus", partial(episodes, name, read),
        (("GF-SAM", "8.6 (fundus vessels)"), ("INSID3", "12.3 (fundus vessels)"),
         ("FoRIS", "19.7 (fundus vessels)")),
    )
    for name, (read, layout) in LAYOUTS.items()
)  # fmt: skip
