"""DAVIS 2016 and 2017 (Perazzi et al. 2016, Pont-Tuset et al. 2017), semi-supervised."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from eval.core.clips import VideoClip, VideoSet, read_ids
from incontext.errors import InputError


def clips(year: str, folder: Path, split: str) -> dict[str, Callable[[], VideoClip]]:
    """List the clips of ImageSets/YEAR/SPLIT.txt, in {JPEGImages,Annotations}/480p/NAME.

    2016 has one object: every id is 1.

    Raises:
        InputError: no such split.
    """
    split_file = folder / "ImageSets" / year / f"{split}.txt"
    if not split_file.is_file():
        raise InputError(f"{split_file}: no such file; accepted: the folder of DAVIS, unpacked")
    # 2016 lists pairs of files, 2017 names of clips.
    lines = [line.split()[0] for line in split_file.read_text().splitlines() if line.strip()]
    names = [line if "/" not in line else line.strip("/").split("/")[-2] for line in lines]
    return {name: partial(_clip, year, folder, name) for name in names}


def _clip(year: str, folder: Path, name: str) -> VideoClip:
    frames = sorted((folder / "JPEGImages/480p" / name).glob("*.jpg"))
    maps = [read_ids(p) for p in sorted((folder / "Annotations/480p" / name).glob("*.png"))]
    if not frames or len(maps) not in (1, len(frames)):  # test-dev has the first one only
        raise InputError(f"{name}: {len(frames)} frames and {len(maps)} annotations")
    if year == "2016":
        maps = [(ids > 0).astype(np.uint8) for ids in maps]
    truth = np.stack(maps) if len(maps) == len(frames) else None
    return VideoClip(name, frames, {0: maps[0]}, truth)


LAYOUT = "{JPEGImages,Annotations}/480p/NAME and ImageSets/YEAR/SPLIT.txt"
SETS = (
    VideoSet("davis-2016", "DAVIS 2016", LAYOUT, "DAVIS", "val", partial(clips, "2016")),
    VideoSet(
        "davis-2017", "DAVIS 2017", LAYOUT, "DAVIS", "val", partial(clips, "2017"),
        (("SegGPT", "75.6"), ("Painter", "34.6"), ("SINE", "77.0"),
         ("XMem (trained on video)", "87.7"), ("SAM 2.1-L (trained on video)", "90.7")),
    ),
)  # fmt: skip
