"""Formats of other tools, written from results: a module each, and the table of them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from incontext.errors import InputError, check_share
from incontext.formats import coco, cvat, geotiff, label_studio, nifti, voc, yolo
from incontext.formats.label_studio_config import config_path
from incontext.formats.output import check_output
from incontext.formats.results import LabelledImage, Selection, read_results


@dataclass(frozen=True)
class Format:
    """A format that results are exported to.

    Attributes:
        write: results, file or folder → what was written.
        suffix: of the file; "": a folder.
        description: one line for people.
        extra_files: file → files that are written with it.
    """

    write: Callable[[Iterable[LabelledImage], Path], Path]
    suffix: str
    description: str
    extra_files: Callable[[Path], list[Path]] = lambda out: []


FORMATS = {
    "coco": Format(coco.write, ".json", "COCO annotations, masks as RLE"),
    "coco-polygons": Format(coco.write_outlines, ".json", "COCO annotations, masks as polygons"),
    "yolo": Format(yolo.write, "", "YOLO segmentation: labels/*.txt and data.yaml"),
    "voc": Format(voc.write, "", "Pascal VOC: SegmentationClass/*.png and labelmap.txt"),
    "label-studio": Format(
        label_studio.write, ".json", "Label Studio tasks, masks as brush RLE",
        lambda out: [config_path(out)],
    ),
    "cvat": Format(cvat.write, ".xml", "CVAT for images 1.1, masks as run lengths"),
    "geotiff": Format(geotiff.write, "", "GeoTIFF with the source's georeference"),
    "nifti": Format(nifti.write, "", "NIfTI label volumes in the geometry of the scans"),
}  # fmt: skip


def export(
    folder: str | Path,
    name: str,
    out: str | Path,
    *,
    overwrite: bool = False,
    min_quality: float = 0.0,
    names: Mapping[int, str] | None = None,
) -> Path:
    """Write the results of `incontext segment` in another format; return what was written.

    Args:
        folder: the results.
        name: a key of `FORMATS`.
        out: file or folder to write.
        overwrite: replace an existing file, or files of the same names in a folder that is not
            empty; files of other names stay. The segmented images are never replaced.
        min_quality: expected IoU, 0–1, below which a mask is left out.
        names: of ids, in place of those that the results have.

    Raises:
        InputError: an unknown format, no results, an `out` that does not fit the format or exists
            already, a name for an unknown id, or a package that is missing.
        OSError: it cannot be written.
    """
    check_share("min_quality", min_quality)
    return export_selection(folder, name, out, Selection(min_quality, names or {}), overwrite)


def export_selection(
    folder: str | Path, name: str, out: str | Path, selection: Selection, overwrite: bool
) -> Path:
    """Write a selection of results, and count what was written, see `export`.

    Raises:
        InputError: see `export`.
        OSError: it cannot be written.
    """
    if name == "onnx":
        raise InputError("onnx is of a checkpoint: incontext export onnx --checkpoint NAME --out X")
    if name not in FORMATS:
        raise InputError(f"format {name!r}; accepted: {', '.join(FORMATS)}")
    fmt, out = FORMATS[name], Path(out)
    if fmt.suffix and (out.suffix.lower() != fmt.suffix or out.is_dir()):
        raise InputError(f"--out {out}: {name} is one file, named something{fmt.suffix}")
    if not fmt.suffix and out.is_file():
        raise InputError(f"--out {out} is a file; {name} is a folder")
    check_output(out, [out, *fmt.extra_files(out)] if fmt.suffix else [], overwrite)
    return fmt.write(selection.apply(read_results(folder)), out)
