"""ADE20K in its real layout; figures by hand; the spatial ensemble."""

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
from eval.datasets import ade20k
from eval.runs.semantic import run as run_semantic
from incontext import Example

SIDE = 24


def write_image(path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (SIDE, SIDE), (90, 120, 60)).save(path)


def write_labels(path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids.astype(np.uint8)).save(path)


@pytest.fixture
def ade(tmp_path):
    """Wall (1) above, sky (3) below, an unknown column; the training picture's border is lower."""
    for part, border in (("training", 16), ("validation", 12)):
        ids = np.full((SIDE, SIDE), 3)
        ids[:border], ids[:, 0] = 1, 0
        write_image(tmp_path / f"ADEChallengeData2016/images/{part}/ADE_0.jpg")
        write_labels(tmp_path / f"ADEChallengeData2016/annotations/{part}/ADE_0.png", ids)
    return tmp_path


@pytest.mark.slow
def test_ade20k_by_hand(ade):
    """Answered with the training picture's classes: wall 12 of 16 rows, sky 8 of 12."""
    [example_image], [query_image] = ade20k.read(ade)
    row = count_pixels(example_image.read_classes(), query_image.read_classes(), 150)
    assert {index: counts for index, *counts in row} == {
        0: [12 * 23, 16 * 23, 12 * 23], 2: [8 * 23, 8 * 23, 12 * 23]
    }  # fmt: skip
    means, iou = semantic_metrics([row])
    assert iou == {0: 75.0, 2: pytest.approx(200 / 3)}
    assert means["accuracy"] == pytest.approx(100 * 20 / 24)
    assert means["mIoU"] == pytest.approx((75 + 200 / 3) / 2)
    assert list(group_by_class([example_image], 150)) == [0, 2]


def test_pixels_without_a_class_are_wrong(ade):
    [_], [query_image] = ade20k.read(ade)
    classes = query_image.read_classes()
    predicted = labels_to_classes(np.where(classes == 0, 1, 0))  # the sky as background
    assert set(np.unique(predicted)) == {0, NO_CLASS}
    means, iou = semantic_metrics([count_pixels(predicted, classes, 150)])
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
    prompts = {}
    for index in (4, 8):
        ids = np.zeros((9, 7), np.int32)
        ids[: index // 2] = 1
        prompts[index] = predictor.prompt(Example(image, ids))
    predicted = classify(predictor, image, prompts)
    results = {index: predictor.predict(image, prompt) for index, prompt in prompts.items()}
    for y in range(9):
        for x in range(7):
            belief = {
                i: r.confidence[y, x] * (1 if r.labels[y, x] else -1) for i, r in results.items()
            }
            assert predicted[y, x] == max(belief, key=lambda i: (belief[i], -i))


def test_spatial_ensemble():
    """Each cell is the example, shrunk to it; cells left over show the first ones again."""
    rng = np.random.default_rng(0)
    examples = []
    for value in (1, 2, 3):
        ids = np.zeros((6, 6), np.int32)
        ids[:3] = value
        pixels = rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)
        examples.append(Example(Image.fromarray(pixels), ids))
    grid = spatial_grid(examples, 12)
    assert grid.image.size == (12, 12)
    for cell, example in enumerate([*examples, examples[0]]):
        top, left = 6 * (cell // 2), 6 * (cell % 2)
        part = grid.labels.ids[top : top + 6, left : left + 6]
        np.testing.assert_array_equal(part, example.labels.ids)
        pixels = np.asarray(grid.image)[top : top + 6, left : left + 6]
        np.testing.assert_array_equal(pixels, np.asarray(example.image))
    assert spatial_grid(examples[:1], 160).labels.ids.shape == (160, 160)
    large_grid = spatial_grid([examples[0]] * 5, 160)  # 3 × 3, cells of 53 and 54 pixels
    assert large_grid.image.size == (160, 160)
