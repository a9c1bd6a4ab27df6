"""YouTube-VOS 2018 (Xu et al. 2018): objects may appear midway."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from eval.core.clips import VideoClip, VideoSet, read_ids
from incontext.errors import InputError
from incontext.video.annotations import NewObjects


def clips(folder: Path, split: str) -> dict[str, Callable[[], VideoClip]]:
    """List the clips of SPLIT/JPEGImages/ID, with SPLIT/Annotations/ID.

    Annotations are those of the frames in which objects appear. Where all frames have annotations
    (`train`), they are the truth, and an object is given in the first frame that shows it.

    Raises:
        InputError: no such split.
    """
    root = folder / split
    if not (root / "JPEGImages").is_dir():
        raise InputError(f"{root}/JPEGImages: no such folder; accepted: the dataset, unpacked")
    folders = sorted((root / "JPEGImages").iterdir())
    return {clip_folder.name: partial(_clip, root, clip_folder) for clip_folder in folders}


def _clip(root: Path, clip_folder: Path) -> VideoClip:
    frames = sorted(clip_folder.glob("*.jpg"))
    stems = {p.stem: number for number, p in enumerate(frames)}
    annotations = sorted((root / "Annotations" / clip_folder.name).glob("*.png"))
    strange = [p for p in annotations if p.stem not in stems]
    if strange:
        raise InputError(f"{strange[0]}: no such frame")
    if not annotations:
        raise InputError(f"{clip_folder}: no annotation")
    maps = {stems[p.stem]: read_ids(p) for p in annotations}
    truth = np.stack(list(maps.values())) if len(maps) == len(frames) else None
    return VideoClip(clip_folder.name, frames, _first_labels(maps), truth)


def _first_labels(maps: dict[int, Any]) -> dict[int, Any]:
    """Return the labels of each object in the first frame that shows it."""
    labels: dict[int, Any] = {}
    known_ids = set[int]()
    for number, ids in maps.items():
        new_ids = {int(i) for i in np.unique(ids) if i} - known_ids
        if new_ids:  # objects of earlier frames are to be predicted
            new_labels = np.where(np.isin(ids, list(new_ids)), ids, 0)
            labels[number] = NewObjects(new_labels) if known_ids else new_labels
            known_ids |= new_ids
    return labels


LAYOUT = "SPLIT/{JPEGImages,Annotations}/ID"
SETS = (
    VideoSet(
        "youtube-vos", "YouTube-VOS 2018 (published: G)", LAYOUT, "YouTube-VOS", "valid", clips,
        (("SegGPT", "74.7"), ("Painter", "24.1"), ("SINE", "66.2"),
         ("XMem (trained on video)", "86.1")),
    ),
)  # fmt: skip
