"""Partial labels: unknown pixels show nothing, negative ones are background."""

import numpy as np
import pytest
import torch

from incontext import Example, InputError, Predictor
from incontext.labels.encodings import UNKNOWN
from incontext.labels.partial import fill, shrink
from incontext.model import SIZES, SegGPT

U = UNKNOWN


def naive_shrink(ids, size, patch):
    """Pixel by pixel."""
    height, width = ids.shape
    small = np.full((size, size), U)
    for row in range(size):
        for column in range(size):
            y, x = (int((i + 0.5) * n / size) for i, n in ((row, height), (column, width)))
            small[row, column] = ids[y, x]
    nearest = small.copy()
    for y in range(height):  # what comes last in reading order stays
        for x in range(width):
            row, column = y * size // height, x * size // width
            if nearest[row, column] == U and ids[y, x] != U:
                small[row, column] = ids[y, x]
    known = small != U
    filled = small.copy()
    for top in range(0, size, patch):
        for left in range(0, size, patch):
            part = (slice(top, top + patch), slice(left, left + patch))
            there = small[part][known[part]]
            if len(there):
                values, counts = np.unique(there, return_counts=True)
                filled[part][~known[part]] = values[counts.argmax()]
    return filled, known


@pytest.mark.parametrize("shape", [(32, 32), (64, 64), (57, 91), (20, 17)])
def test_shrink_equals_its_twin(shape):
    rng = np.random.default_rng(shape[0])
    ids = np.full(shape, U, np.int32)
    for value in (0, 1, 2, 4):
        rows, columns = (rng.integers(0, n, 12) for n in shape)
        ids[rows, columns] = value
    ids[: shape[0] // 3, : shape[1] // 3] = 3
    small = shrink(ids, 32)
    twin, sure = naive_shrink(ids, 32, 8)
    assert np.array_equal(fill(small, 8), twin)
    assert np.array_equal(small != U, sure)


def test_a_thin_stroke_survives():
    """Nearest pixels alone would lose a stroke of one pixel in a large picture."""
    ids = np.full((640, 640), U, np.int32)
    ids[333, 100:500] = 1
    small = shrink(ids, 32)
    assert (small == 1).sum() == 20
    assert set(fill(small, 8)[16:24, 8:24].ravel()) == {1}
    assert (fill(small, 8)[:16] == U).all()


def test_known_labels_are_left_alone():
    ids = np.arange(64, dtype=np.int32).reshape(8, 8)
    small = shrink(ids, 4)
    assert small.shape == (4, 4)
    assert np.array_equal(fill(small, 2), small)


@pytest.fixture(scope="module", params=["joint", "independent"])
def predictor(request):
    torch.manual_seed(0)
    config = SIZES["tiny"] if request.param == "joint" else SIZES["small"]
    from dataclasses import replace

    return Predictor(SegGPT(replace(config, image_size=32)))


def picture(rng, size=(32, 32)):
    return rng.integers(0, 255, (*size, 3), dtype=np.uint8)


def test_what_is_unknown_does_not_matter(predictor):
    """Whatever the labels would be where nothing is known, the painting is the same."""
    rng = np.random.default_rng(0)
    image, query = picture(rng), picture(rng)
    paintings = []
    for value in (0, 1):
        labels = np.full((32, 32), 255, np.uint8)
        labels[:16] = 0
        labels[4:12, 8:16] = 1
        labels[17:, 3:] = np.where(labels[17:, 3:] == 255, 255, value)
        prompt = predictor.prompt(Example(image, labels, ignore=255))
        paintings.append(predictor.predict(query, prompt).painting)
        full = labels.copy()
        full[16:] = value
        known = predictor.prompt(Example(image, full))
        shown = predictor.predict(query, known).painting
        assert not np.array_equal(shown, paintings[-1])
    assert np.array_equal(*paintings)


def test_unlabelled_is_unknown(predictor):
    """The same as marking it with `ignore`."""
    rng = np.random.default_rng(1)
    image, query = picture(rng), picture(rng)
    labels = np.zeros((32, 32), np.uint8)
    labels[8:16, 8:24] = 1
    labels[20:28, 8:16] = 2
    marked = np.where(labels == 0, 255, labels)
    one = predictor.prompt(Example(image, labels, unlabelled="unknown"))
    other = predictor.prompt(Example(image, marked, ignore=255))
    same = [predictor.predict(query, p).painting for p in (one, other)]
    assert np.array_equal(*same)


def test_mixed_examples_and_thinning(predictor):
    """Partly labelled ones beside whole ones, some tokens of each."""
    rng = np.random.default_rng(2)
    whole = np.zeros((32, 32), np.uint8)
    whole[8:16] = 1
    scribble = np.zeros((32, 32), np.uint8)
    scribble[20, 3:30] = 1
    examples = [Example(picture(rng), whole) for _ in range(5)]
    examples.append(Example(picture(rng), scribble, unlabelled="unknown"))
    result = predictor.predict(picture(rng), predictor.prompt(examples))
    assert np.isfinite(result.confidence).all()
    near = predictor.predict(picture(rng), predictor.prompt(examples, nearest=2))
    assert np.isfinite(near.confidence).all()


def test_negative_is_background(predictor):
    """Also where what is unlabelled is unknown."""
    rng = np.random.default_rng(3)
    image = picture(rng)
    labels = np.zeros((32, 32), np.uint8)
    labels[4:12, 8:16], labels[20:28, 8:16] = 1, 7
    example = Example(image, labels, negative=7)
    assert example.labels.present == [1]
    assert np.array_equal(example.labels.ids, labels == 1)
    partly = Example(image, labels, negative=7, unlabelled="unknown")
    assert set(np.unique(partly.labels.ids)) == {U, 0, 1}
    assert (partly.labels.ids[20:28, 8:16] == 0).all()
    several = Example(image, labels, negative=[1, 7])
    assert not several.labels.ids.any()
    prompt = predictor.prompt(partly)
    assert prompt.ids == (1,)
    assert set(predictor.predict(picture(rng), prompt).presence) == {1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unlabelled": "maybe"}, "accepted: background, unknown"),
        ({"negative": 0}, "accepted: an id, 1"),
        ({"negative": True}, "accepted: an id, 1"),
        ({"negative": [3, 70_000]}, "accepted: an id, 1"),
    ],
)
def test_refused(options, message):
    with pytest.raises(InputError, match=message):
        Example(np.zeros((8, 8, 3), np.uint8), np.eye(8, dtype=np.uint8), **options)


def test_negative_colors_need_ids():
    mask = np.zeros((8, 8, 3), np.uint8)
    mask[:4] = (255, 0, 0)
    with pytest.raises(InputError, match="pass colors="):
        Example(np.zeros((8, 8, 3), np.uint8), mask, negative=1)
    Example(np.zeros((8, 8, 3), np.uint8), mask, negative=1, colors={1: (255, 0, 0)})
