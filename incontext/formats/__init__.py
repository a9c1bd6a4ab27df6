"""Formats of other tools, written from results: a module each, and the table of them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from incontext.batch.records import read_all
from incontext.errors import InputError
from incontext.formats import coco, cvat, geotiff, label_studio, voc, yolo
from incontext.formats.overwrite_guard import check_folder, mark
from incontext.formats.results import Labelled, read_results


@dataclass(frozen=True)
class Format:
    """How a format is written: into a file with this suffix, or ("") a folder.

    `taken`: what of that folder is written anew; `pictures`: a folder in it that pictures go to.
    """

    write: Callable[[Iterable[Labelled], Path], Path]
    suffix: str
    what: str
    taken: Callable[[Path], Iterable[Path]] = lambda out: ()
    pictures: str = ""


FORMATS = {
    "coco": Format(coco.write, ".json", "COCO annotations, masks as RLE"),
    "coco-polygons": Format(coco.write_outlines, ".json", "COCO annotations, masks as polygons"),
    "yolo": Format(
        yolo.write, "", "YOLO segmentation: labels/*.txt and data.yaml",
        lambda out: [out / name for name in yolo.TAKEN], yolo.PICTURES,
    ),
    "voc": Format(
        voc.write, "", "Pascal VOC: SegmentationClass/*.png and labelmap.txt",
        lambda out: [out / name for name in voc.TAKEN], voc.PICTURES,
    ),
    "label-studio": Format(label_studio.write, ".json", "Label Studio tasks, masks as brush RLE"),
    "cvat": Format(cvat.write, ".xml", "CVAT for images 1.1, masks as run lengths"),
    "geotiff": Format(geotiff.write, "", "GeoTIFF with the source's georeference", geotiff.tifs),
}  # fmt: skip


def export(folder: str | Path, name: str, out: str | Path) -> Path:
    """Write what `incontext segment` left in a folder in another format; what was written.

    Raises:
        InputError: an unknown format, no results, a name that does not fit, something there that
            no earlier export wrote, or a package that is missing.
        OSError: it cannot be written.
    """
    if name == "onnx":
        raise InputError("onnx is of a checkpoint: incontext export onnx --checkpoint NAME --out X")
    if name not in FORMATS:
        raise InputError(f"format {name!r}; accepted: {', '.join(FORMATS)}")
    one, out = FORMATS[name], Path(out)
    if one.suffix and (out.suffix.lower() != one.suffix or out.is_dir()):
        raise InputError(f"--out {out}: {name} is one file, named something{one.suffix}")
    if not one.suffix and out.is_file():
        raise InputError(f"--out {out} is a file; {name} is a folder")
    if one.suffix:
        return one.write(read_results(folder), out)
    check_folder(out, name, _taken(one, Path(folder), out))
    path = one.write(_marking(read_results(folder), out, name), out)
    mark(out, name)
    return path


def _taken(one: Format, folder: Path, out: Path) -> Iterator[Path]:
    """What of an existing folder would be replaced; a picture not by itself."""
    yield from one.taken(out)
    if not one.pictures or not (out / one.pictures).exists():
        return
    for name, entry in read_all(folder)[1].items():
        source = Path(entry["source"]["path"])
        for suffix in {source.suffix, ".png"}:
            path = out / one.pictures / f"{name}{suffix}"
            if path.exists() and not (source.exists() and path.samefile(source)):
                yield path


def _marking(results: Iterator[Labelled], out: Path, name: str) -> Iterator[Labelled]:
    """The results; once there is one the folder is marked, before anything is written."""
    for number, one in enumerate(results):
        if not number:
            mark(out, name)
        yield one
