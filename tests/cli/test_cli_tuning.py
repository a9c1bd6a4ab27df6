"""tune and doctor from the command line, on real files."""

import numpy as np
import pytest
from PIL import Image

from incontext.data.pictures import read_pairs


def disc(rng, size=64):
    rows, columns = np.mgrid[:size, :size]
    row, column = rng.integers(18, size - 18, 2)
    inside = (rows - row) ** 2 + (columns - column) ** 2 < 150
    picture = rng.integers(0, 60, (size, size, 3))
    picture[inside] += 150
    return picture.astype(np.uint8), inside.astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Ten pictures with labels, as a user would keep them."""
    rng = np.random.default_rng(0)
    for part in ("images", "labels"):
        (tmp_path / "set" / part).mkdir(parents=True)
    for number in range(10):
        picture, mask = disc(rng)
        Image.fromarray(picture).save(tmp_path / f"set/images/{number}.png")
        Image.fromarray(mask).save(tmp_path / f"set/labels/{number}.png")
    return tmp_path / "set"


@pytest.mark.slow
def test_tune_then_segment(incontext, folder, tmp_path, tiny_checkpoint):
    """A file, a curve, a verdict; the prompt is used and described; a second run adds nothing."""
    pytest.importorskip("matplotlib")
    out = tmp_path / "scene.safetensors"
    quick = ["--checkpoint", tiny_checkpoint, "--steps", 4, "--threads", 1, "--name", "1=disc"]
    first = incontext("tune", folder, "--out", out, *quick)
    assert first.code in (0, 3), first.err
    assert "learned from 10 pictures" in first.out
    assert ("Use the tuned prompt" in first.out) == (first.code == 0)
    assert Image.open(tmp_path / "scene.run/curve.png").size == (800, 400)
    assert (tmp_path / "scene.run/curve.csv").read_text().startswith("fold,step,loss,mIoU\n0,")
    before = out.read_bytes()
    second = incontext("tune", folder, "--out", out, *quick)
    assert second.out == first.out
    assert "going on with the run" in second.err
    assert out.read_bytes() == before
    segmented = incontext("segment", "--prompt", out, "--checkpoint", tiny_checkpoint, "--out",
                     tmp_path / "res", folder / "images")  # fmt: skip
    assert segmented.code == 0, segmented.err
    assert "id 1 (disc" in segmented.out
    info = incontext("info", out, "--thumbnail", tmp_path / "small.png")
    assert "checkpoint  tiny0" in info.out
    assert "by          tune" in info.out
    assert "gain" in info.out
    assert Image.open(tmp_path / "small.png").height == 96


def test_tune_refuses(incontext, folder, tmp_path):
    out = tmp_path / "scene.safetensors"
    for arguments, message in (
        (["--out", out], "no pictures: give folders"),
        ([folder, "--out", tmp_path / "scene.png"], "NAME.safetensors"),
        ([folder, "--out", out, "--space", "time"], "tokens, pixels"),
        ([folder, "--out", out, "--name", "7=cat"], "no picture shows id 7"),
        ([folder, "--out", out, "--threshold", 128], "--threshold is for --example"),
        ([folder, "--out", out, "--rate", "nan"], "positive numbers"),
        ([tmp_path / "none", "--out", out], "no such file or folder"),
        ([folder, "--out", out, "--unlabelled", "perhaps"], "background, unknown"),
    ):
        answer = incontext("tune", *arguments)
        assert answer.code == 2, answer.out
        assert message in answer.err
        assert not out.exists()


@pytest.mark.slow
def test_doctor(incontext, folder, tmp_path, tiny_checkpoint):
    """Pairs and folders together, a page, an exit code."""
    pairs = []
    for name, *_ in list(read_pairs(folder))[:2]:
        pairs += ["--example", folder / f"images/{name}.png", folder / f"labels/{name}.png"]
    page = tmp_path / "report.html"
    answer = incontext("doctor", folder, *pairs, "--out", page, "--checkpoint", tiny_checkpoint,
                       "--threads", 1)  # fmt: skip
    assert answer.code in (0, 4), answer.err
    assert "12 examples, ids 1" in answer.out
    assert "0.png and set/0 are nearly the same picture." in answer.out
    assert page.read_text(encoding="utf-8").count("<figure") == 12
    (folder / "labels/3.png").unlink()
    answer = incontext("doctor", folder, "--out", page, "--checkpoint", tiny_checkpoint,
                       "--threads", 1)  # fmt: skip
    assert "1 of 10 pictures have no labels and are left out: 3" in answer.err
    wrong = incontext("doctor", folder, "--out", tmp_path / "report.png")
    assert wrong.code == 2
    assert "NAME.html" in wrong.err
    pair_answer = incontext("doctor", *pairs, "--out", page)
    assert pair_answer.code == 2
    assert "the doctor needs 3" in pair_answer.err


def test_partly_labelled_examples(incontext, folder, tmp_path):
    """--unlabelled and --negative of segment; not beside a prompt file."""
    mask = np.zeros((64, 64), np.uint8)
    mask[10:14, 10:40], mask[50:54, 10:40] = 1, 2
    Image.fromarray(mask).save(tmp_path / "scribble.png")
    picture = folder / "images/0.png"
    prompt = incontext("prompt", "--example", picture, tmp_path / "scribble.png", "--out",
                     tmp_path / "p.safetensors", "--unlabelled", "unknown",
                     "--negative", 2)  # fmt: skip
    assert prompt.code == 0, prompt.err
    assert "ids 1," in prompt.out
    for option, value in (("--negative", 2), ("--unlabelled", "unknown")):
        answer = incontext("segment", "--prompt", tmp_path / "p.safetensors", "--out",
                           tmp_path / "res", option, value, picture)  # fmt: skip
        assert answer.code == 2
        assert f"{option} with --prompt" in answer.err
