"""Bad options: one line that says what is wrong and what is accepted."""

import pytest

from tests.cli.helpers import photo, results


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--kind", "thing"], "kind 'thing'; accepted: instance, semantic"),
        (["--tile", "3"], "tile is 3 pixels; accepted: 16 or more"),
        (["--tile", "x"], "--tile"),
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
