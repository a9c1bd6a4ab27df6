"""Regions and parts: what is found is one piece, neither sliver nor background."""

import sys

import numpy as np
import pytest
from skimage import measure

from incontext import InputError
from incontext.data.pictures import IGNORE_INDEX, MIN_OBJECT_PIXELS
from incontext.data.regions import cut_out, find_regions, keep_random_part


@pytest.fixture
def picture():
    """A red and a blue rectangle and a green sliver on gray, which fills over half."""
    picture = np.full((64, 64, 3), 128, np.uint8)
    picture[6:26, 6:30] = 220, 30, 30
    picture[34:58, 36:56] = 30, 30, 220
    picture[40:45, 10:15] = 30, 220, 30
    return picture


def test_regions_are_the_rectangles(picture):
    """Each is one region, their rims are none; what fills over half of the picture is none."""
    for seed in range(12):
        found = find_regions(np.random.default_rng(seed), picture, 200)
        assert found.dtype == np.uint8
        red, blue = (np.unique(x).tolist() for x in (found[8:24, 8:28], found[36:56, 38:54]))
        assert len(red) == len(blue) == 1
        assert found.max() <= 3  # the green spot may be a third
        assert 0 < red[0] != blue[0] > 0
        assert (found == red[0]).mean() < 0.12
        assert not found[:3].any()
        assert not found[30:, 20:32].any()


def test_few_regions_are_asked(picture):
    picture[6:26, 36:60] = 220, 200, 30
    firsts = set()
    for seed in range(20):
        found = find_regions(np.random.default_rng(seed), picture, 2)
        assert set(np.unique(found)) == {0, 1, 2}
        firsts.add(tuple(np.unique(picture[found == 1][:, 0])))
    assert len(firsts) == 3


def test_regions_are_single_pieces_of_fitting_size():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    picture = coarse.repeat(8, 0).repeat(8, 1) // 2 + rng.integers(0, 40, (64, 64, 3), np.uint8)
    counts = set()
    for seed in range(12):
        found = find_regions(np.random.default_rng(seed), picture, 200)
        ids = np.unique(found[found > 0])
        assert ids.tolist() == list(range(1, len(ids) + 1))
        for index in ids:
            assert 0.01 <= (found == index).mean() <= 0.5
            assert measure.label(found == index).max() == 1
        assert np.array_equal(found, find_regions(np.random.default_rng(seed), picture, 200))
        counts.add(len(ids))
    assert len(counts) > 3  # fine once, coarse another time


def test_a_flat_picture_has_no_regions():
    flat = np.full((48, 48, 3), 90, np.uint8)
    assert not find_regions(np.random.default_rng(0), flat, 4).any()


def test_one_part():
    labels = np.zeros((30, 30), np.uint8)
    labels[2:8, 2:8] = 1
    labels[8:11, 8:11] = 1  # touches by a corner: the same part
    labels[2:10, 18:26] = 1
    labels[20, 2:5] = 1  # too small to be asked for
    labels[18:28, 12:28] = 2
    labels[29] = IGNORE_INDEX
    before = labels.copy()
    left, right = (np.where(labels == 1, 0, labels) for _ in range(2))
    left[2:8, 2:8] = left[8:11, 8:11] = 1
    right[2:10, 18:26] = 1
    chosen = np.zeros(2, int)
    for seed in range(40):
        kept = keep_random_part(np.random.default_rng(seed), labels)
        which = [np.array_equal(kept, one) for one in (left, right)]
        assert sum(which) == 1
        chosen += which
    assert chosen.min() >= 10
    assert np.array_equal(labels, before)


def test_one_part_where_there_is_little():
    speck = np.zeros((20, 20), np.uint8)
    speck[3, : MIN_OBJECT_PIXELS - 1] = 1
    assert np.array_equal(keep_random_part(np.random.default_rng(0), speck), speck)
    both = speck.copy()
    both[10:16, 10:16] = 1
    kept = keep_random_part(np.random.default_rng(0), both)
    assert (kept == 1).sum() == 36
    assert not kept[3].any()
    assert not keep_random_part(np.random.default_rng(0), np.zeros((9, 9), np.uint8)).any()


def test_cut_out_leaves_ignored_pixels_behind():
    labels = np.array([[0, 1, IGNORE_INDEX, 3]], np.uint8)
    assert cut_out(labels).tolist() == [[0, 1, 0, 3]]
    assert labels[0, 2] == IGNORE_INDEX


def test_without_scikit_image(monkeypatch, picture):
    monkeypatch.setitem(sys.modules, "skimage", None)
    for call in (
        lambda: find_regions(np.random.default_rng(0), picture, 1),
        lambda: keep_random_part(np.random.default_rng(0), np.ones((9, 9), np.uint8)),
    ):
        with pytest.raises(InputError, match=r"pip install 'incontext-seg\[train\]'"):
            call()
