"""MOSE (Ding et al. 2023): crowded scenes, in YouTube-VOS's layout."""

from eval.core.clips import VideoSet
from eval.datasets.youtube_vos import LAYOUT, clips

SETS = (
    VideoSet(
        "mose", "MOSE", LAYOUT, "MOSE", "valid", clips,
        (("SegGPT", "45.1"), ("Painter", "14.5"), ("XMem (trained on video)", "57.6"),
         ("SAM 2.1-L (trained on video)", "74.6")),
    ),
)  # fmt: skip
