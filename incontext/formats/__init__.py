"""Formats of other tools, written from results: a module each, and the table of them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from incontext.errors import InputError
from incontext.formats import coco, cvat, geotiff, label_studio, voc, yolo
from incontext.formats.labelled import Labelled, read_results


@dataclass(frozen=True)
class Format:
    """How a format is written: into a file with this suffix, or ("") a folder."""

    write: Callable[[Iterable[Labelled], Path], Path]
    suffix: str
    what: str


FORMATS = {
    "coco": Format(coco.write, ".json", "COCO annotations, masks as RLE"),
    "coco-polygons": Format(coco.write_outlines, ".json", "COCO annotations, masks as polygons"),
    "yolo": Format(yolo.write, "", "YOLO segmentation: labels/*.txt and data.yaml"),
    "voc": Format(voc.write, "", "Pascal VOC: SegmentationClass/*.png and labelmap.txt"),
    "label-studio": Format(label_studio.write, ".json", "Label Studio tasks, masks as brush RLE"),
    "cvat": Format(cvat.write, ".xml", "CVAT for images 1.1, masks as run lengths"),
    "geotiff": Format(geotiff.write, "", "GeoTIFF with the source's georeference"),
}


def export(folder: str | Path, name: str, out: str | Path) -> Path:
    """Write what `incontext segment` left in a folder in another format; what was written.

    Raises:
        InputError: an unknown format, no results, a name that does not fit, or a package that is
            missing.
        OSError: it cannot be written.
    """
    if name not in FORMATS:
        raise InputError(f"format {name!r}; accepted: {', '.join(FORMATS)}")
    one, out = FORMATS[name], Path(out)
    if one.suffix and (out.suffix.lower() != one.suffix or out.is_dir()):
        raise InputError(f"--out {out}: {name} is one file, named something{one.suffix}")
    if not one.suffix and out.is_file():
        raise InputError(f"--out {out} is a file; {name} is a folder")
    return one.write(read_results(folder), out)
