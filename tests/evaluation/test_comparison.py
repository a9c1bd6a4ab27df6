"""Verdicts: chosen on one half, judged on the other; chance is no gain."""

import numpy as np

from incontext.evaluation.comparison import best_constant, compare, crossfit


def counts_of(scores, area=100):
    """One id that fills a tenth of each picture, with such IoU in percent."""
    return np.array([[[9 * area, 0], [area - round(s), round(s)]] for s in scores])


def test_choosing_does_not_flatter():
    """Of twenty options that are all alike but for chance none looks better than it is."""
    rng = np.random.default_rng(0)
    options = [counts_of(rng.uniform(0, 60, 24)) for _ in range(20)]
    means = [c[:, 1, 1].mean() for c in options]
    judged = crossfit(options)[:, 1, 1].mean()
    assert judged < max(means) - 2
    assert abs(judged - 30) < 8


def test_a_gain_is_told():
    rng = np.random.default_rng(1)
    level = rng.uniform(30, 70, 20)
    comparison = compare(
        {"1 example": counts_of(level - 20), "all examples": counts_of(level)},
        [counts_of(level + 2), counts_of(level + 8)],
    )
    assert comparison.best == "all examples"
    assert comparison.improves
    assert 7 < comparison.gain.low <= comparison.gain.value <= comparison.gain.high < 9
    assert "Use the tuned prompt" in comparison.lines()[-1]


def test_no_gain_and_unsure_gain():
    rng = np.random.default_rng(2)
    level = rng.uniform(30, 70, 12)
    worse = compare({"all examples": counts_of(level)}, [counts_of(level - 5)])
    assert not worse.improves
    assert "does not help" in worse.lines()[-1]
    unsure = compare({"all examples": counts_of(level)}, [counts_of(level + rng.normal(1, 20, 12))])
    assert not unsure.improves
    tiny = compare({"all examples": counts_of(level)}, [counts_of(level + 0.4)])
    assert not tiny.improves


def test_the_best_of_the_table_may_do_as_well():
    """No gain is printed as the reason why tuning does not help."""
    first = np.array([60, 20, 60, 20])
    comparison = compare(
        {"1 example": counts_of(first), "all examples": counts_of(first[::-1])},
        [counts_of(np.array([38, 38, 38, 38]))],
    )
    assert comparison.gain.value > 0
    assert not comparison.improves
    text = comparison.lines()[-1]
    assert "1 example does as well (-2.0 points" in text


def test_painting_everything_is_chance():
    """A tenth of every picture: one id everywhere has an IoU of 10, better than nothing."""
    nothing = counts_of(np.ones(8))
    blind = best_constant(nothing)
    comparison = compare({"all examples": nothing}, [blind])
    assert abs(comparison.tuned.value - 10) < 1e-9
    assert comparison.gain.low > 5
    assert not comparison.improves
    assert "Are the labels right?" in comparison.lines()[-1]
