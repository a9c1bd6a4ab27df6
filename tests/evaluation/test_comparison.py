"""Verdicts: chosen on one half, judged on the other; chance is no gain."""

import numpy as np

from incontext.evaluation.comparison import crossfit, decide, everywhere


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
    verdict = decide(
        {"1 example": counts_of(level - 20), "all examples": counts_of(level)},
        [counts_of(level + 2), counts_of(level + 8)],
    )
    assert verdict.best == "all examples"
    assert verdict.helps
    assert 7 < verdict.gain.low <= verdict.gain.value <= verdict.gain.high < 9
    assert "Use the tuned prompt" in verdict.lines()[-1]


def test_no_gain_and_unsure_gain():
    rng = np.random.default_rng(2)
    level = rng.uniform(30, 70, 12)
    worse = decide({"all examples": counts_of(level)}, [counts_of(level - 5)])
    assert not worse.helps
    assert "does not help" in worse.lines()[-1]
    unsure = decide({"all examples": counts_of(level)}, [counts_of(level + rng.normal(1, 20, 12))])
    assert not unsure.helps
    tiny = decide({"all examples": counts_of(level)}, [counts_of(level + 0.4)])
    assert not tiny.helps


def test_painting_everything_is_chance():
    """A tenth of every picture: one id everywhere has an IoU of 10, better than nothing."""
    nothing = counts_of(np.ones(8))
    blind = everywhere(nothing)
    verdict = decide({"all examples": nothing}, [blind])
    assert abs(verdict.tuned.value - 10) < 1e-9
    assert verdict.gain.low > 5
    assert not verdict.helps
    assert "Are the labels right?" in verdict.lines()[-1]
