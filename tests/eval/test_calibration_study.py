"""The study of confidence and quality counts as it says."""

import numpy as np
import pytest

from eval.studies.calibration import Answers, bad_in_worst_third, format_table
from incontext.data.pictures import IGNORE_INDEX


def answers(seed: int, says: float) -> Answers:
    """Pixels of which 70 % are right, with a confidence of `says`."""
    rng = np.random.default_rng(seed)
    made = Answers()
    for number in range(6):
        truth = (rng.random((20, 30)) < 0.5).astype(int)
        labels = np.where(np.arange(600).reshape(20, 30) % 10 < 7, truth, 1 - truth)
        truth[0] = IGNORE_INDEX
        made.add(labels, np.full((20, 30), says), number / 6, truth)
    return made


def test_errors_by_hand():
    exact, sure = answers(0, 0.7), answers(0, 0.95)
    assert exact.pixel_error() == pytest.approx(0, abs=1e-9)
    assert sure.pixel_error() == pytest.approx(0.25, abs=1e-9)
    assert exact.pixels[0].sum() == 6 * 19 * 30
    exact.join(sure)
    assert exact.pixel_error() == pytest.approx(0.125, abs=1e-9)
    assert len(exact.quality) == len(exact.iou) == 12


def test_iou_leaves_out_what_is_unknown():
    made, truth = Answers(), np.array([[1, 1, 0, IGNORE_INDEX]])
    made.add(np.array([[1, 0, 1, 1]]), np.ones((1, 4)), 0.5, truth)
    assert made.iou == [1 / 3]


def test_bad_results_among_the_worst():
    quality, iou = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.1, 0.9, 0.2, 0.9, 0.9, 0.1]
    assert bad_in_worst_third(quality, iou) == pytest.approx(1 / 3)
    assert np.isnan(bad_in_worst_third([0.5] * 3, [0.9] * 3))


def test_table():
    text = format_table({"one": answers(0, 0.7), "two": answers(1, 0.95)})
    assert "| 0.7–0.8 | 50.0% | 70% |" in text
    assert "| 0.9–1.0 | 50.0% | 70% |" in text
    assert text.splitlines()[4].startswith("| **all** |")
    assert "0.125" in text.splitlines()[4]
