"""The objective by hand, and that a batch may be cut anywhere."""

import torch
import torch.nn.functional as F

from incontext.data.episodes import Batch, EpisodeSampler
from incontext.data.plan import Mixture
from incontext.images.normalizer import Normalizer
from incontext.model import SegGPT
from incontext.training.objective import (
    SMOOTHING,
    Weights,
    compute_voting_loss,
    objective,
    overlap_loss,
    pixel_weights,
    query_half,
    voting_objective,
)
from tests.training.test_trainer import CONFIG


def test_balance_gives_small_objects_weight():
    labels = torch.zeros(1, 10, 10, dtype=torch.uint8)
    labels[0, :2, :2] = 1
    labels[0, 9] = 255
    weight = pixel_weights(labels, 1)
    assert (weight[labels == 255] == 0).all()
    big, small = weight[labels == 0].mean(), weight[labels == 1].mean()
    torch.testing.assert_close(small / big, torch.tensor((86 / 4) ** 0.5))
    torch.testing.assert_close(weight.mean(), torch.tensor(1.0))
    half = torch.zeros(1, 10, 10, dtype=torch.bool)
    half[:, :, :5] = True
    part = pixel_weights(labels, 1, half)
    assert (part[~half] == 0).all()
    torch.testing.assert_close(part.mean(), torch.tensor(1.0))


def test_overlap_loss_is_zero_for_the_truth():
    labels = torch.zeros(2, 8, 8, dtype=torch.uint8)
    labels[:, 2:5, 2:6] = 1
    labels[:, 7] = 255
    colors = torch.tensor([[[-2.0] * 3, [2.0] * 3, [2.0, -2.0, -2.0]]]).expand(2, -1, -1)
    truth = colors[0][labels.clamp(max=2).long()].permute(0, 3, 1, 2)
    asked = torch.tensor([[True, True, False]]).expand(2, -1)
    assert overlap_loss(truth, labels, colors, asked) < 1e-3
    assert overlap_loss(-truth, labels, colors, asked) > 0.8
    # What an example shows and the query lacks must not be painted anywhere.
    empty = torch.zeros_like(labels)
    black = colors[0][empty.long()].permute(0, 3, 1, 2)
    assert overlap_loss(truth, empty, colors, asked) > 0.8
    assert overlap_loss(black, empty, colors, asked) < 1e-3
    assert overlap_loss(truth, empty, colors, asked & False) == 0
    # Pixels that are not judged do not count.
    left = torch.zeros(2, 8, 8, dtype=torch.bool)
    left[:, :, :4] = True
    mixed = torch.where(left[:, None], truth, -truth)
    assert overlap_loss(mixed, labels, colors, asked, left) < 1e-3
    assert overlap_loss(mixed, labels, colors, asked, ~left) > 0.8


def test_loss_is_an_average_over_episodes():
    """The whole batch costs the mean of what its episodes cost alone; hidden patches as well."""
    torch.manual_seed(0)
    model = SegGPT(CONFIG)
    batch = EpisodeSampler([], Mixture(scenes=1.0, absent=0.4), seed=0).batch(0, 4, 2, 32)
    batch.labels[0, -1, :9] = 255
    batch.labels[1, -1] = 255  # nothing is judged there
    normalizer = Normalizer(CONFIG.mean, CONFIG.std)
    blocks = query_half(4, 4, 4)
    blocks[:, 4:6] = False
    for hidden in (None, blocks):
        whole, parts = objective(model, normalizer, Weights(), batch, hidden)
        alone = [
            objective(
                model, normalizer, Weights(), batch.part(i, i + 1),
                None if hidden is None else hidden[i : i + 1],
            )[0]
            for i in range(4)
        ]  # fmt: skip
        torch.testing.assert_close(whole, torch.stack(alone).mean(), rtol=1e-5, atol=1e-6)
        expected = parts["painted"] + 0.5 * parts["overlap"] + 0.3 * parts["copied"]
        torch.testing.assert_close(parts["loss"], expected)


def test_shown_pixels_cost_nothing():
    """What the query's target shows is not judged."""
    batch = EpisodeSampler([], Mixture(scenes=1.0), seed=1).batch(0, 2, 1, 32)
    normalizer = Normalizer(CONFIG.mean, CONFIG.std)
    hidden = query_half(2, 4, 4)
    hidden[:, 4:6] = False
    painting = batch.targets()[:, -1].clone()
    painting[:, :, :16] = 7.0

    class Painter(torch.nn.Module):
        def forward(self, *_, **options):
            assert torch.equal(options["hidden"], hidden)
            return normalizer(painting), None

    loss, _ = objective(Painter(), normalizer, Weights(), batch, hidden)
    assert loss < 0.01
    hidden[:, 4:] = True
    loss, _ = objective(Painter(), normalizer, Weights(), batch, hidden)
    assert loss > 0.5


def test_votes_cost_nothing_where_they_are_right():
    truth = torch.zeros(2, 2, 16, 16)
    truth[0, 0, :8], truth[0, 1, 8:12] = 1, 1
    known = torch.ones(2, 16, 16, dtype=torch.bool)
    asked = torch.tensor([[True, True], [False, False]])
    sure = 40 * truth - 20
    loss, parts = compute_voting_loss(sure, F.adaptive_avg_pool2d(sure, 2), truth, known, asked)
    assert loss < 0.2  # cells at the border of an id cannot be right in the first guess
    assert parts["crossed"] < 1e-4
    assert parts["overlap"] < 1e-4
    wrong, _ = compute_voting_loss(-sure, F.adaptive_avg_pool2d(-sure, 2), truth, known, asked)
    assert wrong > 10


def test_votes_that_do_not_count():
    """Unknown pixels, and queries that are asked nothing."""
    truth = torch.zeros(2, 1, 16, 16)
    truth[0, 0, 4:12, 4:12] = 1
    known = torch.ones(2, 16, 16, dtype=torch.bool)
    known[:, :4] = False
    asked = torch.tensor([[True], [False]])
    guess = torch.zeros(2, 1, 2, 2)
    torch.manual_seed(0)
    logits = torch.randn(2, 1, 16, 16)
    other = logits.clone()
    other[0, :, :4] = 9.0
    other[1] = 9.0
    loss, _ = compute_voting_loss(logits, guess, truth, known, asked)
    assert torch.equal(loss, compute_voting_loss(other, guess, truth, known, asked)[0])
    nothing, _ = compute_voting_loss(logits, guess, truth, known, torch.zeros_like(asked))
    assert nothing == 0


def test_votes_judged_by_hand():
    """One query, one pixel, one id at a time."""
    torch.manual_seed(1)
    logits, guess = 2 * torch.randn(3, 2, 8, 16), torch.randn(3, 2, 1, 2)
    number = torch.randint(0, 3, (3, 8, 16))
    known = torch.rand(3, 8, 16) > 0.2
    asked = torch.tensor([[True, True], [False, True], [False, False]])
    number[1][number[1] == 1] = 0
    truth = torch.stack([number == 1, number == 2], 1).float()
    crossed, overlap, early = [], [], []
    for b in range(2):  # the last is asked nothing
        pixels = [(y, x) for y in range(8) for x in range(16) if known[b, y, x]]
        chances = torch.zeros(3, 8, 16)
        for y, x in pixels:
            chances[:, y, x] = torch.cat([torch.zeros(1), logits[b, :, y, x]]).softmax(0)
        crossed.append(-sum(chances[number[b, y, x], y, x].log() for y, x in pixels) / len(pixels))
        dice, entropy, counted = [], [], 0
        for k in (0, 1):
            if not asked[b, k]:
                continue
            own = truth[b, k] * known[b]
            inside, painted = (chances[k + 1] * own).sum(), chances[k + 1].sum()
            dice.append(1 - (2 * inside + SMOOTHING) / (painted + own.sum() + SMOOTHING))
            for column in (0, 1):
                cell = slice(8 * column, 8 * column + 8)
                sure = int(known[b, :, cell].sum())
                share, p = own[:, cell].sum() / sure, guess[b, k, 0, column].sigmoid()
                entropy.append(-sure * (share * p.log() + (1 - share) * (1 - p).log()))
                counted += sure
        overlap.append(sum(dice) / len(dice))
        early.append(sum(entropy) / counted)
    expected = {"crossed": crossed, "overlap": overlap, "early": early}
    loss, parts = compute_voting_loss(logits, guess, truth, known, asked)
    for name, values in expected.items():
        torch.testing.assert_close(parts[name], torch.stack(values).sum() / 3)
    total = 2 * parts["crossed"] + parts["overlap"] + 0.5 * parts["early"]
    torch.testing.assert_close(loss, total)

    alone = [compute_voting_loss(*(x[b : b + 1] for x in (logits, guess, truth, known, asked)))[0]
             for b in range(3)]  # fmt: skip
    torch.testing.assert_close(loss, torch.stack(alone).mean())  # a batch may be cut anywhere


class Knowing(torch.nn.Module):
    """Answers what is right in every view, or the opposite, and the first guess as well."""

    def __init__(self, right: bool = True) -> None:
        super().__init__()
        self.sign = 1 if right else -1

    def forward(self, images, labels, known):
        assert images.shape[:2] == known.shape[:2] == labels.shape[:2]
        shown = labels.flatten(3).any(3)  # (B, V, K)
        others = (shown.sum(1, keepdim=True) - shown.long()) > 0
        truth = (labels * others[..., None, None]).flatten(0, 1)
        return self.sign * (40 * truth - 20), self.sign * (40 * F.avg_pool2d(truth, 8) - 20)


def episodes(labels: torch.Tensor) -> Batch:
    """Of labels (B, V, H, W), on noise."""
    images = torch.rand(*labels.shape[:2], 3, *labels.shape[2:])
    colors = torch.rand(len(labels), 5, 3)
    return Batch(images, labels.byte(), colors, torch.ones(len(labels), dtype=torch.bool))


def test_voting_objective():
    """Every view is a query, an id that no other view shows is ground, unknown pixels are free."""
    normalizer = Normalizer(CONFIG.mean, CONFIG.std)
    labels = torch.zeros(2, 3, 32, 32)
    labels[0, :, :8, :16] = 1
    labels[0, :2, 16:] = 3
    labels[1, :, :8, :8] = 1
    labels[1, 0, 8:24, 8:16] = 2  # ground there, and asked in vain of the two other views
    labels[:, :, :, 24:] = 255
    good, parts = voting_objective(Knowing(), normalizer, episodes(labels))
    assert good < 1e-4
    assert parts.keys() == {"loss", "crossed", "overlap", "early"}
    bad, _ = voting_objective(Knowing(right=False), normalizer, episodes(labels))
    assert bad > 10


def test_episodes_that_ask_nothing_count_nothing():
    torch.manual_seed(0)
    normalizer = Normalizer(CONFIG.mean, CONFIG.std)
    labels = torch.zeros(3, 2, 16, 16)
    labels[0, :, :8] = 1
    labels[1, 0] = 1  # the first view is asked nothing, the second is asked in vain
    labels[2, :, 3:5] = 255
    wrong = Knowing(right=False)
    first, with_empty = labels[:1], labels[[0, 2]]
    alone, _ = voting_objective(wrong, normalizer, episodes(first))
    beside, _ = voting_objective(wrong, normalizer, episodes(with_empty))
    torch.testing.assert_close(2 * beside, alone)  # half of the queries
    nothing, _ = voting_objective(wrong, normalizer, episodes(labels[2:]))
    assert nothing == 0
    vain, _ = voting_objective(wrong, normalizer, episodes(labels[1:2]))
    assert vain > 10
