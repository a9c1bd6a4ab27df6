"""Presence: a head fitted to queries with and without the object tells them apart."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from incontext import Example, InputError, Predictor
from incontext.checkpoints.checkpoint import load
from incontext.data.pictures import PictureSet, load_set
from incontext.model import VotingModel, assemble
from incontext.training.presence import PRIOR, Rows, collect_rows, fit_head, fit_presence

FORMS = {1: (220, 60, 50), 2: (60, 200, 80)}  # a red disc, a green square


def draw(rng: np.random.Generator, index: int) -> tuple[np.ndarray, np.ndarray]:
    """One object of a class on gray noise: (96, 96, 3) and ids, uint8."""
    rows, columns = np.mgrid[:96, :96]
    top, left = rng.integers(24, 72, 2)
    reach = rng.integers(12, 20)
    far = [np.hypot(rows - top, columns - left), np.maximum(abs(rows - top), abs(columns - left))]
    inside = far[index - 1] < reach
    picture = rng.integers(90, 150, (96, 96, 1)).repeat(3, 2)
    picture[inside] = FORMS[index] + rng.integers(-20, 20, (int(inside.sum()), 1))
    return picture.clip(0, 255).astype(np.uint8), (inside * index).astype(np.uint8)


def write_set(folder: Path, count: int = 8) -> Path:
    rng = np.random.default_rng(3)
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for number in range(count):
        picture, ids = draw(rng, 1 + number % 2)
        Image.fromarray(picture).save(folder / f"images/{number}.png")
        Image.fromarray(ids).save(folder / f"labels/{number}.png")
    return folder


def areas(model, count: int = 4) -> tuple[list[float], list[float]]:
    """Painted shares of queries that show the example's object, and of those that do not."""
    rng = np.random.default_rng(7)
    predictor = Predictor(model)
    prompt = predictor.prompt(Example(*draw(rng, 1)))
    both = [[draw(rng, index)[0] for _ in range(count)] for index in (1, 2)]
    present, absent = (
        [r.mask(1).mean() for r in predictor.predict(images, prompt)] for images in both
    )
    return present, absent


@pytest.mark.slow
def test_absent_objects_stay_empty_and_present_masks_as_they_are(tmp_path):
    data = load_set(write_set(tmp_path / "set"), 224)
    before = load("incontext-votes")
    progress: list[int] = []
    after = fit_presence(before, [data], 40, on_progress=progress.append)
    assert sum(progress) == 40
    kept = after.state_dict()
    for name, value in before.state_dict().items():
        assert name.startswith("presence.") or torch.equal(kept[name], value)
    before.presence = None
    present, absent = areas(after)
    assert present == areas(before)[0]
    assert min(present) > 0.02
    assert sum(area == 0 for area in absent) >= 3


@pytest.mark.slow
def test_same_seed_same_rows(tmp_path):
    data, model = load_set(write_set(tmp_path / "set", 4), 224), load("incontext-votes")
    one, other = (collect_rows(model, [data], 4, seed=1) for _ in range(2))
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a, b)
    assert one.evidence.isfinite().all()


def test_nothing_to_learn_from():
    images = torch.zeros(1, 3, 224, 224, dtype=torch.uint8)
    data = PictureSet("one", "semantic", images, images[:, 0].index_fill(1, torch.arange(50), 1))
    with pytest.raises(InputError, match="no set has two images of one class"):
        fit_presence(load("incontext-votes"), [data], 5)


def fit_rows(evidence, present, sets):
    """Fit a head to rows of one piece of evidence; return presence for the evidence -1, 0, 1."""
    model = assemble(replace(load("incontext-votes").config, presence_width=4))
    assert isinstance(model, VotingModel)
    assert model.presence
    rows = torch.zeros(len(evidence), model.presence.mean.shape[0])
    rows[:, 0] = evidence
    fit_head(model, Rows(rows, present, sets))
    asked = torch.zeros(3, rows.shape[1])
    asked[:, 0] = torch.tensor([-1.0, 0.0, 1.0])
    return model.presence(asked).sigmoid().tolist()


def test_nothing_to_go_by_is_the_prior():
    sets = (torch.arange(300) > 250).long()
    present = torch.arange(300) % 10 == 0  # whatever was drawn
    assert fit_rows(torch.zeros(300), present, sets)[1] == pytest.approx(PRIOR, abs=0.03)


def test_sets_count_alike():
    """One set says the opposite of another that has thirty times the rows: nothing is learned."""
    sets, present = (torch.arange(620) < 600).long(), torch.arange(620) % 2 == 0
    evidence = torch.where(present == (sets == 1), 1.0, -1.0)
    low, _, high = fit_rows(evidence, present, sets)
    assert abs(high - low) < 0.1
    low, _, high = fit_rows(evidence[sets == 1], present[sets == 1], sets[sets == 1])
    assert high - low > 0.4


def test_command(tmp_path, incontext):
    write_set(tmp_path / "set", 6)
    got = incontext("calibrate", tmp_path / "set", "--out", tmp_path / "new", "--episodes", 12)
    assert got.code == 0, got.err
    assert load(tmp_path / "new").presence is not None
    got = incontext(
        "calibrate", tmp_path / "set", "--out", tmp_path / "no", "--checkpoint", "incontext-small"
    )
    assert got.code == 2
    assert "no votes" in got.err
