"""Volumes that the tests draw and write with nibabel and pydicom."""

from pathlib import Path

import numpy as np
import pytest

nibabel = pytest.importorskip("nibabel", reason="needs nibabel (volumes extra)")
pydicom = pytest.importorskip("pydicom", reason="needs pydicom (volumes extra)")

# Millimeters to the right, to the front, up; 1.5 × 1 × 3 a voxel.
AFFINE = np.array([[-1.5, 0, 0, 30], [0, -1.0, 0, 20], [0, 0, 3.0, -10], [0, 0, 0, 1]])


def drawn_ids() -> np.ndarray:
    """Ids of a body that is not symmetric in any direction, (left, back, up) = (24, 20, 8)."""
    x, y, z = np.mgrid[:24, :20, :8]
    ids = np.zeros(x.shape, np.uint8)
    ids[(x - 8) ** 2 + (y - 7) ** 2 + (3 * (z - 3)) ** 2 < 30] = 1
    ids[(x - 17) ** 2 + (y - 13) ** 2 < 12] = 3
    return ids


def drawn_scan(ids: np.ndarray) -> np.ndarray:
    """Values between about -200 and 1500, the brighter the higher the id, int16."""
    noise = np.random.default_rng(0).normal(0, 30, ids.shape)
    return (noise - 100 + 500.0 * ids).astype(np.int16)


def turn(values: np.ndarray, axes: str) -> tuple[np.ndarray, np.ndarray]:
    """A volume (left, back, up) stored along other directions, and the affine that says so."""
    from nibabel.orientations import (
        apply_orientation,
        axcodes2ornt,
        inv_ornt_aff,
        io_orientation,
        ornt_transform,
    )

    transform = ornt_transform(io_orientation(AFFINE), axcodes2ornt(tuple(axes)))
    return apply_orientation(values, transform), AFFINE @ inv_ornt_aff(transform, values.shape)


def nifti(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE, **header: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values, affine, dtype=values.dtype)
    for key, value in header.items():
        image.header[key] = value
    nibabel.save(image, path)
    return path


def dicom(path: Path, stored: np.ndarray, **tags: object) -> Path:
    """A file of one slice (row, column): int16 or uint16 gray, or uint8 RGB."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    path.parent.mkdir(parents=True, exist_ok=True)
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, generate_uid()
    data.SeriesInstanceUID, data.Modality = "1.2.3", "CT"
    data.Rows, data.Columns = stored.shape[:2]
    data.SamplesPerPixel = 3 if stored.ndim == 3 else 1
    data.PhotometricInterpretation = "RGB" if stored.ndim == 3 else "MONOCHROME2"
    if stored.ndim == 3:
        data.PlanarConfiguration = 0
    data.BitsAllocated = data.BitsStored = 8 * stored.dtype.itemsize
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(stored.dtype.kind == "i")
    data.PixelData = stored.tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.save_as(path, enforce_file_format=True)
    return path


def series(folder: Path, values: np.ndarray, **tags: object) -> Path:
    """A series of axial slices of values (left, back, up); names are not in order of place."""
    for number in range(values.shape[2]):
        place = (AFFINE @ [0, 0, number, 1])[:3] * [-1, -1, 1]
        dicom(
            folder / f"IM{(number * 5) % values.shape[2]:04}",
            np.ascontiguousarray(values[:, :, number].T),
            **{
                "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1.0, 1.5],
                "ImagePositionPatient": list(map(float, place)), "SliceThickness": 3.0, **tags,
            },
        )  # fmt: skip
    return folder
