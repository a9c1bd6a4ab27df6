"""Low-rank updates: nothing at first, all that is learned, and gone after merging."""

import pytest
import torch
from torch import nn

from incontext.model import SIZES, SegGPT
from incontext.model.low_rank import LowRank, add_low_rank, merge
from tests.training.test_trainer import CONFIG

CONFIGS = pytest.mark.parametrize("config", [CONFIG, SIZES["tiny"]], ids=["small", "joint"])


def models(config, rank: int = 2) -> tuple[SegGPT, SegGPT]:
    """A model, and the same one with updates."""
    torch.manual_seed(0)
    plain, updated = SegGPT(config).eval(), SegGPT(config).eval()
    updated.load_state_dict(plain.state_dict())
    add_low_rank(updated, rank)
    return plain, updated


def painted(model: SegGPT) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    queries, images, targets = (
        torch.randn(*shape, 3, 32, 32, generator=rng) for shape in ((2,), (2, 2), (2, 2))
    )
    return model(queries, images, targets, torch.tensor([True, False]))


def stir(model: SegGPT) -> None:
    """Give every update something to do."""
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith(".up"):
                value.copy_(0.05 * torch.randn(value.shape, generator=rng))


def test_update_by_hand():
    update = LowRank(5, 7, 3)
    weight = torch.randn(5, 7)
    assert torch.equal(update(weight), weight)
    with torch.no_grad():
        update.up.normal_()
    expected = weight.clone()
    for i in range(5):
        for j in range(7):
            expected[i, j] += sum(update.up[i, r] * update.down[r, j] for r in range(3)).item()
    torch.testing.assert_close(update(weight), expected)
    assert torch.linalg.matrix_rank(update(weight) - weight) == 3


@CONFIGS
def test_starts_as_no_change(config):
    plain, updated = models(config)
    assert torch.equal(painted(plain), painted(updated))


@CONFIGS
def test_only_updates_learn(config):
    plain, updated = models(config)
    linear = sum(isinstance(m, nn.Linear) for m in plain.modules())
    learned = {n for n, p in updated.named_parameters() if p.requires_grad}
    assert len(learned) == 2 * linear
    assert all(name.endswith((".0.up", ".0.down")) for name in learned)
    stir(updated)  # while up is zero, down has no gradient
    before = {n: p.clone() for n, p in updated.named_parameters()}
    optimizer = torch.optim.SGD(updated.parameters(), lr=1.0)
    painted(updated).square().mean().backward()
    optimizer.step()
    for name, value in updated.named_parameters():
        assert (value.grad is not None) == (name in learned)
        assert torch.equal(value, before[name]) == (name not in learned), name


@CONFIGS
def test_merged_is_the_same_model(config):
    plain, updated = models(config)
    stir(updated)
    expected = painted(updated)
    assert not torch.allclose(expected, painted(plain), atol=1e-3)
    state = merge(updated.state_dict())
    assert state.keys() == plain.state_dict().keys()
    before = plain.state_dict()
    linear = {f"{n}.weight" for n, m in plain.named_modules() if isinstance(m, nn.Linear)}
    for name, value in state.items():
        if name in linear:
            assert torch.linalg.matrix_rank(value - before[name], rtol=1e-4) == 2
        else:
            assert torch.equal(value, before[name])
    other = SegGPT(config).eval()
    other.load_state_dict(state)
    torch.testing.assert_close(painted(other), expected, rtol=1e-4, atol=1e-5)


def test_a_plain_state_is_left_alone():
    plain, _ = models(CONFIG)
    state = plain.state_dict()
    merged = merge(state)
    assert list(merged) == list(state)
    assert all(merged[name] is state[name] for name in state)


def test_a_low_rank_change_is_learned():
    """What differs from a linear map by rank 2 is found by an update of rank 2, not of rank 1."""
    left = {}
    for rank in (1, 2):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(12, 10))
        wanted = model[0].weight.detach() + torch.randn(10, 2) @ torch.randn(2, 12) / 3
        add_low_rank(model, rank)
        optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=0.05)
        for _ in range(250):
            loss = (model[0].weight - wanted).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        left[rank] = loss.item()
        torch.testing.assert_close(merge(model.state_dict())["0.weight"], model[0].weight)
    assert left[2] < 1e-5
    assert left[1] > 1e-3
