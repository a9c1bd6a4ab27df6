"""Tiles cover, overlap and blend; bands equal the whole."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from incontext import InputError
from incontext.images.blend import Blend, upsample_rows
from incontext.images.tiles import Tiling

LENGTHS = st.integers(1, 300)


@given(LENGTHS, LENGTHS, st.integers(16, 120))
@settings(deadline=None, derandomize=True)
def test_blended_constant_stays(width, height, tile):
    """Every pixel is covered, and tiles that agree leave no trace of their borders."""
    blend = Blend(2, width, height)
    value = torch.tensor([0.25, 0.75])[:, None, None]
    tiling = Tiling(width, height, tile)
    assert len(tiling) == len(tiling.boxes())
    for box in tiling.boxes():
        left, top, right, bottom = box
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert right - left == min(tile, width)
        rows = slice(0, bottom - top)
        blend.add(box, rows, value.expand(-1, bottom - top, right - left))
    torch.testing.assert_close(blend.result(), value.expand(-1, height, width))


def test_tiles_added_in_bands_equal_tiles_added_whole():
    """Rows of a tile fade by their place in the tile, not in the band that carries them."""
    values = torch.rand(2, 60, 50, generator=torch.Generator().manual_seed(0))
    results = []
    for step in (60, 1, 7):
        blend = Blend(2, 80, 100)
        for box in ((0, 0, 50, 60), (30, 40, 80, 100), (30, 0, 80, 60), (0, 40, 50, 100)):
            for at in range(0, 60, step):
                rows = slice(at, min(at + step, 60))
                blend.add(box, rows, values[:, rows] * (1 + box[0] + box[1]))
        results.append(blend.result())
    torch.testing.assert_close(results[1], results[0])
    torch.testing.assert_close(results[2], results[0])


def test_neighbors_overlap():
    boxes = Tiling(1000, 100, 200).boxes()
    lefts = sorted({b[0] for b in boxes})
    assert lefts[0] == 0
    assert lefts[-1] == 800
    assert max(b - a for a, b in itertools.pairwise(lefts)) <= 150
    with pytest.raises(InputError, match="16 or more"):
        Tiling(10, 10, 4)


@given(LENGTHS, LENGTHS, st.integers(1, 2000))
@settings(deadline=None, derandomize=True, max_examples=40)
def test_bands_equal_interpolate(width, height, budget):
    values = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0))
    whole = F.interpolate(values[None], size=(height, width), mode="bilinear")[0]
    bands = torch.empty(3, height, width)
    for rows, part in upsample_rows(values, (height, width), budget):
        bands[:, rows] = part
    torch.testing.assert_close(bands, whole, atol=1e-5, rtol=1e-4)
