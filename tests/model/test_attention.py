"""Attention in parts, groups and slices equals attention written out."""

import math

import pytest
import torch

from incontext.model.attention import (
    AttentionOutput,
    Group,
    biased_slices,
    can_merge,
    grouped_attention,
    partial_attention,
)

SHAPE = (2, 3)  # batch, heads


def written_out(q, k, v, bias=0.0, scale=None):
    """In float64."""
    q, k, v = q.double(), k.double(), v.double()
    scores = (scale or q.shape[-1] ** -0.5) * q @ k.transpose(-1, -2) + bias
    return scores.softmax(-1) @ v, scores.logsumexp(-1)


def close(got, expected):
    assert (got.double() - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("traced", [False, True], ids=["kernel", "written out"])
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (7, 3), (40, 65), (300, 600)])
def test_partial_attention(queries, keys, traced):
    q, k, v = (torch.randn(*SHAPE, n, 8) for n in (queries, keys, keys))
    bias = torch.randn(*SHAPE, queries, keys)
    with torch.set_grad_enabled(traced):
        part = partial_attention(q, k, v, bias)
    found, weight = written_out(q, k, v, bias)
    close(part.out, found)
    close(part.lse, weight)


@pytest.mark.parametrize("offset", [0.0, -math.log(5)])
def test_parts_merge_to_the_whole(offset):
    q, k, v = torch.randn(3, *SHAPE, 50, 8)
    k = 4 * k  # a softmax that is not flat
    cut = 13
    with torch.no_grad():
        one = partial_attention(q, k[:, :, :cut], v[:, :, :cut])
        other = partial_attention(q, k[:, :, cut:], v[:, :, cut:])
        whole = one.merge(other, offset)
    bias = torch.zeros(50)
    bias[cut:] = offset
    found, weight = written_out(q, k, v, bias)
    close(whole.out, found)
    close(whole.lse, weight)


def test_repeated_parts():
    part = AttentionOutput(torch.randn(2, 3, 4, 8), torch.randn(2, 3, 4))
    twice = part.repeat(2)
    assert torch.equal(twice.out[1], part.out[0])
    assert torch.equal(twice.lse[2], part.lse[1])


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("scale", [None, 1.0])
def test_groups_are_one_softmax(traced, weighted, scale):
    """Also where the second group is the same for the whole batch."""
    q, k, v = torch.randn(3, *SHAPE, 20, 8)
    k2, v2 = torch.randn(2, 1, 3, 33, 8)
    weight = torch.randn(1, 1, 1, 33) if weighted else None
    groups = [Group(k, v), Group(k2.expand(2, -1, -1, -1), v2.expand(2, -1, -1, -1), weight, -0.7)]
    with torch.set_grad_enabled(traced):
        assert can_merge(q) is not traced
        got = grouped_attention(q, groups, scale)
        alone = grouped_attention(q, groups[1:], scale)
    bias = torch.zeros(1, 1, 1, 53)
    bias[..., 20:] = -0.7 + (0 if weight is None else weight)
    keys, values = (torch.cat([a, b.expand(2, -1, -1, -1)], 2) for a, b in ((k, k2), (v, v2)))
    close(got, written_out(q, keys, values, bias, scale)[0])
    close(alone, written_out(q, k2, v2, bias[..., 20:], scale)[0])


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("budget", [1, 40, 7 * 40, 3 * 30 * 40, 2 * 3 * 30 * 40, None])
def test_biased_slices_cover_everything_once(budget, traced):
    q, tall, wide = torch.randn(2, 3, 30, 8), torch.randn(2, 3, 30, 8), torch.randn(2, 3, 30, 5)
    whole = torch.full((2, 3, 30, 40), math.nan)
    with torch.set_grad_enabled(traced):
        for where, bias in biased_slices(q, tall, wide, budget):
            assert whole[where].isnan().all()
            assert budget is None or bias.numel() <= max(budget, 40)
            whole[where] = bias
    expected = tall.repeat_interleave(5, 3) + wide.repeat(1, 1, 1, 8)
    assert torch.equal(whole, expected)
