"""ADE20K and COCO panoptic in their real layouts; instances by painting; figures by hand."""

import json

import numpy as np
import pytest
from PIL import Image

from eval.core.dense import (
    NO_CLASS,
    classify,
    count_pixels,
    group_by_class,
    labels_to_classes,
    semantic_metrics,
)
from eval.core.setting import Setting
from eval.core.spatial import spatial_grid
from eval.datasets import ade20k, coco_panoptic
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
from eval.runs.semantic import run as run_semantic
from incontext import Example
from incontext.labels.coloring import Coloring

SIDE = 24


def picture(path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (SIDE, SIDE), (90, 120, 60)).save(path)


def labels(path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids.astype(np.uint8)).save(path)


@pytest.fixture
def ade(tmp_path):
    """Wall (1) above, sky (3) below, an unknown column; the training picture's border is lower."""
    for part, border in (("training", 16), ("validation", 12)):
        ids = np.full((SIDE, SIDE), 3)
        ids[:border], ids[:, 0] = 1, 0
        picture(tmp_path / f"ADEChallengeData2016/images/{part}/ADE_0.jpg")
        labels(tmp_path / f"ADEChallengeData2016/annotations/{part}/ADE_0.png", ids)
    return tmp_path


@pytest.mark.slow
def test_ade20k_by_hand(ade):
    """Answered with the training picture's classes: wall 12 of 16 rows, sky 8 of 12."""
    [shown], [asked] = ade20k.read(ade)
    row = count_pixels(shown.read_classes(), asked.read_classes(), 150)
    assert {index: counts for index, *counts in row} == {
        0: [12 * 23, 16 * 23, 12 * 23], 2: [8 * 23, 8 * 23, 12 * 23]
    }  # fmt: skip
    means, iou = semantic_metrics([row])
    assert iou == {0: 75.0, 2: pytest.approx(200 / 3)}
    assert means["accuracy"] == pytest.approx(100 * 20 / 24)
    assert means["mIoU"] == pytest.approx((75 + 200 / 3) / 2)
    assert list(group_by_class([shown], 150)) == [0, 2]


def test_pixels_without_a_class_are_wrong(ade):
    [_], [asked] = ade20k.read(ade)
    found = labels_to_classes(np.where(asked.read_classes() == 0, 1, 0))  # the sky as background
    assert set(np.unique(found)) == {0, NO_CLASS}
    means, iou = semantic_metrics([count_pixels(found, asked.read_classes(), 150)])
    assert iou == {0: 100.0, 2: 0.0}
    assert means["accuracy"] == 50.0


def test_ade20k_runs(ade, tiny_checkpoint, tmp_path, capsys):
    setting = Setting(str(tiny_checkpoint), trained_on="COCO, ADE20K")
    run_semantic(ade20k.SET, ade, setting, [1], out=tmp_path / "o")
    first = (tmp_path / "o/ade20k.json").read_text()
    run_semantic(ade20k.SET, ade, setting, [1], out=tmp_path / "o")  # all from the journal
    assert (tmp_path / "o/ade20k.json").read_text() == first
    out = capsys.readouterr().out
    assert "| in-domain: ADE20K | 1 pictures |" in out
    assert "| SegGPT, tuned prompt | 39.6 |" in out


def test_the_class_most_believed_in_wins(tiny_checkpoint):
    """Belief of each class by itself, then the largest: a loop over pixels says the same."""
    from incontext import Predictor

    predictor = Predictor.from_pretrained(tiny_checkpoint)
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (9, 7, 3), dtype=np.uint8))
    made = {}
    for index in (4, 8):
        ids = np.zeros((9, 7), np.int32)
        ids[: index // 2] = 1
        made[index] = predictor.prompt(Example(image, ids))
    found = classify(predictor, image, made)
    results = {index: predictor.predict(image, prompt) for index, prompt in made.items()}
    for y in range(9):
        for x in range(7):
            belief = {
                i: r.confidence[y, x] * (1 if r.labels[y, x] else -1) for i, r in results.items()
            }
            assert found[y, x] == max(belief, key=lambda i: (belief[i], -i))


def truth_of(ids: np.ndarray, about: dict[int, int]) -> np.ndarray:
    answer = np.zeros((*ids.shape, 2), np.int64)
    answer[..., 0] = 255
    for number, (segment, category) in enumerate(about.items(), 1):
        answer[ids == segment] = category, number
    return answer


def test_places_are_painted_and_read_back():
    """Through colors and back: each object keeps its place; nearest color by a plain loop."""
    ids = np.zeros((32, 40), np.int32)
    ids[2:8, 3:9], ids[20:30, 30:38], ids[20:30, 4:12] = 1, 2, 3
    marked = instance_places(ids)
    assert [int(marked[y, x]) for y, x in ((4, 5), (25, 33), (25, 7))] == [
        1 + 2 * 20 + 2, 1 + 12 * 20 + 16, 1 + 12 * 20 + 3
    ]  # fmt: skip
    colors = place_colors()
    assert len({*colors.values(), (0, 0, 0)}) == 321
    there = sorted({int(i) for i in np.unique(marked)} - {0})
    painted = Coloring(tuple(there), tuple(colors[i] for i in there)).paint(marked)
    table = np.array([(0, 0, 0), *(colors[i] for i in there)])
    nearest = np.abs(painted[..., None, :] - table).sum(-1).argmin(-1)
    np.testing.assert_array_equal(np.array([0, *there])[nearest], marked)


def test_instances_take_the_class_of_most_of_their_pixels():
    painted = np.zeros((SIDE, SIDE), np.int32)
    painted[:8, :8], painted[12:, 12:], painted[20:22, :2] = 5, 90, 7  # the last is too small
    classes = np.full((SIDE, SIDE), 2, np.uint8)
    classes[:8, :5], classes[12:, 12:] = 1, 0
    confidence = np.where(painted == 5, 0.4, 0.9)
    found = find_instances(painted, confidence, classes, things=[0, 1])
    assert [(one.category, round(one.score, 6)) for one in found] == [(0, 0.9), (1, 0.4)]
    segments = merge_segments(found, classes, stuff=[2], area=30)
    assert segments[2, 2].tolist() == [1, 2]  # also where the semantic painting said stuff
    assert segments[2, 7].tolist() == [1, 2]
    assert segments[20, 20].tolist() == [0, 1]
    assert segments[10, 2].tolist() == [2, 0]
    assert merge_segments(found, classes, stuff=[2], area=10_000)[10, 2].tolist() == [255, 0]


def test_surer_instances_lie_above():
    masks = np.zeros((2, SIDE, SIDE), bool)
    masks[0, :, :16], masks[1, :, 6:18] = True, True
    one, two = (Instance(m, 3, s) for m, s in zip(masks, (0.9, 0.8), strict=True))
    segments = merge_segments([one, two], np.zeros((SIDE, SIDE), np.uint8), [], 1)
    assert set(segments[..., 1].ravel().tolist()) == {
        0,
        1,
    }  # the second is hidden by more than half


def test_panoptic_quality_by_hand():
    """One thing with IoU 3/4, one missed and one false; the stuff is exact but for what is void."""
    ids = np.zeros((8, 8), np.int64)
    ids[:4, :4], ids[:4, 4:], ids[4:] = 11, 12, 13
    truth = truth_of(ids, {11: 0, 12: 0, 13: 2})
    found = truth_of(ids, {11: 0, 13: 2})
    found[3, :4] = 255, 0  # a row less: 12 of 16
    found[:2, 4:] = 1, 9  # the other class
    rows = [count_segments(found, truth)]
    by_class = panoptic_quality(rows)
    assert by_class[0] == pytest.approx((100 * 0.75 / 1.5, 75.0, 100 / 1.5))
    assert by_class[1] == pytest.approx((0, 0, 0))
    assert by_class[2] == pytest.approx((100, 100, 100))
    assert mean_pq(by_class, [0, 1]) == pytest.approx(25.0)
    truth[:2, 4:] = 255, 0  # what lies on void is not false
    assert 1 not in panoptic_quality([count_segments(found, truth)])


def test_panoptic_quality_equals_torchmetrics():
    """Sums over pictures, then ratios: as torchmetrics over a batch."""
    import torch
    from torchmetrics.detection import PanopticQuality

    rng = np.random.default_rng(0)
    maps = rng.integers(0, 3, (2, 4, 6, 6, 2))
    maps[..., 1] *= maps[..., 0] < 2  # stuff has no instances
    found, truth = maps.repeat(4, 2).repeat(4, 3)
    metric = PanopticQuality({0, 1}, {2}, return_per_class=True)
    metric.update(torch.from_numpy(found), torch.from_numpy(truth))
    order = metric.cat_id_to_continuous_id
    wanted = 100 * metric.compute().reshape(-1)
    ours = panoptic_quality([count_segments(f, t) for f, t in zip(found, truth, strict=True)])
    for category, (pq, _, _) in ours.items():
        assert pq == pytest.approx(float(wanted[order[category]]), abs=1e-4)


@pytest.fixture
def coco(tmp_path):
    """A person (id 1), a crowd of dogs (18), sky (187); segment ids spread over three channels."""
    categories = [{"id": i, "name": n, "isthing": t}
                  for i, n, t in ((187, "sky", 0), (1, "person", 1), (18, "dog", 1))]  # fmt: skip
    for part in ("train", "val"):
        ids = np.full((SIDE, SIDE), 66_000)
        ids[4:12, 4:12], ids[16:20, :8], ids[0] = 70_000, 300, 0
        rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
        picture(tmp_path / f"{part}2017/000000000009.jpg")
        path = tmp_path / f"annotations/panoptic_{part}2017/000000000009.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(rgb).save(path)
        segments = [{"id": 66_000, "category_id": 187}, {"id": 70_000, "category_id": 1},
                    {"id": 300, "category_id": 18, "iscrowd": 1}]  # fmt: skip
        said = {"images": [{"id": 9, "file_name": "000000000009.jpg"}], "categories": categories,
                "annotations": [{"image_id": 9, "file_name": path.name,
                                 "segments_info": segments}]}  # fmt: skip
        (tmp_path / f"annotations/panoptic_{part}2017.json").write_text(json.dumps(said))
    return tmp_path


def test_coco_panoptic_by_hand(coco):
    data = coco_panoptic.CocoPanoptic.read(coco)
    assert (data.names, data.things, data.stuff) == (["person", "dog", "sky"], [0, 1], [2])
    [one] = data.val_images
    truth = one.read_truth(data.class_order)
    assert truth[5, 5].tolist() == [0, 2]
    assert truth[17, 3].tolist() == [1, 3]
    assert one.crowds == {3}
    assert truth[0, 3, 0] == 255  # no segment
    [labelled] = data.semantic_images(data.val_images)
    assert set(np.unique(labelled.read_classes())) == {0, 2, 255}  # crowds are no example
    assert labelled.present == (0, 2)
    person = truth[..., 0] == 0

    def exact(_picture):
        return (
            instance_places(person.astype(int)),
            np.ones(person.shape),
            truth[..., 0].astype(np.uint8),
        )

    def narrow(_picture):  # 48 of the 64 pixels; the rest is given to the sky
        where = person.copy()
        where[:, 4:6] = False
        return instance_places(where.astype(int)), np.ones(where.shape), np.where(where, 0, 2)

    figures, _ = panoptic_metrics(data, [image_row(data, one, exact, area=1)])
    assert figures == {"PQ": 100.0, "PQ things": 100.0, "PQ stuff": 100.0, "AP": pytest.approx(100)}
    figures, _ = panoptic_metrics(data, [image_row(data, one, narrow, area=1)])
    sky = (truth[..., 0] == 2).sum()
    assert figures["PQ things"] == pytest.approx(75)
    # 16 pixels of the person, 32 of the crowd, which panopticapi counts; the void row is left out.
    assert figures["PQ stuff"] == pytest.approx(100 * sky / (sky + 16 + 32))
    assert figures["AP"] == pytest.approx(60)  # IoU 0.75: thresholds 0.50 … 0.75 of ten

    def crowded(_picture):  # a dog in the crowd, which is no mistake; and one in the sky, which is
        where = person.copy()
        found = np.where(truth[..., 0] == 1, 1, np.where(where, 0, 2))
        return instance_places(where + 2 * (truth[..., 0] == 1)), np.ones(where.shape), found

    figures, _ = panoptic_metrics(data, [image_row(data, one, crowded, area=1)])
    assert figures["PQ"] == figures["AP"] == pytest.approx(100)


def test_crowds_excuse_their_own_class_only():
    """The object's answer reaches into the crowd: its union keeps that part (panopticapi)."""
    ids = np.zeros((10, 10), np.int64)
    ids[:4], ids[4:6], ids[6:] = 1, 2, 3
    truth = truth_of(ids, {1: 0, 2: 0, 3: 1})
    found = truth_of(ids, {1: 0, 3: 1})
    found[4:6] = 0, 1  # 60 pixels over an object of 40 and a crowd of 20
    rows = count_segments(found, truth, crowds={2})
    assert rows == [[0, pytest.approx(40 / 60), 1, 0, 0], [1, 1.0, 1, 0, 0]]
    found[4:6] = 0, 9
    assert count_segments(found, truth, crowds={2}) == [[0, 1.0, 1, 0, 0], [1, 1.0, 1, 0, 0]]
    found[4:6] = 1, 9  # the other class: false
    assert count_segments(found, truth, crowds={2}) == [[0, 1.0, 1, 0, 0], [1, 1.0, 1, 1, 0]]
    found[:6] = 255, 0
    assert count_segments(found, truth, crowds={2}) == [[0, 0, 0, 0, 1], [1, 1.0, 1, 0, 0]]


def test_coco_panoptic_runs(coco, tiny_checkpoint, tmp_path, capsys):
    setting = Setting(str(tiny_checkpoint))
    run(coco, setting, 1, 1, out=tmp_path / "o")
    found = json.loads((tmp_path / "o/coco-panoptic.json").read_text())["rows"][0]
    assert set(found["figures"]) == {"PQ", "PQ things", "PQ stuff", "AP"}
    assert "| SegGPT, tuned prompt | 34.4 |" in capsys.readouterr().out


def test_nothing_found_is_no_precision():
    assert np.isnan(average_precision([{"size": [2, 2], "true": [], "found": []}]))
    one = {"category": 1, "score": 1.0, "crowd": 0, "mask": {"size": [2, 2], "counts": "04"}}
    assert average_precision([{"size": [2, 2], "true": [one], "found": []}]) == 0


def test_spatial_ensemble():
    """Each cell is the example, shrunk to it; cells left over show the first ones again."""
    rng = np.random.default_rng(0)
    shown = []
    for value in (1, 2, 3):
        ids = np.zeros((6, 6), np.int32)
        ids[:3] = value
        shown.append(Example(Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)), ids))
    grid = spatial_grid(shown, 12)
    assert grid.image.size == (12, 12)
    for cell, example in enumerate([*shown, shown[0]]):
        top, left = 6 * (cell // 2), 6 * (cell % 2)
        part = grid.labels.ids[top : top + 6, left : left + 6]
        np.testing.assert_array_equal(part, example.labels.ids)
        pixels = np.asarray(grid.image)[top : top + 6, left : left + 6]
        np.testing.assert_array_equal(pixels, np.asarray(example.image))
    assert spatial_grid(shown[:1], 160).labels.ids.shape == (160, 160)
    assert spatial_grid([shown[0]] * 5, 160).image.size == (160, 160)  # 3 × 3, cells of 53 and 54
