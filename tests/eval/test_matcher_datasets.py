"""Adapters of Matcher's datasets: their real layout, and the official draws."""

import json

import numpy as np

from eval.datasets import FEW_SHOT
from incontext.labels.coco import encode_rle
from tests.eval.helpers import (
    by_hand,
    figures,
    measure,
    rows,
    two_masks,
    two_objects,
    write_image,
    write_pickle,
    write_text,
)


def test_lvis92i(tmp_path):
    root, annotations = tmp_path / "LVIS", {}
    for category in range(100, 110):
        annotations[category] = {}
        for i, (top, bottom) in enumerate(((0, 4), (2, 6))):
            name = f"val2017/{category}{i}.jpg"
            write_image(root / "coco" / name)
            halves = ([0, top, 5, top, 5, bottom, 0, bottom],
                      [5, top, 12, top, 12, bottom, 5, bottom])  # fmt: skip
            annotations[category][name] = {
                "annotations": [{"segmentation": [half]} for half in halves]
            }
    # Too few pictures: no class of any fold.
    annotations[7] = {"val2017/1000.jpg": {"annotations": []}}
    write_pickle(root / "lvis_val.pkl", annotations)
    assert figures(measure("lvis-92i", tmp_path, tmp_path, fold=3)) == by_hand()


def test_lvis92i_draws_as_matcher(tmp_path):
    """The official loop, on the global generator: classes in turn, five pictures each."""
    annotations = {
        c: {f"val2017/{c}{i}.jpg": {"annotations": []} for i in range(5)} for c in range(20)
    }
    write_pickle(tmp_path / "LVIS/lvis_val.pkl", annotations)
    np.random.seed(0)
    episodes = FEW_SHOT["lvis-92i"].episodes(tmp_path, 3, 3)
    assert len(episodes) == 2300
    for number, episode in enumerate(episodes):
        names = list(annotations[(3, 13)[number % 2]])
        query, support = np.random.choice(names, 1, replace=False)[0], []
        while len(support) < 3:
            name = np.random.choice(names, 1, replace=False)[0]
            if name != query:
                support.append(name)
        assert episode.query.name == query
        assert [item.name for item in episode.examples] == support


def test_pascal_part(tmp_path):
    root = tmp_path / "Pascal-Part/VOCdevkit/VOC2010"
    things = {"cat": {"part": {"HEAD": {"train": ["x"], "val": ["a", "b"]}}}}
    write_text(root / "all_obj_part_to_image.json", json.dumps({"animals": {"object": things}}))
    box = {"xmin": "2", "ymin": "0", "xmax": "10", "ymax": "9"}
    for name, ids in zip("ab", two_masks(), strict=True):
        write_image(root / f"JPEGImages/{name}.jpg")
        part = {"name": "HEAD", "mask": [encode_rle(ids > 0)]}
        thing = {"name": "cat", "bndbox": box, "parts": [part]}
        write_text(root / f"Annotations_Part_json_merged_part_classes/{name}.json",
             json.dumps({"object": [thing]}))  # fmt: skip
    meter = measure("pascal-part", tmp_path, tmp_path)
    assert figures(meter) == by_hand(100 * 3 / 7)  # in the box's nine rows
    assert meter.rows[0][2] == 7 * 8  # and eight columns


def test_pascal_part_draws_as_matcher(tmp_path):
    """A picture, one of its two objects, then the next picture; one drawn already is drawn anew."""
    root = tmp_path / "Pascal-Part/VOCdevkit/VOC2010"
    names = list("abcde")
    things = {"cat": {"part": {"HEAD": {"train": ["x"], "val": names}}}}
    write_text(root / "all_obj_part_to_image.json", json.dumps({"animals": {"object": things}}))
    for name in names:
        write_image(root / f"JPEGImages/{name}.jpg")
        cats = [
            {"name": "cat", "parts": [{"name": "HEAD", "mask": [encode_rle(half)]}],
             "bndbox": {"xmin": 6 * n, "ymin": 0, "xmax": 6 * n + 6, "ymax": 12}}
            for n, half in enumerate(two_objects(rows(0, 4)))
        ]  # fmt: skip
        write_text(root / f"Annotations_Part_json_merged_part_classes/{name}.json",
             json.dumps({"object": cats}))  # fmt: skip
    np.random.seed(0)
    episodes = FEW_SHOT["pascal-part"].episodes(tmp_path, 0, 2)
    assert len(episodes) == 5
    for episode in episodes:
        names_drawn = []
        while len(names_drawn) < 3:
            name = np.random.choice(names, 1, replace=False)[0]
            if name not in names_drawn:
                names_drawn.append(name)
                np.random.choice(2, 1, replace=False)  # of the objects
        assert [episode.query.name, *(item.name for item in episode.examples)] == names_drawn


def test_paco_part_draws_as_matcher(tmp_path):
    """A class, a picture, one of its two objects; examples likewise, none of them the query."""
    root, image_lists, annotations = tmp_path / "PACO-Part", {}, {}
    for category in range(8):
        image_lists[category] = [
            {10 * category + i: f"coco/val2017/{category}{i}.jpg"} for i in range(4)
        ]
        for i in range(4):
            annotations[10 * category + i] = [
                {"category_id": category, "obj_ann_id": n, "obj_bbox": [6 * n, 0, 6, 12],
                 "segmentation": encode_rle(half)} for n, half in enumerate(two_objects(rows(0, 4)))
            ]  # fmt: skip
    for half in ("train", "val"):
        write_pickle(
            root / f"paco/paco_part_{half}.pkl", {"cid2img": image_lists, "img2anno": annotations}
        )
    np.random.seed(0)
    episodes = FEW_SHOT["paco-part"].episodes(tmp_path, 1, 2)
    assert len(episodes) == 2500
    for episode in episodes:
        category = np.random.choice([1, 5], 1, replace=False)[0]
        drawn: list[int] = []
        while len(drawn) < 3:
            number = np.random.choice(4, 1, replace=False)[0]
            if not drawn or number != drawn[0]:
                drawn.append(number)
                np.random.choice(2, 1, replace=False)
        names = [f"val2017/{category}{i}.jpg" for i in drawn]
        assert [episode.query.name, *(item.name for item in episode.examples)] == names


def test_paco_part(tmp_path):
    root, image_lists, annotations = tmp_path / "PACO-Part", {}, {}
    for category in range(4):
        image_lists[category] = []
        for i, ids in enumerate(two_masks()):
            key, name = 10 * category + i, f"val2017/{category}{i}.jpg"
            write_image(root / "coco" / name)
            image_lists[category] += [{key: f"datasets/coco/{name}"}] * 2  # twice, as in the file
            annotations[key] = [
                {"category_id": category, "obj_ann_id": 5, "obj_bbox": [2, 0, 8.5, 9.2],
                 "segmentation": encode_rle(ids > 0)}
            ]  # fmt: skip
    for part in ("train", "val"):
        write_pickle(
            root / f"paco/paco_part_{part}.pkl", {"cid2img": image_lists, "img2anno": annotations}
        )
    meter = measure("paco-part", tmp_path, tmp_path, fold=1)
    assert figures(meter) == by_hand(100 * 3 / 7)
