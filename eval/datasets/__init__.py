"""Datasets of the field: an adapter a file, and the table of the few-shot ones."""

from eval.datasets import (
    coco20i,
    folder,
    fss1000,
    isaid5i,
    isic,
    lvis92i,
    paco_part,
    pascal5i,
    pascal_part,
    vessels,
)  # fmt: skip
from eval.protocol import FewShot

FEW_SHOT: dict[str, FewShot] = {
    one.name: one
    for one in (
        pascal5i.PROTOCOL, coco20i.PROTOCOL, fss1000.PROTOCOL, lvis92i.PROTOCOL,
        pascal_part.PROTOCOL, paco_part.PROTOCOL, *vessels.PROTOCOLS, isic.PROTOCOL,
        isaid5i.PROTOCOL, folder.PROTOCOL,
    )
}  # fmt: skip
