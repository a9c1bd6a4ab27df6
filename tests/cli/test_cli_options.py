"""Bad options: one line that says what is wrong and what is accepted."""

import numpy as np
import pytest
from PIL import Image

from tests.cli.helpers import photo, results


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--kind", "thing"], "kind 'thing'; accepted: instance, semantic"),
        (["--tile", "3"], "tile is 3 pixels; accepted: 16 or more"),
        (["--tile", "x"], "--tile"),
        (["--skip-empty"], "--skip-empty goes with --tile"),
        (["--batch-size", "0"], "1 or more"),
        (["--chunk", "0"], "1 or more"),
        (["--chunk", "-1"], "1 or more"),
        (["--dtype", "int4"], "--dtype 'int4'; accepted: float32, float16, bfloat16, int8"),
        (["--device", "toaster"], "--device 'toaster'; accepted: auto, cpu"),
        (["--device", "meta"], "--device 'meta'; accepted: auto, cpu"),
        (["--device", "cpu:x"], "--device"),
        (["--ignore", "all"], "--ignore 'all'; accepted: an integer or none"),
        (["--threshold", "x"], "--threshold"),
        (["--threshold", "nan"], "threshold=nan"),
        (["--color", "red"], "--color 'red'; accepted: ID=VALUE"),
        (["--color", "1=red"], "color 'red'; accepted: #rrggbb"),
        (["--color", "1=#ggg000"], "color '#ggg000'; accepted: #rrggbb"),
        (["--color", "1=1,2"], "color '1,2'; accepted: #rrggbb"),
        (["--color", "1=1,2,300"], "color '1,2,300'; accepted: #rrggbb or r,g,b in 0–255"),
        (["--color", "1=#-1-1-1"], "color '#-1-1-1'; accepted"),
        (["--color", "70000=#ff0000"], "colors"),
        (["--color", "²=#ff0000"], "--color '²=#ff0000'; accepted: ID=VALUE"),
        (["--color", "1=#ff0000", "--color", "1=#00ff00"], "--color names an id twice"),
        (["--name", "cat"], "--name 'cat'; accepted: ID=VALUE"),
        (["--name", "1="], "--name '1='; accepted: ID=VALUE"),
        (["--name", "7=cat"], "a name for id 7, which no example shows"),
        (["--name", "1=a", "--name", "1=b"], "--name names an id twice"),
        (["--example", "a.png"], "--example takes two values"),
        (["--example"], "--example takes two values"),
        (["--example=a.png"], "--example takes two values"),
        (["--example", "a.png", "--overwrite"], "--example takes two values"),
        (["--speed", "9"], "No such option: --speed"),
        (["--checkpoint", "nobody"], "no checkpoint 'nobody'; accepted: incontext-small"),
        (["missing.png"], "missing.png: no such file, or no picture in it"),
        (["*.nothing"], "no such file, or no picture in it"),
        (["n" * 5000], "File name too long"),
    ],
)
def test_one_line(segment, tmp_path, options, message):
    answer = segment(tmp_path / "example.png", *options)
    assert answer.code == 2
    errors = [line for line in answer.err.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert answer.err.splitlines()[-1] == errors[0]
    assert not (tmp_path / "out").exists()


def test_missing_options(incontext):
    answer = incontext("segment", "a.png")
    assert answer.code == 2
    assert "Missing option '--out'" in answer.err
    answer = incontext("segment", "a.png", "--out", "out")
    assert answer.code == 2
    assert "--example IMAGE MASK (repeated), or --prompt FILE" in answer.err


def test_numbers_of_single_objects_are_pointed_out(incontext, tmp_path):
    """A label image beside a black and white mask."""
    image = photo(tmp_path / "a.png")
    one, many = np.zeros((2, 40, 60), np.uint8)
    one[5:20, 5:20] = 255
    for number in range(6):
        many[4:10, 10 * number : 10 * number + 6] = number + 1
    for name, mask in (("one.png", one), ("many.png", many)):
        Image.fromarray(mask).resize(Image.open(image).size, 0).save(tmp_path / name)
    pairs = [x for n in ("one.png", "many.png") for x in ("--example", image, tmp_path / n)]
    out = ("--out", tmp_path / "p.safetensors", "--checkpoint", "incontext-small")
    answer = incontext("prompt", *pairs, *out)
    assert answer.code == 0
    assert "Warning: example 2 (a.png) has 6 ids, example 1 (a.png) only id 1." in answer.err
    joined = incontext("prompt", *pairs, *out, "--threshold", 1)
    assert (joined.code, joined.err) == (0, "")


def test_options_about_masks_do_not_go_with_labelled_sources(incontext, tmp_path):
    for part in ("images", "labels"):
        (tmp_path / "set" / part).mkdir(parents=True)
    source = ("--examples-from", tmp_path / "set", "--threshold", 1)
    answer = incontext("prompt", *source, "--out", tmp_path / "p.safetensors")
    assert answer.code == 2
    assert "--threshold with --examples-from, whose labels are ids as they are" in answer.err


def test_double_dash(segment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photo(tmp_path / "x.png").rename(tmp_path / "--example")
    assert segment("--", "--example").code == 0
    assert "--example" in results(tmp_path / "out")["results"]


def test_out_is_a_file(segment, tmp_path):
    answer = segment(tmp_path / "example.png", out="example.png")
    assert answer.code == 2
    assert "is a file; accepted: a folder" in answer.err


def test_out_below_a_file(segment, tmp_path):
    answer = segment(tmp_path / "example.png", out="labels.png/deep")
    assert answer.code == 2
    assert answer.err.splitlines()[-1].startswith(f"Error: {tmp_path / 'labels.png'}")
    assert "Not a directory" in answer.err


def test_damaged_results(segment, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/results.json").write_text("{")
    answer = segment(tmp_path / "example.png")
    assert answer.code == 2
    assert "results.json: damaged" in answer.err
    (tmp_path / "out/results.json").unlink()
    (tmp_path / "out/results.json").mkdir()
    assert "results.json" in segment(tmp_path / "example.png").err
