"""DICOM: slices and radiographs as gray pictures, and the series that slices belong to."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from incontext.errors import InputError, first_line
from incontext.images.volume import EXTRA, Pixels, Values, Volume, stretch

SUFFIXES = (".dcm", ".dicom", ".ima")
FAR = 1e9  # far outside of any window
GEOMETRY = (
    "SeriesInstanceUID", "Rows", "Columns", "ImageOrientationPatient", "ImagePositionPatient",
    "PixelSpacing", "SliceThickness",
)  # fmt: skip
MAX_DEVIATION = 0.1  # of the distance of slices, that the place of one may be off


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM, whatever its name."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM" and path.name.upper() != "DICOMDIR"
    except (OSError, ValueError):  # a NUL in the name; said where it is read
        return False


def may_be_dicom(name: str) -> bool:
    """Return whether a file name lacks a suffix, as those of scanners often do (IM0001, 1.2.84)."""
    suffix = name.rpartition(".")[2]
    return not name.startswith(".") and (suffix == name or suffix.isdecimal())


def read(path: Path, max_pixels: int) -> Image.Image:
    """Read a DICOM file of one frame as 8-bit gray, or RGB if it has colors.

    Gray values are rescaled, and the first window of the file becomes 0–255, or else its
    percentiles 0.1 to 99.9; MONOCHROME1 is inverted.

    Args:
        max_pixels: larger images are refused before they are read.

    Raises:
        InputError: pydicom is missing, damaged, no image, several frames, a compression that cannot
            be read here.
    """
    dataset = _open(path)
    try:
        _check_size(dataset, max_pixels)
        return Image.fromarray(np.ascontiguousarray(_pixels(dataset)))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # pydicom and its decoders raise nearly anything
        syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
        raise InputError(
            f"{path}: DICOM that cannot be decoded here ({getattr(syntax, 'name', syntax)}; "
            f"{type(error).__name__}: {first_line(error)})"
        ) from None


def _check_size(dataset: Any, max_pixels: int) -> None:
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    if not rows or not columns:
        raise InputError("a DICOM file without a picture in it")
    if rows * columns > max_pixels:
        raise InputError(
            f"{columns}×{rows} is more than {max_pixels // 10**6} megapixels; cut it into parts "
            "first"
        )
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise InputError(
            f"{dataset.NumberOfFrames} frames; accepted: one for each file, or a NIfTI volume made "
            "of them (dcm2niix)"
        )


def _open(path: Path, **options: Any) -> Any:
    try:
        import pydicom
    except ImportError:
        raise InputError(f"{path}: DICOM, which needs pydicom: {EXTRA}") from None
    try:
        dataset = pydicom.dcmread(path, **options)
        for name in GEOMETRY:
            dataset.get(name)  # values are decoded when they are asked for
        return dataset
    except Exception as error:  # see read
        raise InputError(
            f"{path}: damaged DICOM ({type(error).__name__}: {first_line(error)})"
        ) from None


def _pixels(dataset: Any) -> Pixels:
    """Return (H, W) gray or (H, W, 3) RGB."""
    from pydicom.pixels.processing import apply_color_lut, apply_modality_lut

    values, photometric = dataset.pixel_array, dataset.PhotometricInterpretation
    if photometric == "PALETTE COLOR":
        values = apply_color_lut(values, dataset)
        return (values >> 8 if values.dtype == np.uint16 else values).astype(np.uint8)
    if values.ndim == 3 and values.shape[-1] == 3 and values.dtype == np.uint8:
        return values
    if not photometric.startswith("MONOCHROME") or values.ndim != 2:
        raise InputError(f"{photometric} of {values.dtype}; accepted: gray, or 8-bit colors")
    gray = _window(apply_modality_lut(values, dataset), dataset)
    return 255 - gray if photometric == "MONOCHROME1" else gray


def _window(values: Values, dataset: Any) -> Pixels:
    """Return rescaled values (H, W) as the file's window, or its table of grays, shows them."""
    from pydicom.pixels.processing import apply_voi, apply_windowing

    if dataset.get("WindowCenter") is not None and dataset.get("WindowWidth") is not None:
        try:
            with np.errstate(over="ignore"):  # of a sigmoid
                low, high = apply_windowing(np.array([-FAR, FAR]), dataset)
                levels = (apply_windowing(values, dataset) - low) / (high - low)
            return np.round(levels.clip(0, 1) * 255).astype(np.uint8)
        except ValueError:  # of a width of 0
            return stretch(values)
    if dataset.get("VOILUTSequence"):
        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        levels = apply_voi(np.rint(values).astype(np.int32), dataset) / (2**bits - 1)
        return np.round(levels.clip(0, 1) * 255).astype(np.uint8)
    return stretch(values)


def open_series(path: Path) -> Volume:
    """Open the series of slices in a folder, or the one that a file belongs to.

    Raises:
        InputError: no DICOM, several series, slices that do not make up a volume; pydicom is
            missing.
    """
    folder = path if path.is_dir() else path.parent
    series: dict[str, list[tuple[Path, Any]]] = {}
    for file in sorted(folder.iterdir()):
        if file.is_file() and is_dicom(file):
            header = _open(file, stop_before_pixels=True, specific_tags=list(GEOMETRY))
            if header.get("Rows"):
                series.setdefault(str(header.get("SeriesInstanceUID")), []).append((file, header))
    if path.is_dir() and len(series) > 1:
        raise InputError(
            f"{path}: slices of {len(series)} series (such as {min(series)}); accepted: one; "
            "give each a folder of its own"
        )
    groups = [slices for slices in series.values() if path.is_dir() or path in dict(slices)]
    if not groups:
        raise InputError(f"{path}: no slices of a DICOM series")
    uid = str(groups[0][0][1].get("SeriesInstanceUID"))
    name = folder.resolve().name
    return _stack(folder, name if len(series) == 1 else f"{name}_{uid}", groups[0])


def _stack(folder: Path, name: str, slices: list[tuple[Path, Any]]) -> Volume:
    """Return slices as a volume, in order from the first to the last place."""
    try:
        positions = np.array([h.ImagePositionPatient for _, h in slices], float)
        positions = positions.reshape(len(slices), 3)
        grids = {
            (h.Rows, h.Columns, *map(float, h.PixelSpacing),
             *(round(float(v), 3) for v in h.ImageOrientationPatient))
            for _, h in slices
        }  # fmt: skip
        first = slices[0][1]
        x, y = np.array(first.ImageOrientationPatient, float).reshape(2, 3)
        spacing_y, spacing_x = map(float, first.PixelSpacing)
        thickness = float(first.get("SliceThickness") or 1)
        size = int(first.Columns), int(first.Rows)
        if not all(np.isfinite([*positions.flat, *x, *y])) or min(spacing_x, spacing_y) <= 0:
            raise ValueError("numbers that are none")
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"{folder}: slices that do not say where they lie ({first_line(error)})"
        ) from None
    if len(grids) > 1:
        raise InputError(
            f"{folder}: slices of different size, spacing or direction in one series; accepted: "
            "those of one volume"
        )
    normal = np.cross(x, y)
    order = np.argsort(positions @ normal, kind="stable")
    positions, count = positions[order], len(slices)
    step = normal * thickness
    if count > 1:
        step = (positions[-1] - positions[0]) / (count - 1)
    places = positions[0] + np.arange(count)[:, None] * step
    distance = float(np.linalg.norm(step))
    if np.abs(positions - places).max() > MAX_DEVIATION * distance or not distance:
        raise InputError(
            f"{folder}: slices that are not evenly spaced: some are missing, or several lie at one "
            "place (a series over time)"
        )
    affine = np.eye(4)
    affine[:3] = np.stack([x * spacing_x, y * spacing_y, step, positions[0]], 1)
    affine[:2] *= -1  # DICOM counts to the left and to the back
    return Volume(
        name, folder, [slices[n][0] for n in order], (*size, count), affine,
        np.array([[0, 1], [1, 1], [2, 1]]),
    )  # fmt: skip
