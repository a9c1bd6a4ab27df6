"""The command line: every encoding and odd picture through it, one clear line for what is wrong."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from faster_coco_eval import mask as coco
from PIL import Image

from incontext import Example, Predictor
from incontext.checkpoints import checkpoint
from incontext.cli import common

SIZE = (24, 20)  # width, height of the example
IDS = np.zeros(SIZE[::-1], np.uint8)
IDS[3:12, 4:14] = 1
IDS[10:18, 12:22] = 3
RED, GREEN = (255, 0, 0), (0, 255, 0)
COLORED = np.zeros((*IDS.shape, 3), np.uint8)
COLORED[IDS == 1] = RED
COLORED[IDS == 3] = GREEN


def photo(path: Path, size: tuple[int, int] = SIZE, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def mask(path: Path, array: np.ndarray = IDS, **options: object) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


def palette_mask(path: Path) -> Path:
    image = Image.fromarray(IDS)
    image.putpalette([0, 0, 0, 9, 200, 9, 0, 0, 0, 12, 34, 56])
    image.save(path)
    return path


def results(out: Path) -> dict[str, dict]:
    return json.loads((out / "results.json").read_text())


@pytest.fixture
def segment(incontext, tiny_checkpoint, tmp_path):
    """`segment` with an example, into tmp_path/out; later arguments win."""
    image, labels = photo(tmp_path / "example.png"), mask(tmp_path / "labels.png")

    def run(*args: object, example: tuple[object, object] = (image, labels), out: str = "out"):
        return incontext(
            "segment", "--checkpoint", tiny_checkpoint, "--example", *example,
            "--out", tmp_path / out, *args,
        )  # fmt: skip

    return run


def jpeg_mask(folder: Path) -> Path:
    block = np.zeros((20, 24), np.uint8)
    block[:16, :16] = 255  # whole JPEG blocks
    return mask(folder / "m.jpg", block, quality=95)


def coco_file(folder: Path) -> Path:
    rle = coco.encode(np.asfortranarray((IDS == 3).astype(np.uint8)))
    content = {
        "images": [{"id": 1, "file_name": "example.png", "width": 24, "height": 20}],
        "annotations": [
            {"image_id": 1, "category_id": 1, "segmentation": [[4, 3, 14, 3, 14, 12, 4, 12]]},
            {"image_id": 1, "category_id": 3,
             "segmentation": {**rle, "counts": rle["counts"].decode()}},
            {"image_id": 1, "category_id": 1, "iscrowd": 1,
             "segmentation": {"size": [20, 24], "counts": [0, 20, 460]}},
        ],
    }  # fmt: skip
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return path


ENCODINGS = {
    "binary-1": (lambda f: mask(f / "m.png", IDS > 0), [], [1]),
    "binary-0-1": (lambda f: mask(f / "m.png", (IDS > 0).astype(np.uint8)), [], [1]),
    "binary-0-255": (lambda f: mask(f / "m.png", (IDS > 0).astype(np.uint8) * 255), [], [1]),
    "ids": (lambda f: mask(f / "m.png"), [], [1, 3]),
    "bmp": (lambda f: mask(f / "m.bmp"), ["--ignore", "none"], [1, 3]),
    "tiff": (lambda f: mask(f / "m.tif", IDS.astype(np.int32)), [], [1, 3]),
    "16-bit": (lambda f: mask(f / "m.png", IDS.astype(np.uint16) * 21_845), [], [21_845, 65_535]),
    "ignore-255": (lambda f: mask(f / "m.png", IDS * 85), ["--ignore", "255"], [85]),
    "id-255": (lambda f: mask(f / "m.png", IDS * 85), ["--ignore", "none"], [85, 255]),
    "negative": (lambda f: mask(f / "m.tif", np.where(IDS == 1, -1, IDS.astype(np.int32))),
                 ["--ignore", "-1"], [3]),
    "palette": (lambda f: palette_mask(f / "m.png"), [], [1, 3]),
    "gif": (lambda f: palette_mask(f / "m.gif"), [], None),
    "colors": (lambda f: mask(f / "m.png", COLORED), [], [1, 2]),
    "color-table": (lambda f: mask(f / "m.png", COLORED),
                    ["--color", "7=#ff0000", "--color", "9=0,255,0"], [7, 9]),
    "webp": (lambda f: mask(f / "m.webp", COLORED, lossless=True), [], [1, 2]),
    "soft": (lambda f: mask(f / "m.png", IDS * 80), ["--threshold", "100"], [1]),
    "jpeg": (jpeg_mask, ["--threshold", "128"], [1]),
    "coco": (coco_file, [], [1, 3]),
}  # fmt: skip


class TestEncodings:
    @pytest.mark.parametrize("name", ENCODINGS)
    def test_accepted(self, segment, tmp_path, name):
        make, options, expected = ENCODINGS[name]
        answer = segment(
            tmp_path / "example.png", *options, example=(tmp_path / "example.png", make(tmp_path))
        )
        assert answer.code == 0, answer.err
        content = results(tmp_path / "out")
        ids = sorted(map(int, content["ids"]))
        assert ids == expected if expected else len(ids) == 2
        labels = Image.open(tmp_path / "out/example.png")
        assert labels.mode == ("I;16" if ids[-1] > 255 else "P")
        assert set(np.unique(np.asarray(labels))) <= {0, *ids}

    @pytest.mark.parametrize(
        ("make", "options", "wanted"),
        [
            (lambda f: mask(f / "m.png", IDS * 85), [], "pass ignore=255"),
            (lambda f: mask(f / "m.png", IDS.repeat(2, 0)), [], "24×40"),
            (lambda f: mask(f / "m.png", COLORED), ["--color", "1=#ff0000"], "(0, 255, 0)"),
            (lambda f: mask(f / "m.png"), ["--color", "1=#ff0000"], "one channel"),
            (lambda f: mask(f / "m.png", IDS[..., None].repeat(3, 2)), [], "gray picture"),
            (lambda f: mask(f / "m.png", IDS * 0), [], "no example shows an object"),
            (jpeg_mask, [], "JPEG is lossy"),
            (lambda f: f / "no.png", [], "no such file"),
            (lambda f: f / "no.json", [], "no such file"),
        ],
    )
    def test_refused(self, segment, tmp_path, make, options, wanted):
        example = (tmp_path / "example.png", make(tmp_path))
        answer = segment(tmp_path / "example.png", *options, example=example)
        assert answer.code == 2
        assert wanted in answer.err
        assert answer.err.startswith("Error: ")
        assert len(answer.err.splitlines()) == 1
        assert not (tmp_path / "out").exists()

    def test_colors_shared_over_examples(self, incontext, tiny_checkpoint, tmp_path):
        image = photo(tmp_path / "a.png")
        both = mask(tmp_path / "both.png", COLORED)
        one = mask(tmp_path / "one.png", COLORED[..., ::-1])
        answer = incontext(
            "segment", image, "--checkpoint", tiny_checkpoint, "--out", tmp_path / "out",
            "--example", image, both, f"--example={image}", one,
        )  # fmt: skip
        assert answer.code == 0, answer.err
        # blue, green, red in ascending (r, g, b); green is in both
        colors = {k: v["color"] for k, v in results(tmp_path / "out")["ids"].items()}
        assert colors == {"1": [0, 0, 255], "2": [0, 255, 0], "3": [255, 0, 0]}


def odd_pictures(folder: Path) -> dict[str, tuple[int, int]]:
    """Writes pictures of every kind; name → upright (width, height)."""
    folder.mkdir()
    noise = np.random.default_rng(1).integers(0, 256, (6, 9, 4), dtype=np.uint8)
    rgb = Image.fromarray(noise[..., :3])
    sizes = {}

    def add(name: str, image: Image.Image, size: tuple[int, int] = (9, 6), **options: object):
        image.save(folder / name, **options)
        sizes[Path(name).stem] = size

    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[274] = orientation
        shown = (9, 6) if orientation < 5 else (6, 9)
        add(f"turned{orientation}.jpg", rgb, shown, exif=exif)
    add("alpha.png", Image.fromarray(noise))
    add("gray.png", rgb.convert("L"))
    add("gray-alpha.png", rgb.convert("LA"))
    add("bits.png", rgb.convert("1"))
    add("deep.png", Image.fromarray(noise[..., 0].astype(np.uint16) * 200))
    add("ink.jpg", rgb.convert("CMYK"))
    add("palette.png", rgb.quantize(8), transparency=0)
    add("film.gif", rgb, save_all=True, append_images=[rgb.rotate(180)])
    add("pages.tif", rgb, save_all=True, append_images=[rgb.rotate(180)])
    add("dot.png", rgb.crop((0, 0, 1, 1)), (1, 1))
    add("thin.png", Image.new("RGB", (1, 2000)), (1, 2000))
    add("flat.bmp", Image.new("RGB", (2000, 1)), (2000, 1))
    add("lossy.webp", rgb)
    add("old.ppm", rgb)
    return sizes


BAD = {
    "cut.png": "damaged picture", "text.png": "not a picture", "page.png": "not a picture",
    "logo.png": "not a picture", "empty.jpg": "an empty file", "bomb.png": "200 megapixels",
}  # fmt: skip


def bad_pictures(folder: Path) -> None:
    data = photo(folder / "cut.png", (60, 60)).read_bytes()
    (folder / "cut.png").write_bytes(data[: len(data) // 2])
    (folder / "text.png").write_text("hello")
    (folder / "page.png").write_text("<!DOCTYPE html><html></html>")
    (folder / "logo.png").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    (folder / "empty.jpg").write_bytes(b"")
    Image.new("1", (8, 8)).save(folder / "bomb.png")
    data = bytearray((folder / "bomb.png").read_bytes())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    # the check sum of the header, which Pillow compares
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (folder / "bomb.png").write_bytes(data)


class TestPictures:
    @pytest.mark.parametrize("tile", [None, 16])
    def test_odd_pictures(self, segment, tmp_path, tile):
        sizes = odd_pictures(tmp_path / "in")
        options = [] if tile is None else ["--tile", tile, "--batch-size", 3]
        answer = segment(tmp_path / "in", *options)
        assert answer.code == 0, answer.err
        content = results(tmp_path / "out")
        assert {name: tuple(r["size"]) for name, r in content["results"].items()} == sizes
        for name, size in sizes.items():
            for suffix in (".png", ".confidence.png", ".overlay.jpg"):
                assert Image.open(tmp_path / "out" / (name + suffix)).size == size
        for name in ("film", "pages"):
            assert f"note on {name}: " in answer.out
            assert "the first one is used" in content["results"][name]["notes"][0]

    @pytest.mark.parametrize("batch_size", [1, 8])
    def test_bad_ones_are_reported(self, segment, tmp_path, batch_size):
        bad_pictures(tmp_path / "in")
        photo(tmp_path / "in/a.png")
        photo(tmp_path / "in/z.png")
        answer = segment(tmp_path / "in", "--batch-size", batch_size)
        assert answer.code == 1
        assert f"{len(BAD)} of {len(BAD) + 2} pictures failed" in answer.err
        content = results(tmp_path / "out")
        assert sorted(content["results"]) == ["a", "z"]
        assert len(content["failed"]) == len(BAD)
        for name, wanted in BAD.items():
            assert wanted in content["failed"][str(tmp_path / "in" / name)]
            assert f"failed: {tmp_path / 'in' / name}: " in answer.err

    @pytest.mark.parametrize("name", BAD)
    def test_bad_example(self, segment, tmp_path, name):
        bad_pictures(tmp_path / "in")
        bad, good = tmp_path / "in" / name, tmp_path / "example.png"
        for example in ((bad, tmp_path / "labels.png"), (good, bad)):
            answer = segment(good, example=example)
            assert answer.code == 2
            assert BAD[name] in answer.err
            assert len(answer.err.splitlines()) == 1

    @pytest.mark.slow
    def test_huge(self, segment, tmp_path):
        """More pixels than Pillow takes without a warning."""
        Image.new("RGB", (10_000, 9_000), (90, 120, 60)).save(tmp_path / "huge.png")
        answer = segment(tmp_path / "huge.png")
        assert answer.code == 0, answer.err
        assert "Warning" not in answer.err
        assert results(tmp_path / "out")["results"]["huge"]["size"] == [10_000, 9_000]
        assert Image.open(tmp_path / "out/huge.png").size == (10_000, 9_000)
        for path in (tmp_path / "out").iterdir():
            path.unlink()  # large; the temporary folders of a few runs are kept

    def test_animated_example_warns(self, segment, tmp_path):
        frames = [Image.new("RGB", SIZE, color) for color in ("red", "blue")]
        frames[0].save(tmp_path / "e.gif", save_all=True, append_images=frames[1:])
        answer = segment(tmp_path / "e.gif", example=(tmp_path / "e.gif", tmp_path / "labels.png"))
        assert answer.code == 0
        assert f"Warning: {tmp_path / 'e.gif'}: 2 frames; the first one is used\n" in answer.err


class TestRuns:
    @pytest.fixture
    def folder(self, tmp_path) -> Path:
        for seed, name in enumerate(("a.png", "b.jpg", "sub/a.png", "sub/deep/c.webp")):
            photo(tmp_path / "in" / name, seed=seed)
        return tmp_path / "in"

    def test_results(self, segment, folder, tmp_path, tiny_checkpoint):
        answer = segment(folder, "--name", "1=left coin", "--kind", "instance")
        assert answer.code == 0
        content = results(tmp_path / "out")
        assert sorted(content["results"]) == ["a", "b", "sub/a", "sub/deep/c"]
        assert content["failed"] == {}
        assert content["settings"]["kind"] == "instance"
        assert {k: v["name"] for k, v in content["ids"].items()} == {"1": "left coin", "3": "3"}
        found = sum(r["ids"]["1"]["pixels"] > 0 for r in content["results"].values())
        assert f"id 1 (left coin, #0080ff): in {found} of 4 pictures" in answer.out
        # the same as through Python
        predictor = Predictor.from_pretrained(tiny_checkpoint)
        example = Example(tmp_path / "example.png", IDS)
        prompt = predictor.prompt(example, kind="instance")
        for name, entry in content["results"].items():
            expected = predictor.predict(entry["source"]["path"], prompt)
            written = np.asarray(Image.open(tmp_path / "out" / f"{name}.png"))
            assert np.array_equal(written, expected.labels)
            assert entry["ids"]["3"]["pixels"] == int(expected.mask(3).sum())

    def test_resume(self, segment, folder, tmp_path):
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
        changed = {p.name for p, t in times().items() if after[p] != t}
        assert changed == {"a.png", "a.confidence.png", "a.overlay.jpg"}
        assert results(tmp_path / "out")["results"]["a"]["size"] == [30, 30]

        before = times()
        assert segment(folder, "--overwrite").code == 0
        assert all(t != before[p] for p, t in times().items())

    @pytest.mark.parametrize(
        "options", [["--kind", "instance"], ["--tile", "16"], ["--crop"], ["--name", "1=x"]]
    )
    def test_changed_settings(self, segment, folder, options):
        assert segment(folder).code == 0
        answer = segment(folder, *options)
        assert answer.code == 2
        wanted = options[0].strip("-").replace("name", "names")
        assert f"made with other settings ({wanted}); pass overwrite" in answer.err
        assert segment(folder, *options, "--overwrite").code == 0

    def test_changed_example(self, segment, folder, tmp_path):
        assert segment(folder).code == 0
        mask(tmp_path / "labels.png", np.roll(IDS, 1, 0))
        assert "other settings (examples)" in segment(folder).err

    def test_changed_weights(self, incontext, segment, folder, tiny_checkpoint, tmp_path):
        assert incontext("convert", tiny_checkpoint, tmp_path / "w").code == 0
        assert segment(folder, "--checkpoint", tmp_path / "w").code == 0
        assert incontext("convert", tiny_checkpoint, tmp_path / "w", "--dtype", "float16").code == 0
        assert "other settings (weights)" in segment(folder, "--checkpoint", tmp_path / "w").err

    def test_output_inside_the_targets(self, segment, folder, tmp_path):
        for _ in range(2):
            assert segment(folder, out="in/out").code == 0
            assert len(results(folder / "out")["results"]) == 4
        answer = segment(folder, out="in")
        assert answer.code == 2
        assert "lies in the output folder" in answer.err

    def test_glob(self, segment, folder, tmp_path):
        assert segment(f"{folder}/**/*.jpg", folder / "*.png").code == 0
        assert sorted(results(tmp_path / "out")["results"]) == ["a", "b"]

    def test_collisions(self, segment, folder):
        answer = segment(folder / "a.png", folder / "sub/a.png")
        assert answer.code == 2
        assert "would both be written as a" in answer.err

    def test_suffixes_tell_apart(self, segment, folder, tmp_path):
        photo(folder / "b.png", seed=5)
        assert segment(folder).code == 0
        assert {"b_jpg", "b_png"} <= set(results(tmp_path / "out")["results"])

    def test_crop_and_tile(self, segment, folder, tmp_path):
        answer = segment(folder, "--crop", "--tile", "16", "--chunk", "1", "--batch-size", "2")
        assert answer.code == 0
        content = results(tmp_path / "out")
        assert content["settings"]["tile"] == 16
        assert content["settings"]["crop"] is True

    def test_palette_colors_are_kept(self, segment, folder, tmp_path):
        labels = palette_mask(tmp_path / "palette.png")
        assert segment(folder, example=(tmp_path / "example.png", labels)).code == 0
        palette = Image.open(tmp_path / "out/a.png").getpalette()
        assert palette[3:6] == [9, 200, 9]
        assert palette[9:12] == [12, 34, 56]

    def test_large_ids_read_back(self, segment, folder, tmp_path, tiny_checkpoint):
        large = IDS.astype(np.uint16) * 300
        labels = mask(tmp_path / "large.png", large)
        assert segment(folder, example=(tmp_path / "example.png", labels)).code == 0
        predictor = Predictor.from_pretrained(tiny_checkpoint)
        prompt = predictor.prompt(Example(tmp_path / "example.png", large))
        for name in ("a.png", "b.jpg"):
            expected = predictor.predict(folder / name, prompt).labels
            back = Example(folder / name, (tmp_path / "out" / name).with_suffix(".png"))
            assert np.array_equal(back.labels.ids, expected)

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
    def test_dtypes(self, segment, folder, dtype):
        assert segment(folder, "--dtype", dtype).code == 0

    def test_bundled_checkpoint(self, incontext, folder, tmp_path):
        labels = mask(tmp_path / "l.png")
        answer = incontext(
            "segment", folder, "--example", photo(tmp_path / "e.png"), labels,
            "--out", tmp_path / "out",
        )  # fmt: skip
        assert answer.code == 0
        assert len(results(tmp_path / "out")["results"]) == 4


class TestBadOptions:
    @pytest.mark.parametrize(
        ("options", "wanted"),
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
    def test_one_line(self, segment, tmp_path, options, wanted):
        answer = segment(tmp_path / "example.png", *options)
        assert answer.code == 2
        errors = [line for line in answer.err.splitlines() if line.startswith("Error: ")]
        assert len(errors) == 1
        assert wanted in errors[0]
        assert answer.err.splitlines()[-1] == errors[0]
        assert not (tmp_path / "out").exists()

    def test_missing_options(self, incontext):
        answer = incontext("segment", "a.png")
        assert answer.code == 2
        assert "Missing option '--out'" in answer.err
        answer = incontext("segment", "a.png", "--out", "out")
        assert answer.code == 2
        assert "--example IMAGE MASK (repeated), or --prompt FILE" in answer.err

    def test_no_command(self, incontext):
        assert "Segment pictures by example" in "".join(incontext()[1:])
        answer = incontext("sgment")
        assert answer.code == 2
        assert "No such command 'sgment'" in answer.err

    def test_double_dash(self, segment, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        photo(tmp_path / "x.png").rename(tmp_path / "--example")
        assert segment("--", "--example").code == 0
        assert "--example" in results(tmp_path / "out")["results"]

    def test_out_is_a_file(self, segment, tmp_path):
        answer = segment(tmp_path / "example.png", out="example.png")
        assert answer.code == 2
        assert "is a file; accepted: a folder" in answer.err

    def test_out_below_a_file(self, segment, tmp_path):
        answer = segment(tmp_path / "example.png", out="labels.png/deep")
        assert answer.code == 2
        assert answer.err.splitlines()[-1].startswith(f"Error: {tmp_path / 'labels.png'}")
        assert "Not a directory" in answer.err

    def test_damaged_results(self, segment, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out/results.json").write_text("{")
        answer = segment(tmp_path / "example.png")
        assert answer.code == 2
        assert "results.json: damaged" in answer.err
        (tmp_path / "out/results.json").unlink()
        (tmp_path / "out/results.json").mkdir()
        assert "results.json" in segment(tmp_path / "example.png").err


class TestCheckpoints:
    def test_info(self, incontext, tiny_checkpoint):
        answer = incontext("info", tiny_checkpoint)
        assert answer.code == 0
        for line in ("layout      incontext", "stored as float32", "image_size        32"):
            assert line in answer.out

    def test_info_of_the_bundled_one(self, incontext):
        assert common.DEFAULT == checkpoint.DEFAULT
        answer = incontext("info", common.DEFAULT)
        assert answer.code == 0
        assert "parameters" in answer.out

    @pytest.mark.parametrize("layout", ["official", "transformers", "incontext"])
    def test_convert_there_and_back(self, incontext, tiny_checkpoint, tmp_path, layout):
        there = tmp_path / ("w.pth" if layout == "official" else "w")
        answer = incontext("convert", tiny_checkpoint, there, "--layout", layout)
        assert answer.code == 0, answer.err
        assert answer.out.startswith(f"wrote {there}")
        info = incontext("info", there)
        assert f"layout      {layout}" in info.out

    def test_convert_dtype(self, incontext, tiny_checkpoint, tmp_path):
        answer = incontext("convert", tiny_checkpoint, tmp_path / "w", "--dtype", "bfloat16")
        assert answer.code == 0
        assert "stored as bfloat16" in incontext("info", tmp_path / "w").out

    @pytest.mark.parametrize(
        ("target", "options", "wanted"),
        [
            ("w", ["--layout", "onnx"], "accepted: official, transformers, incontext"),
            ("w", ["--dtype", "int8"], "accepted: float32"),
            ("w.pth", [], "--layout official is one .pth file"),
            ("example.png", [], "layout is a folder"),
            (".", ["--layout", "official"], "is one .pth file"),
            ("example.png/w", [], "Not a directory"),
        ],
    )
    def test_convert_refused(self, incontext, tiny_checkpoint, tmp_path, target, options, wanted):
        photo(tmp_path / "example.png")
        answer = incontext("convert", tiny_checkpoint, tmp_path / target, *options)
        assert answer.code == 2
        assert wanted in answer.err
        assert len(answer.err.splitlines()) == 1

    def test_version(self, incontext):
        assert incontext("--version").out.strip() == "0.1.0"

    @pytest.mark.parametrize("command", [["info"], ["convert"]])
    @pytest.mark.parametrize("name", ["nobody", "a/b/c", "", "no.pth", "no/such.safetensors"])
    def test_unknown_names(self, incontext, tmp_path, command, name, monkeypatch):
        monkeypatch.chdir(tmp_path)
        target = [tmp_path / "w"] if command == ["convert"] else []
        answer = incontext(*command, name, *target)
        assert answer.code == 2
        texts = ("incontext-small", "holds no model.safetensors", f"{name}: no such file")
        assert any(text in answer.err for text in texts)
        assert len(answer.err.splitlines()) == 1

    @pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
    def test_damaged(self, incontext, tmp_path, name):
        (tmp_path / name).write_bytes(b"no weights")
        answer = incontext("info", tmp_path / name)
        assert answer.code == 2
        assert str(tmp_path / name) in answer.err
        assert len(answer.err.splitlines()) == 1

    @pytest.mark.parametrize("name", ["BAAI/SegGPT", "BAAI/seggpt-vit-large"])
    def test_hub_out_of_reach(self, incontext, name):
        answer = incontext("info", name)
        assert answer.code == 2
        assert answer.err.startswith(f"Error: {name} is not in the local hub cache")
        assert len(answer.err.splitlines()) == 1


class TestProcess:
    """As a process of its own, where exit codes and streams are real."""

    def run(self, *args: object, **options: object) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "incontext", *map(str, args)], capture_output=True, text=True,
            check=False, env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            **options,
        )  # fmt: skip
        assert "Traceback" not in done.stdout + done.stderr
        return done

    def arguments(self, tmp_path: Path, checkpoint: Path) -> list[object]:
        return [
            "segment", tmp_path / "in", "--checkpoint", checkpoint, "--out", tmp_path / "out",
            "--example", photo(tmp_path / "e.png"), mask(tmp_path / "l.png"),
        ]  # fmt: skip

    def test_bad_file_among_good_ones(self, tiny_checkpoint, tmp_path):
        photo(tmp_path / "in/good.png")
        (tmp_path / "in/bad.png").write_text("no picture")
        # a name that is no text, and a console that knows ASCII only
        photo(tmp_path / "in/x.gif").rename(
            os.fsdecode(os.fsencode(tmp_path / "in/") + b"/\xff.gif")
        )
        done = self.run(*self.arguments(tmp_path, tiny_checkpoint))
        assert done.returncode == 1
        assert "1 of 3 pictures failed" in done.stderr
        assert "id 1 (1, #0080ff): in " in done.stdout

    @pytest.mark.slow
    def test_full_disk(self, tiny_checkpoint, tmp_path, incontext):
        photo(tmp_path / "in/a.png", (600, 600))

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))

        done = self.run(*self.arguments(tmp_path, tiny_checkpoint), preexec_fn=limit)
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].startswith("Error: ")
        assert "File too large" in done.stderr
        assert not list((tmp_path / "out").glob(".*.part"))
        # with room again, the run goes on
        assert incontext(*self.arguments(tmp_path, tiny_checkpoint)).code == 0

    @pytest.mark.slow
    def test_interrupted(self, tiny_checkpoint, tmp_path, incontext):
        for index in range(80):
            photo(tmp_path / f"in/{index}.png")
        arguments = [*self.arguments(tmp_path, tiny_checkpoint), "--batch-size", 1]
        with subprocess.Popen(
            [sys.executable, "-m", "incontext", *map(str, arguments)], stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
            # Shells and test runners in the background hand on that it be ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        ) as process:  # fmt: skip
            while process.poll() is None and not list((tmp_path / "out").glob("*.overlay.jpg")):
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            errors = process.communicate()[1]
        assert process.returncode == 130
        assert "interrupted; finished files are kept" in errors
        assert "Traceback" not in errors
        finished = len(results(tmp_path / "out")["results"])
        assert finished < 80
        done = incontext(*arguments)
        assert done.code == 0
        assert not finished or f"{finished} of 80 pictures are finished already" in done.out

    def test_bad_option(self):
        done = self.run("segment", "--speed", "9")
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].startswith("Error: No such option: --speed")


class TestPromptFiles:
    @pytest.fixture
    def made(self, incontext, tiny_checkpoint, tmp_path):
        """`prompt` of two examples, into tmp_path/p.safetensors."""
        pairs = []
        for name in ("e1", "e2"):
            image = photo(tmp_path / f"{name}.png")
            pairs += ["--example", image, mask(tmp_path / f"{name}.labels.png")]

        def run(*args: object):
            return incontext(
                "prompt", "--checkpoint", tiny_checkpoint, *pairs,
                "--out", tmp_path / "p.safetensors", *args,
            )  # fmt: skip

        return run, pairs

    @pytest.mark.parametrize(
        "options", [[], ["--half"], ["--nearest", 1], ["--spill"], ["--name", "3=coin"]]
    )
    def test_same_as_examples(self, incontext, made, tiny_checkpoint, tmp_path, options):
        run, pairs = made
        photo(tmp_path / "in/a.png", (70, 90))
        answer = run(*options)
        assert answer.code == 0, answer.err
        assert "2 examples, ids 1, 3, " in answer.out
        common = ["segment", "--checkpoint", tiny_checkpoint, tmp_path / "in"]
        used = incontext(*common, "--prompt", tmp_path / "p.safetensors", "--out", tmp_path / "a")
        assert used.code == 0, used.err
        shown = [o for o in options if o != "--half"]
        assert incontext(*common, *pairs, *shown, "--out", tmp_path / "b").code == 0
        one, other = (np.asarray(Image.open(tmp_path / d / "a.png")) for d in "ab")
        assert np.mean(one != other) < (0.01 if options == ["--half"] else 1e-9)
        if "--name" in options:
            assert "id 3 (coin" in used.out
        # Finished files are known again by the prompt's content.
        again = incontext(*common, "--prompt", tmp_path / "p.safetensors", "--out", tmp_path / "a")
        assert "1 of 1 pictures are finished already" in again.out

    def test_refused(self, incontext, made, tiny_checkpoint, tmp_path):
        run, pairs = made
        assert run().code == 0
        image, file = photo(tmp_path / "in.png"), tmp_path / "p.safetensors"
        common = ["segment", image, "--out", tmp_path / "out", "--checkpoint"]
        for said, wanted in [
            ([tiny_checkpoint, "--prompt", tmp_path / "q"], "q: no such file"),
            ([tiny_checkpoint, "--prompt", image], "not a prompt file, or a damaged one"),
            ([tiny_checkpoint, "--prompt", file, *pairs], "--example beside --prompt"),
            ([tiny_checkpoint, "--prompt", file, "--kind", "semantic"], "--kind beside --prompt"),
            ([tiny_checkpoint, "--prompt", file, "--nearest", 0], "--nearest beside --prompt"),
            (["incontext-small", "--prompt", file], "another checkpoint"),
        ]:
            answer = incontext(*common, *said)
            assert answer.code == 2
            assert wanted in answer.err
            assert len([x for x in answer.err.splitlines() if x.startswith("Error: ")]) == 1
        assert "is a folder" in run("--out", tmp_path).err
        # A picture is never overwritten.
        before = image.read_bytes()
        assert "named NAME.safetensors" in run("--out", image).err
        assert image.read_bytes() == before
        (tmp_path / "file").write_text("")
        assert "file/p.safetensors" in run("--out", tmp_path / "file/p.safetensors").err
        assert "--chunk is 0" in run("--chunk", 0).err
        assert "nearest is 0" in run("--nearest", 0).err
