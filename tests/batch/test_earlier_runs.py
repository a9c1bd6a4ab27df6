"""What later runs keep of earlier ones: one record a path, failures, images that are gone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from incontext.batch.inputs import find_images
from incontext.batch.records import read_all
from tests.cli.helpers import mask, photo, results
from tests.images.test_folder import UNPRIVILEGED
from tests.images.volumes import nifti


@pytest.fixture
def segment(incontext, tiny_checkpoint, tmp_path):
    """Run `incontext segment` into tmp_path/out with one example."""
    arguments = ["segment", "--checkpoint", tiny_checkpoint, "--out", tmp_path / "out"]
    arguments += ["--example", photo(tmp_path / "e.png"), mask(tmp_path / "m.png")]
    return lambda *more: incontext(*arguments, *more)


def recorded(out: Path) -> dict[str, str]:
    return {name: record["source"]["path"] for name, record in results(out)["results"].items()}


def test_a_second_image_of_the_same_stem(segment, tmp_path):
    """The first is named anew, and its old record and files go."""
    first, out = photo(tmp_path / "p/a.png"), tmp_path / "out"
    assert segment(tmp_path / "p").code == 0
    second = photo(tmp_path / "p/a.jpg", seed=1)
    assert segment(tmp_path / "p").code == 0
    assert recorded(out) == {"a_jpg": str(second), "a_png": str(first)}
    assert sorted(p.name for p in out.glob("*.png")) == [
        "a_jpg.confidence.png", "a_jpg.png", "a_png.confidence.png", "a_png.png"
    ]  # fmt: skip


def test_records_of_an_earlier_version(segment, tmp_path):
    """Two records of one image count as one; of a link its target may be recorded."""
    photo(tmp_path / "p/a.png")
    (tmp_path / "link").symlink_to("p")
    out = tmp_path / "out"
    assert segment(tmp_path / "p").code == 0
    assert "1 of 1 pictures are finished already" in segment(tmp_path / "link").out
    content = results(out)
    content["results"]["a_old"] = content["results"]["a"]
    (out / "results.json").write_text(json.dumps(content))
    assert len(read_all(out)[1]) == 1


def test_shards_that_name_an_image_differently(tmp_path):
    for number, name in enumerate(("a", "a_png")):
        record = {"source": {"path": "/in/a.png"}, "size": [1, 1], "files": {}, "ids": {}}
        content = {"settings": {}, "ids": {}, "results": {name: record}}
        (tmp_path / f"results.{number}-of-2.json").write_text(json.dumps(content))
    assert list(read_all(tmp_path)[1]) == ["a_png"]


def test_an_image_that_is_gone(segment, tmp_path):
    for name in ("p/a.png", "p/b.png", "q/c.png"):
        photo(tmp_path / name)
    out = tmp_path / "out"
    assert segment(tmp_path / "p", tmp_path / "q").code == 0
    for name in ("p/a.png", "q/c.png"):
        (tmp_path / name).unlink()
    assert segment(tmp_path / "p").code == 0
    assert set(recorded(out)) == {"a", "b", "c"}  # an image may be away for a while
    answer = segment(tmp_path / "p", "--overwrite")
    assert f"results of 1 pictures that are gone: {tmp_path / 'p/a.png'}\n" in answer.out
    assert set(recorded(out)) == {"b", "c"}
    answer = segment(tmp_path / "p", "--prune")
    assert str(tmp_path / "q/c.png") in answer.out
    assert set(recorded(out)) == {"b"}
    assert (out / "a.png").is_file()  # labels stay
    answer = segment(tmp_path / "p", "--prune", "--shard", "0/2")
    assert (answer.code, "without --shard" in answer.err) == (2, True)


def test_slices_are_gone_with_their_volume(segment, tmp_path):
    scan = nifti(tmp_path / "p/scan.nii", np.arange(480, dtype=np.int16).reshape(12, 10, 4))
    photo(tmp_path / "p/a.png")
    out = tmp_path / "out"
    assert segment(tmp_path / "p").code == 0
    slices = {f"scan/axial/{n:03}" for n in range(4)}
    again = segment(tmp_path / "p", "--prune")
    assert "5 of 5 pictures are finished already" in again.out
    assert set(recorded(out)) == {"a", *slices}
    hashes = {record["source"]["sha256"] for record in results(out)["results"].values()}
    assert {text.partition("/")[2] for text in hashes} == {"", *(f"axial/{n:03}" for n in range(4))}
    scan.unlink()
    assert "4 pictures that are gone" in segment(tmp_path / "p", "--prune").out
    assert set(recorded(out)) == {"a"}


def test_a_link_that_is_broken_now(segment, tmp_path):
    stored = photo(tmp_path / "store/x.png")
    (tmp_path / "p").mkdir()
    (tmp_path / "p/a.png").symlink_to(stored)
    (tmp_path / "p/b.png").symlink_to("nowhere")
    answer = segment(tmp_path / "p")
    assert answer.code == 1
    assert "b.png: a link to a file that is gone" in answer.err
    stored.unlink()
    assert segment(tmp_path / "p").code == 1
    assert list(recorded(tmp_path / "out")) == ["a"]


def test_failures_are_remembered(segment, tmp_path):
    photo(tmp_path / "p/a.png")
    photo(tmp_path / "q/b.png")
    bad = tmp_path / "p/bad.png"
    bad.write_text("junk")
    out = tmp_path / "out"
    assert segment(tmp_path / "p").code == 1
    assert segment(tmp_path / "q").code == 0
    assert list(results(out)["failed"]) == [str(bad)]
    photo(bad)
    assert segment(tmp_path / "p").code == 0
    assert results(out)["failed"] == {}
    bad.write_text("junk again")
    assert segment(tmp_path / "p").code == 1
    bad.unlink()
    assert segment(tmp_path / "q").code == 0
    assert results(out)["failed"] == {}


@pytest.mark.slow
def test_a_folder_without_permission_fails(segment, tiny_checkpoint, tmp_path):
    photo(tmp_path / "p/b.png")
    locked = photo(tmp_path / "p/locked/a.png").parent
    locked.chmod(0)
    command = [
        *UNPRIVILEGED, sys.executable, "-m", "incontext", "segment", "--checkpoint",
        tiny_checkpoint, "--example", tmp_path / "e.png", tmp_path / "m.png", "--out",
        tmp_path / "out", tmp_path / "p",
    ]  # fmt: skip
    try:
        answer = subprocess.run(
            [*map(str, command)], capture_output=True, text=True, check=False, env=os.environ
        )
    finally:
        locked.chmod(0o755)
    assert answer.returncode == 1, answer.stderr
    assert f"failed: {locked}: no permission to list this folder" in answer.stderr
    assert list(results(tmp_path / "out")["failed"]) == [str(locked)]
    assert list(results(tmp_path / "out")["results"]) == ["b"]
    assert segment(tmp_path / "p").code == 0
    assert results(tmp_path / "out")["failed"] == {}
    assert set(recorded(tmp_path / "out")) == {"b", "locked/a"}


def test_the_source_has_a_hash(segment, tmp_path):
    path = photo(tmp_path / "p/a.png")
    assert segment(tmp_path / "p").code == 0
    source = results(tmp_path / "out")["results"]["a"]["source"]
    assert set(source) == {"path", "bytes", "modified_ns", "sha256"}
    assert source["path"] == str(path)
    assert find_images([path], tmp_path / "out")[0].path == path
