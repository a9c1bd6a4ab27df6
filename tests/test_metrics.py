"""Metrics equal the oracle."""

import json

import numpy as np

from eval.metrics import FewShotIoU


def test_few_shot_protocol(shared):
    expected = json.loads((shared / "parity/metrics.json").read_text())["few_shot"]
    maps = np.load(shared / "parity/metrics.npz")
    meter = FewShotIoU()
    for truth, prediction, ignore, index in zip(
        *(maps[f"fewshot_{part}"] for part in ("truth", "prediction", "ignore", "class")),
        strict=True,
    ):
        meter.add(int(index), prediction == 1, truth == 1, ignore == 1)
    assert abs(meter.miou() - expected["mIoU"]) <= 1e-9
    assert abs(meter.fb_iou() - expected["FB-IoU"]) <= 1e-9
    for index, value in meter.per_class().items():
        assert abs(value - expected["per_class_IoU"][str(index)]) <= 1e-9


def test_by_hand():
    meter = FewShotIoU()
    yes, no = np.array([[True, True, False]]), np.array([[True, False, False]])
    meter.add(3, yes, no)
    assert meter.per_class() == {3: 50.0}
    assert meter.miou() == 50.0
    assert meter.fb_iou() == 50.0
    meter.add(3, yes, no, ignored=np.array([[False, True, False]]))
    assert meter.per_class() == {3: 100 * 2 / 3}
