"""Counts, mean IoU and intervals."""

import numpy as np
import pytest

from incontext.evaluation.confusion import Interval, confusion_counts, interval, iou, miou


def random_counts(pictures, ids, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 100, (pictures, ids + 1, ids + 1))


def test_count_equals_loops():
    rng = np.random.default_rng(0)
    truth, found = rng.integers(0, 4, (2, 9, 7))
    ignored = rng.random((9, 7)) < 0.2
    twin = np.zeros((4, 4), int)
    for t, f, out in zip(truth.ravel(), found.ravel(), ignored.ravel(), strict=True):
        twin[t, f] += not out
    assert np.array_equal(confusion_counts(truth, found, 3, ignored), twin)


def test_iou_by_hand():
    counts = np.array([[[10, 2, 0], [3, 5, 0], [0, 0, 0]]])
    assert iou(counts[0])[0] == pytest.approx(100 * 5 / 10)
    assert np.isnan(iou(counts[0])[1])  # not in the truth: no penalty, no reward
    assert miou(counts) == pytest.approx(50)


def test_miou_sums_over_pictures():
    counts = random_counts(5, 2)
    total = counts.sum(0)
    both = total.diagonal()
    either = total.sum(0) + total.sum(1) - both
    assert miou(counts) == pytest.approx(np.mean(100 * both[1:] / either[1:]))


def test_interval_narrows_with_pictures():
    few, many = (interval(random_counts(n, 1)) for n in (5, 80))
    assert few.high - few.low > 2 * (many.high - many.low)
    assert few.value in few


def test_paired_interval_is_narrower_than_both():
    """What all pictures gain alike is sure, though they differ among themselves."""
    rng = np.random.default_rng(1)
    hits = rng.integers(10, 90, 30)
    make = lambda h: np.stack([[[0, 0], [100 - v, v]] for v in h])  # noqa: E731
    gain = interval(make(hits + 5), make(hits))
    assert gain.value == pytest.approx(5)
    assert gain.low == pytest.approx(5)
    alone = interval(make(hits))
    assert alone.high - alone.low > 5


def test_interval_covers():
    """Nine in ten intervals hold the true figure, with few pictures too."""
    rng = np.random.default_rng(2)
    hit = 0
    for _ in range(200):
        hits = rng.binomial(100, rng.beta(4, 4, 8))
        hit += 50 in interval(np.stack([[[0, 0], [100 - v, v]] for v in hits]))
    assert hit >= 170


def test_interval_says_itself():
    assert str(Interval(1.25, 0.0, 3.0)) in ("1.2 [0.0, 3.0]", "1.3 [0.0, 3.0]")
