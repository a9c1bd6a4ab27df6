"""Tiles that a coarse pass leaves out: which, and that the others stay as they are."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from incontext import Example, InputError, Predictor
from incontext.images.tiles import Tiling
from incontext.inference.decoding import Answer, Reading
from incontext.inference.tile_decoding import BLOCK, EMPTY, crop_answer, decode_tiles, group_tiles

LENGTHS = st.integers(1, 900)


@given(LENGTHS, LENGTHS, st.integers(16, 120))
@settings(deadline=None, derandomize=True)
def test_blocks_hold_their_tiles(width, height, tile):
    tiling = Tiling(width, height, tile)
    blocks = group_tiles(tiling)
    assert sorted(box for boxes in blocks.values() for box in boxes) == sorted(tiling.boxes())
    for block, boxes in blocks.items():
        assert 1 <= len(boxes) <= BLOCK**2
        lefts, tops, rights, bottoms = zip(*boxes, strict=True)
        assert block == (min(lefts), min(tops), max(rights), max(bottoms))
        assert block[2] - block[0] <= BLOCK * tile


@given(st.integers(0, 59), st.integers(0, 39), st.integers(1, 60), st.integers(1, 40))
@settings(deadline=None, derandomize=True)
def test_cropped_answer_holds_the_cells_that_a_box_touches(left, top, width, height):
    """Cells of 4 × 2 pixels, each with its own value, compared pixel by pixel."""
    box = (left + 100, top, min(left + width, 60) + 100, min(top + height, 40))
    cells = torch.arange(15.0 * 20).view(1, 20, 15)
    pixels = cells.repeat_interleave(2, 1).repeat_interleave(4, 2)
    answer = crop_answer(Answer(cells, None, [cells]), (100, 0, 160, 40), box)
    within = pixels[:, box[1] : box[3], box[0] - 100 : box[2] - 100]
    assert torch.equal(answer.probabilities.unique(), within.unique())
    assert torch.equal(answer.paintings[0], answer.probabilities)


def picture(size: tuple[int, int], center: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A red disc on gray noise, and where it is."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    truth = (rows - center[0]) ** 2 + (columns - center[1]) ** 2 < 30**2
    noise = np.random.default_rng(0).normal(110, 6, (*size, 1)).repeat(3, 2)
    return np.where(truth[..., None], (210, 30, 30), noise).astype(np.uint8), truth


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.from_pretrained()


@pytest.mark.slow
def test_tiles_of_empty_ground_are_skipped(predictor):
    """One disc in a corner: its mask is that of all tiles, of which few are painted."""
    prompt = predictor.prompt(Example(*picture((128, 128), (64, 64))))
    pixels, truth = picture((600, 700), (90, 100))
    image, painted_images = Image.fromarray(pixels), []

    def ask(images: list[Image.Image]) -> list[Answer]:
        painted_images.extend(images)
        return predictor.answer(images, prompt)

    read = partial(decode_tiles, image, prompt, 160, 8, ask, Reading(predictor.calibration))
    exact = read()
    count = len(painted_images)
    assert count == len(Tiling(700, 600, 160)) == 30
    painted_images.clear()
    skipping = read(skip_below=EMPTY)
    assert len(painted_images) < count / 2
    by_option = predictor.predict(image, prompt, tile=160, skip_empty=True)
    assert np.array_equal(by_option.labels, skipping.labels)
    assert (exact.mask(1) & truth).sum() / (exact.mask(1) | truth).sum() > 0.8
    assert np.array_equal(skipping.mask(1), exact.mask(1))
    assert skipping.presence == exact.presence
    # Where nothing was painted again, the coarse answer says how sure the model is.
    assert 0.9 < skipping.confidence[300:, 350:].min() <= 1


@pytest.mark.slow
def test_without_an_empty_tile_all_are_as_they_were(predictor):
    """No probability is below the smallest of numbers: the coarse pass changes nothing."""
    pixels, _ = picture((300, 420), (90, 100))
    prompt = predictor.prompt(Example(*picture((128, 128), (64, 64))))
    ask = partial(predictor.answer, prompt=prompt)
    read = partial(decode_tiles, Image.fromarray(pixels), prompt, 128, 3, ask, Reading())
    exact, cautious = read(), read(skip_below=1e-30)
    assert np.array_equal(exact.labels, cautious.labels)
    assert np.array_equal(exact.confidence, cautious.confidence)
    assert exact.presence == cautious.presence
    assert exact.quality == cautious.quality


def test_odd_sizes(tiny_checkpoint):
    tiny = Predictor.from_pretrained(tiny_checkpoint)
    prompt = tiny.prompt(Example(*picture((40, 60), (20, 30))))
    for size in ((1, 1), (1, 2000), (1000, 2), (33, 7), (130, 140)):
        query = np.zeros((*size, 3), np.uint8)
        result = tiny.predict(query, prompt, tile=64, skip_empty=True)
        assert result.labels.shape == size
        assert np.isfinite(result.confidence).all()


def test_without_tiles_it_is_refused(tiny_checkpoint):
    tiny = Predictor.from_pretrained(tiny_checkpoint)
    pixels, mask = picture((40, 60), (20, 30))
    with pytest.raises(InputError, match="skip_empty without tile"):
        tiny.predict(pixels, tiny.prompt(Example(pixels, mask)), skip_empty=True)
