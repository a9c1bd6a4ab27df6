"""Metrics equal the oracle."""

import json

import numpy as np

from eval.core.metrics import FewShotIoU, JandF, outline, statistics


def test_few_shot_protocol(shared):
    reference = json.loads((shared / "parity/metrics.json").read_text())["few_shot"]
    maps = np.load(shared / "parity/metrics.npz")
    meter = FewShotIoU()
    for truth, prediction, ignore, index in zip(
        *(maps[f"fewshot_{part}"] for part in ("truth", "prediction", "ignore", "class")),
        strict=True,
    ):
        meter.add(int(index), prediction == 1, truth == 1, ignore == 1)
    assert abs(meter.miou() - reference["mIoU"]) <= 1e-9
    assert abs(meter.fb_iou() - reference["FB-IoU"]) <= 1e-9
    for index, value in meter.per_class().items():
        assert abs(value - reference["per_class_IoU"][str(index)]) <= 1e-9


def test_by_hand():
    meter = FewShotIoU()
    yes, no = np.array([[True, True, False]]), np.array([[True, False, False]])
    meter.add(3, yes, no)
    assert meter.per_class() == {3: 50.0}
    assert meter.miou() == 50.0
    assert meter.fb_iou() == 50.0
    meter.add(3, yes, no, ignore_mask=np.array([[False, True, False]]))
    assert meter.per_class() == {3: 100 * 2 / 3}


def test_davis_2017(shared):
    reference = json.loads((shared / "parity/metrics.json").read_text())
    reference = reference["davis2017_semi_supervised"]
    maps = np.load(shared / "parity/metrics.npz")
    meter = JandF()
    meter.add(maps["davis_truth"], maps["davis_prediction"])
    assert len(meter.objects) == len(reference["per_object"])
    for scores, official in zip(meter.objects, reference["per_object"], strict=True):
        for name in ("J", "F"):
            np.testing.assert_allclose(scores[name], official[f"{name}_frames"], rtol=0, atol=1e-9)
            np.testing.assert_allclose(statistics(scores[name]), official[name], rtol=0, atol=1e-9)
    means = meter.means()
    for name, official_name in (("J", "J_mean"), ("F", "F_mean"), ("J&F", "J&F")):
        assert abs(means[name] - reference[official_name]) <= 1e-9


def test_empty_masks_by_hand():
    truth = np.zeros((4, 8, 8), np.uint8)
    truth[:2, 2:5, 2:5] = 1  # gone in frame 2
    meter = JandF()
    meter.add(truth, truth)
    assert meter.means() == {"J": 1.0, "F": 1.0, "J&F": 1.0}
    meter = JandF()
    meter.add(truth, np.zeros_like(truth))
    assert meter.objects == [{"J": [0.0, 1.0], "F": [0.0, 1.0]}]


def test_outline_of_one_pixel():
    mask = np.zeros((3, 3), bool)
    mask[1, 1] = True
    assert outline(mask).tolist() == [[True, True, False], [True, True, False], [False] * 3]
