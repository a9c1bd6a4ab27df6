"""Votes against loops over one cell at a time, and what must not change them."""

import math

import pytest
import torch
import torch.nn.functional as F

from incontext.model.thinning import NO_WEIGHT, select_tokens
from incontext.model.votes import votes
from incontext.model.votes.cells import Cells, pool_labels, unit_vectors
from incontext.model.votes.matching import Matching
from incontext.model.votes.votes import (
    MAPS,
    SELF_MAPS,
    TEMPERATURES,
    cast_self_votes,
    cast_votes,
)


def naive_average(pairs: list[tuple[float, torch.Tensor | float]]) -> torch.Tensor | float:
    """Mean of values by logarithms of weights, in float64."""
    most = max(log for log, _ in pairs)
    weights = [math.exp(log - most) for log, _ in pairs]
    return sum(w * value for w, (_, value) in zip(weights, pairs, strict=True)) / sum(weights)


def naive_unit(vector: torch.Tensor) -> torch.Tensor:
    return vector / max(math.sqrt(sum(float(x) ** 2 for x in vector)), 1e-12)


def naive_cell(query: torch.Tensor, keys: list[torch.Tensor], shares: list[float],
               logs: list[float]) -> list[float]:  # fmt: skip
    """What example cells say of one query cell (c,) and one id: its maps in order."""
    cosines = [float(query @ key) for key in keys]
    listed = list(zip(cosines, shares, logs, strict=True))
    votes = [naive_average([(scale * c + w, s) for c, s, w in listed]) for scale in TEMPERATURES]
    prior = naive_average([(w, s) for _, s, w in listed])
    valid = [(c, s) for c, s, w in listed if w > NO_WEIGHT / 2]
    enough = max(0.05, min(0.5, max(s for _, s in valid)))
    inside = max((c for c, s in valid if s >= enough), default=0.0)
    outside = max((c for c, s in valid if s < enough), default=0.0)
    near = []
    for part in (shares, [1 - s for s in shares]):
        mean = sum(
            key * (s * math.exp(w)) for key, s, w in zip(keys, part, logs, strict=True)
        )  # fmt: skip
        near.append(float(query @ naive_unit(mean)))
    gain = math.log(votes[0] + 0.01) - math.log(prior + 0.01)
    return [*votes, 0.3 * gain, inside, 3 * (inside - outside), 3 * (near[0] - near[1])]


def naive_cast(query: torch.Tensor, keys: torch.Tensor, cells: Cells) -> torch.Tensor:
    """`cast_votes`, one query cell and one id at a time."""
    query, keys = query.double(), keys.double()
    ids = cells.labels.shape[2]
    made = torch.zeros(len(query), ids, MAPS, query.shape[1])
    for b in range(len(query)):
        p = b if len(keys) > 1 else 0
        places = [(n, t) for n in range(keys.shape[1]) for t in range(keys.shape[2])]
        logs = [float(cells.weight[p, n, t]) for n, t in places]
        for k in range(ids):
            shares = [float(cells.labels[p, n, k, t]) for n, t in places]
            for q in range(query.shape[1]):
                own = naive_cell(query[b, q], [keys[p, n, t] for n, t in places], shares, logs)
                made[b, k, :, q] = torch.tensor(own)
    return made


def naive_pool(labels: torch.Tensor, valid: torch.Tensor, grid: tuple[int, int]) -> Cells:
    """`pool`, one cell at a time; a cell has all pixels that it touches."""
    prompts, count, ids, height, width = labels.shape
    shares = torch.zeros(prompts, count, ids, grid[0] * grid[1])
    weight = torch.zeros(prompts, count, grid[0] * grid[1])
    for p in range(prompts):
        for n in range(count):
            for row in range(grid[0]):
                for column in range(grid[1]):
                    t = row * grid[1] + column
                    ys = range(row * height // grid[0], -(-(row + 1) * height // grid[0]))
                    xs = range(column * width // grid[1], -(-(column + 1) * width // grid[1]))
                    sure = [(y, x) for y in ys for x in xs if valid[p, n, y, x]]
                    part = len(sure) / (len(ys) * len(xs))
                    weight[p, n, t] = math.log(part) if sure else NO_WEIGHT
                    for k in range(ids):
                        total = sum(float(labels[p, n, k, y, x]) for y, x in sure)
                        shares[p, n, k, t] = total / len(sure) if sure else 0.0
    return Cells(shares, weight)


def drawn(prompts: int, examples: int, ids: int, queries: int = 2):
    """Query cells, keys and cells with an unknown one, a full one and an id that is tiny."""
    torch.manual_seed(prompts * 100 + examples * 10 + ids)
    query = F.normalize(torch.randn(queries, 5, 6), dim=-1)
    keys = F.normalize(torch.randn(prompts, examples, 4, 6), dim=-1)
    labels = torch.rand(prompts, examples, ids, 4) / ids
    labels[:, :, -1] *= 0.3  # fills no cell by half
    labels[:, 0, 0, 1], labels[:, -1, 0, 0] = 1.0, 0.45
    weight = torch.rand(prompts, examples, 4) * 3 - 2
    weight[:, -1, 3], labels[:, -1, :, 3] = NO_WEIGHT, 0.0
    return query, keys, Cells(labels, weight)


@pytest.mark.parametrize("prompts", [1, 2])
@pytest.mark.parametrize(("examples", "ids"), [(1, 1), (3, 1), (2, 3)])
def test_cast_equals_naive(prompts, examples, ids):
    query, keys, cells = drawn(prompts, examples, ids)
    got = cast_votes(query, keys, cells)
    assert got.shape == (2, ids, MAPS, 5)
    torch.testing.assert_close(got, naive_cast(query, keys, cells), atol=1e-5, rtol=1e-5)


def test_cast_of_an_id_that_no_cell_shows_and_of_one_that_all_show():
    query, keys, cells = drawn(1, 2, 2)
    labels = cells.labels.clone()
    labels[:, :, 0], labels[:, :, 1] = 0.0, 1.0
    cells = Cells(labels, cells.weight)
    got = cast_votes(query, keys, cells)
    torch.testing.assert_close(got, naive_cast(query, keys, cells), atol=1e-5, rtol=1e-5)
    assert not got[:, 0, :2].any()
    torch.testing.assert_close(got[:, 1, :2], torch.ones(2, 2, 5))


@pytest.mark.parametrize("ids", [1, 3])
def test_cast_own_equals_naive(ids):
    torch.manual_seed(ids)
    query = F.normalize(torch.randn(2, 7, 5), dim=-1)
    guess = torch.rand(2, ids, 7)
    expected = torch.zeros(2, ids, SELF_MAPS, 7)
    for b in range(2):
        for k in range(ids):
            for index, scale in enumerate(TEMPERATURES):
                for q in range(7):
                    said = [(scale * float(query[b, q] @ query[b, t]), float(guess[b, k, t]))
                            for t in range(7)]  # fmt: skip
                    expected[b, k, index, q] = naive_average(said)
    torch.testing.assert_close(cast_self_votes(query, guess), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(16, 24), (20, 12)])
@pytest.mark.parametrize("grid", [(4, 6), (3, 2), (1, 1)])
def test_pool_equals_naive(size, grid):
    """Also where cells share pixels because the grid does not divide the picture."""
    torch.manual_seed(sum(size))
    labels = (torch.rand(2, 2, 3, *size) > 0.6).float()
    valid = torch.rand(2, 2, *size) > 0.3
    valid[0, 0, :9] = False
    valid[1, 1] = False
    got, expected = pool_labels(labels, valid, grid), naive_pool(labels, valid, grid)
    torch.testing.assert_close(got.labels, expected.labels, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(got.weight, expected.weight, atol=1e-5, rtol=1e-5)
    assert (got.weight[1, 1] == NO_WEIGHT).all()


def test_unit_equals_naive():
    torch.manual_seed(0)
    features = torch.randn(2, 5, 3, 4)
    features[0, :, 1, 2] = 0.0
    got = unit_vectors(features)
    assert got.shape == (2, 12, 5)
    for m in range(2):
        for row in range(3):
            for column in range(4):
                expected = naive_unit(features[m, :, row, column])
                torch.testing.assert_close(got[m, row * 4 + column], expected)


def test_unknown_cells_do_not_vote():
    """Whatever their features and labels are."""
    query, keys, cells = drawn(2, 3, 2)
    weight = cells.weight.clone()
    weight[0, 0, 2], weight[:, 1, :2] = NO_WEIGHT, NO_WEIGHT
    unknown = weight == NO_WEIGHT
    others = F.normalize(torch.randn_like(keys), dim=-1)
    others = torch.where(unknown[..., None], others, keys)
    for value in (0.0, 0.4, 1.0):
        labels = cells.labels.masked_fill(unknown[:, :, None], value)
        got = cast_votes(query, others, Cells(labels, weight))
        expected = cast_votes(query, keys, Cells(cells.labels, weight))
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)


def test_unknown_pixels_do_not_count():
    torch.manual_seed(1)
    labels = (torch.rand(1, 2, 2, 16, 16) > 0.5).float()
    valid = torch.rand(1, 2, 16, 16) > 0.4
    other = torch.where(valid[:, :, None], labels, 1 - labels)
    one, changed = pool_labels(labels, valid, (4, 4)), pool_labels(other, valid, (4, 4))
    assert torch.equal(one.labels, changed.labels)
    assert torch.equal(one.weight, changed.weight)


def test_where_nothing_is_known_nothing_is_voted():
    query, keys, _ = drawn(1, 2, 2)
    nothing = torch.zeros(1, 2, 8, 8, dtype=torch.bool)
    cells = pool_labels(torch.ones(1, 2, 2, 8, 8), nothing, (2, 2))
    got = cast_votes(query, keys, cells)
    assert got.isfinite().all()
    assert not got[:, :, (0, 1, 3, 4)].any()


def test_repeated_examples_change_no_vote():
    query, keys, cells = drawn(1, 3, 2)
    twice = Cells(cells.labels.repeat(1, 2, 1, 1), cells.weight.repeat(1, 2, 1))
    torch.testing.assert_close(
        cast_votes(query, keys.repeat(1, 2, 1, 1), twice),
        cast_votes(query, keys, cells),
        atol=1e-6,
        rtol=1e-5,
    )


def test_other_ids_change_no_vote():
    query, keys, cells = drawn(2, 2, 3)
    together = cast_votes(query, keys, cells)
    for k in range(3):
        alone = cast_votes(query, keys, Cells(cells.labels[:, :, k : k + 1], cells.weight))
        torch.testing.assert_close(alone[:, 0], together[:, k], atol=1e-6, rtol=1e-5)


def test_the_order_of_examples_changes_no_vote():
    query, keys, cells = drawn(2, 3, 2)
    order = [2, 0, 1]
    shuffled = Cells(cells.labels[:, order], cells.weight[:, order])
    torch.testing.assert_close(
        cast_votes(query, keys[:, order], shuffled),
        cast_votes(query, keys, cells),
        atol=1e-6,
        rtol=1e-5,
    )


def test_thinned_cells_keep_what_they_say():
    torch.manual_seed(0)
    labels, valid = torch.zeros(1, 2, 2, 32, 32), torch.ones(1, 2, 32, 32, dtype=torch.bool)
    labels[0, :, 0, 4:12, 4:20], labels[0, :, 1, 20:24, 3:9] = 1.0, 1.0
    cells = pool_labels(labels, valid, (8, 8))
    selection = select_tokens(cells.labels.amax(2).unflatten(2, (8, 8)) > 0, 0.3, 0)
    thin = cells.prune(selection)
    for n in range(2):
        for index, t in enumerate(selection.indices[0, n]):
            assert torch.equal(thin.labels[0, n, :, index], cells.labels[0, n, :, t])
    # Weighed, they stand for all: the shares of the ids are those of the picture.
    share = (thin.labels * thin.weight.exp()[:, :, None]).sum(3) / 64
    torch.testing.assert_close(share, cells.labels.mean(3), atol=0.05, rtol=0.2)


@pytest.mark.parametrize("rows", [16, 17, 64])
def test_votes_cast_row_by_row_are_those_cast_at_once(monkeypatch, rows):
    """With gradients the tables are made at once, without them a few cells at a time."""
    torch.manual_seed(0)
    query, keys = (F.normalize(torch.randn(2, 3, 40, 8), dim=-1) for _ in range(2))
    labels, weight = torch.rand(2, 3, 2, 40), torch.rand(2, 3, 40) - 1
    cells = Cells(labels, weight)
    matching = Matching(12, 3, 8)
    at_once = (cast_votes(query[:, 0], keys, cells), matching(query, keys[:, :, None].expand(
        -1, -1, 3, -1, -1), cells))  # fmt: skip
    monkeypatch.setattr(votes, "CACHE_ELEMENTS", rows * 2 * 3 * 120)
    with torch.inference_mode():
        by_row = (cast_votes(query[:, 0], keys, cells), matching(query, keys[:, :, None].expand(
            -1, -1, 3, -1, -1), cells))  # fmt: skip
    for one, other in zip(by_row, at_once, strict=True):
        torch.testing.assert_close(one, other.detach(), atol=1e-6, rtol=1e-6)
