"""Slices of volumes as pictures: which pixels they show, in which contrast, and what is refused."""

import os
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from incontext import InputError, read_examples, read_image
from incontext.batch.inputs import file_hash, find_images
from incontext.images.data_mask import data_mask
from incontext.images.volume import open_volume, stretch
from tests.images.volumes import AFFINE, dicom, drawn_ids, drawn_scan, nibabel, nifti, series, turn


def gray(path) -> np.ndarray:
    return np.asarray(read_image(path))[..., 0].astype(int)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".NII.GZ"])
@pytest.mark.parametrize("axes", ["LPS", "RAS", "SAR", "PIL", "ASL"])
def test_slices_look_alike_however_they_are_stored(tmp_path, axes, suffix):
    scan = drawn_scan(drawn_ids())
    shown = stretch(scan).astype(int)
    path = nifti(tmp_path / f"a{suffix}", *turn(scan, axes))
    assert np.array_equal(gray(path / "axial/005"), shown[:, :, 5].T)  # left is right, face up
    assert np.array_equal(gray(path / "coronal/7"), shown[:, 7, ::-1].T)  # left is right, head up
    # From right to left: the face is on the left, the head up.
    assert np.array_equal(gray(path / "sagittal/003"), shown[3, :, ::-1].T)


@pytest.mark.parametrize(
    "dtype", ["uint8", "int16", "uint16", "int32", "int64", "float32", "float64", ">i2", ">f4"]
)
def test_data_types(tmp_path, dtype):
    scan = (drawn_scan(drawn_ids()).astype(float) + 300).clip(0, 2000) / 10
    path = nifti(tmp_path / "a.nii.gz", scan.astype(dtype))
    assert np.array_equal(gray(path / "axial/002"), stretch(scan.astype(dtype))[:, :, 2].T)


def test_scaled_values_count(tmp_path):
    """A falling slope turns bright into dark."""
    scan = drawn_scan(drawn_ids())
    image = nibabel.Nifti1Image(scan, AFFINE)
    image.header.set_slope_inter(-2, 1000)
    image.to_filename(tmp_path / "a.nii")
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[352:] = scan.tobytes("F")  # nibabel divides values by the slope as it writes
    (tmp_path / "a.nii").write_bytes(content)
    assert np.array_equal(gray(tmp_path / "a.nii/axial/004"), stretch(1000.0 - 2 * scan)[:, :, 4].T)


def test_contrast_is_the_volumes_and_outliers_do_not_count(tmp_path):
    values = np.linspace(0, 100, 30 * 30 * 10, dtype=np.float32).reshape(30, 30, 10)
    values[3, 3, 3], values[4, 4, 4] = 1e9, np.nan
    path = nifti(tmp_path / "a.nii", values)
    shown = np.stack([gray(path / f"axial/{n}") for n in range(10)])
    assert shown.max() == 255
    assert 120 < np.median(shown) < 135
    flipped = open_volume(path).cut(values)
    assert shown[np.isnan(flipped)] == 0
    masks = [data_mask(read_image(path / f"axial/{n}")) for n in range(10)]
    lacking = [n for n, mask in enumerate(masks) if mask is not None]
    assert lacking == [int(np.argwhere(np.isnan(flipped))[0, 0])]
    assert np.array_equal(masks[lacking[0]], ~np.isnan(flipped[lacking[0]]))


def test_constant_volume_is_gray(tmp_path):
    assert (gray(nifti(tmp_path / "a.nii", np.full((4, 5, 6), 7.0)) / "axial/000") == 128).all()


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1), (5, 6, 7, 1, 1)])
def test_shapes_of_three_dimensions_and_fewer(tmp_path, shape):
    values = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    volume = open_volume(nifti(tmp_path / "a.nii", values))
    slices = volume.cut(values)
    assert slices.shape == (len(volume.slices), 6, 5)
    assert np.array_equal(volume.join(slices), values)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("axes", ["LPS", "RAS", "SAR", "PIL", "ASL", "IRP"])
def test_joining_undoes_cutting(tmp_path, axes, plane):
    values, affine = turn(drawn_ids(), axes)
    volume = open_volume(nifti(tmp_path / "a.nii", values, affine) / plane)
    assert np.array_equal(volume.join(volume.cut(values)), values)


@pytest.mark.parametrize(
    ("values", "inside", "text"),
    [
        (np.zeros((4, 5, 6, 3)), "", "a.nii: 4-D, 4×5×6×3; accepted: 3-D volumes"),
        (np.zeros((4, 5, 6), np.complex64), "", "a.nii: 120 voxels of complex64"),
        (np.full((4, 5, 6), np.nan), "/axial/000", "a.nii: no voxel holds a number"),
        (np.zeros((4, 5, 6)), "", "a volume, not a picture; its slices are"),
        (np.zeros((4, 5, 6)), "/coronal", "a volume, not a picture; its slices are"),
        (np.zeros((4, 5, 6)), "/axial/006", "no such slice; accepted: 0 … 5"),
    ],
)
def test_what_is_no_slice_is_refused(tmp_path, values, inside, text):
    nifti(tmp_path / "a.nii", values)
    with pytest.raises(InputError) as error:
        read_image(f"{tmp_path}/a.nii{inside}")
    assert text in str(error.value)


def test_damaged_volumes_are_named(tmp_path):
    path = nifti(tmp_path / "a.nii.gz", drawn_scan(drawn_ids()))
    path.write_bytes(path.read_bytes()[:3000])
    (tmp_path / "b.nii").write_bytes(b"nothing")
    for name in ("a.nii.gz/axial/000", "b.nii/axial/000"):
        with pytest.raises(InputError, match=rf"{name[:5]}.*: damaged volume"):
            read_image(tmp_path / name)
    with pytest.raises(InputError, match="no such volume"):
        read_image(tmp_path / "c.nii/axial/000")


def test_an_edited_volume_is_read_anew(tmp_path):
    path = nifti(tmp_path / "a.nii", np.zeros((4, 5, 6), np.int16))
    assert (gray(path / "axial/000") == 128).all()
    nifti(path, np.arange(120, dtype=np.int16).reshape(4, 5, 6))
    os.utime(path, ns=(1, 1))
    assert gray(path / "axial/000").std() > 10


def test_volumes_are_folders_of_slices(tmp_path):
    scan = drawn_scan(drawn_ids())
    nifti(tmp_path / "in/deep/a.nii.gz", scan)
    nifti(tmp_path / "in/b.nii", np.zeros((4, 5, 6, 3)))
    Image.new("RGB", (9, 9)).save(tmp_path / "in/c.png")
    names = [image.name for image in find_images([tmp_path / "in"], tmp_path / "out")]
    # The volume that cannot be read is listed, so that it is reported as a picture would be.
    assert names == ["b", "c", *(f"deep/a/axial/{n:03}" for n in range(8))]
    path = tmp_path / "in/deep/a.nii.gz"
    assert len(find_images([path / "sagittal"], tmp_path / "out")) == 24
    [one] = find_images([path / "coronal/011"], tmp_path / "out")
    assert (one.name, one.path) == ("a/coronal/011", path / "coronal/011")
    assert file_hash(one.path) == f"{file_hash(path)}/coronal/011"


def test_dicom_is_rescaled_and_windowed(tmp_path):
    stored = np.array([[864, 964], [1064, 1164], [1264, 1364]], np.uint16)  # HU -160 … 340
    tags = {
        "RescaleSlope": 1, "RescaleIntercept": -1024, "WindowCenter": [40, 300],
        "WindowWidth": [401, 9],
    }  # fmt: skip
    path = dicom(tmp_path / "a.dcm", stored, **tags)
    expected = np.round((stored - 1024.0 + 160.5) / 400 * 255).clip(0, 255)
    assert np.abs(gray(path) - expected).max() <= 1
    inverted = dicom(tmp_path / "b", stored, **tags, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(gray(inverted), 255 - gray(path))


@pytest.mark.parametrize("window", [{}, {"WindowCenter": 40, "WindowWidth": 0}])
def test_dicom_without_a_usable_window_is_stretched(tmp_path, window):
    stored = drawn_scan(drawn_ids())[:, :, 2]
    assert np.array_equal(gray(dicom(tmp_path / "a.ima", stored, **window)), stretch(stored))


def test_dicom_colors_stay(tmp_path):
    colors = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    assert np.array_equal(np.asarray(read_image(dicom(tmp_path / "a.dcm", colors))), colors)


def test_dicom_files_are_found_by_their_content(tmp_path):
    folder = series(tmp_path / "in/ct", drawn_scan(drawn_ids()))
    dicom(folder / "x.dcm", np.zeros((4, 4), np.uint16))
    dicom(folder / "1.2.840", np.zeros((4, 4), np.uint16))
    (folder / "README").write_text("no picture")
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    names = [image.name for image in find_images([folder], tmp_path / "out")]
    assert names == ["1.2", *(f"IM{n:04}" for n in range(8)), "x"]


@pytest.mark.parametrize(
    ("tags", "text"),
    [
        ({"NumberOfFrames": 3}, "3 frames; accepted: one for each file"),
        ({"PixelData": b"12"}, "cannot be decoded here (Explicit VR Little Endian"),
        ({"Rows": 60_000, "Columns": 60_000}, "more than 200 megapixels"),
        ({"Rows": 0}, "a DICOM file without a picture in it"),
    ],
)
def test_dicom_that_is_refused(tmp_path, tags, text):
    path = dicom(tmp_path / "a.dcm", np.zeros((4, 4), np.uint16), **tags)
    with pytest.raises(InputError) as error:
        read_image(path)
    assert text in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.filterwarnings("ignore")
def test_damage_anywhere_is_one_sentence(tmp_path, seed):
    """Bytes of the header changed, or the end cut off: read, or an InputError."""
    scan, folder = drawn_scan(drawn_ids()), tmp_path / "ct"
    labels = nifti(tmp_path / "labels.nii", drawn_ids())
    tags = {"RescaleSlope": 2, "RescaleIntercept": 1, "WindowCenter": 3, "WindowWidth": 4}
    whole = {
        nifti(tmp_path / "a.nii", scan): 352,
        next(series(folder, scan[:, :, :1], **tags).iterdir()): 900,
    }
    rng = np.random.default_rng(seed)
    for path, head in whole.items():
        content = path.read_bytes()
        pictures, images = (path, folder) if path.parent == folder else (path / "axial/000", path)
        for _ in range(60):
            damaged = bytearray(content)
            for _ in range(rng.integers(1, 6)):
                damaged[rng.integers(0, head)] = rng.integers(0, 256)
            path.write_bytes(
                damaged[: rng.integers(0, len(damaged)) if rng.random() < 0.1 else None]
            )
            for read in (lambda p=pictures: read_image(p),
                         lambda i=images: list(read_examples(labels, images=i))):  # fmt: skip
                with suppress(InputError):
                    read()
