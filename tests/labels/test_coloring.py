"""Colorings: any ids painted and read back, with probabilities."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from incontext import InputError
from incontext.labels.coloring import PALETTE, Coloring, separated_colors


def test_palette_is_separated():
    colors = np.array([(0, 0, 0), *PALETTE.colors])
    gaps = np.abs(colors[:, None] - colors[None]).max(-1) + 999 * np.eye(len(colors))
    assert gaps.min() >= 127
    assert PALETTE.colors[0] == (255, 255, 255)
    assert (128, 128, 128) not in PALETTE.colors


@given(st.lists(st.integers(1, 65535), min_size=1, max_size=len(PALETTE), unique=True))
@settings(deadline=None, derandomize=True, max_examples=30)
def test_round_trip(ids):
    coloring = Coloring.from_palette(ids)
    rng = np.random.default_rng(0)
    labels = rng.choice([0, *ids], (7, 9)).astype(np.int32)
    painting = torch.from_numpy(coloring.paint(labels)).permute(2, 0, 1).float()
    noisy = (painting + torch.from_numpy(rng.uniform(-40, 40, painting.shape)).float()).clamp(
        0, 255
    )
    for picture in (painting, noisy):
        probabilities = coloring.probabilities(picture)
        torch.testing.assert_close(probabilities.sum(0), torch.ones(7, 9))
        assert np.array_equal(np.array([0, *ids])[probabilities.argmax(0).numpy()], labels)
        assert probabilities.amax(0).min() > (0.97 if picture is painting else 0.5)
    # Half-way between two colors both are equally probable.
    white_or_black = Coloring.from_palette(ids[:1]).probabilities(torch.full((3, 1, 1), 127.5))
    torch.testing.assert_close(white_or_black[0], white_or_black[1])


def test_ids_outside_the_coloring_are_background():
    target = Coloring.from_palette([7]).paint(np.array([[7, 3, -1, 0]], np.int32))
    assert target.tolist() == [[[255, 255, 255], [0, 0, 0], [0, 0, 0], [0, 0, 0]]]


def test_bad_colorings():
    for ids, colors in [
        ((), ()),
        ((1, 1), ((9, 9, 9), (8, 8, 8))),
        ((1, 2), ((9, 9, 9), (9, 9, 9))),
        ((1,), ((0, 0, 0),)),
        ((1,), ((9, 0, 0),)),
        ((1, 2), ((255, 255, 255), (250, 250, 250))),
    ]:
        with pytest.raises(InputError):
            Coloring(ids, colors)
    with pytest.raises(InputError, match="palette has 25"):
        Coloring.from_palette(range(1, 27))


def test_training_colors_are_apart():
    rng = np.random.default_rng(0)
    for classes in (1, 2, 4, 6):
        for _ in range(50):
            colors = separated_colors(rng, classes) * 255
            gaps = np.abs(colors[:, None] - colors[None]).max(-1) + 999 * np.eye(classes + 1)
            assert gaps.min() >= 60
            assert (colors[0] == 0).all()
