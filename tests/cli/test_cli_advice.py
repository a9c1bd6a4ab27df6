"""What the command line says to whoever does not know which command is theirs."""

import tomllib
from pathlib import Path

import pytest
from PIL import Image

from incontext.cli import check
from incontext.cli.check import OF_DEVELOPERS, list_extras

ROOT = Path(__file__).parents[2]


def test_without_a_command(incontext):
    answer = incontext()
    assert answer.code == 0
    for command in ("demo", "segment", "video", "doctor", "check"):
        assert f"incontext {command}" in answer.out


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.jpg"], "incontext segment --example IMAGE MASK --out results"),
        (["results.json", "a.png"], "incontext export"),
        (["images/a.jpg", "labels/a.png"], "incontext doctor"),
    ],
)
def test_a_folder_in_place_of_a_command(incontext, tmp_path, names, expected):
    folder = tmp_path / "my pictures"
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    answer = incontext(folder)
    assert answer.code == 2
    assert expected in answer.err
    assert f"'{folder}'" in answer.err  # as a shell takes it


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("clip.MP4", "incontext video"),
        ("a.jpeg", "is an image. To segment it, show an example: incontext segment"),
        ("scan.nii.gz", "is a volume"),
        ("spots.safetensors", "incontext info"),
        ("annotations.json", "--examples-from"),
        ("notes.txt", "is a file that is no image, and no command"),
    ],
)
def test_a_file_in_place_of_a_command(incontext, tmp_path, name, expected):
    (tmp_path / name).touch()
    answer = incontext(tmp_path / name)
    assert answer.code == 2
    assert expected in answer.err


def test_a_command_with_a_typing_error(incontext):
    answer = incontext("segmnt")
    assert (answer.code, answer.err) == (
        2, "Error: no command 'segmnt'; did you mean segment?\n",
    )  # fmt: skip
    other = incontext("no-such-thing")
    assert "no file or folder of that name; accepted: segment, prompt" in other.err


@pytest.mark.slow
def test_check(incontext):
    answer = incontext("check")
    assert answer.code == 0, answer.err
    assert "torch 2." in answer.out
    assert "Self-test: IoU" in answer.out
    for extra in list_extras():
        assert extra.missing or f"  {extra.name:<8} installed" in answer.out


@pytest.mark.slow
def test_check_finds_a_checkpoint_that_knows_nothing(incontext, tiny_checkpoint):
    answer = incontext("check", "--checkpoint", tiny_checkpoint)
    assert answer.code == 1
    assert "the self-test reached an IoU of 0.0" in answer.err


def test_check_knows_every_extra():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {extra.name for extra in list_extras()}
    assert extras == project["optional-dependencies"].keys() - set(OF_DEVELOPERS)


def test_check_names_what_an_extra_lacks(monkeypatch):
    """Also one that is made of another extra."""
    requirements = [
        "torch>=2.6", "no-such-package>=1; extra == 'demo'", "typer[all]>=0; extra == 'demo'",
        "incontext-seg[demo]; extra == 'serve'", 'neither; extra == "serve"',
    ]  # fmt: skip
    monkeypatch.setattr(check, "requires", lambda name: requirements)
    assert [tuple(extra) for extra in list_extras()] == [
        ("demo", ("no-such-package",)), ("serve", ("no-such-package", "neither")),
    ]  # fmt: skip


def test_images_are_known_by_every_ending(incontext, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.webp")
    assert "is an image" in incontext(tmp_path / "a.webp").err
