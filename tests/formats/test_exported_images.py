"""Images that exports keep or name: those that were segmented, as their labels lie on them."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, TiffImagePlugin

from incontext import InputError, export, read_examples
from incontext.batch.inputs import InputImage, file_hash, fingerprint
from incontext.batch.manifest import Manifest
from incontext.batch.segment import result_record
from incontext.formats import FORMATS
from incontext.formats.results import read_results
from incontext.images.image import read_image
from incontext.inference.segmentation import Segmentation
from tests.images.volumes import dicom, nifti

SIZE = (40, 24)


def scene() -> tuple[Image.Image, np.ndarray]:
    """A red block in a corner of a gray image, and its labels."""
    labels = np.zeros(SIZE[::-1], np.int32)
    labels[2:10, 3:17] = 1
    rgb = np.full((*labels.shape, 3), 90, np.uint8)
    rgb[labels == 1] = (200, 40, 30)
    return Image.fromarray(rgb), labels


def write_results(out: Path, sources: dict[str, Path]) -> Path:
    """Write results as `incontext segment` leaves them, labels upright; name → image."""
    manifest = Manifest(out, {}, {"1": {"name": "block", "color": (0, 128, 255)}})
    image, labels = scene()
    result = Segmentation(
        labels, np.ones(labels.shape, np.float32), {1: 0.9}, image, (), {1: (0, 128, 255)},
        {1: "block"},
    )  # fmt: skip
    for name, path in sources.items():
        target = InputImage(path, name)
        source = {**fingerprint(target.path), "sha256": file_hash(path)}
        manifest.results[name] = result_record(result, source, result.save(out, name), out, [])
    manifest.save()
    return out


@pytest.fixture
def picture(tmp_path) -> Path:
    path = tmp_path / "p/a.png"
    path.parent.mkdir()
    scene()[0].save(path)
    return path


@pytest.fixture
def written(tmp_path, picture) -> Path:
    return write_results(tmp_path / "results", {"a": picture})


@pytest.mark.parametrize("name", FORMATS)
def test_an_edited_image_is_refused_by_name(written, picture, tmp_path, name):
    scene()[0].rotate(180).save(picture)
    out = tmp_path / f"x{FORMATS[name].suffix}"
    with pytest.raises(InputError, match=r"p/a\.png: changed since it was segmented"):
        export(written, name, out)
    assert not out.exists()


def test_an_edited_image_is_no_example(written, picture, tmp_path):
    assert len(list(read_examples(written))) == 1
    scene()[0].rotate(180).save(picture)
    with pytest.raises(InputError, match=r"p/a\.png: changed since it was segmented"):
        list(read_examples(written))
    scene()[0].save(picture.parent / "a.png.copy", "PNG")
    (tmp_path / "elsewhere").mkdir()
    (picture.parent / "a.png.copy").rename(tmp_path / "elsewhere/a.png")
    assert len(list(read_examples(written, images=tmp_path / "elsewhere"))) == 1


def test_a_touched_image_is_the_same(written, picture, tmp_path):
    os.utime(picture, ns=(1, 1))
    assert export(written, "yolo", tmp_path / "yolo").is_file()
    same_size = bytearray(picture.read_bytes())
    same_size[-20] ^= 1
    picture.write_bytes(same_size)
    with pytest.raises(InputError, match="changed since"):
        export(written, "yolo", tmp_path / "again")


def test_records_without_a_hash(written, picture, tmp_path):
    """Of earlier versions: the time of change decides."""
    path = written / "results.json"
    path.write_text(path.read_text().replace('"sha256"', '"other"'))
    assert len(list(read_results(written))) == 1
    os.utime(picture, ns=(1, 1))
    with pytest.raises(InputError, match="changed since"):
        list(read_results(written))


def red_part(path: Path) -> np.ndarray:
    """What a reader that ignores EXIF sees."""
    rgb = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return (rgb[..., 0] > 140) & (rgb[..., 1] < 80)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_that_are_stored_turned(tmp_path, orientation, suffix):
    image, labels = scene()
    exif = Image.Exif()
    exif[274] = orientation
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    turning = Image.Exif()
    turning[274] = inverse
    image.info["exif"] = turning.tobytes()
    stored = ImageOps.exif_transpose(image)
    path = tmp_path / f"p/a{suffix}"
    path.parent.mkdir()
    options = {"quality": 95} if suffix == ".jpg" else {"lossless": True}
    stored.save(path, exif=exif, **(options if suffix != ".tif" else {}))
    folder = write_results(tmp_path / "results", {"a": path})
    before = file_hash(path)
    for name, images in (("voc", "JPEGImages"), ("yolo", "images")):
        out = tmp_path / name
        export(folder, name, out)
        (exported,) = (out / images).iterdir()
        assert exported.suffix == (suffix if orientation == 1 or suffix == ".jpg" else ".png")
        assert exported.samefile(path) == (orientation == 1)
        red = red_part(exported)
        assert red.shape == labels.shape
        assert (red == (labels == 1)).mean() > 0.98
        (example,) = read_examples(out)
        assert np.array_equal(example.labels.ids == 1, labels == 1)
    assert file_hash(path) == before


def test_a_geotiff_that_is_stored_turned_is_refused(tmp_path):
    """At 180 degrees its size would fit."""
    pytest.importorskip("rasterio")
    path = tmp_path / "a.tif"
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[274], tags[33550], tags[33922] = 3, (1.0, 1.0, 0.0), (0.0, 0.0, 0.0, 500.0, 900.0, 0.0)
    tags.tagtype.update({33550: 12, 33922: 12})
    scene()[0].save(path, tiffinfo=tags)
    folder = write_results(tmp_path / "results", {"a": path})
    with pytest.raises(InputError, match=r"a\.tif: is stored turned"):
        export(folder, "geotiff", tmp_path / "x")


def test_a_turned_image_is_not_replaced_by_its_upright_copy(tmp_path):
    exif = Image.Exif()
    exif[274] = 3
    path = tmp_path / "set/images/a.jpg"
    path.parent.mkdir(parents=True)
    scene()[0].rotate(180).save(path, exif=exif)
    before = path.read_bytes()
    folder = write_results(tmp_path / "results", {"a": path})
    with pytest.raises(InputError, match="is the segmented picture itself"):
        export(folder, "yolo", tmp_path / "set", overwrite=True)
    assert path.read_bytes() == before


def test_links_are_exported_as_what_they_lead_to(picture, tmp_path):
    """A relative link, hard-linked elsewhere, would lead nowhere."""
    linked = tmp_path / "in/b.png"
    linked.parent.mkdir()
    linked.symlink_to("../p/a.png")
    folder = write_results(tmp_path / "results", {"b": linked})
    export(folder, "voc", tmp_path / "voc")
    exported = tmp_path / "voc/JPEGImages/b.png"
    assert exported.read_bytes() == picture.read_bytes()
    assert not exported.is_symlink()
    (result,) = read_results(folder)
    assert result.file_name == "b.png"


def test_masks_in_upper_case(written, tmp_path):
    export(written, "voc", tmp_path / "voc")
    mask = tmp_path / "voc/SegmentationClass/a.png"
    mask.rename(mask.with_name("a.PNG"))
    (mask.parent / "._a.png").write_bytes(b"\0\5\x16\7")
    assert [example.source for example in read_examples(tmp_path / "voc")] == ["a.png"]


def test_one_limit_of_pixels(written, tmp_path, monkeypatch):
    """What Pillow refuses by default is read wherever images are segmented."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert len(list(read_results(written))) == 1
    for name in ("coco", "voc", "yolo"):
        out = tmp_path / f"x{FORMATS[name].suffix}" if FORMATS[name].suffix else tmp_path / name
        export(written, name, out)
        images = tmp_path / "p" if FORMATS[name].suffix else None
        assert len(list(read_examples(out, images=images))) == 1
    for part in ("images", "labels"):
        (tmp_path / "set" / part).mkdir(parents=True)
        Image.new("L", SIZE).save(tmp_path / "set" / part / "a.png")
    assert len(list(read_examples(tmp_path / "set"))) == 1


def test_folders_of_frames_have_that_limit(picture, monkeypatch):
    from incontext.video.frames import open_frames

    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert next(open_frames(picture).forward())[1].size == SIZE
    (picture.parent / "b.heic").write_bytes(b"x")
    (picture.parent / "._a.png").write_bytes(b"x")
    with pytest.warns(UserWarning, match=r"left out, as they are not read here: 1 \.heic"):
        assert next(open_frames(picture.parent).forward())[1].size == SIZE


@pytest.mark.parametrize(("name", "folder"), [("voc", "JPEGImages"), ("yolo", "images")])
def test_slices_and_dicom_become_png(tmp_path, name, folder):
    """Other tools show neither."""
    gray = np.tile(np.arange(SIZE[0], dtype=np.int16), (SIZE[1], 1))
    scan = nifti(tmp_path / "p/scan.nii.gz", np.stack([gray.T, 50 - gray.T], -1))
    sources = {"IM1": tmp_path / "p/IM1", "b": tmp_path / "p/b.dcm"}
    for path in sources.values():
        dicom(path, gray)
    sources["scan/axial/001"] = scan / "axial/001"
    written, out = write_results(tmp_path / "results", sources), tmp_path / name
    export(written, name, out)
    images = sorted(path for path in (out / folder).rglob("*") if path.is_file())
    assert images == [out / folder / f"{name}.png" for name in sources]
    for path, source in zip(images, sources.values(), strict=True):
        assert np.array_equal(np.asarray(Image.open(path).convert("RGB")), read_image(source))
    assert len(list(read_examples(out))) == 3
    scan.unlink()
    with pytest.raises(InputError, match=r"scan\.nii\.gz/axial/001: (the picture is gone|no such)"):
        export(written, name, tmp_path / "again")
