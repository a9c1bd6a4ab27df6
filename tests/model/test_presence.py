"""Presence: the evidence equals loops over cells; the painting is never surer than the presence."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from test_voting import ALL, CONFIG, assembled, close, draw_examples, queries, voters_of

from incontext.model import assemble
from incontext.model.encoded_prompt import EncodedPrompt
from incontext.model.thinning import NO_WEIGHT
from incontext.model.votes.cells import Cells
from incontext.model.votes.presence import (
    BLOCK_EVIDENCE,
    SHARES,
    PresenceHead,
    mask_evidence,
    match_evidence,
)
from incontext.model.votes.voters import Voters
from incontext.model.votes.votes import MAPS, TEMPERATURES, cast_votes

WITH_HEAD = replace(CONFIG, presence_width=8)


@pytest.fixture(scope="module")
def model():
    return assembled(WITH_HEAD)


def unit(*shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape), dim=-1)


def naive_match(query, keys, labels, weight, maps, probability) -> list[torch.Tensor]:
    """One query and one id, cell by cell: query (Q, c), keys (T, c), labels and weight (T,)."""
    painted = probability + 1e-4
    numbers = [i for i in range(len(keys)) if weight[i] > NO_WEIGHT / 2]
    threshold = max(0.05, min(0.5, max(float(labels[i]) for i in numbers)))
    inside = [i for i in numbers if labels[i] >= threshold]
    outside = [i for i in numbers if labels[i] < threshold]
    got = [
        sum(maps[m, q] * painted[q] for q in range(len(query))) / painted.sum() for m in range(MAPS)
    ]
    here = F.normalize(sum(painted[q] * query[q] for q in range(len(query))), dim=0)
    rest = F.normalize(sum((1.0002 - painted[q]) * query[q] for q in range(len(query))), dim=0)
    near = F.normalize(sum(labels[i] * weight[i].exp() * keys[i] for i in numbers), dim=0)
    far = F.normalize(sum((1 - labels[i]) * weight[i].exp() * keys[i] for i in numbers), dim=0)
    got += [here @ near, here @ far, rest @ near, rest @ far]
    reach = {i: max(keys[i] @ q for q in query) for i in numbers}
    answer = {i: (TEMPERATURES[1] * query @ keys[i]).softmax(0) @ probability for i in numbers}
    for values in (reach, answer):
        for cells in (inside, outside):
            got.append(sum(values[i] for i in cells) / max(1, len(cells)) + torch.zeros(()))
    return got


@torch.no_grad()
def test_match_evidence_equals_loops():
    torch.manual_seed(1)
    query, keys = unit(2, 6, 5), unit(1, 2, 4, 5)
    labels = torch.rand(1, 2, 3, 4)
    labels[:, :, 2] *= 0.4  # an id that fills no cell by half
    weight = torch.rand(1, 2, 4)
    weight[0, 1, 2] = NO_WEIGHT
    labels[0, 1, :, 2] = 0
    cells = Cells(labels, weight)
    maps = cast_votes(query, keys, cells)
    probability = torch.rand(2, 3, 6)
    got = match_evidence(query, keys, cells, maps, probability)
    assert got.shape == (2, 3, BLOCK_EVIDENCE)
    flat, flat_weight = cells.flatten()
    for b in range(2):
        for k in range(3):
            expected = naive_match(
                query[b], keys[0].flatten(0, 1), flat[0, k], flat_weight[0], maps[b, k],
                probability[b, k],
            )  # fmt: skip
            torch.testing.assert_close(got[b, k], torch.stack(expected), atol=1e-5, rtol=1e-5)


def test_mask_evidence():
    logits, guess = torch.randn(2, 3, 20, 20), torch.randn(2, 3, 5, 5)
    got = mask_evidence(logits, guess)
    for b in range(2):
        for k in range(3):
            expected = []
            for values in (logits[b, k], guess[b, k]):
                order = sorted(values.flatten().tolist(), reverse=True)
                counts = [max(1, round(share * len(order))) for share in SHARES]
                expected += [sum(order[:count]) / count for count in counts]
            area = (logits[b, k].sigmoid().mean() + 1e-4).log()
            torch.testing.assert_close(got[b, k], torch.tensor([*expected, float(area)]))


@torch.no_grad()
def test_logits_are_those_of_the_votes(model):
    voters = voters_of(model, *draw_examples(1, 2, 3), ALL)
    features = model.extract_features(queries(2))
    assert torch.equal(model.gather_evidence(features, voters)[0], model.vote(features, voters)[0])


@torch.no_grad()
def test_each_id_query_and_prompt_by_itself(model):
    images, labels, valid = draw_examples(2, 2, 3)
    voters = voters_of(model, images, labels, valid, ALL)
    features = model.extract_features(queries(2))
    together = model.gather_evidence(features, voters)
    for number in range(2):
        one = model.extract_features(queries(2)[number : number + 1])
        prompt = Voters.from_tensors(
            {name: x[number : number + 1] for name, x in voters.tensors().items()}
        )
        close(model.gather_evidence(one, prompt), [x[number : number + 1] for x in together])
    for k in range(3):
        alone = voters_of(model, images, labels[:, :, k : k + 1], valid, ALL)
        close(model.gather_evidence(features, alone), [x[:, k : k + 1] for x in together])


@pytest.mark.parametrize("bias", [-9.0, 0.0, 9.0])
@torch.no_grad()
def test_a_painting_is_no_surer_than_the_presence(bias):
    model = assembled(WITH_HEAD)
    assert model.presence
    model.presence.body[2].weight.zero_()
    model.presence.body[2].bias.fill_(bias)
    images, labels, valid = draw_examples(1, 2, 1)
    voters = voters_of(model, images, labels, valid)
    colors = torch.tensor([[[1.0, 1.0, 1.0]]])
    prompt = EncodedPrompt(2, (32, 32), torch.ones(1, dtype=torch.bool), voters, None, colors)
    black = -torch.tensor(model.config.mean) / torch.tensor(model.config.std)
    painted = model.paint(queries(2), prompt)
    share = (painted[:, 0] - black[0]) / (1 - black[0])
    assert share.max() <= torch.tensor(bias).sigmoid() + 1e-5
    plain = assembled(CONFIG)
    plain.load_state_dict(model.state_dict(), strict=False)
    expected = (plain.paint(queries(2), prompt)[:, 0] - black[0]) / (1 - black[0])
    torch.testing.assert_close(share, expected.clamp(max=float(torch.tensor(bias).sigmoid())))


def test_evidence_far_out_counts_as_four_deviations():
    head = PresenceHead(2, 4)
    head.mean.copy_(torch.tensor([1.0, -1.0]))
    head.spread.copy_(torch.tensor([0.5, 2.0]))
    near, far = (torch.tensor([[[1 + 0.5 * x, -1 - 2 * x]]]) for x in (4.0, 400.0))
    assert head(far).shape == (1, 1)
    torch.testing.assert_close(head(near), head(far))


def test_no_head_unless_the_config_has_one():
    assert assemble(CONFIG).presence is None
    names = assemble(WITH_HEAD).state_dict().keys() - assemble(CONFIG).state_dict().keys()
    assert names
    assert all(name.startswith("presence.") for name in names)
