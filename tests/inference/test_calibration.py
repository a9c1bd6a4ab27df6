"""Calibration: paintings give back the shares that were mixed, masks the IoU to expect."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from incontext import Example, InputError, Predictor
from incontext.inference.calibration import Calibration, id_logits, pair_scales
from incontext.inference.decoding import (
    Answer,
    Reading,
    read_ids,
    read_single_id,
    to_segmentation,
)
from incontext.inference.prompt import Pass, Prompt
from incontext.labels.coloring import Coloring
from incontext.model.quality import QualityHead
from incontext.model.votes import voters


def test_logits_are_those_that_were_painted():
    """A painting of one id mixes black and white by the id's probability."""
    shares = torch.tensor([[0.02, 0.3, 0.5], [0.7, 0.9, 0.98]])
    painting = (255 * shares).expand(3, 2, 3)
    coloring = Coloring.from_palette([4])
    logits = id_logits(coloring.probabilities(painting), pair_scales([4], [coloring]))
    torch.testing.assert_close(logits, torch.logit(shares)[None], atol=1e-3, rtol=0)


@pytest.mark.parametrize("share", [0.8, 0.9, 0.97])
def test_logits_of_several_ids_are_those_that_were_painted(share):
    """Colors of one pass are not all equally far from each other."""
    coloring = Coloring.from_palette([3, 5, 7, 9])
    scales = pair_scales([3, 5, 7, 9], [coloring])
    colors = torch.tensor([(0, 0, 0), *coloring.colors], dtype=torch.float32)
    checked = 0
    for high in range(1, 5):
        for low in range(5):
            if low == high:
                continue
            mix = share * colors[high] + (1 - share) * colors[low]
            logits = id_logits(coloring.probabilities(mix.view(3, 1, 1)), scales)
            if float(logits[high - 1]) > 0:  # else a third color is nearer
                best = coloring.probabilities(mix.view(3, 1, 1)).flatten().topk(2).indices
                if set(best.tolist()) == {high, low}:
                    checked += 1
                    expected = torch.logit(torch.tensor(share))
                    torch.testing.assert_close(logits[high - 1, 0, 0], expected, atol=1e-3, rtol=0)
    assert checked >= 6


def test_scales_of_passes():
    passes = [Coloring.from_palette([1, 3]), Coloring.from_palette([2])]
    scales = pair_scales([1, 2, 3], passes)
    assert torch.equal(scales, scales.T)
    assert scales.diagonal().tolist() == [1, 1, 1, 1]
    assert scales[1, 2] == scales[2, 3] == 1  # of different passes
    assert scales[0, 2] == 1  # alone in its pass
    assert min(scales[0, 1], scales[0, 3], scales[1, 3]) < 1


def test_logits_of_several_ids_rank_them():
    probabilities = torch.tensor([0.2, 0.7, 0.1]).view(3, 1, 1)
    one, two = id_logits(probabilities, torch.ones(3, 3)).flatten().tolist()
    assert two < 0 < one
    equal = id_logits(torch.tensor([0.1, 0.45, 0.45]).view(3, 1, 1), torch.ones(3, 3)).flatten()
    assert equal.tolist() == [0, 0]


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("present", [False, True])
def test_one_id_is_read_as_several_are(present, scaled):
    """The faster way of a single id gives the same labels and confidence."""
    logits = 12 * torch.randn(2, 30, 40, generator=torch.Generator().manual_seed(0))
    logits[:, 0] = 0  # ties are background
    arguments = (
        logits.softmax(0), torch.tensor([0, int(present)]),
        torch.tensor([[1, 0.3], [0.3, 1]]) if scaled else None, Calibration(0.8, 0.2),
    )  # fmt: skip
    for one, several in zip(read_single_id(*arguments), read_ids(*arguments), strict=True):
        torch.testing.assert_close(one, several, atol=1e-6, rtol=0)


def naive(probabilities, calibration, valid):
    """The expected IoU, pixel by pixel."""
    ious = []
    for x in id_logits(probabilities, torch.ones(len(probabilities), len(probabilities))):
        inside = outside = pixels = 0.0
        for row in range(x.shape[0]):
            for column in range(x.shape[1]):
                if valid[row, column]:
                    logit = calibration.slope * float(x[row, column]) + calibration.offset
                    p = 1 / (1 + np.exp(-logit))
                    if x[row, column] > 0:
                        inside, pixels = inside + p, pixels + 1
                    else:
                        outside += p
        ious.append(inside / max(pixels + outside, 1e-6))
    return ious


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 99), ids=st.integers(1, 3), offset=st.floats(-1, 1, width=32))
def test_quality_is_the_expected_iou(seed, ids, offset):
    generator = torch.Generator().manual_seed(seed)
    probabilities = (3 * torch.randn(ids + 1, 5, 6, generator=generator)).softmax(0)
    valid = torch.rand(5, 6, generator=generator) > 0.2
    calibration = Calibration(0.8, offset)
    ious = naive(probabilities, calibration, valid)
    quality = calibration.quality(probabilities, torch.ones(ids + 1, ids + 1), valid)
    np.testing.assert_allclose(quality, ious, atol=1e-4)


def test_a_head_reads_masks_of_any_size_alike():
    """And says 0 of an empty mask."""
    torch.manual_seed(0)
    calibration = Calibration(0.7, -0.3, QualityHead(8))
    small = (3 * torch.randn(3, 40, 30)).softmax(0)
    small[2] = 0
    small = small / small.sum(0)
    large = small.repeat_interleave(4, 1).repeat_interleave(4, 2)
    one, other = (calibration.quality(x, torch.ones(3, 3)) for x in (small, large))
    torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
    assert 0 < one[0] < 1
    assert one[1] == 0


def result(painting: torch.Tensor, reading: Reading, size=(6, 4), image=None):
    coloring = Coloring.from_palette([4])

    only = Pass(coloring, None)
    prompt = Prompt((4,), {4: (255, 255, 255)}, {4: "a"}, "semantic", 1, (only,), "")
    answer = Answer.from_paintings(prompt, [painting])
    image = image or Image.new("RGB", size)
    return to_segmentation(image, prompt, answer, torch.tensor([0.6]), [], reading)


def test_confidence_is_that_of_the_label():
    shares = torch.tensor([[0.1, 0.4], [0.6, 0.95]])
    one = result((255 * shares).expand(3, 2, 2), Reading(), size=(2, 2))
    assert one.labels.tolist() == [[0, 0], [4, 4]]
    np.testing.assert_allclose(one.confidence, [[0.9, 0.6], [0.6, 0.95]], atol=1e-3)
    iou = (0.6 + 0.95) / (2 + 0.1 + 0.4)
    assert one.quality[4] == pytest.approx(iou, abs=1e-3)


def test_an_id_below_the_threshold_is_empty():
    """Its pixels are background that is not sure."""
    shares = torch.tensor([[0.1, 0.4], [0.6, 0.95]])
    one = result((255 * shares).expand(3, 2, 2), Reading(min_presence=0.7), size=(2, 2))
    assert not one.labels.any()
    np.testing.assert_allclose(one.confidence, [[0.9, 0.6], [0.4, 0.05]], atol=1e-3)
    assert one.quality == {4: 0}
    assert one.presence[4] == pytest.approx(0.6)


def test_the_threshold_of_a_call():
    predictor = Predictor.from_pretrained("incontext-small", device="cpu")
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8))
    mask = np.zeros((40, 50), np.uint8)
    mask[10:30, 10:30] = 1
    prompt = predictor.prompt(Example(image, mask))
    every, none = (predictor.predict(image, prompt, min_presence=p) for p in (0.0, 1.0))
    assert every.mask(1).any()
    assert every.quality[1] > 0
    assert not none.labels.any()
    assert none.quality[1] == 0
    for tile in (None, 32):
        for wrong in (1.5, -0.1, "high", True, float("nan")):
            with pytest.raises(InputError, match=r"min_presence is .*; accepted: a number, 0 … 1"):
                predictor.predict(image, prompt, min_presence=wrong, tile=tile)


def test_a_checkpoint_that_reads_presence_refuses_what_it_cannot_do():
    predictor = Predictor.from_pretrained(device="cpu")
    image, mask = Image.new("RGB", (32, 32)), np.zeros((32, 32), np.uint8)
    mask[8:20, 8:20] = 1
    prompt = predictor.prompt(Example(image, mask))
    predictor.predict(image, prompt, min_presence=0.5)
    with pytest.raises(InputError, match=r"0\.3; accepted with this checkpoint: 0\.5 … 1, since"):
        predictor.predict(image, prompt, min_presence=0.3)


@pytest.mark.parametrize("tile", [None, 64])
@pytest.mark.parametrize("ids", [1, 2])
def test_presence_is_the_probability_that_the_head_reads(ids, tile):
    predictor = Predictor.from_pretrained(device="cpu")
    head = predictor.model.presence.body[2]
    torch.nn.init.zeros_(head.weight)
    image, mask = np.full((64, 64, 3), 90, np.uint8), np.zeros((64, 64), np.uint8)
    image[20:50, 5:25], mask[20:50, 5:25] = (220, 30, 30), 1
    if ids == 2:
        image[20:50, 40:60], mask[20:50, 40:60] = (30, 30, 220), 2
    prompt = predictor.prompt(Example(image, mask))
    for probability in (0.3, 0.6, 0.9):
        torch.nn.init.constant_(head.bias, float(torch.logit(torch.tensor(probability))))
        result = predictor.predict(image, prompt, tile=tile)
        assert list(result.presence.values()) == pytest.approx([probability] * ids, abs=0.01)
        assert result.labels.any() == (probability >= 0.5)


def test_passes_of_logits_make_no_difference():
    logits = 3 * torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0))
    ids, colors = (2, 3, 5, 8), dict.fromkeys((2, 3, 5, 8), (0, 0, 0))

    def answer(*groups: tuple[int, ...]) -> Answer:
        passes = tuple(Pass(Coloring.from_palette(group), None) for group in groups)
        prompt = Prompt(ids, colors, {}, "semantic", 1, passes, "")
        parts = [logits[[ids.index(i) for i in group]] for group in groups]
        return Answer.from_logits(prompt, parts, [])

    expected = answer(ids)
    torch.testing.assert_close(expected.presence(), logits.sigmoid().flatten(1).amax(1))
    for groups in ([(5, 3), (2, 8)], [(8,), (3,), (5,), (2,)]):
        torch.testing.assert_close(answer(*groups).probabilities, expected.probabilities)


def test_passes_of_a_voting_model_make_no_difference(monkeypatch):
    """Its probabilities are not read from colors, which could mix to a third.

    With all cells: which ones are kept otherwise depends on the ids of the pass.
    """
    monkeypatch.setattr(voters, "FINE_SHARE", 1.0)
    predictor = Predictor.from_pretrained(device="cpu")
    rng = np.random.default_rng(0)
    image, mask = rng.integers(60, 120, (96, 96, 3), np.uint8), np.zeros((96, 96), np.uint8)
    for index, color in enumerate([(220, 30, 30), (30, 200, 60), (40, 60, 220), (240, 220, 40)], 1):
        left = 8 + 44 * (index % 2)
        place = slice(8, 40) if index < 3 else slice(56, 88), slice(left, left + 28)
        image[place], mask[place] = color, index
    results = [
        predictor.predict(
            image, predictor.prompt(Example(image, mask), classes_per_pass=count, views=False)
        )
        for count in (1, 2, 4)
    ]
    assert set(np.unique(results[0].labels)) == {0, 1, 2, 3, 4}
    for result in results[1:]:
        assert (result.labels == results[0].labels).mean() > 0.999
        np.testing.assert_allclose(result.confidence, results[0].confidence, atol=0.01)
        assert result.presence == pytest.approx(results[0].presence, abs=1e-3)
        assert result.quality == pytest.approx(results[0].quality, abs=1e-3)
