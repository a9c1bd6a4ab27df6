"""Doubt: the threshold of presence, and the page of results worth a look."""

import json
import re
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from incontext.batch.review import rate, worst_results, write_review


def record(**ids):
    return {
        "ids": {
            i: {"pixels": pixels, "presence": presence, "quality": quality}
            for i, (pixels, presence, quality) in ids.items()
        }
    }


def test_the_worst_id_counts():
    assert rate(record(a=(5, 0.9, 0.8), b=(5, 0.9, 0.3))) == 0.3
    assert rate(record(a=(5, 0.9, 0.8), b=(0, 0.4, 0.0))) == pytest.approx(0.6)  # maybe missed
    assert rate({"ids": {}}) == 1
    assert rate({"ids": {"1": {"pixels": 4, "presence": 0.7}}}) == 0.7  # of an earlier version
    records = {n: record(a=(5, 0.9, q)) for n, q in (("x", 0.5), ("y", 0.1), ("z", 0.5))}
    assert [r.name for r in worst_results(records, 2)] == ["y", "x"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name in ("a", "b & <c>", "d#1"):
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8)).save(folder / f"{name}.png")
    mask = np.zeros((40, 50), np.uint8)
    mask[10:30, 10:30] = 1
    Image.fromarray(mask).save(folder.parent / "mask.png")
    return folder


def segment(incontext, pictures, out, *options):
    return incontext(
        "segment", pictures, "--example", pictures / "a.png", pictures.parent / "mask.png",
        "--checkpoint", "incontext-small", "--out", out, *options,
    )  # fmt: skip


def test_review_shows_the_worst_first(tmp_path, incontext, pictures):
    done = segment(incontext, pictures, tmp_path / "out", "--review", 2, "--presence", 0)
    assert done.code == 0, done.err
    assert f"worth a look: {tmp_path / 'out/review.html'}" in done.out
    page = (tmp_path / "out/review.html").read_text(encoding="utf-8")
    records = json.loads((tmp_path / "out/results.json").read_text())["results"]
    worst = sorted(records, key=lambda name: rate(records[name]))[:2]
    files = [unquote(f) for f in re.findall(r'<img src="([^"]*)"', page)]
    assert files == [records[name]["files"]["overlay"] for name in worst]
    assert all((tmp_path / "out" / file).is_file() for file in files)
    assert "2 of 3 results" in page
    assert "<c>" not in page
    assert "quality 0." in page


def test_names_that_are_no_utf_8_and_records_of_earlier_versions(tmp_path):
    records = {"\udcff_a": {
        "files": {"overlay": "\udcff_a.overlay.jpg"},
        "ids": {"1": {"pixels": 3, "presence": 0.7}, "2": {"pixels": 0, "presence": 0.4}},
    }}  # fmt: skip
    ids = {i: {"name": "leaf", "color": [1, 2, 3]} for i in ("1", "2")}
    page = write_review(records, ids, tmp_path, 5).read_text(encoding="utf-8")
    assert 'src="%FF_a.overlay.jpg"' in page
    assert "\\xff_a" in page
    assert "<b>presence 0.70</b>" in page
    assert "<b>no mask, presence 0.40</b>" in page


def test_threshold(tmp_path, incontext, pictures):
    """Masks below it are empty; a run is not continued with another."""
    for presence, expect in ((0, True), (1, False)):
        out = tmp_path / str(presence)
        assert segment(incontext, pictures, out, "--presence", presence).code == 0
        records = json.loads((out / "results.json").read_text())["results"]
        assert any(r["ids"]["1"]["pixels"] for r in records.values()) == expect
        assert all(0 <= r["ids"]["1"]["quality"] <= 1 for r in records.values())
        assert (np.asarray(Image.open(out / "a.png")) > 0).any() == expect
    again = segment(incontext, pictures, tmp_path / "0", "--presence", 0.4)
    assert again.code == 2
    assert "presence" in again.err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--presence", 0.3, "--checkpoint", "incontext-votes"), "min_presence is 0.3; accepted"),
        (("--presence", 1.2), "--presence is 1.2; accepted: a number, 0 … 1"),
        (("--review", 0), "--review is 0; accepted: whole numbers, 1 or more"),
        (("--review", 3, "--shard", "0/2"), "--review with --shard"),
    ],
)
def test_what_is_refused(tmp_path, incontext, pictures, options, text):
    done = segment(incontext, pictures, tmp_path / "out", *options)
    assert done.code == 2
    assert text in " ".join(done.err.split())
    assert not (tmp_path / "out").exists()
