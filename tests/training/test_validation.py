"""Validation: episodes are fair, and scores are those of the benchmark's own meter."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from eval.core.metrics import FewShotIoU
from incontext.data.pictures import IGNORE_INDEX, PictureSet
from incontext.model import SIZES, SegGPT
from incontext.training.validation import Validation, binary_episodes
from tests.training.test_trainer import CONFIG

MEAN, STD = (torch.tensor(v).view(3, 1, 1) for v in (CONFIG.mean, CONFIG.std))


class Painter(nn.Module):
    """Stands in for a model: paints white where the query is red, whatever the examples show."""

    config = CONFIG

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(()))
        self.shown = []

    def encode(self, images, targets, semantic, colors):
        assert not self.training
        self.shown.append((images, targets, semantic))

    def paint(self, queries, _):
        white = (queries * STD + MEAN)[:, :1] > 0.5
        return (white.float().expand(-1, 3, -1, -1) - MEAN) / STD


def toy(name: str = "toy", size: int = 16, seed: int = 0, wrong: float = 0.2) -> PictureSet:
    """Nine pictures; class 3 in all, class 9 in every other one, red but for `wrong` of it."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 100, (9, 3, size, size), dtype=np.uint8)
    labels = np.zeros((9, size, size), np.uint8)
    for i in range(9):
        labels[i, 2:9, i % 4 : i % 4 + 6] = 3
        if i % 2:
            labels[i, 10:15, 5:12] = 9
        labels[i, :, -2:] = IGNORE_INDEX
    red = (labels > 0) & (labels != IGNORE_INDEX) & (rng.random(labels.shape) > wrong)
    images[:, 0][red] += 150
    return PictureSet(name, "semantic", torch.from_numpy(images), torch.from_numpy(labels))


def test_episodes_hold_their_class_without_repeats():
    images_by_class = {4: [0, 1, 2], 7: [2, 3, 5, 8, 9], 9: [1, 6], 12: [3]}
    drawn = list(binary_episodes(images_by_class, 2, 40))
    assert [e.index for e in drawn] == [4, 7] * 20  # in turn; 9 and 12 have too few
    for episode in drawn:
        assert len(set(episode.images)) == 3
        assert set(episode.images) <= set(images_by_class[episode.index])
    queries = Counter(e.images[-1] for e in drawn if e.index == 7)
    assert set(queries) == set(images_by_class[7])
    assert drawn == list(binary_episodes(images_by_class, 2, 40))
    assert drawn != list(binary_episodes(images_by_class, 2, 40, seed=1))
    assert drawn[:6] == list(binary_episodes(images_by_class, 2, 6))
    assert list(binary_episodes(images_by_class, 5, 40)) == []
    assert list(binary_episodes({}, 1, 40)) == []


@pytest.mark.parametrize("examples", [1, 4])
def test_score_is_the_benchmarks(examples):
    """Predictions made apart, of the same episodes, through `eval.core.metrics`."""
    data = toy()
    # Red where nothing is asked for: found too much.
    data.images[:, 0, 12:, :4] = 200
    validation = Validation([data], examples, episodes=14)
    meter = FewShotIoU()
    for episode in validation.episodes[0]:
        query = episode.images[-1]
        labels = data.labels[query].numpy()
        red = data.images[query, 0].numpy() > 127.5
        meter.add(episode.index, red, labels == episode.index, labels == IGNORE_INDEX)
    assert set(meter.per_class()) == ({3, 9} if examples == 1 else {3})
    assert 20 < meter.miou() < 80
    assert validation.score(Painter()) == {"toy": pytest.approx(meter.miou(), abs=1e-4)}


def test_by_hand():
    """Sums by class come before ratios: 1 of 2 and 1 of 4 pixels are 2 of 6."""
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    labels = torch.zeros(2, 8, 8, dtype=torch.uint8)
    labels[:, :3, :] = 1
    images[0, 0, 1:3], images[1, 0, :4] = 255, 255  # 16 of 24; 24 of 32
    data = PictureSet("hand", "semantic", images, labels)
    validation = Validation([data], 1, 30)
    count = Counter(e.images[-1] for e in validation.episodes[0])
    assert min(count[0], count[1]) > 0
    both, either = 16 * count[0] + 24 * count[1], 24 * count[0] + 32 * count[1]
    assert validation.score(Painter())["hand"] == pytest.approx(100 * both / either)


def test_perfect_and_nothing():
    data = toy(wrong=0.0)
    data.labels[data.labels == 9] = 0
    data.images[:, 0, 10:15] = 0
    data = data.subset(list(range(9)))
    assert Validation([data]).score(Painter()) == {"toy": 100.0}
    data.images[:, 0] = 0
    assert Validation([data]).score(Painter()) == {"toy": 0.0}


def test_ignored_pixels_are_not_judged():
    data = toy()
    validation = Validation([data], 2)
    before = validation.score(Painter())
    data.images[:, 0][data.labels == IGNORE_INDEX] = 255
    assert validation.score(Painter()) == before
    data.images[:, 0][:, :, 0] = 255
    assert validation.score(Painter()) != before


def test_what_the_model_is_shown():
    data, painter = toy(), Painter()
    validation = Validation([data], 3, 4)
    validation.score(painter)
    for episode, (images, targets, semantic) in zip(
        validation.episodes[0], painter.shown, strict=True
    ):
        shown = episode.images[:-1]
        expected = (data.images[shown] / 255 - MEAN) / STD
        torch.testing.assert_close(images, expected[None])
        white = (data.labels[shown] == episode.index)[:, None].expand(-1, 3, -1, -1).float()
        torch.testing.assert_close(targets * STD + MEAN, white[None])
        assert semantic.tolist() == [True]


def test_sets_are_told_apart():
    few = toy("few").subset([0])
    other = toy("toy", seed=1, wrong=0.9)
    scores = Validation([few, toy(), other, toy("third")]).score(Painter())
    assert list(scores) == ["toy", "toy 2", "third"]
    assert scores["toy"] > scores["toy 2"] + 20
    assert scores["third"] == scores["toy"]
    assert Validation([few]).score(Painter()) == {}
    assert Validation([]).score(Painter()) == {}


def test_training_goes_on():
    painter = Painter()
    for training in (True, False):
        painter.train(training)
        Validation([toy()], episodes=2).score(painter)
        assert painter.training is training
    assert painter.nothing.grad is None


@pytest.mark.parametrize("config", [CONFIG, SIZES["tiny"]])
def test_paintings_of_a_model(config):
    """What is kept for the eye is what the model paints, in 0–1."""
    torch.manual_seed(0)
    model = SegGPT(config).eval()
    sets = [toy(str(i), size=32, seed=i) for i in range(3)]
    validation = Validation(sets, 2, 3)
    samples = validation.samples(model, count=2)
    assert len(samples) == 2
    for data, drawn, sample in zip(sets, validation.episodes, samples, strict=False):
        rows = drawn[0].images
        truth = torch.where(data.labels[rows] == drawn[0].index, 1, 0)
        truth[data.labels[rows] == IGNORE_INDEX] = IGNORE_INDEX
        assert torch.equal(sample.labels.long(), truth)
        assert torch.equal(sample.images, data.images[rows] / 255)
        images = (sample.images - MEAN) / STD
        targets = ((truth[:-1] == 1).float()[:, None].expand(-1, 3, -1, -1) - MEAN) / STD
        painting = model(images[-1:], images[None, :-1], targets[None], torch.tensor([True]))
        expected = (painting[0] * STD + MEAN).clamp(0, 1)
        torch.testing.assert_close(sample.painting, expected, rtol=1e-4, atol=1e-5)
        assert not sample.painting.requires_grad
    scores = validation.score(model)
    assert scores.keys() == {"0", "1", "2"}
    assert all(0 <= value <= 100 for value in scores.values())
    assert scores == validation.score(model)
