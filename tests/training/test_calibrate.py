"""Calibration: fitted to queries with and without the object, a model knows how sure it is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from incontext import Example, InputError, Predictor
from incontext.checkpoints.checkpoint import load
from incontext.data.pictures import PictureSet, load_set
from incontext.model import VotingModel, assemble
from incontext.model.quality import FEATURES, MaskSums, QualityHead
from incontext.training.calibration import calibrate, fit_line, fit_quality, mask_iou
from incontext.training.presence import (
    BINS,
    LOGITS,
    PRIOR,
    Rows,
    collect_rows,
    count_pixels,
    fit_head,
)

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
    after = calibrate(before, [data], 40, on_progress=progress.append)
    assert sum(progress) == 40
    kept = after.state_dict()
    for name, value in before.state_dict().items():
        assert name.startswith(("presence.", "quality.")) or torch.equal(kept[name], value)
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
        calibrate(load("incontext-votes"), [data], 5)


def fit_rows(evidence, present, sets):
    """Fit a head to rows of one piece of evidence; return presence for the evidence -1, 0, 1."""
    model = assemble(replace(load("incontext-votes").config, presence_width=4))
    assert isinstance(model, VotingModel)
    assert model.presence
    rows = torch.zeros(len(evidence), model.presence.mean.shape[0])
    rows[:, 0] = evidence
    fit_head(model, Rows(rows, present, sets, torch.zeros(len(rows), 2, BINS)))
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


def drawn_rows(count: int, slope: float, offset: float, seed: int = 0) -> Rows:
    """Queries whose pixels are the object's with probability sigmoid(slope · logit + offset)."""
    generator = torch.Generator().manual_seed(seed)
    center = torch.randn(count, 1, generator=generator) * 3
    every = (2000 * torch.exp(-((LOGITS - center) ** 2) / 8)).round()
    hits = (every * torch.sigmoid(slope * LOGITS + offset)).round()
    return Rows(
        torch.zeros(count, 1), torch.arange(count) % 4 > 0, torch.arange(count) % 3,
        torch.stack([every, hits], 1),
    )  # fmt: skip


def test_the_line_that_pixels_were_drawn_by_comes_back():
    slope, offset = fit_line(drawn_rows(60, 0.6, -0.4), torch.full((60,), 20.0))
    assert slope == pytest.approx(0.6, abs=0.02)
    assert offset == pytest.approx(-0.4, abs=0.02)


def test_counts_give_the_iou_of_masks():
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(20, 30, generator=generator)
    truth, valid = (
        torch.rand(2, 20, 30, generator=generator) > torch.tensor([0.6, 0.1])[:, None, None]
    )
    rounded = ((logits * 10).round() / 10).clamp(-10, 10)
    mask = (rounded > 0.01) & valid
    expected = (mask & truth).sum() / ((mask | truth) & valid).sum()
    pixels = count_pixels(logits, truth, valid)[None]
    near = torch.where(LOGITS.abs() < 0.01, 0.0, LOGITS)[None]
    assert float(mask_iou(near, pixels)) == pytest.approx(float(expected), abs=1e-6)
    assert pixels[0, 0].sum() == valid.sum()


def test_features_of_counts_are_those_of_pixels():
    generator = torch.Generator().manual_seed(0)
    logits = ((4 * torch.randn(1, 600, generator=generator)).clamp(-10, 10) * 10).round() / 10
    together, counted = (MaskSums(0.7, -0.3) for _ in range(2))
    for part in logits.split(250, 1):
        together.add(part, torch.ones(1, part.shape[1]))
    counts = count_pixels(logits, logits > 9, torch.ones_like(logits) > 0)[:1]
    counted.add(LOGITS[None], counts)
    torch.testing.assert_close(together.features(), counted.features(), atol=2e-3, rtol=0)
    torch.testing.assert_close(together.expected_iou(), counted.expected_iou(), atol=1e-3, rtol=0)
    assert together.features().shape == (1, FEATURES)


def test_quality_is_learned_and_absent_objects_have_little():
    rows = drawn_rows(240, 0.6, -0.4)
    rows.pixels[~rows.present, 1] = 0
    presence = torch.where(rows.present, 6.0, 0.5)
    head = QualityHead(16)
    assert fit_quality(head, rows, presence, (0.6, -0.4)) < 0.01
    sums = MaskSums(0.6, -0.4)
    sums.add(LOGITS.expand(240, -1).minimum(presence[:, None]), rows.pixels[:, 0])
    said = head(sums.features())
    truth = mask_iou(LOGITS.expand(240, -1), rows.pixels)
    assert (said - truth)[rows.present].abs().mean() < 0.05
    assert said[~rows.present].mean() < 0.2


def test_no_masks_to_learn_from():
    rows = drawn_rows(10, 0.6, -0.4)
    with pytest.raises(InputError, match="nothing is segmented in these sets"):
        fit_quality(QualityHead(4), rows, torch.full((10,), -1.0), (1.0, 0.0))


def test_command(tmp_path, incontext):
    write_set(tmp_path / "set", 6)
    got = incontext("calibrate", tmp_path / "set", "--out", tmp_path / "new", "--episodes", 12)
    assert got.code == 0, got.err
    new = load(tmp_path / "new")
    assert new.presence is not None
    assert new.quality is not None
    assert new.config.calibration != (1.0, 0.0)
    tensors = load_file(tmp_path / "new/model.safetensors")
    assert {x.dtype for x in tensors.values()} == {torch.float16}  # as the bundled ones
    got = incontext(
        "calibrate", tmp_path / "set", "--out", tmp_path / "no", "--checkpoint", "incontext-small"
    )
    assert got.code == 2
    assert "no votes" in got.err
