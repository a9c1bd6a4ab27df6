"""Outlines of any tool, along fractions of pixels: right up to a pixel from the line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from incontext import read_examples
from tests.formats.test_fuzz_round_trip import coco_document, write_image, write_tasks
from tests.fuzzing import fuzz

pytestmark = [pytest.mark.fuzz, pytest.mark.filterwarnings("ignore")]


@st.composite
def outlines(draw: st.DrawFn) -> tuple[tuple[int, int], np.ndarray]:
    """(width, height), and corners (n, 2) at fractions of pixels that may cross each other."""
    size = draw(st.integers(4, 30)), draw(st.integers(4, 30))
    corner = st.tuples(*(st.floats(0, side).map(lambda p: round(p, 3)) for side in size))
    return size, np.array(draw(st.lists(corner, min_size=3, max_size=7)))


def even_odd(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The pixels (H, W) bool whose centers lie inside."""
    x, y = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, 0), strict=True):
        if ay != by:
            crosses = (ay > y) != (by > y)
            inside ^= crosses & (x < ax + (bx - ax) * (y - ay) / (by - ay))
    return inside


def distance(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """How far each pixel's center is from the outline, (H, W)."""
    x, y = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    result = np.full(x.shape, np.inf)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, 0), strict=True):
        length = (bx - ax) ** 2 + (by - ay) ** 2
        along = np.clip(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / (length or 1), 0, 1)
        result = np.minimum(
            result, np.hypot(x - ax - along * (bx - ax), y - ay - along * (by - ay))
        )
    return result


def outline_files(folder: Path, corners: np.ndarray, size: tuple[int, int]) -> dict[str, Path]:
    """One outline in every format that has outlines, beside the image it is of."""
    empty = np.zeros(size[::-1], np.int32)
    coco = coco_document(empty, {1: "x"}, polygons=True)
    coco["annotations"] = [
        {"image_id": 7, "category_id": 1, "segmentation": [corners.ravel().tolist()]}
    ]
    (folder / "images/coco.json").write_text(json.dumps(coco))
    shares = (corners / size).ravel().tolist()
    (folder / "labels").mkdir()
    (folder / "labels/a.txt").write_text(" ".join(["0", *map(str, shares)]))
    (folder / "data.yaml").write_text("train: images\nnames: [x]\n")
    value = {"points": (100 * corners / size).tolist(), "polygonlabels": ["x"]}
    tasks = write_tasks(
        folder, empty, {1: "x"}, [{"type": "polygonlabels", "value": value}], "PolygonLabels"
    )
    points = ";".join(f"{x},{y}" for x, y in corners)
    (folder / "images/cvat.xml").write_text(
        f'<annotations><image name="a.png" width="{size[0]}" height="{size[1]}">'
        f'<polygon label="x" points="{points}"/></image></annotations>'
    )
    return {"coco": folder / "images/coco.json", "yolo": folder, "label-studio": tasks,
            "cvat": folder / "images/cvat.xml"}  # fmt: skip


@fuzz(40)
@given(drawn=outlines())
def test_fuzz_outlines_within_a_pixel(tmp_path_factory, drawn):
    """Pixels farther than one from an outline are in or out as by its definition."""
    size, corners = drawn
    folder = tmp_path_factory.getbasetemp() / "outlines"
    shutil.rmtree(folder, ignore_errors=True)
    write_image(folder / "images/a.png", np.zeros(size[::-1], np.int32))
    clear = distance(corners, size) > 1
    for form, path in outline_files(folder, corners, size).items():
        [example] = read_examples(path, format=form)
        assert np.array_equal((example.labels.ids == 1)[clear], even_odd(corners, size)[clear]), (
            form
        )
