"""NIfTI: labels of whole volumes, which lie where the voxels of their scans lie."""

import gzip
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from incontext.errors import InputError
from incontext.files import atomic
from incontext.formats.annotated_image import AnnotatedImage, stored_labels
from incontext.formats.output import check_not_source
from incontext.formats.results import LabelledImage
from incontext.images import dicom, volume
from incontext.images.folder import list_images
from incontext.images.volume import SlicePath, Volume
from incontext.labels.color_mask import MAX_ID
from incontext.labels.encodings import IdMap

MAX_SHIFT = 0.1  # of a voxel, that labels may lie beside their scan


def write(results: Iterable[LabelledImage], out: Path) -> Path:
    """Write NAME.nii.gz for each volume: ids, uint8 or uint16, in the geometry of the scan.

    Slices of NIfTI volumes go back to the voxels that they were taken from. DICOM series become
    NIfTI too, stored as (column, row, slice).

    Raises:
        InputError: nibabel is missing, a source is no slice, or a slice of a volume has no result.
        OSError: it cannot be written.
    """
    volumes: dict[Path, Volume] = {}  # of each slice
    pending: dict[Volume, dict[Path, IdMap]] = {}
    scan_paths: dict[Path, Path] = {}  # of each file that was written
    for result in results:
        source = result.source
        if source not in volumes:
            opened = _open_source(source)
            volumes |= dict.fromkeys(opened.slices, opened)
        scan = volumes[source]
        label_maps = pending.setdefault(scan, {})
        label_maps[source] = result.labels
        if len(label_maps) == len(scan.slices):
            wide = max(result.names, default=0) > 255
            folder = Path(result.name).parent.parent  # of a series, without its own name
            folder = folder if scan.template is None else folder.parent  # scan/axial/012
            path = out / folder / f"{scan.name}.nii.gz"
            check_not_source(path, scan.path)
            if scan_paths.setdefault(path, scan.path) != scan.path:
                raise InputError(f"{scan_paths[path]} and {scan.path} would both become {path}")
            _write_labels(path, scan, pending.pop(scan), wide)
    for scan, label_maps in pending.items():
        raise InputError(
            f"{scan.path}: results of {len(label_maps)} of {len(scan.slices)} slices; segment the "
            "others first: what has no result is not background"
        )
    return out


def _open_source(source: Path) -> Volume:
    """Open the volume or the series that an image is a slice of."""
    if SlicePath.parse(source):
        return volume.open_volume(source)
    if dicom.is_dicom(source):
        return dicom.open_series(source)
    raise InputError(f"{source}: no slice of a NIfTI volume or a DICOM series (or it is gone)")


def _write_labels(path: Path, scan: Volume, label_maps: dict[Path, IdMap], wide: bool) -> None:
    nibabel = volume.import_nibabel(path)
    values = scan.join([label_maps[p] for p in scan.slices]).astype(np.uint16 if wide else np.uint8)
    if scan.template is None:
        image = nibabel.Nifti1Image(values, scan.affine)
        image.header.set_xyzt_units("mm")
        image.set_sform(scan.affine, "scanner")
    else:
        header = scan.template.header.copy()
        header.set_data_dtype(values.dtype)
        header["cal_min"] = header["cal_max"] = 0  # how the scan was to be shown
        image = type(scan.template)(values, scan.template.affine, header)
    image.header.set_intent("label")
    with (
        atomic(path) as draft,
        draft.open("wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
    ):
        image.to_stream(packed)


def nifti_files(folder: Path) -> list[Path]:
    """Return the NIfTI files of a folder, to any depth, sorted."""
    return [p for p in list_images(folder, suffixes=volume.SUFFIXES).paths if is_nifti(p)]


def is_nifti(path: Path) -> bool:
    """Return whether a path is a NIfTI file, by its name."""
    return path.name.lower().endswith(volume.SUFFIXES) and path.is_file()


def read(path: Path, images: Path | None) -> Iterator[AnnotatedImage]:
    """Yield the labelled slices of a label volume, or of all in a folder.

    Ids are the values as they are. The scans are in `images`: a volume (or a plane or slice of it),
    a folder of a DICOM series, or a folder of those under the names of the label volumes.

    Raises:
        InputError: nibabel is missing, no such scan, labels that are not whole numbers or do not
            lie where their scan does.
    """
    if images is None:
        raise InputError(f"{path}: label volumes; say where their scans are: images= (--images)")
    for file in nifti_files(path) if path.is_dir() else [path]:
        scan_path = images if SlicePath.parse(images) else _find_scan(file, path, images)
        scan = _open_scan(scan_path)
        parts = SlicePath.parse(scan_path)
        ids = scan.cut(_read_ids(file, scan))
        for number, (slice_path, label_map) in enumerate(zip(scan.slices, ids, strict=True)):
            selected = parts is None or parts.number in (None, number)
            if selected and (label_map > 0).any():
                location = f"{file}: {volume.picture_name(slice_path)}"
                labels = np.ascontiguousarray(label_map)
                yield AnnotatedImage(location, slice_path, partial(stored_labels, labels))


def _find_scan(file: Path, labels: Path, images: Path) -> Path:
    """Return the scan of a label volume in a folder of scans, or the folder of its one series."""
    relative = file.relative_to(labels) if labels.is_dir() else Path(file.name)
    stem = relative.name[: relative.name.lower().rindex(".nii")]
    names = (relative.name, *(f"{stem}{suffix}" for suffix in volume.SUFFIXES), stem)
    for name in names:
        if (images / relative.with_name(name)).exists():
            return images / relative.with_name(name)
    if labels.is_dir():
        raise InputError(f"{file}: no scan of this name in {images}")
    return images


def _open_scan(path: Path) -> Volume:
    if SlicePath.parse(path):
        return volume.open_volume(path)
    return dicom.open_series(path)


def _read_ids(file: Path, scan: Volume) -> IdMap:
    """Return the ids of a label volume, (I, J, K) int32, in the stored axes of its scan."""
    from nibabel.orientations import (
        apply_orientation,
        inv_ornt_aff,
        io_orientation,
        ornt_transform,
    )

    labels = volume.open_volume(file)
    values = volume.read_values(labels).reshape((*labels.shape, 1)[:3])
    _check_ids(file, values)
    turn = ornt_transform(io_orientation(labels.affine), io_orientation(scan.affine))
    turned = apply_orientation(values, turn).astype(np.int32)
    shape = (*scan.shape, 1)[:3]
    if turned.shape != shape:
        raise InputError(
            f"{file}: {_text(values.shape)} voxels, its scan {scan.path} is {_text(shape)}; they "
            "must have the same shape"
        )
    affine = labels.affine @ inv_ornt_aff(turn, values.shape)
    corners = np.array(np.meshgrid(*((0, n - 1) for n in shape), [1])).reshape(4, -1)
    shift = np.abs(np.linalg.solve(scan.affine, affine @ corners) - corners).max()
    if not shift <= MAX_SHIFT:  # nor not a number
        raise InputError(
            f"{file}: lies elsewhere than its scan {scan.path}, by {shift:.1f} voxels; store it "
            "with the scan's affine"
        )
    return turned


def _check_ids(file: Path, values: "np.ndarray[Any, Any]") -> None:
    """Raise InputError unless all values are ids."""
    if values.dtype.kind == "f" and not (values == np.round(values)).all():  # NaN neither
        wrong = values[values != np.round(values)][0]
        raise InputError(f"{file}: {wrong} is no id; accepted: whole numbers (is it the scan?)")
    if values.min() < 0 or values.max() > MAX_ID:
        raise InputError(f"{file}: ids {values.min()} … {values.max()}; accepted: 0 … {MAX_ID}")


def _text(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
