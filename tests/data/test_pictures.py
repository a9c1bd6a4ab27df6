"""Sets of pictures: read alike from folders and tars, held as they are, and refused with a name."""

import io
import json
import shutil
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from incontext import InputError, read_examples
from incontext.data.pictures import (
    IGNORE_INDEX,
    MIN_OBJECT_PIXELS,
    PictureSet,
    load_set,
    read_metadata,
    read_pairs,
)


@pytest.fixture
def folder(tmp_path):
    """Six pictures: a red class 3 and a blue class 9 on gray, a frame of ignored pixels."""
    rng = np.random.default_rng(0)
    for part in ("images", "labels"):
        (tmp_path / "set" / part).mkdir(parents=True)
    for i in range(6):
        labels = np.zeros((60, 80), np.uint8)
        labels[10:30, 5 + 5 * i : 30 + 5 * i] = 3
        if i % 2:
            labels[35:55, 40:70] = 9
        colors = np.zeros((256, 3), np.uint8)
        colors[[0, 3, 9]] = (128, 128, 128), (220, 30, 30), (30, 30, 220)
        picture = colors[labels] + rng.integers(0, 8, (60, 80, 3), dtype=np.uint8)
        labels[:2] = IGNORE_INDEX
        Image.fromarray(picture).save(tmp_path / f"set/images/{i}.png")
        Image.fromarray(labels).save(tmp_path / f"set/labels/{i}.png")
    return tmp_path / "set"


def packed(folder: Path, name: str, mode: str = "w") -> Path:
    path = folder.with_name(name)
    with tarfile.open(path, mode) as tar:
        tar.add(folder, ".")
    return path


def refused(source: Path, *wanted: str) -> None:
    """Reading raises InputError whose one line begins with the set and holds all of `wanted`."""
    with pytest.raises(InputError) as caught:
        load_set(source, 16)
    text = str(caught.value)
    assert text.startswith(str(source))
    assert all(part in text for part in wanted), text
    assert "\n" not in text
    assert " object at 0x" not in text


def test_sets_are_read_alike_from_folder_and_tar(folder, tmp_path):
    packed(folder, "set.tar")
    (tmp_path / "set.json").write_text(json.dumps({"kind": "semantic", "items": []}))
    one, two = load_set(folder, 32), load_set(tmp_path / "set.tar", 32)
    assert torch.equal(one.images, two.images)
    assert torch.equal(one.labels, two.labels)
    assert one.images_by_class == two.images_by_class
    assert sorted(one.images_by_class) == [3, 9]
    assert len(one.images_by_class[3]) == 6
    assert len(one.images_by_class[9]) == 3
    with pytest.raises(ValueError, match="no such file or folder"):
        list(read_pairs(tmp_path / "nowhere"))


def test_pictures_alone(folder, tmp_path):
    """A folder without labels/ is all background; it is no set to judge by."""
    shutil.rmtree(folder / "labels")
    data = load_set(folder, 16)
    assert len(data) == 6
    assert not data.labels.any()
    assert data.images_by_class == {}
    with pytest.raises(InputError, match="no picture under images/"):
        list(read_pairs(folder))
    refused(packed(folder, "bare.tar"), "no picture under images/")


def test_labels_must_fit_their_pictures(tmp_path):
    for part, size in (("images", (20, 10)), ("labels", (10, 20))):
        (tmp_path / part).mkdir()
        Image.new("L", size).save(tmp_path / part / "a.png")
    with pytest.raises(InputError, match="a: labels are 10×20, their picture is 20×10"):
        load_set(tmp_path, 16)


def test_pictures_are_read_as_stored(folder):
    pairs = list(read_pairs(folder))
    assert [name for name, _, _ in pairs] == list("012345")
    for name, image, ids in pairs:
        stored = Image.open(folder / f"images/{name}.png")
        assert np.array_equal(np.asarray(image), np.asarray(stored))
        assert np.array_equal(ids, np.asarray(Image.open(folder / f"labels/{name}.png")))
        assert ids.dtype == np.uint8


def test_scaled(folder):
    """Pictures smoothly; labels to the id under each center, never to one in between."""
    data = load_set(folder, 20)
    assert data.images.shape == (6, 3, 20, 20)
    assert data.labels.shape == (6, 20, 20)
    assert data.images.dtype == data.labels.dtype == torch.uint8
    assert len(data) == 6
    assert set(data.labels.unique().tolist()) == {0, 3, 9, IGNORE_INDEX}
    for i, (_, image, ids) in enumerate(read_pairs(folder)):
        # 60 × 80 to 20 × 20: the center of each cell of 3 × 4 pixels.
        assert np.array_equal(data.labels[i], ids[1::3, 2::4])
        means = np.asarray(image, float).reshape(20, 3, 20, 4, 3).mean((1, 3))
        difference = data.images[i].permute(1, 2, 0).numpy() - means
        assert np.abs(difference).mean() < 5
    colors = data.images.permute(1, 0, 2, 3).float()
    assert colors[0][data.labels == 3].mean() > 180 > 80 > colors[2][data.labels == 3].mean()
    assert colors[2][data.labels == 9].mean() > 180 > 80 > colors[0][data.labels == 9].mean()


def test_holders_and_subsets():
    labels = torch.zeros(3, 8, 8, dtype=torch.uint8)
    labels[0].view(-1)[:MIN_OBJECT_PIXELS] = 5
    labels[1].view(-1)[: MIN_OBJECT_PIXELS - 1] = 5
    labels[2] = IGNORE_INDEX
    labels[2, :4] = 7
    images = torch.arange(3, dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 8, 8)
    data = PictureSet("some", "video", images, labels, "there")
    assert data.images_by_class == {5: [0], 7: [2]}
    part = data.subset([2, 1])
    assert part.images_by_class == {7: [0]}
    assert (part.name, part.set_type, part.domain) == ("some", "video", "there")
    assert part.images[:, 0, 0, 0].tolist() == [2, 1]
    assert torch.equal(part.labels, labels[[2, 1]])


def test_described(folder):
    beside = folder.with_name("set.json")
    assert read_metadata(folder) == {}
    assert (load_set(folder, 16).set_type, load_set(folder, 16).domain) == ("semantic", "")
    beside.write_text(json.dumps({"kind": "regions", "domain": "aerial", "more": [1]}))
    data = load_set(packed(folder, "set.tar"), 16)
    assert (data.name, data.set_type, data.domain) == ("set", "regions", "aerial")
    for text, wanted in [
        ("{", "not JSON"), ("[]", "semantic, regions, video"), ('{"kind": "stuff"}', "video"),
        ('{"kind": ["video"]}', "video"),
    ]:  # fmt: skip
        beside.write_text(text)
        with pytest.raises(InputError, match=wanted) as caught:
            load_set(folder, 16)
        assert str(caught.value).startswith(str(beside))


def test_label_encodings(folder):
    """As of any example: palettes, two levels, 16 bits; colors and ids over 254 are none."""
    path = folder / "labels/0.png"
    labels = np.asarray(Image.open(path))
    palette = Image.fromarray(labels)
    palette.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    palette.save(path)
    [(_, _, ids), *_] = read_pairs(folder)
    assert np.array_equal(ids, labels)
    Image.fromarray(labels == 3).save(path)
    [(_, _, ids), *_] = read_pairs(folder)
    assert np.array_equal(ids, (labels == 3).astype(np.uint8))
    for same in (Image.fromarray(labels.astype(np.uint16)), Image.fromarray(labels).convert("LA")):
        same.save(path)
        [(_, _, ids), *_] = read_pairs(folder)
        assert np.array_equal(ids, labels)
    Image.fromarray(labels).convert("RGB").save(path)
    refused(folder, "0: labels: ", "colors; store ids in one")
    Image.fromarray(labels.astype(np.uint16) * 100).save(path)
    refused(folder, "0: labels hold id 25500; accepted: 8-bit ids")


@pytest.mark.parametrize("name", ["1.jpg", "1.png"])
def test_jpeg_labels_are_refused(folder, name):
    """Whatever their name; in tars too."""
    labels = Image.open(folder / "labels/1.png")
    (folder / "labels/1.png").unlink()
    labels.save(folder / "labels" / name, "JPEG", quality=95)
    for source in (folder, packed(folder, "set.tar")):
        refused(source, "1: labels: JPEG is lossy", "stored as PNG")
        with pytest.raises(InputError, match="1: labels: JPEG is lossy"):
            list(read_examples(source))


def test_turned_labels_are_refused(folder):
    exif = Image.Exif()
    exif[274] = 6
    path = folder / "labels/1.png"
    Image.open(path).save(path, exif=exif)
    for source in (folder, packed(folder, "set.tar")):
        refused(source, "1: labels: a mask with EXIF orientation")


def test_black_and_white_labels_are_no_set(folder):
    """255 is unknown in a set, so that a set of nothing else has no object."""
    for path in (folder / "labels").glob("*.png"):
        Image.fromarray((np.asarray(Image.open(path)) == 3).astype(np.uint8) * 255).save(path)
    with pytest.raises(InputError, match="hold 0 and 255 only"):
        list(read_examples(folder))


def test_pictures_without_labels_are_left_out(folder):
    (folder / "labels/1.png").unlink()
    (folder / "images/4.png").unlink()
    assert [name for name, _, _ in read_pairs(folder)] == ["0", "2", "3", "5"]
    # Formats may differ: what counts is the name.
    Image.open(folder / "images/0.png").save(folder / "images/0.jpg", quality=95)
    (folder / "images/0.png").unlink()
    assert len(list(read_pairs(folder))) == 4


def test_what_systems_leave_behind(folder):
    """Hidden files and folders are no pictures, in tars neither."""
    expected = load_set(folder, 16).images
    for part in ("images", "labels"):
        (folder / part / ".DS_Store").write_bytes(b"Bud1")
        (folder / part / "._0.png").write_bytes(b"\0\5\26\7")
        (folder / part / "thumbnails").mkdir()
    for source in (folder, packed(folder, "set.tar")):
        assert torch.equal(load_set(source, 16).images, expected)


@pytest.mark.parametrize("part", ["images", "labels"])
def test_damaged_pictures(folder, part):
    path = folder / part / "3.png"
    whole = path.read_bytes()
    for size in (0, 7, 20, 60, len(whole) // 2):
        path.write_bytes(whole[:size])
        refused(folder, ": 3: ")
        refused(packed(folder, "damaged.tar"), ": 3: ")
    path.write_text("no picture at all")
    refused(folder, ": 3: ", ": not a picture")
    broken = bytearray(whole)
    broken[len(whole) // 2] ^= 0xFF  # a checksum that does not fit
    path.write_bytes(broken)
    refused(folder, ": 3: ", ": damaged picture")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_damaged_tars(folder, mode):
    path = packed(folder, "set.tar", mode)
    assert len(load_set(path, 16)) == 6
    whole = path.read_bytes()
    for size in (0, 100, len(whole) // 2):
        path.write_bytes(whole[:size])
        refused(path, "no readable .tar of images/ and labels/")
    middle = bytearray(whole)
    middle[len(whole) // 4 : len(whole) * 3 // 4] = bytes(len(whole) // 2)
    path.write_bytes(middle)
    refused(path, "")


def test_tars_of_other_things(tmp_path):
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        member = tarfile.TarInfo("pictures/a.png")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"abc"))
        tar.addfile(tarfile.TarInfo("images"))
    refused(tmp_path / "other.tar", "no picture under images/")
    (tmp_path / "z.tar").write_bytes(zlib.compress(b"abc"))
    refused(tmp_path / "z.tar", "no readable .tar")
    refused(tmp_path / "nowhere", "no such file or folder")
