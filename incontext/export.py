"""Export: results in the formats of other tools."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from incontext.coco import encode_rle
from incontext.segmentation import Segmentation, write_text


class Coco:
    """A COCO file of instance annotations, gathered result by result.

    One annotation for each id that a picture shows: `category_id` is the id, `score` its presence,
    `segmentation` compressed RLE. Raises InputError without faster-coco-eval.
    """

    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.names: dict[int, str] = {}

    def add(self, file_name: str, result: Segmentation) -> None:
        """One picture more."""
        height, width = result.labels.shape
        number = len(self.images) + 1
        self.images.append({"id": number, "file_name": file_name, "width": width, "height": height})
        self.names |= result.names
        for index, presence in result.presence.items():
            mask = result.mask(index)
            if not mask.any():
                continue
            rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
            left, top = int(columns[0]), int(rows[0])
            self.annotations.append({
                "id": len(self.annotations) + 1, "image_id": number, "category_id": index,
                "segmentation": encode_rle(mask), "area": int(mask.sum()), "iscrowd": 0,
                "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
                "score": round(float(presence), 6),
            })  # fmt: skip

    def document(self) -> dict[str, Any]:
        """What the file says."""
        categories = [{"id": i, "name": name} for i, name in sorted(self.names.items())]
        return {
            "images": self.images, "annotations": self.annotations, "categories": categories,
        }  # fmt: skip

    def save(self, path: str | Path) -> Path:
        """Write the file; it appears whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        return write_text(Path(path), json.dumps(self.document()))
