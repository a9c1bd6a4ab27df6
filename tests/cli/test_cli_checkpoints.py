"""`incontext info` and `convert`."""

import pytest

from incontext.checkpoints import location
from incontext.cli import common
from tests.cli.helpers import photo


def test_info(incontext, tiny_checkpoint):
    answer = incontext("info", tiny_checkpoint)
    assert answer.code == 0
    for line in ("layout      incontext", "stored as float32", "image_size        32"):
        assert line in answer.out


def test_info_of_the_bundled_one(incontext):
    assert common.DEFAULT == location.DEFAULT
    answer = incontext("info", common.DEFAULT)
    assert answer.code == 0
    assert "parameters" in answer.out


@pytest.mark.parametrize("layout", ["official", "transformers", "incontext"])
def test_convert_there_and_back(incontext, tiny_checkpoint, tmp_path, layout):
    path = tmp_path / ("w.pth" if layout == "official" else "w")
    answer = incontext("convert", tiny_checkpoint, path, "--layout", layout)
    assert answer.code == 0, answer.err
    assert answer.out.startswith(f"wrote {path}")
    info = incontext("info", path)
    assert f"layout      {layout}" in info.out


def test_convert_dtype(incontext, tiny_checkpoint, tmp_path):
    answer = incontext("convert", tiny_checkpoint, tmp_path / "w", "--dtype", "bfloat16")
    assert answer.code == 0
    assert "stored as bfloat16" in incontext("info", tmp_path / "w").out


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("w", ["--layout", "onnx"], "accepted: official, transformers, incontext"),
        ("w", ["--dtype", "int8"], "accepted: float32"),
        ("w.pth", [], "--layout official is one .pth file"),
        ("example.png", [], "layout is a folder"),
        (".", ["--layout", "official"], "is one .pth file"),
        ("example.png/w", [], "Not a directory"),
    ],
)
def test_convert_refused(incontext, tiny_checkpoint, tmp_path, target, options, message):
    photo(tmp_path / "example.png")
    answer = incontext("convert", tiny_checkpoint, tmp_path / target, *options)
    assert answer.code == 2
    assert message in answer.err
    assert len(answer.err.splitlines()) == 1


def test_version(incontext):
    assert incontext("--version").out.strip() == "0.2.0"


@pytest.mark.parametrize("command", [["info"], ["convert"]])
@pytest.mark.parametrize("name", ["nobody", "a/b/c", "", "no.pth", "no/such.safetensors"])
def test_unknown_names(incontext, tmp_path, command, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    target = [tmp_path / "w"] if command == ["convert"] else []
    answer = incontext(*command, name, *target)
    assert answer.code == 2
    texts = ("incontext-small", "holds no model.safetensors", f"{name}: no such file")
    assert any(text in answer.err for text in texts)
    assert len(answer.err.splitlines()) == 1


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_damaged(incontext, tmp_path, name):
    (tmp_path / name).write_bytes(b"no weights")
    answer = incontext("info", tmp_path / name)
    assert answer.code == 2
    assert str(tmp_path / name) in answer.err
    assert len(answer.err.splitlines()) == 1


@pytest.mark.parametrize("name", ["BAAI/SegGPT", "BAAI/seggpt-vit-large"])
def test_hub_out_of_reach(incontext, name):
    answer = incontext("info", name)
    assert answer.code == 2
    assert answer.err.startswith(f"Error: {name} is not in the local hub cache")
    assert len(answer.err.splitlines()) == 1
