"""Encoded prompts joined: as if all their examples had been one prompt."""

import math
from dataclasses import replace

import pytest
import torch

from incontext.model import SIZES, SegGPT
from incontext.model.encoded_prompt import EncodedPrompt
from incontext.model.thinning import NO_WEIGHT
from incontext.model.tokens.independent import KeyValueCache

SIZE = 32


def model(attention: str) -> SegGPT:
    torch.manual_seed(0)
    config = replace(SIZES["tiny"], image_size=SIZE)
    if attention == "independent":
        config = replace(
            config, example_attention=attention, relative_position=False, stem=(16, 16, 32),
            stem_blocks=1, copy_heads=2, copy_dim=8,
        )  # fmt: skip
    return SegGPT(config).eval()


def draw_examples(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    made = torch.Generator().manual_seed(seed)
    image, target = torch.randn(2, 1, count, 3, SIZE, SIZE, generator=made)
    return image, target


@pytest.mark.parametrize("attention", ["joint", "independent"])
@torch.no_grad()
def test_joined_equals_together(attention):
    net, kind = model(attention), torch.tensor([True])
    parts = [draw_examples(1, 1), draw_examples(2, 2), draw_examples(1, 3)]
    query = torch.randn(1, 3, SIZE, SIZE)
    together = net.encode_batches(parts, kind, precompute_targets=False)
    joined = EncodedPrompt.concat(
        [net.encode_batches([p], kind, precompute_targets=False) for p in parts]
    )
    assert joined.count == 4
    torch.testing.assert_close(net.paint(query, joined), net.paint(query, together))


@torch.no_grad()
def test_joined_of_different_shares():
    """The naive twin pads every example to the longest with tokens that weigh nothing."""
    net, kind = model("independent"), torch.tensor([True])
    thin = net.encode_batches([draw_examples(3, 1)], kind, keep_ratio=0.5)
    full = net.encode_batches([draw_examples(2, 2)], kind)
    query = torch.randn(1, 3, SIZE, SIZE)
    padded = _side_by_side(thin, full)
    painted = net.paint(query, EncodedPrompt.concat([thin, full]))
    torch.testing.assert_close(painted, net.paint(query, padded))
    assert not torch.equal(painted, net.paint(query, full))


def _side_by_side(thin: EncodedPrompt, full: EncodedPrompt) -> EncodedPrompt:
    a, b = thin.tensors(), full.tensors()
    made = {"semantic": a["semantic"]}
    for name, x in b.items():
        if name == "semantic":
            continue
        axis = 2 if name.startswith("matches") else 3
        short = a[name]
        missing = x.shape[axis + 1] - short.shape[axis + 1]
        empty = short.new_zeros(*short.shape[: axis + 1], missing, short.shape[-1])
        made[name] = torch.cat([torch.cat([short, empty], axis + 1), x], axis)
    for part, like in (("known.", "known.image.0"), ("matches.", "matches.keys")):
        weight, kept = a[f"{part}weight"], b[like].shape[-2]
        nothing = weight.new_full((1, 3, kept - weight.shape[2]), NO_WEIGHT)
        rest = weight.new_zeros(1, 2, kept)
        made[f"{part}weight"] = torch.cat([torch.cat([weight, nothing], 2), rest], 1)
    return EncodedPrompt.from_tensors(made, 5, full.size)


@torch.no_grad()
def test_examples_weigh_alike_whatever_is_kept():
    """The same example twice, once thinned to itself: as if it stood there alone."""
    net, kind = model("independent"), torch.tensor([True])
    one = net.encode_batches([draw_examples(1, 1)], kind)
    cache = one.cache
    assert isinstance(cache, KeyValueCache)
    flat = KeyValueCache.concat([cache, cache.flatten(math.log(1))])
    torch.manual_seed(1)
    query = torch.randn(1, 3, SIZE, SIZE)
    twice = replace(one, cache=flat)
    torch.testing.assert_close(net.paint(query, twice), net.paint(query, one))
