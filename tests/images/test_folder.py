"""Folders: which files count as images, through links, hidden names and missing permissions."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from incontext import InputError
from incontext.images.folder import INPUT_SUFFIXES, list_images
from tests.images.volumes import dicom, nifti

# Root may read everything, unless it gives that up.
UNPRIVILEGED = [
    "setpriv", "--bounding-set=-dac_override,-dac_read_search",
    "--inh-caps=-dac_override,-dac_read_search",
] if os.geteuid() == 0 else []  # fmt: skip


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3), "red").save(path)
    return path


def names(folder: Path, **options: object) -> list[str]:
    return [name for _, name in list_images(folder, **options).files]


def test_names_that_begin_with_a_dot(tmp_path):
    picture(tmp_path / "a.jpg")
    picture(tmp_path / ".ipynb_checkpoints/a-checkpoint.jpg")
    picture(tmp_path / "deep/.b.png")
    (tmp_path / "._a.jpg").write_bytes(b"\0\5\x16\7")
    assert names(tmp_path) == ["a.jpg"]


def test_links_have_their_own_names(tmp_path):
    stored = picture(tmp_path / "store/0a1b.png").rename(tmp_path / "store/0a1b")
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("cat.png", "again.png"):
        (folder / name).symlink_to(stored)
    listing = list_images(folder)
    assert listing.files == [
        (str(folder / "again.png"), "again.png"), (str(folder / "cat.png"), "cat.png")
    ]  # fmt: skip


def test_volumes_are_listed_if_asked_for_and_dicom_without_a_suffix(tmp_path):
    dicom(tmp_path / "IM0001", np.zeros((3, 4), np.int16))
    dicom(tmp_path / "b.dcm", np.zeros((3, 4), np.int16))
    (tmp_path / "README").write_text("no picture")
    for name in ("scan.nii.gz", "T1.NII", "._scan.nii.gz"):
        nifti(tmp_path / name.lower(), np.zeros((3, 4, 2), np.int16)).rename(tmp_path / name)
    assert names(tmp_path) == ["IM0001", "b.dcm"]
    assert names(tmp_path, suffixes=INPUT_SUFFIXES) == ["IM0001", "T1.NII", "b.dcm", "scan.nii.gz"]
    assert names(tmp_path, suffixes=(".nii.gz",)) == ["scan.nii.gz"]


def test_broken_links_are_not_forgotten(tmp_path):
    (tmp_path / "a.png").symlink_to("nowhere")
    (tmp_path / "circle.png").symlink_to("circle.png")
    (tmp_path / "notes.txt").symlink_to("nowhere")
    assert names(tmp_path) == ["a.png", "circle.png"]


def test_linked_folders_are_entered_once(tmp_path):
    picture(tmp_path / "valid/v.png")
    picture(tmp_path / "set/own/a.png")
    for name in ("one", "two.png"):
        (tmp_path / "set" / name).symlink_to(tmp_path / "valid")
    (tmp_path / "set/back").symlink_to(tmp_path / "set")
    (tmp_path / "set/0").symlink_to(tmp_path / "set/own")  # there anyway, under its own name
    (tmp_path / "valid/up").symlink_to("..")
    found = names(tmp_path / "set")
    assert found[:2] == ["one/v.png", "own/a.png"]
    assert len(found) == 2


def test_not_recursive(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "deep/b.png")
    (tmp_path / "link").symlink_to("deep")
    assert names(tmp_path, recursive=False) == ["a.png"]


def test_other_formats(tmp_path):
    """AVIF and JPEG 2000 are images where Pillow reads them; what is not read is counted."""
    for name in ("a.AVIF", "b.jp2", "c.png"):
        picture(tmp_path / name)
    for name in ("1.HEIC", "2.heic", "raw.nef", "notes.txt", "._3.heic"):
        (tmp_path / name).write_bytes(b"x")
    listing = list_images(tmp_path)
    assert [name for _, name in listing.files] == ["a.AVIF", "b.jp2", "c.png"]
    assert listing.describe_unreadable() == "2 .heic, 1 .nef"


def test_suffixes_of_either_case(tmp_path):
    for name in ("B.PNG", "a.png", "c.tif"):
        picture(tmp_path / name)
    assert names(tmp_path, suffixes=(".png",)) == ["B.PNG", "a.png"]


LIST = """
import json, sys
from incontext.images.folder import list_images
listing = list_images(sys.argv[1])
print(json.dumps([listing.files, listing.locked]))
listing.paths
"""


@pytest.mark.slow
def test_folder_without_permission(tmp_path):
    picture(tmp_path / "b.png")
    picture(tmp_path / "locked/a.png")
    (tmp_path / "locked").chmod(0)
    command = [*UNPRIVILEGED, sys.executable, "-c", LIST, str(tmp_path)]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        (tmp_path / "locked").chmod(0o755)
    locked = str(tmp_path / "locked")
    assert json.loads(answer.stdout) == [
        [[str(tmp_path / "b.png"), "b.png"]], [[locked, "locked/"]]
    ]  # fmt: skip
    assert f"InputError: {locked}: no permission to list this folder" in answer.stderr


def test_what_is_left_out_is_not_searched(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "old/b.png")
    (tmp_path / "old/mark").touch()
    listing = list_images(
        tmp_path, leave_out=lambda path, found: "marked" if "mark" in found else ""
    )
    assert [name for _, name in listing.files] == ["a.png"]
    assert listing.left_out == [(str(tmp_path / "old"), "marked")]
    assert [path.name for path in listing.paths] == ["a.png"]


def test_a_set_with_a_hidden_copy(tmp_path):
    """Readers of other tools list folders as everything else does."""
    from incontext import read_examples

    picture(tmp_path / "images/a.jpg")
    picture(tmp_path / "images/.ipynb_checkpoints/a-checkpoint.jpg")
    (tmp_path / "images/._a.jpg").write_bytes(b"\0\5\x16\7")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text("0 .1 .1 .9 .1 .9 .9\n")
    (tmp_path / "data.yaml").write_text("train: images\nnames: [x]\n")
    assert [example.source for example in read_examples(tmp_path)] == ["a.jpg"]
    (tmp_path / "images/._a.jpg").rename(tmp_path / "images/b.jpg")
    with pytest.raises(InputError, match="not a picture"):
        list(read_examples(tmp_path))
