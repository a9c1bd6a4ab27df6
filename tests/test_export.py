"""Exports open in other tools' readers and say the same."""

import json

import numpy as np
import pytest
from PIL import Image

from incontext import Coco
from incontext.segmentation import Segmentation

coco = pytest.importorskip("faster_coco_eval", reason="needs faster-coco-eval (coco extra)")


def result(seed: int, ids: tuple[int, ...] = (1, 7, 300)) -> Segmentation:
    """Random labels; the last id is absent."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, *ids[:-1]], (24 + seed, 31)).astype(np.int32)
    height, width = labels.shape
    presence = {i: 0.9 if i != ids[-1] else 0.1 for i in ids}
    names = {i: f"thing {i}" for i in ids}
    return Segmentation(
        labels, np.ones(labels.shape, np.float32), presence, Image.new("RGB", (width, height)),
        (), dict.fromkeys(ids, (255, 0, 0)), names,
    )  # fmt: skip


def test_coco_opens_in_faster_coco_eval(tmp_path):
    made, results = Coco(), [result(0), result(5)]
    for number, one in enumerate(results):
        made.add(f"picture{number}.jpg", one)
    path = made.save(tmp_path / "coco.json")
    opened = coco.COCO(str(path))
    assert [c["name"] for c in opened.loadCats([1, 7, 300])] == ["thing 1", "thing 7", "thing 300"]
    for number, one in enumerate(results, 1):
        annotations = opened.loadAnns(opened.getAnnIds(imgIds=[number]))
        assert sorted(a["category_id"] for a in annotations) == [1, 7]
        for annotation in annotations:
            mask = opened.annToMask(annotation).astype(bool)
            assert np.array_equal(mask, one.mask(annotation["category_id"]))
            assert annotation["area"] == mask.sum()
            rows, columns = np.nonzero(mask)
            left, top, width, height = annotation["bbox"]
            assert (left, top) == (columns.min(), rows.min())
            assert (left + width - 1, top + height - 1) == (columns.max(), rows.max())
    assert not list(tmp_path.glob(".*"))


def test_coco_of_nothing_is_a_coco_file(tmp_path):
    document = json.loads(Coco().save(tmp_path / "coco.json").read_text())
    assert document == {"images": [], "annotations": [], "categories": []}
