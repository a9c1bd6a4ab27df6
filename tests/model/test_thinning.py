"""Thinned tokens: how many, which, and that their weights estimate sums without bias."""

import pytest
import torch

from incontext.model.thinning import object_cells, select_tokens


def marked(*shares: float) -> torch.Tensor:
    """(1, N, 12, 10) with such shares of the tokens marked, from the top."""
    maps = torch.zeros(1, len(shares), 120, dtype=torch.bool)
    for n, share in enumerate(shares):
        maps[0, n, : round(share * 120)] = True
    return maps.view(1, len(shares), 12, 10)


def test_all_are_kept_as_they_are():
    assert select_tokens(marked(0.3), 1.0, 0) is None


@pytest.mark.parametrize("share", [0.01, 0.1, 0.25, 0.5, 0.9])
def test_counts_and_weights(share):
    """Every example keeps as many; their weights add up to all tokens of each sort."""
    maps = marked(0.0, 0.02, 0.3, 0.5, 0.97, 1.0)
    selection = select_tokens(maps, share, 0)
    wanted = max(2, round(share * 120))
    assert selection.indices.shape == selection.weight.shape == (1, 6, wanted)
    for flat, indices, weight in zip(
        maps[0].flatten(1), selection.indices[0], selection.weight[0], strict=True
    ):
        assert len(set(indices.tolist())) == wanted
        assert indices.tolist() == sorted(indices.tolist())
        chosen = flat[indices]
        assert float(weight[chosen].exp().sum()) == pytest.approx(int(flat.sum()), rel=1e-4)
        assert float(weight[~chosen].exp().sum()) == pytest.approx(int((~flat).sum()), rel=1e-4)
        many = int(flat.sum())
        # Half for the object where it has so much; all of a small one.
        assert chosen.sum() >= min(many, wanted // 2)


def test_patterns_are_even_and_differ():
    """No part of a picture is left out, and two examples keep different tokens."""
    maps = torch.zeros(1, 8, 20, 20, dtype=torch.bool)
    selection = select_tokens(maps, 0.25, 0)
    hit = torch.zeros(8, 400)
    hit.scatter_(1, selection.indices[0], 1.0)
    quarters = hit.view(8, 2, 10, 2, 10).sum((2, 4))
    assert quarters.min() >= 20
    assert quarters.max() <= 30
    assert not torch.equal(selection.indices[0, 0], selection.indices[0, 1])
    # Four examples' worth of eighths leave few places that no example shows.
    assert (hit.sum(0) > 0).float().mean() > 0.75


def test_start_goes_on():
    """Examples that come in several parts keep what they would keep in one."""
    maps = marked(0.1, 0.4, 0.2, 0.9)
    whole = select_tokens(maps, 0.3, 0)
    later = select_tokens(maps[:, 2:], 0.3, 2)
    assert torch.equal(whole.indices[:, 2:], later.indices)


def test_kept_tokens_of_a_tensor():
    selection = select_tokens(marked(0.1, 0.4), 0.2, 0)
    x = torch.arange(2 * 3 * 2 * 120 * 4.0).view(1, 6, 2, 120, 4)
    some = selection.gather(x)
    assert torch.equal(some[0, 5, 1], x[0, 5, 1, selection.indices[0, 1]])


def test_objects_are_what_is_painted():
    black = (-2.1, -2.0, -1.8)
    targets = torch.tensor(black).view(3, 1, 1).expand(1, 1, 3, 16, 16).clone()
    targets += 1e-3
    targets[0, 0, 1, 9, 3] = 1.0
    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[2, 0] = True
    assert torch.equal(object_cells(targets, black, (4, 4))[0, 0], expected)


@pytest.mark.parametrize("share", [0.1, 0.4, 1.0])
def test_unknown_tokens_have_no_weight(share):
    """The others weigh as before among themselves; all examples keep as many."""
    maps = marked(0.2, 0.5, 0.0)
    valid = torch.ones_like(maps)
    valid[0, 0, 6:], valid[0, 1, :3], valid[0, 2, 1:] = False, False, False
    selection = select_tokens(maps, share, 0, valid)
    assert selection.indices.shape == (1, 3, max(2, round(share * 120)))
    for flat, sure, indices, weight in zip(
        maps[0].flatten(1),
        valid[0].flatten(1),
        selection.indices[0],
        selection.weight[0],
        strict=True,
    ):
        assert len(set(indices.tolist())) == len(indices)
        chosen = sure[indices]
        assert (weight[~chosen] <= -1e4).all()
        assert chosen.sum() == min(int(sure.sum()), len(indices))
        for sort in (flat & sure, ~flat & sure):
            inside = weight[sort[indices]].exp().sum()
            assert float(inside) == pytest.approx(int(sort.sum()), rel=1e-4)


def test_all_known_is_as_before():
    maps = marked(0.2, 0.7)
    one, other = select_tokens(maps, 0.3, 0), select_tokens(maps, 0.3, 0, torch.ones_like(maps))
    assert torch.equal(one.indices, other.indices)
    assert torch.equal(one.weight, other.weight)
