"""Volumes: NIfTI files, whose slices are pictures with paths of their own.

A volume is to its slices what a folder is to its images: scan.nii.gz/coronal/012 is a picture, and
scan.nii.gz/coronal all of that plane. The file alone means its axial slices.
"""

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from incontext.errors import InputError, first_line
from incontext.images import contrast
from incontext.images.data_mask import Mask, attach

Values = np.ndarray[Any, Any]
Pixels = np.ndarray[Any, np.dtype[np.uint8]]

SUFFIXES = (".nii.gz", ".nii")
# Where x, y and the number of the slice lead to, as radiology shows it: the patient's left is on
# the right, the head is up in coronal and sagittal slices, the face in axial ones.
PLANES = {"axial": "LPS", "coronal": "LIP", "sagittal": "PIL"}
MAX_VOXELS = 2_000_000_000
EXTRA = "pip install 'incontext-seg[volumes]'"

_SLICE_PATH = re.compile(
    rf"(.+\.nii(?:\.gz)?)(?:/({'|'.join(PLANES)})(?:/([0-9]{{1,6}}))?)?", re.IGNORECASE | re.DOTALL
)


class SlicePath(NamedTuple):
    """The parts of a path that leads to a volume or into one; without a number it is all slices."""

    file: Path
    plane: str = "axial"
    number: int | None = None

    @classmethod
    def parse(cls, path: str | Path) -> "SlicePath | None":
        """Return the parts; None if the path has nothing to do with a volume."""
        match = _SLICE_PATH.fullmatch(Path(path).as_posix())
        if not match:
            return None
        number = None if match[3] is None else int(match[3])
        return cls(Path(match[1]), (match[2] or "axial").lower(), number)


@dataclass(frozen=True, eq=False)
class Volume:
    """Pictures that are the slices of one volume, and where its voxels lie in space.

    Attributes:
        name: what to call files that are made of it.
        path: its file, or the folder of its slices.
        slices: the pictures, in order.
        shape: of the stored array.
        affine: (4, 4), stored indices → millimeters to the right, to the front, up (RAS).
        orientation: nibabel's transform of the stored axes into (x, y, number of the slice).
        template: the NIfTI image, if it is one; voxels are read on demand.
    """

    name: str
    path: Path
    slices: Sequence[Path] = field(repr=False)
    shape: tuple[int, ...]
    affine: Values = field(repr=False)
    orientation: Values = field(repr=False)
    template: Any = field(default=None, repr=False)

    def cut(self, values: Values) -> Values:
        """Return stored values of this shape as slices, (N, H, W)."""
        from nibabel.orientations import apply_orientation

        stored = values.reshape((*self.shape, 1)[:3])
        return apply_orientation(stored, self.orientation).transpose(2, 1, 0)

    def join(self, slices: Sequence[Values]) -> Values:
        """Return slices, N of (H, W), as the stored array; the inverse of `cut`."""
        from nibabel.orientations import apply_orientation

        axes, flips = self.orientation.T
        inverse = np.stack([np.argsort(axes), flips[np.argsort(axes)]], 1)
        turned = apply_orientation(np.stack(slices).transpose(2, 1, 0), inverse)
        return turned.reshape(self.shape)


def import_nibabel(path: Path) -> Any:
    """Return the module nibabel; `path` is what needs it.

    Raises:
        InputError: it is not installed.
    """
    try:
        import nibabel
    except ImportError:
        raise InputError(f"{path}: a volume, which needs nibabel: {EXTRA}") from None
    return nibabel


def picture_file(path: Path) -> Path:
    """Return the file that a picture is in: its own, or that of the volume."""
    parts = SlicePath.parse(path)
    return parts.file if parts else path


def picture_name(path: Path) -> str:
    """Return the name of a picture's file, and of the slice in it: scan.nii.gz/axial/012."""
    return path.relative_to(picture_file(path).parent).as_posix()


def slice_paths(path: Path) -> list[Path]:
    """Return the pictures that the path of a volume, a plane of it or a slice stands for.

    Raises:
        InputError: see `open_volume`.
    """
    parts = SlicePath.parse(path)
    if parts is None or parts.number is not None:
        return [path]
    return list(open_volume(path).slices)


def open_volume(path: Path) -> Volume:
    """Open a volume, or a plane of it, without reading its voxels.

    Raises:
        InputError: no such file, damaged, not of three dimensions, colors; nibabel is missing.
    """
    parts = SlicePath.parse(path)
    if parts is None or not os.path.isfile(parts.file):
        raise InputError(f"{path}: no such volume; accepted: {', '.join(SUFFIXES)}")
    nibabel = import_nibabel(parts.file)
    try:
        image = nibabel.load(parts.file)
        shape = tuple(int(n) for n in image.shape)
        affine, dtype = np.asarray(image.affine, float), image.get_data_dtype()
    except Exception as error:  # nibabel and gzip have many
        raise InputError(
            f"{parts.file}: damaged volume ({type(error).__name__}: {first_line(error)})"
        ) from None
    if len(shape) < 2 or math.prod(shape[3:]) != 1 or 0 in shape:
        raise InputError(
            f"{parts.file}: {len(shape)}-D, {'×'.join(map(str, shape))}; accepted: 3-D volumes. "
            "Save those of a series one by one (nibabel.four_to_three)"
        )
    if math.prod(shape) > MAX_VOXELS or dtype.kind not in "iuf":
        raise InputError(
            f"{parts.file}: {math.prod(shape):,} voxels of {dtype}; accepted: integers and real "
            f"numbers, at most {MAX_VOXELS:,}"
        )
    try:
        orientation = _orientation(affine, PLANES[parts.plane])
    except (ValueError, np.linalg.LinAlgError):
        raise InputError(f"{parts.file}: its affine does not say where voxels lie") from None
    count = (*shape, 1)[int(np.argmax(orientation[:, 0] == 2))]
    name = re.sub(r"\.nii(\.gz)?$", "", parts.file.name, flags=re.IGNORECASE)
    return Volume(
        name if parts.plane == "axial" else f"{name}_{parts.plane}", parts.file,
        [parts.file / parts.plane / f"{n:03}" for n in range(count)], shape, affine, orientation,
        image,
    )  # fmt: skip


def _orientation(affine: Values, axes: str) -> Values:
    from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

    np.linalg.inv(affine)
    return ornt_transform(io_orientation(affine), axcodes2ornt(tuple(axes)))


def read_values(volume: Volume) -> Values:
    """Return the values of a NIfTI volume, scaled as its header says, in its stored shape.

    Raises:
        InputError: damaged.
    """
    try:
        return np.asanyarray(volume.template.dataobj)
    except Exception as error:  # nibabel, gzip and zlib have many
        raise InputError(
            f"{volume.path}: damaged volume ({type(error).__name__}: {first_line(error)})"
        ) from None


def read_slice(path: Path) -> Image.Image:
    """Read a slice of a volume as 8-bit gray.

    The percentiles 0.1 and 99.9 of the whole volume become 0 and 255; NaN is black, and no data.

    Raises:
        InputError: see `open_volume`; no such slice, no finite value.
    """
    parts = SlicePath.parse(path)
    if parts is None or not os.path.isfile(parts.file):
        raise InputError(f"{path}: no such volume")
    if parts.number is None:
        open_volume(path)  # what is wrong with it comes first
        raise InputError(
            f"{path}: a volume, not a picture; its slices are {parts.file}/axial/000, …, also "
            "coronal and sagittal"
        )
    status = parts.file.stat()
    pictures, masks = _pictures(parts.file, parts.plane, (status.st_size, status.st_mtime_ns))
    if parts.number >= len(pictures):
        raise InputError(f"{path}: no such slice; accepted: 0 … {len(pictures) - 1}")
    image = Image.fromarray(np.ascontiguousarray(pictures[parts.number]))
    attach(image, None if masks is None else masks[parts.number])
    return image


@lru_cache(maxsize=2)  # a compressed file can only be read from its beginning
def _pictures(file: Path, plane: str, version: tuple[int, int]) -> tuple[Pixels, Mask | None]:
    """Return all slices (N, H, W) of a file, and where they hold data (None: everywhere).

    Args:
        version: another for a file that was edited.
    """
    volume = open_volume(file / plane)
    try:
        values = read_values(volume)
        valid_mask = np.isfinite(values)
        return volume.cut(stretch(values)), None if valid_mask.all() else volume.cut(valid_mask)
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith(str(file)) else f"{file}: {text}") from None


def stretch(values: Values) -> Pixels:
    """Stretch numbers (H, W) or (N, H, W) to 0–255, see `contrast.stretch`; NaN becomes 0.

    Raises:
        InputError: no number is finite.
    """
    valid_mask = np.isfinite(values)
    if not valid_mask.any():
        raise InputError("no voxel holds a number")
    layers = (-1, *values.shape[-2:])
    levels = contrast.stretch(
        values.reshape(layers), valid_mask.reshape(layers), contrast.GENERAL
    ).reshape(values.shape)
    levels[~valid_mask] = 0
    return levels
