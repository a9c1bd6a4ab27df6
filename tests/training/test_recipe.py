"""Recipes: the schedule, what each step looks like, and files that describe a run."""

import json
import math

import pytest

from incontext import InputError
from incontext.model import SIZES
from incontext.training.recipe import Recipe, Run


def test_rate():
    recipe = Recipe(steps=100, warmup=10, learning_rate=1.0)
    assert recipe.rate(0) == 0.1
    assert recipe.rate(10) == pytest.approx(1.0)
    assert recipe.rate(100) == pytest.approx(0.01)


def test_rate_falls_in_the_end():
    recipe = Recipe(steps=100, warmup=10, learning_rate=1.0, decay=0.2)
    assert recipe.rate(0) == 0.1
    assert recipe.rate(10) == recipe.rate(80) == 1.0
    assert recipe.rate(90) == pytest.approx(0.505)
    assert recipe.rate(100) == pytest.approx(0.01)


def test_rate_that_falls_all_along_is_a_cosine():
    """What recipes without `decay` were trained with; one without any fall stays constant."""
    recipe = Recipe(steps=90, warmup=7, learning_rate=0.3)
    for step in range(95):
        done = min(1.0, (step - 7) / 83)
        cosine = 0.3 * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)
        expected = 0.3 * (step + 1) / 7 if step < 7 else cosine
        assert recipe.rate(step) == pytest.approx(expected, rel=1e-12)
    constant = Recipe(steps=90, warmup=7, learning_rate=0.3, decay=0.0)
    assert {constant.rate(step) for step in range(7, 91)} == {0.3}
    # A fall that would begin in the warm-up begins behind it.
    early = Recipe(steps=90, warmup=50, learning_rate=0.3, decay=0.9)
    assert early.rate(50) == 0.3 > early.rate(51) > early.rate(89)


def test_steps_cost_about_the_same():
    recipe = Recipe(pictures=96, examples=(1, 2, 8), sizes=(64, 128))
    seen = set()
    for number in range(60):
        step = recipe.step(number)
        assert step == recipe.step(number)
        cost = step.episodes * (step.examples + 1) * (step.size / 64) ** 2
        assert 70 <= cost <= 130
        seen.add((step.examples, step.size))
        assert recipe.step(number, processes=4).episodes % 4 == 0
    assert len(seen) == 6


def test_hidden_patches():
    recipe = Recipe(hidden=0.5, sizes=(32,), pictures=12, examples=(1,))
    shown, patterns = 0, []
    for number in range(40):
        step = recipe.step(number)
        hidden = recipe.hidden_patches(number, step, 8)
        if hidden is None:
            shown += 1
            continue
        patterns.append(hidden)
        assert hidden.shape == (6, 8, 4)
        assert hidden[:, 4:].flatten(1).any(1).all()
        assert not hidden[::2, :4].any()
    assert 10 < shown < 30
    assert any(p[1::2, :4].any() for p in patterns)
    assert any(not p[:, 4:].all() for p in patterns)
    assert Recipe().hidden_patches(0, step, 8) is None


def test_files(tmp_path):
    path = tmp_path / "recipe.json"
    good = {"model": "tiny", "cache": 40, "recipe": {}}
    path.write_text(json.dumps(good | {"weights": {"overlap": 1.0}, "mixture": {"scenes": 0.5}}))
    run = Run.read(path)
    assert run.config == SIZES["tiny"]
    assert (run.cache, run.recipe.weights.overlap, run.recipe.mixture.scenes) == (40, 1.0, 0.5)
    path.write_text(json.dumps(good | {"recipe": {"sizes": [20]}}))
    with pytest.raises(InputError, match="no multiple of the patch"):
        Run.read(path)
    for change in (
        {"model": "huge"}, {"recipe": {"stepz": 1}}, {"config": {"depth": -1}}, {"extra": 1},
        {"mixture": {"no": 1}}, {"weights": 3}, {"config": 4}, {"recipe": {"examples": 4}},
        {"recipe": {"precision": "fp32"}}, {"recipe": {"accumulate": 0}}, {"recipe": {"sizes": []}},
        {"mixture": {"absent": 2}}, {"mixture": {"classes": 0}},
        {"mixture": {"weights": {"a": -1}}},
    ):  # fmt: skip
        path.write_text(json.dumps(good | change))
        with pytest.raises(InputError, match=r"recipe\.json"):
            Run.read(path)
    with pytest.raises(InputError, match="No such file"):
        Run.read(tmp_path / "none.json")


def test_shipped_recipes():
    from pathlib import Path

    files = sorted((Path(__file__).parents[2] / "recipes").glob("*.json"))
    assert files
    for path in files:
        Run.read(path)
