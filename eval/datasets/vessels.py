"""Fundus vessels: DRIVE, CHASE_DB1, STARE, HRF; examples of the training part, all of the test.

A query is judged within the field of view where the dataset has one. Training parts: DRIVE's own;
the first 20 pictures of CHASE_DB1, 10 of STARE, 5 of each kind of HRF, as is usual.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from eval.core.protocol import Episode, FewShot, Item, Sampler, need, read_binary
from incontext.errors import InputError

Parts = tuple[list[Item], list[Item]]  # to show, to ask for


def _drive(root: Path) -> Parts:
    def part(name: str) -> list[Item]:
        items = []
        for image in sorted(need(root / name / "images").glob("*.tif")):
            number = image.name.split("_")[0]
            mask = need(root / name / f"1st_manual/{number}_manual1.gif")
            field = root / name / f"mask/{image.stem}_mask.gif"
            items.append(read_binary(image, mask, field if field.is_file() else None))
        return items

    return part("training"), part("test")


def _chase(root: Path) -> Parts:
    items = [
        read_binary(image, need(image.with_name(f"{image.stem}_1stHO.png")))
        for image in sorted(root.glob("Image_*.jpg"))
    ]
    return items[:20], items[20:]


def _stare(root: Path) -> Parts:
    images = sorted([*root.rglob("im*.ppm")], key=lambda p: p.name)
    images = [p for p in images if p.name.count(".") == 1]  # labels are im0001.ah.ppm
    labels = {p.name.split(".")[0]: p for p in root.rglob("im*.ah.ppm")}
    lacking = [p.stem for p in images if p.stem not in labels]
    if lacking:
        raise InputError(f"{root}: no {lacking[0]}.ah.ppm (Adam Hoover's labels, unpacked)")
    items = [read_binary(image, labels[image.stem]) for image in images]
    return items[:10], items[10:]


def _hrf(root: Path) -> Parts:
    shown: list[Item] = []
    asked: list[Item] = []
    for kind in ("dr", "g", "h"):
        images = sorted([*need(root / "images").glob(f"*_{kind}.[jJ][pP][gG]")])
        for number, image in enumerate(images):
            field = root / f"mask/{image.stem}_mask.tif"
            item = read_binary(
                image, need(root / f"manual1/{image.stem}.tif"), field if field.is_file() else None
            )
            (shown if number < 5 else asked).append(item)
    return shown, asked


def episodes(
    name: str, read: Callable[[Path], Parts], folder: Path, fold: int, shots: int
) -> list[Episode]:
    """The test's pictures, all with the same examples, drawn once."""
    shown, asked = read(need(folder / name))
    if len(shown) < shots or not asked:
        raise InputError(
            f"{folder / name}: {len(shown)} pictures to show and {len(asked)} to ask for; "
            f"{shots} examples were wanted"
        )
    order = Sampler().rng.permutation(len(shown))[:shots]
    examples = tuple(shown[i] for i in order)
    return [Episode(0, examples, query) for query in asked]


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
