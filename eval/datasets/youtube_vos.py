"""YouTube-VOS 2018 (Xu et al. 2018): objects come up midway."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from eval.core.clips import Clip, VideoSet, ids_of
from incontext.errors import InputError
from incontext.video.predictor import Added


def clips(folder: Path, split: str) -> dict[str, Callable[[], Clip]]:
    """SPLIT/JPEGImages/ID, SPLIT/Annotations/ID with the frames that objects come up in.

    Where all frames have annotations (`train`), they are the truth, and an object is given in the
    first frame that shows it.
    """
    root = folder / split
    if not (root / "JPEGImages").is_dir():
        raise InputError(f"{root}/JPEGImages: no such folder; accepted: the dataset, unpacked")
    places = sorted((root / "JPEGImages").iterdir())
    return {place.name: partial(_clip, root, place) for place in places}


def _clip(root: Path, place: Path) -> Clip:
    frames = sorted(place.glob("*.jpg"))
    stems = {p.stem: number for number, p in enumerate(frames)}
    found = sorted((root / "Annotations" / place.name).glob("*.png"))
    strange = [p for p in found if p.stem not in stems]
    if strange or not found:
        raise InputError(f"{strange[0]}: no such frame" if strange else f"{place}: no annotation")
    maps = {stems[p.stem]: ids_of(p) for p in found}
    truth = np.stack(list(maps.values())) if len(maps) == len(frames) else None
    return Clip(place.name, frames, _given(maps), truth)


def _given(maps: dict[int, Any]) -> dict[int, Any]:
    """Labels of the frames in which objects come up; of later frames the new ones only."""
    given: dict[int, Any] = {}
    known = set[int]()
    for number, ids in maps.items():
        new = {int(i) for i in np.unique(ids) if i} - known
        if new:  # what else is there is to be predicted
            alone = np.where(np.isin(ids, list(new)), ids, 0)
            given[number] = Added(alone) if known else alone
            known |= new
    return given


LAYOUT = "SPLIT/{JPEGImages,Annotations}/ID"
SETS = (
    VideoSet(
        "youtube-vos", "YouTube-VOS 2018 (published: G)", LAYOUT, "YouTube-VOS", "valid", clips,
        (("SegGPT", "74.7"), ("Painter", "24.1"), ("SINE", "66.2"),
         ("XMem (trained on video)", "86.1")),
    ),
)  # fmt: skip
