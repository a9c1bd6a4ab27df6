"""Runs of `incontext segment`: what is written, resumed, and refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from incontext import Example, Predictor
from tests.cli.helpers import IDS, mask, palette_mask, photo, results


@pytest.fixture
def folder(tmp_path) -> Path:
    for seed, name in enumerate(("a.png", "b.jpg", "sub/a.png", "sub/deep/c.webp")):
        photo(tmp_path / "in" / name, seed=seed)
    return tmp_path / "in"


def test_results(segment, folder, tmp_path, tiny_checkpoint):
    answer = segment(folder, "--name", "1=left coin", "--kind", "instance")
    assert answer.code == 0
    content = results(tmp_path / "out")
    assert sorted(content["results"]) == ["a", "b", "sub/a", "sub/deep/c"]
    assert content["failed"] == {}
    assert content["settings"]["kind"] == "instance"
    assert {k: v["name"] for k, v in content["ids"].items()} == {"1": "left coin", "3": "3"}
    image_count = sum(r["ids"]["1"]["pixels"] > 0 for r in content["results"].values())
    assert f"id 1 (left coin, #0080ff): in {image_count} of 4 pictures" in answer.out
    # the same as through Python
    predictor = Predictor.from_pretrained(tiny_checkpoint)
    example = Example(tmp_path / "example.png", IDS)
    prompt = predictor.prompt(example, kind="instance")
    for name, entry in content["results"].items():
        prediction = predictor.predict(entry["source"]["path"], prompt)
        labels = np.asarray(Image.open(tmp_path / "out" / f"{name}.png"))
        assert np.array_equal(labels, prediction.labels)
        assert entry["ids"]["3"]["pixels"] == int(prediction.mask(3).sum())


def test_resume(segment, folder, tmp_path):
    def times() -> dict[Path, int]:
        return {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.[pj][np]g")}

    assert segment(folder).code == 0
    before = times()
    assert len(before) == 12
    photo(folder / "new.png", seed=9)
    answer = segment(folder)
    assert answer.code == 0
    assert "4 of 5 pictures are finished already" in answer.out
    after = times()
    assert len(after) == 15
    assert before.items() <= after.items()

    photo(folder / "a.png", (30, 30), seed=7)
    segment(folder)
    changed_names = {p.name for p, t in times().items() if after[p] != t}
    assert changed_names == {"a.png", "a.confidence.png", "a.overlay.jpg"}
    assert results(tmp_path / "out")["results"]["a"]["size"] == [30, 30]

    before = times()
    assert segment(folder, "--overwrite").code == 0
    assert all(t != before[p] for p, t in times().items())


@pytest.mark.parametrize(
    "options", [["--kind", "instance"], ["--tile", "16"], ["--crop"], ["--name", "1=x"]]
)
def test_changed_settings(segment, folder, options):
    assert segment(folder).code == 0
    answer = segment(folder, *options)
    assert answer.code == 2
    message = options[0].strip("-").replace("name", "names")
    assert f"made with other settings ({message}); choose another folder" in answer.err
    assert segment(folder, *options, "--overwrite").code == 0


def test_skipping_tiles_is_a_setting(segment, folder, tmp_path):
    assert segment(folder, "--tile", "16").code == 0
    assert "skip_empty" not in results(tmp_path / "out")["settings"]
    skipping = folder, "--tile", "16", "--skip-empty"
    assert "made with other settings (skip_empty)" in segment(*skipping).err
    assert segment(*skipping, "--overwrite").code == 0
    assert results(tmp_path / "out")["settings"]["skip_empty"] is True
    assert "made with other settings (skip_empty)" in segment(folder, "--tile", "16").err


def test_changed_example(segment, folder, tmp_path):
    assert segment(folder).code == 0
    mask(tmp_path / "labels.png", np.roll(IDS, 1, 0))
    assert "other settings (examples)" in segment(folder).err


def test_changed_weights(incontext, segment, folder, tiny_checkpoint, tmp_path):
    assert incontext("convert", tiny_checkpoint, tmp_path / "w").code == 0
    assert segment(folder, "--checkpoint", tmp_path / "w").code == 0
    assert incontext("convert", tiny_checkpoint, tmp_path / "w", "--dtype", "float16").code == 0
    assert "other settings (weights)" in segment(folder, "--checkpoint", tmp_path / "w").err


def test_output_inside_the_targets(segment, folder, tmp_path):
    for _ in range(2):
        assert segment(folder, out="in/out").code == 0
        assert len(results(folder / "out")["results"]) == 4
    answer = segment(folder, out="in")
    assert answer.code == 2
    assert "lies in the output folder" in answer.err


def test_glob(segment, folder, tmp_path):
    assert segment(f"{folder}/**/*.jpg", folder / "*.png").code == 0
    assert sorted(results(tmp_path / "out")["results"]) == ["a", "b"]


def test_collisions(segment, folder):
    answer = segment(folder / "a.png", folder / "sub/a.png")
    assert answer.code == 2
    assert "would both be written as a" in answer.err


def test_suffixes_tell_apart(segment, folder, tmp_path):
    photo(folder / "b.png", seed=5)
    assert segment(folder).code == 0
    assert {"b_jpg", "b_png"} <= set(results(tmp_path / "out")["results"])


def test_crop_and_tile(segment, folder, tmp_path):
    answer = segment(folder, "--crop", "--tile", "16", "--chunk", "1", "--batch-size", "2")
    assert answer.code == 0
    content = results(tmp_path / "out")
    assert content["settings"]["tile"] == 16
    assert content["settings"]["crop"] is True


def test_palette_colors_are_kept(segment, folder, tmp_path):
    labels = palette_mask(tmp_path / "palette.png")
    assert segment(folder, example=(tmp_path / "example.png", labels)).code == 0
    palette = Image.open(tmp_path / "out/a.png").getpalette()
    assert palette[3:6] == [9, 200, 9]
    assert palette[9:12] == [12, 34, 56]


def test_large_ids_read_back(segment, folder, tmp_path, tiny_checkpoint):
    large = IDS.astype(np.uint16) * 300
    labels = mask(tmp_path / "large.png", large)
    assert segment(folder, example=(tmp_path / "example.png", labels)).code == 0
    predictor = Predictor.from_pretrained(tiny_checkpoint)
    prompt = predictor.prompt(Example(tmp_path / "example.png", large))
    for name in ("a.png", "b.jpg"):
        prediction = predictor.predict(folder / name, prompt).labels
        back = Example(folder / name, (tmp_path / "out" / name).with_suffix(".png"))
        assert np.array_equal(back.labels.ids, prediction)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtypes(segment, folder, dtype):
    assert segment(folder, "--dtype", dtype).code == 0


def test_bundled_checkpoint(incontext, folder, tmp_path):
    labels = mask(tmp_path / "l.png")
    answer = incontext(
        "segment", folder, "--example", photo(tmp_path / "e.png"), labels,
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert answer.code == 0
    assert len(results(tmp_path / "out")["results"]) == 4
