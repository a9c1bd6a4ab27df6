"""Every encoding of a mask through `incontext segment`: exact ids, or one clear line."""

import json
from pathlib import Path

import numpy as np
import pytest
from faster_coco_eval import mask as coco
from PIL import Image

from tests.cli.helpers import COLORED, IDS, mask, palette_mask, photo, results


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


@pytest.mark.parametrize("name", ENCODINGS)
def test_accepted(segment, tmp_path, name):
    make, options, expected_ids = ENCODINGS[name]
    answer = segment(
        tmp_path / "example.png", *options, example=(tmp_path / "example.png", make(tmp_path))
    )
    assert answer.code == 0, answer.err
    content = results(tmp_path / "out")
    ids = sorted(map(int, content["ids"]))
    assert ids == expected_ids if expected_ids else len(ids) == 2
    labels = Image.open(tmp_path / "out/example.png")
    assert labels.mode == ("I;16" if ids[-1] > 255 else "P")
    assert set(np.unique(np.asarray(labels))) <= {0, *ids}


@pytest.mark.parametrize(
    ("make", "options", "message"),
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
def test_refused(segment, tmp_path, make, options, message):
    example = (tmp_path / "example.png", make(tmp_path))
    answer = segment(tmp_path / "example.png", *options, example=example)
    assert answer.code == 2
    assert message in answer.err
    assert answer.err.startswith("Error: ")
    assert len(answer.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_colors_shared_over_examples(incontext, tiny_checkpoint, tmp_path):
    image = photo(tmp_path / "a.png")
    red_and_green = mask(tmp_path / "both.png", COLORED)
    green_and_blue = mask(tmp_path / "one.png", COLORED[..., ::-1])
    answer = incontext(
        "segment", image, "--checkpoint", tiny_checkpoint, "--out", tmp_path / "out",
        "--example", image, red_and_green, f"--example={image}", green_and_blue,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    # blue, green, red in ascending (r, g, b); green is in both
    colors = {k: v["color"] for k, v in results(tmp_path / "out")["ids"].items()}
    assert colors == {"1": [0, 0, 255], "2": [0, 255, 0], "3": [255, 0, 0]}
