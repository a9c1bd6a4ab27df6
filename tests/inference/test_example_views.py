"""Views of an example: what they show, and that their cells vote as those of one example."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from incontext import Example, InputError, Predictor
from incontext.inference.evidence import fold
from incontext.inference.example_views import EXTENT, VIEWS, close_up, views_of
from incontext.labels.coloring import Coloring


def example_of(size: tuple[int, int], box: tuple[int, int, int, int], seed: int = 0) -> Example:
    """Noise of (width, height) with id 3 in a box."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 255, (size[1], size[0], 3), np.uint8)
    labels = np.zeros(image.shape[:2], np.uint8)
    left, top, right, bottom = box
    labels[top:bottom, left:right] = 3
    return Example(Image.fromarray(image), labels)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_close_ups_hold_the_labels(data):
    width, height = (data.draw(st.integers(2, 90)) for _ in range(2))
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    right, bottom = data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height))
    example = example_of((width, height), (left, top, right, bottom))
    box = close_up(example)
    assert 0 <= box[0] <= left < right <= box[2] <= width
    assert 0 <= box[1] <= top < bottom <= box[3] <= height
    close = views_of(example)[1]
    assert (close.labels.ids > 0).sum() == (example.labels.ids > 0).sum()
    if max((right - left) / width, (bottom - top) / height) > 0.8 / EXTENT:
        assert box == (0, 0, width, height)
    else:
        shape = (box[2] - box[0]) / width, (box[3] - box[1]) / height
        assert abs(shape[0] - shape[1]) <= 0.5 / width + 0.5 / height + 1e-6


def test_views_show_one_object():
    example = example_of((100, 60), (70, 10, 90, 20))
    views = views_of(example)
    assert len(views) == VIEWS
    for view in views:
        pixels = np.asarray(view.image)[view.labels.ids == 3]
        rows, columns = np.nonzero(view.labels.ids == 3)
        mirrored = view in views[2:]
        order = np.lexsort((-columns if mirrored else columns, rows))
        assert np.array_equal(pixels[order], np.asarray(example.image)[10:20, 70:90].reshape(-1, 3))
    empty = Example(example.image, np.zeros((60, 100), np.uint8))
    assert close_up(empty) == (0, 0, 100, 60)


def test_votes_are_folded_to_where_they_are():
    """A naive twin that goes through the cells of all views, and two votes by hand."""
    examples = [example_of((96, 48), (70, 10, 90, 20)), example_of((40, 50), (5, 5, 9, 9), 1)]
    votes = torch.rand(2 * VIEWS, 6, 8)
    naive = torch.zeros(2, 6, 8, dtype=torch.float64)
    for number, example in enumerate(examples):
        left, top, right, bottom = close_up(example)
        height, width = example.labels.ids.shape
        for view in range(VIEWS):
            for row in range(6):
                for column in range(8):
                    x, y = (column + 0.5) / 8, (row + 0.5) / 6
                    x = 1 - x if view >= 2 else x
                    if view % 2:
                        x = (left + x * (right - left)) / width
                        y = (top + y * (bottom - top)) / height
                    vote = votes[number * VIEWS + view, row, column]
                    naive[number, int(y * 6), int(x * 8)] += vote
    folded = fold(votes, examples)
    torch.testing.assert_close(folded.double(), naive, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(folded.sum(), votes.sum())


@pytest.fixture(scope="module")
def predictor():
    return Predictor.from_pretrained("incontext-votes")


@pytest.mark.parametrize("count", [1, 2])
def test_views_vote_as_examples_do(predictor, count):
    """A prompt of views answers as one of the views as examples of their own."""
    examples = [example_of((100, 60), (70, 10, 90, 20), seed) for seed in range(count)]
    query = example_of((80, 80), (0, 0, 9, 9), 9).image
    prompt = predictor.prompt(examples)
    assert prompt.examples == count
    encoded_prompt = prompt.passes[0].encoded_prompt
    assert encoded_prompt.count == count
    coloring = Coloring.from_palette([3])
    views = [view for example in examples for view in views_of(example)]
    keep_ratio = predictor.model.default_thin_to / len(views)
    naive = predictor.encode(views, coloring, keep_ratio=keep_ratio)
    with torch.inference_mode():
        image = predictor.encoder.normalize([query])
        answers = [predictor.model.answer(image, p) for p in (encoded_prompt, naive)]
    torch.testing.assert_close(*answers, atol=1e-3, rtol=1e-4)
    # No more cells than so many whole examples have.
    assert prompt.nbytes <= predictor.prompt(examples * 2, views=False).nbytes


def test_when_there_are_views(predictor):
    examples = [example_of((100, 60), (70, 10, 90, 20), seed) for seed in range(3)]
    assert predictor.prompt(examples[:2]).provenance["views"]
    assert not predictor.prompt(examples).provenance["views"]
    assert predictor.prompt(examples, nearest=2).provenance["views"]
    assert not predictor.prompt(examples[0], views=False).provenance["views"]
    tokens = Predictor.from_pretrained("incontext-small")
    assert not tokens.prompt(examples[0]).provenance["views"]
    with pytest.raises(InputError, match="accepted: True, False"):
        predictor.prompt(examples[0], views="never")
    with pytest.raises(InputError, match="whose examples vote"):
        tokens.prompt(examples[0], views=True)


def test_evidence_is_that_of_the_views(predictor):
    """Its sum is the share of the votes, wherever the views lie in their example."""
    example = example_of((100, 60), (70, 10, 90, 20))
    result = predictor.predict(example.image, predictor.prompt(example))
    evidence = predictor.evidence(result, example, 3, at=(80, 15))
    whole = predictor.evidence(result, example, 3, at=(80, 15), views=False)
    assert evidence.votes.shape == whole.votes.shape
    assert 0 < evidence.support < 1
    x, y, _ = evidence.places(0, 1)[0]
    assert 60 < x < 100
    assert 0 < y < 30
