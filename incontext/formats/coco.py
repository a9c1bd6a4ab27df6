"""COCO: instance annotations as run lengths or polygons."""

import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from incontext.coco import encode_rle
from incontext.formats.labelled import Answered, Labelled
from incontext.formats.outline import polygons
from incontext.segmentation import write_text


class Coco:
    """A COCO file, gathered result by result.

    One annotation for each id that a picture shows: `category_id` is the id, `score` its presence.

    Args:
        outlines: `segmentation` as polygons along the edges of pixels instead of compressed RLE.

    Raises:
        InputError: (from `add`) faster-coco-eval, or for outlines SciPy, is missing.
    """

    def __init__(self, *, outlines: bool = False) -> None:
        self.outlines = outlines
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.names: dict[int, str] = {}

    def add(self, file_name: str, result: Answered) -> None:
        """One picture more."""
        height, width = result.labels.shape
        number = len(self.images) + 1
        self.images.append({"id": number, "file_name": file_name, "width": width, "height": height})
        self.names |= result.names
        for index, presence in result.presence.items():
            mask = np.asarray(result.labels == index)
            if not mask.any():
                continue
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            left, top = int(columns[0]), int(rows[0])
            self.annotations.append({
                "id": len(self.annotations) + 1, "image_id": number, "category_id": index,
                "segmentation": self._segmentation(mask), "area": int(mask.sum()), "iscrowd": 0,
                "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
                "score": round(float(presence), 6),
            })  # fmt: skip

    def _segmentation(self, mask: "np.ndarray[Any, np.dtype[np.bool_]]") -> Any:
        if self.outlines:
            return [ring.ravel().tolist() for ring in polygons(mask)]
        return encode_rle(mask)

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
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_text(path, json.dumps(self.document()))


def write(results: Iterable[Labelled], out: Path, outlines: bool = False) -> Path:
    """All results in one file; `file_name` is that of the picture, with the folders that tell
    it from others of the same name.

    Raises: see `Coco`; OSError: it cannot be written.
    """
    made = Coco(outlines=outlines)
    for one in results:
        made.add(str(Path(one.name).with_name(one.source.name)), one)
    return made.save(out)


write_outlines = partial(write, outlines=True)
