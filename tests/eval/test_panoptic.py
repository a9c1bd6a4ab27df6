"""COCO panoptic in its real layout; instances by painting; figures by hand."""

import json

import numpy as np
import pytest
from PIL import Image

from eval.core.setting import Setting
from eval.datasets import coco_panoptic
from eval.runs.panoptic import (
    Instance,
    count_segments,
    find_instances,
    instance_places,
    mean_pq,
    merge_segments,
    panoptic_quality,
    place_colors,
)  # fmt: skip
from eval.runs.panoptic_run import average_precision, image_row, panoptic_metrics, run
from incontext.labels.coloring import Coloring

SIDE = 24


def write_image(path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (SIDE, SIDE), (90, 120, 60)).save(path)


def make_truth(ids: np.ndarray, classes: dict[int, int]) -> np.ndarray:
    answer = np.zeros((*ids.shape, 2), np.int64)
    answer[..., 0] = 255
    for number, (segment, category) in enumerate(classes.items(), 1):
        answer[ids == segment] = category, number
    return answer


def test_places_are_painted_and_read_back():
    """Through colors and back: each object keeps its place; nearest color by a plain loop."""
    ids = np.zeros((32, 40), np.int32)
    ids[2:8, 3:9], ids[20:30, 30:38], ids[20:30, 4:12] = 1, 2, 3
    place_map = instance_places(ids)
    assert [int(place_map[y, x]) for y, x in ((4, 5), (25, 33), (25, 7))] == [
        1 + 2 * 20 + 2, 1 + 12 * 20 + 16, 1 + 12 * 20 + 3
    ]  # fmt: skip
    colors = place_colors()
    assert len({*colors.values(), (0, 0, 0)}) == 321
    place_ids = sorted({int(i) for i in np.unique(place_map)} - {0})
    painted = Coloring(tuple(place_ids), tuple(colors[i] for i in place_ids)).paint(place_map)
    table = np.array([(0, 0, 0), *(colors[i] for i in place_ids)])
    nearest = np.abs(painted[..., None, :] - table).sum(-1).argmin(-1)
    np.testing.assert_array_equal(np.array([0, *place_ids])[nearest], place_map)


def test_instances_take_the_class_of_most_of_their_pixels():
    painted = np.zeros((SIDE, SIDE), np.int32)
    painted[:8, :8], painted[12:, 12:], painted[20:22, :2] = 5, 90, 7  # the last is too small
    classes = np.full((SIDE, SIDE), 2, np.uint8)
    classes[:8, :5], classes[12:, 12:] = 1, 0
    confidence = np.where(painted == 5, 0.4, 0.9)
    predicted = find_instances(painted, confidence, classes, things=[0, 1])
    assert [(i.category, round(i.score, 6)) for i in predicted] == [(0, 0.9), (1, 0.4)]
    segments = merge_segments(predicted, classes, stuff=[2], area=30)
    assert segments[2, 2].tolist() == [1, 2]  # also where the semantic painting said stuff
    assert segments[2, 7].tolist() == [1, 2]
    assert segments[20, 20].tolist() == [0, 1]
    assert segments[10, 2].tolist() == [2, 0]
    assert merge_segments(predicted, classes, stuff=[2], area=10_000)[10, 2].tolist() == [255, 0]


def test_surer_instances_lie_above():
    masks = np.zeros((2, SIDE, SIDE), bool)
    masks[0, :, :16], masks[1, :, 6:18] = True, True
    first, second = (Instance(m, 3, s) for m, s in zip(masks, (0.9, 0.8), strict=True))
    segments = merge_segments([first, second], np.zeros((SIDE, SIDE), np.uint8), [], 1)
    # The second is hidden by more than half.
    assert set(segments[..., 1].ravel().tolist()) == {0, 1}


def test_panoptic_quality_by_hand():
    """One thing with IoU 3/4, one missed and one false; the stuff is exact but for what is void."""
    ids = np.zeros((8, 8), np.int64)
    ids[:4, :4], ids[:4, 4:], ids[4:] = 11, 12, 13
    truth = make_truth(ids, {11: 0, 12: 0, 13: 2})
    predicted = make_truth(ids, {11: 0, 13: 2})
    predicted[3, :4] = 255, 0  # a row less: 12 of 16
    predicted[:2, 4:] = 1, 9  # the other class
    rows = [count_segments(predicted, truth)]
    by_class = panoptic_quality(rows)
    assert by_class[0] == pytest.approx((100 * 0.75 / 1.5, 75.0, 100 / 1.5))
    assert by_class[1] == pytest.approx((0, 0, 0))
    assert by_class[2] == pytest.approx((100, 100, 100))
    assert mean_pq(by_class, [0, 1]) == pytest.approx(25.0)
    truth[:2, 4:] = 255, 0  # what lies on void is not false
    assert 1 not in panoptic_quality([count_segments(predicted, truth)])


def test_panoptic_quality_equals_torchmetrics():
    """Sums over pictures, then ratios: as torchmetrics over a batch."""
    import torch
    from torchmetrics.detection import PanopticQuality

    rng = np.random.default_rng(0)
    maps = rng.integers(0, 3, (2, 4, 6, 6, 2))
    maps[..., 1] *= maps[..., 0] < 2  # stuff has no instances
    predicted, truth = maps.repeat(4, 2).repeat(4, 3)
    metric = PanopticQuality({0, 1}, {2}, return_per_class=True)
    metric.update(torch.from_numpy(predicted), torch.from_numpy(truth))
    order = metric.cat_id_to_continuous_id
    expected_pq = 100 * metric.compute().reshape(-1)
    by_class = panoptic_quality(
        [count_segments(f, t) for f, t in zip(predicted, truth, strict=True)]
    )
    for category, (pq, _, _) in by_class.items():
        assert pq == pytest.approx(float(expected_pq[order[category]]), abs=1e-4)


@pytest.fixture
def coco(tmp_path):
    """A person (id 1), a crowd of dogs (18), sky (187); segment ids spread over three channels."""
    categories = [{"id": i, "name": n, "isthing": t}
                  for i, n, t in ((187, "sky", 0), (1, "person", 1), (18, "dog", 1))]  # fmt: skip
    for part in ("train", "val"):
        ids = np.full((SIDE, SIDE), 66_000)
        ids[4:12, 4:12], ids[16:20, :8], ids[0] = 70_000, 300, 0
        rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
        write_image(tmp_path / f"{part}2017/000000000009.jpg")
        path = tmp_path / f"annotations/panoptic_{part}2017/000000000009.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(rgb).save(path)
        segments = [{"id": 66_000, "category_id": 187}, {"id": 70_000, "category_id": 1},
                    {"id": 300, "category_id": 18, "iscrowd": 1}]  # fmt: skip
        metadata = {
            "images": [{"id": 9, "file_name": "000000000009.jpg"}], "categories": categories,
            "annotations": [{"image_id": 9, "file_name": path.name, "segments_info": segments}],
        }  # fmt: skip
        (tmp_path / f"annotations/panoptic_{part}2017.json").write_text(json.dumps(metadata))
    return tmp_path


def test_coco_panoptic_by_hand(coco):
    data = coco_panoptic.CocoPanoptic.read(coco)
    assert (data.names, data.things, data.stuff) == (["person", "dog", "sky"], [0, 1], [2])
    [image] = data.val_images
    truth = image.read_truth(data.class_order)
    assert truth[5, 5].tolist() == [0, 2]
    assert truth[17, 3].tolist() == [1, 3]
    assert image.crowds == {3}
    assert truth[0, 3, 0] == 255  # no segment
    [semantic_image] = data.semantic_images(data.val_images)
    assert set(np.unique(semantic_image.read_classes())) == {0, 2, 255}  # crowds are no example
    assert semantic_image.present == (0, 2)
    person = truth[..., 0] == 0

    def exact(_picture):
        return (
            instance_places(person.astype(int)),
            np.ones(person.shape),
            truth[..., 0].astype(np.uint8),
        )

    def narrow(_picture):  # 48 of the 64 pixels; the rest is given to the sky
        mask = person.copy()
        mask[:, 4:6] = False
        return instance_places(mask.astype(int)), np.ones(mask.shape), np.where(mask, 0, 2)

    figures, _ = panoptic_metrics(data, [image_row(data, image, exact, area=1)])
    assert figures == {"PQ": 100.0, "PQ things": 100.0, "PQ stuff": 100.0, "AP": pytest.approx(100)}
    figures, _ = panoptic_metrics(data, [image_row(data, image, narrow, area=1)])
    sky = (truth[..., 0] == 2).sum()
    assert figures["PQ things"] == pytest.approx(75)
    # 16 pixels of the person, 32 of the crowd, which panopticapi counts; the void row is left out.
    assert figures["PQ stuff"] == pytest.approx(100 * sky / (sky + 16 + 32))
    assert figures["AP"] == pytest.approx(60)  # IoU 0.75: thresholds 0.50 … 0.75 of ten

    def crowded(_picture):  # a dog in the crowd, which is no mistake; and one in the sky, which is
        mask = person.copy()
        predicted = np.where(truth[..., 0] == 1, 1, np.where(mask, 0, 2))
        return instance_places(mask + 2 * (truth[..., 0] == 1)), np.ones(mask.shape), predicted

    figures, _ = panoptic_metrics(data, [image_row(data, image, crowded, area=1)])
    assert figures["PQ"] == figures["AP"] == pytest.approx(100)


def test_crowds_excuse_their_own_class_only():
    """The object's answer reaches into the crowd: its union keeps that part (panopticapi)."""
    ids = np.zeros((10, 10), np.int64)
    ids[:4], ids[4:6], ids[6:] = 1, 2, 3
    truth = make_truth(ids, {1: 0, 2: 0, 3: 1})
    predicted = make_truth(ids, {1: 0, 3: 1})
    predicted[4:6] = 0, 1  # 60 pixels over an object of 40 and a crowd of 20
    rows = count_segments(predicted, truth, crowds={2})
    assert rows == [[0, pytest.approx(40 / 60), 1, 0, 0], [1, 1.0, 1, 0, 0]]
    predicted[4:6] = 0, 9
    assert count_segments(predicted, truth, crowds={2}) == [[0, 1.0, 1, 0, 0], [1, 1.0, 1, 0, 0]]
    predicted[4:6] = 1, 9  # the other class: false
    assert count_segments(predicted, truth, crowds={2}) == [[0, 1.0, 1, 0, 0], [1, 1.0, 1, 1, 0]]
    predicted[:6] = 255, 0
    assert count_segments(predicted, truth, crowds={2}) == [[0, 0, 0, 0, 1], [1, 1.0, 1, 0, 0]]


def test_coco_panoptic_runs(coco, tiny_checkpoint, tmp_path, capsys):
    setting = Setting(str(tiny_checkpoint))
    run(coco, setting, 1, 1, out=tmp_path / "o")
    row = json.loads((tmp_path / "o/coco-panoptic.json").read_text())["rows"][0]
    assert set(row["figures"]) == {"PQ", "PQ things", "PQ stuff", "AP"}
    assert "| SegGPT, tuned prompt | 34.4 |" in capsys.readouterr().out


def test_nothing_found_is_no_precision():
    assert np.isnan(average_precision([{"size": [2, 2], "true": [], "found": []}]))
    instance = {"category": 1, "score": 1.0, "crowd": 0, "mask": {"size": [2, 2], "counts": "04"}}
    assert average_precision([{"size": [2, 2], "true": [instance], "found": []}]) == 0
