"""Datasets of the field, an adapter a file; the tables of the few-shot and the video datasets."""

from eval.core.clips import VideoSet
from eval.core.protocol import FewShot
from eval.datasets import (
    coco20i,
    davis,
    folder,
    fss1000,
    isaid5i,
    isic,
    lvis92i,
    mose,
    paco_part,
    pascal5i,
    pascal_part,
    vessels,
    youtube_vos,
)  # fmt: skip

FEW_SHOT: dict[str, FewShot] = {
    protocol.name: protocol
    for protocol in (
        pascal5i.PROTOCOL, coco20i.PROTOCOL, fss1000.PROTOCOL, lvis92i.PROTOCOL,
        pascal_part.PROTOCOL, paco_part.PROTOCOL, *vessels.PROTOCOLS, isic.PROTOCOL,
        isaid5i.PROTOCOL, folder.PROTOCOL,
    )
}  # fmt: skip

VIDEOS: dict[str, VideoSet] = {
    videos.name: videos for videos in (*davis.SETS, *youtube_vos.SETS, *mose.SETS)
}
