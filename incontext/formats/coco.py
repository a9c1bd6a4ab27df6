"""COCO: instance annotations as run lengths or polygons."""

import json
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from incontext.errors import InputError
from incontext.formats.annotated_image import AnnotatedImage, Size, image_folder
from incontext.formats.output import GENERATOR
from incontext.formats.polygons import Mask, polygons
from incontext.formats.results import LabelledImage, SegmentationLike
from incontext.inference.segmentation import write_text
from incontext.labels.coco import draw, encode_rle
from incontext.labels.coco_file import CocoFile
from incontext.labels.color_mask import MAX_ID
from incontext.labels.encodings import UNKNOWN, IdMap


class Coco:
    """A COCO file, collected result by result.

    One annotation for each id that an image shows: `category_id` is the id, `score` its presence,
    `quality` the expected IoU of its mask, if it is there.

    Args:
        outlines: write `segmentation` as polygons along the edges of pixels instead of compressed
            RLE.

    Raises:
        InputError: (from `add`) faster-coco-eval, or for outlines SciPy, is missing.
    """

    def __init__(self, *, outlines: bool = False) -> None:
        self.outlines = outlines
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.names: dict[int, str] = {}

    def add(self, file_name: str, result: SegmentationLike) -> None:
        """Add the result of one image."""
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
                **({"quality": round(result.quality[index], 6)} if index in result.quality else {}),
            })  # fmt: skip

    def _segmentation(self, mask: Mask) -> Any:
        if self.outlines:
            return [ring.ravel().tolist() for ring in polygons(mask)]
        return encode_rle(mask)

    def document(self) -> dict[str, Any]:
        """Return the content of the file."""
        categories = [{"id": i, "name": name} for i, name in sorted(self.names.items())]
        return {"images": self.images, "annotations": self.annotations, "categories": categories}

    def save(self, path: str | Path) -> Path:
        """Write the file; it appears whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        return write_text(Path(path), json.dumps(self.document()))


def write(results: Iterable[LabelledImage], out: Path, outlines: bool = False) -> Path:
    """Write all results to one file.

    Raises: see `Coco`; OSError: it cannot be written.
    """
    file = Coco(outlines=outlines)
    for result in results:
        file.add(result.file_name, result)
    return write_text(out, json.dumps({"info": {"description": GENERATOR}, **file.document()}))


write_outlines = partial(write, outlines=True)


def read(path: Path, images: Path | None) -> Iterator[AnnotatedImage]:
    """Yield every image of a COCO file; labels as `incontext.labels.coco.draw` draws them.

    An image without annotations is all background.

    Raises:
        InputError: see `CocoFile.read`; an image that is not found.
    """
    file = CocoFile.read(path)
    folder = image_folder(path, images)
    for entry in file.images:
        location = f"{path}: image {entry.file_name}"
        try:
            image = folder.find(entry.file_name)
        except InputError as error:
            raise InputError(f"{location}: {error}") from None
        read_labels = partial(_draw, entry.annotations)
        yield AnnotatedImage(location, image, read_labels, file.names, size=entry.size)


def _draw(annotations: list[Any], size: Size) -> IdMap:
    return draw(annotations, size, MAX_ID, UNKNOWN, omit=True)
