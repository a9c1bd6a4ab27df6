"""Hidden patches: enough of them, in blocks, something of the query always among them."""

import pytest
import torch

from incontext.training.objective import query_half, random_blocks


def drawn(seed: int, *arguments) -> torch.Tensor:
    return random_blocks(torch.Generator().manual_seed(seed), *arguments)


def test_query_half():
    hidden = query_half(2, 3, 5)
    assert hidden.shape == (2, 6, 5)
    assert hidden.dtype == torch.bool
    assert hidden[:, 3:].all()
    assert not hidden[:, :3].any()


@pytest.mark.parametrize("share", [0.3, 0.53, 0.75, 1.0])
def test_share(share):
    hidden = drawn(0, 64, 8, 6, share)
    assert hidden.shape == (64, 16, 6)
    counts = hidden.sum((1, 2))
    assert counts.min() >= int(share * 96)
    # The last block may go beyond, by no more than its size: 4 × 3.
    assert counts.max() < int(share * 96) + 12
    if share < 1:
        assert len(hidden.unique(dim=0)) == 64
        assert 0.4 < hidden[:, 8:].sum() / hidden.sum() < 0.6  # both halves alike
    assert torch.equal(hidden, drawn(0, 64, 8, 6, share))
    assert share == 1 or not torch.equal(hidden, drawn(1, 64, 8, 6, share))


def test_hidden_patches_hang_together():
    """Neighbors agree far more often than in a pattern of single patches."""
    hidden = drawn(0, 64, 16, 16, 0.5)
    single = torch.rand(hidden.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    agree = [(x[:, 1:] == x[:, :-1]).float().mean() for x in (hidden, single)]
    assert agree[0] > 0.75
    assert agree[1] < 0.55


def test_something_of_the_query_is_hidden():
    lower = drawn(0, 200, 8, 8, 0.05)[:, 8:]
    assert lower.flatten(1).any(1).all()
    assert lower.flatten(1).all(1).any()  # blocks fell on the example only: all of it instead
    assert torch.equal(drawn(0, 2, 4, 4, 0.0), query_half(2, 4, 4))


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (2, 2)])
def test_small_canvases(shape):
    for seed in range(10):
        hidden = drawn(seed, 4, *shape, 0.5)
        assert hidden.shape == (4, 2 * shape[0], shape[1])
        assert (hidden.sum((1, 2)) >= shape[0] * shape[1]).all()
        assert hidden[:, shape[0] :].flatten(1).any(1).all()
