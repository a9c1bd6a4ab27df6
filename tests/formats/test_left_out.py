"""Labels that cannot be drawn are left out by name, and the rest of their file is used."""

import json
from pathlib import Path

import numpy as np
import pytest

from incontext import Example, InputError, read_examples
from incontext.errors import OmissionWarning
from tests.formats.test_read_examples import (
    MASK,
    POLYGON,
    ROW,
    SIZE,
    coco_file,
    cvat_file,
    picture,
    region,
    tasks_file,
    yolo_folder,
)

BOX = [4, 3, 20, 3, 20, 9, 4, 9]
GOOD, BAD = {"segmentation": [BOX]}, {"segmentation": [[1, 2, 3, 4]], "id": 17}


def coco(folder: Path) -> Path:
    picture(folder)
    return coco_file(folder, [BAD, GOOD])


def yolo(folder: Path) -> Path:
    return yolo_folder(folder, f"0 {ROW}\n1 0.1 0.2 0.3\n")


def label_studio(folder: Path) -> Path:
    picture(folder)
    valueless = {"type": "polygonlabels", "id": "r9"}
    return tasks_file(folder, valueless, region())


def cvat(folder: Path) -> Path:
    picture(folder)
    return cvat_file(folder, POLYGON.format("cat", 0) + '<polygon label="cat" points="1,2;3"/>')


FILES = {
    "coco": (coco, r"set\.json: image a\.png: COCO annotation 0 \(id 17\): segmentation must"),
    "yolo": (yolo, r"labels/train/a\.txt line 2: 3 numbers after the class"),
    "label studio": (label_studio, r"task 1 \(a\.png\): region r9: value None; accepted"),
    "cvat": (cvat, r"image a\.png: polygon 2: points '1,2;3'; accepted: x,y;x,y"),
}


@pytest.mark.filterwarnings("ignore:no export")
@pytest.mark.parametrize("form", FILES)
def test_one_bad_outline_is_left_out(tmp_path, form):
    make, text = FILES[form]
    path = make(tmp_path)
    with pytest.warns(OmissionWarning, match=text):
        [example] = read_examples(path)
    assert np.array_equal(example.labels.ids > 0, MASK)


def two_pictures(folder: Path, first: list[dict], second: list[dict]) -> Path:
    for name in ("a.png", "b.png"):
        picture(folder, name)
    images = [{"id": n, "file_name": f"{name}.png"} for n, name in ((5, "a"), (6, "b"))]
    annotations = [{**a, "image_id": 5} for a in first] + [{**a, "image_id": 6} for a in second]
    return coco_file(folder, annotations, images)


def test_a_picture_with_nothing_else_is_left_out(tmp_path):
    """It is not an example of background."""
    path = two_pictures(tmp_path, [BAD], [GOOD])
    with pytest.warns(OmissionWarning, match=r"a\.png: .*the picture, which is left out"):
        [example] = read_examples(path)
    assert example.source == "b.png"


def test_nothing_but_bad_outlines_is_refused(tmp_path):
    path = two_pictures(tmp_path, [BAD, BAD], [BAD])
    with pytest.raises(InputError, match=r"a\.png: COCO annotation 0 .*\(and 1 more picture"):
        list(read_examples(path))


def test_a_file_beside_an_image_follows_the_same_rule(tmp_path):
    path = two_pictures(tmp_path, [BAD, GOOD], [BAD])
    with pytest.warns(OmissionWarning, match=r"set\.json: a\.png: COCO annotation 0 \(id 17\)"):
        example = Example(tmp_path / "a.png", path)
    assert np.array_equal(example.labels.ids, 3 * MASK)
    with pytest.raises(InputError, match=r"set\.json: b\.png: COCO annotation 0"):
        Example(tmp_path / "b.png", path)
    with pytest.raises(InputError, match="COCO annotation 0"):  # a program learns it at once
        Example(tmp_path / "a.png", [BAD, GOOD])


@pytest.mark.parametrize("way", ["--examples-from", "--example"])
def test_commands_go_on_and_end_with_1(tmp_path, tiny_checkpoint, incontext, way):
    path = two_pictures(tmp_path, [BAD, GOOD], [GOOD])
    source = (way, path) if way == "--examples-from" else (way, tmp_path / "a.png", path)
    run = ("segment", tmp_path / "b.png", *source, "--checkpoint", tiny_checkpoint, "--out",
           tmp_path / "out")  # fmt: skip
    for _ in range(2):  # it is not forgotten by the next run
        answer = incontext(*run)
        assert answer.code == 1
        assert answer.err.count("COCO annotation 0 (id 17)") == 1
    assert (tmp_path / "out/results.json").is_file()
    prompt = tmp_path / "p.safetensors"
    answer = incontext("prompt", *source, "--checkpoint", tiny_checkpoint, "--out", prompt)
    assert (answer.code, prompt.is_file()) == (1, True)


@pytest.mark.parametrize(
    ("number", "text"), [("3", None), (3.0, None), ("three", "category_id"), (None, "category_id")]
)
def test_numbers_of_coco_may_be_text(tmp_path, number, text):
    """By both ways, which read the file alike."""
    picture(tmp_path)
    path = coco_file(tmp_path, [GOOD | {"category_id": number, "iscrowd": "0", "image_id": "5"}])
    for read in (lambda: next(read_examples(path)), lambda: Example(tmp_path / "a.png", path)):
        if text:
            with pytest.raises(InputError, match=rf"set\.json: image a\.png: annotation.*{text}"):
                read()
        else:
            assert np.array_equal(read().labels.ids, 3 * MASK)


@pytest.mark.parametrize(
    ("said", "text"),
    [({"width": None, "height": None}, "width None; accepted: integers"),
     ({"width": "wide", "height": 1}, "width 'wide'; accepted"), ({"width": 35}, "height None"),
     ({"id": None}, "image id None"), ({"file_name": None}, "has no file name")],
)  # fmt: skip
def test_images_of_coco_are_checked(tmp_path, said, text):
    picture(tmp_path)
    images = [{"id": 5, "file_name": "a.png", **said}]
    path = coco_file(tmp_path, [GOOD], images)
    for read in (lambda: list(read_examples(path)), lambda: Example(tmp_path / "a.png", path)):
        with pytest.raises(InputError, match=text):
            read()


def test_categories_from_0_are_shifted_by_both_ways(tmp_path):
    picture(tmp_path)
    path = coco_file(tmp_path, [GOOD | {"category_id": 1}], None, ((0, "things"), (1, "cat")))
    [example] = read_examples(path)
    assert example.names == {1: "things", 2: "cat"}
    assert example.labels.present == Example(tmp_path / "a.png", path).labels.present == [2]


def test_a_category_with_two_names_is_refused(tmp_path):
    picture(tmp_path)
    path = coco_file(tmp_path, [GOOD], None, ((3, "cat"), (3, "dog")))
    with pytest.raises(InputError, match="category 3 is called 'cat' and 'dog'"):
        list(read_examples(path))


def test_unknown_encodings_are_named(tmp_path):
    picture(tmp_path)
    path = tmp_path / "x.xml"
    path.write_text('<?xml version="1.0" encoding="utf8mb4"?><annotations/>')
    with pytest.raises(InputError, match=r"x\.xml: no XML that can be read \(unknown encoding"):
        list(read_examples(path))
    folder = yolo_folder(tmp_path / "y", "")
    (folder / "labels/train/a.txt").write_bytes(f"0 {ROW}\n".encode("utf-16-le"))  # no mark
    with pytest.raises(InputError, match=r"a\.txt.*"):
        list(read_examples(folder))
    (folder / "labels/train/a.txt").write_bytes(b"0 \xff\xfa")
    with pytest.raises(InputError, match=r"a\.txt: no text in UTF-8, nor in UTF-16 with"):
        list(read_examples(folder))


def test_damaged_results_are_named(tmp_path):
    entry = {"size": [1, 1], "files": {}, "ids": {}, "source": {"path": "x.png"}}
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"settings": {}, "ids": {}, "results": {"x": entry}}))
    with pytest.raises(InputError, match="the entry of x is damaged"):
        list(read_examples(tmp_path))
    assert SIZE  # of the pictures above
