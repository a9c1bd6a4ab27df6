"""The voting model: one query, one example, one id at a time changes nothing; what is learned."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from incontext.checkpoints.checkpoint import load
from incontext.checkpoints.pretrained import backbone_state, graft
from incontext.model import SIZES, Config, VotingModel, assemble
from incontext.model.encoded_prompt import ExampleBatch
from incontext.model.thinning import NO_WEIGHT
from incontext.model.votes.backbone import VARIANTS
from incontext.model.votes.painting import compose
from incontext.model.votes.pairs import ids_of_other_views
from incontext.model.votes.voters import CELL_AXES, FINE_SHARE, Voters
from incontext.model.votes.voting import TRAINING_SHARE, UNREQUESTED

CONFIG = replace(
    SIZES["votes"], image_size=32, stem=(8, 16, 32), stem_blocks=1, copy_heads=2, copy_dim=8,
    match_heads=2, match_dim=8, mixer=(16, 8, 8), mixer_blocks=1,
)  # fmt: skip

ALL = 1 / FINE_SHARE  # a share that keeps all cells at stride 4 too


def assembled(
    config: Config = CONFIG, backbone: dict[str, torch.Tensor] | None = None
) -> VotingModel:
    """Random but for the backbone: features of a random one hardly differ between cells.

    Weights are larger than fresh ones: of those, votes hardly reach the logits.
    """
    torch.manual_seed(0)
    made = assemble(config)
    assert isinstance(made, VotingModel)
    made.backbone.load_state_dict(backbone or backbone_state(config.backbone))
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad and parameter.dim() > 1:
                parameter.mul_(2.0)
    return made.eval()


@pytest.fixture(scope="module")
def model() -> VotingModel:
    return assembled()


def draw_examples(prompts: int, count: int, ids: int, size: tuple[int, int] = (32, 32)):
    """Pictures (P, N, 3, H, W), labels of disjoint ids (P, N, K, H, W) and valid, drawn."""
    torch.manual_seed(prompts * 100 + count * 10 + ids + size[0])
    images = torch.randn(prompts, count, 3, size[0] // 4, size[1] // 4)
    images = F.interpolate(images.flatten(0, 1), size=size, mode="bicubic")
    coarse = torch.randint(0, ids + 1, (prompts * count, 1, size[0] // 8, size[1] // 8)).float()
    number = F.interpolate(coarse, size=size, mode="nearest").roll((3, 2), (2, 3))
    labels = (number == torch.arange(1, ids + 1).view(-1, 1, 1)).float()
    valid = torch.ones(prompts, count, *size, dtype=torch.bool)
    valid[:, -1, :5, :11] = False
    labels = labels.unflatten(0, (prompts, count)) * valid[:, :, None]
    return images.unflatten(0, (prompts, count)), labels, valid


def voters_of(
    model: VotingModel, images, labels, valid, keep_ratio: float = 1.0, start: int = 0
) -> Voters:
    return model.build_voters(
        model.extract_features(images.flatten(0, 1)), labels, valid, keep_ratio, start
    )


def queries(count: int, size: tuple[int, int] = (32, 32)) -> torch.Tensor:
    return draw_examples(1, count, 7, size)[0][0]


def close(got, expected) -> None:
    """Of logits and guesses. Pictures by themselves and in a batch are convolved otherwise."""
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_assembled_by_its_config(model):
    assert model.levels == [0, 0, *[1] * 6, *[2] * 5]
    assert model.last_block == {2: 0, 4: 2, 8: 4, 16: 10, 32: 15}


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_every_backbone_serves(name):
    model = assembled(replace(CONFIG, backbone=name))
    assert len(model.levels) == sum(stride >= 8 for stride in model.backbone.strides)
    logits, _ = model.vote(
        model.extract_features(queries(1)), voters_of(model, *draw_examples(1, 2, 2))
    )
    assert logits.shape == (1, 2, 32, 32)
    assert logits.isfinite().all()


@pytest.mark.parametrize("size", [(32, 32), (24, 40), (64, 8), (56, 48), (16, 16), (8, 8)])
@pytest.mark.parametrize(("count", "ids"), [(1, 1), (3, 2)])
@torch.no_grad()
def test_shapes(model, size, count, ids):
    voters = voters_of(model, *draw_examples(1, count, ids, size))
    height, width = size
    for batch in (1, 2):
        logits, guess = model.vote(model.extract_features(queries(batch, size)), voters)
        assert logits.shape == (batch, ids, height, width)
        assert guess.shape == (batch, ids, height // 8, width // 8)
        assert logits.isfinite().all()
        assert guess.isfinite().all()
    assert voters.fits(count)
    assert voters.fits(count + 1) == (count == 1)  # one may be all cells of several


@torch.no_grad()
def test_query_and_examples_may_differ_in_size(model):
    voters = voters_of(model, *draw_examples(1, 2, 2, (24, 40)))
    logits, _ = model.vote(model.extract_features(queries(1, (48, 32))), voters)
    assert logits.shape == (1, 2, 48, 32)


@pytest.mark.parametrize(("views", "ids", "size"), [(2, 1, (32, 32)), (4, 2, (24, 40))])
@torch.no_grad()
def test_every_view_is_the_query_of_all_others(model, views, ids, size):
    images, labels, valid = draw_examples(2, views, ids, size)
    labels[1, 1:, 0] = 0.0  # an id that one view shows: it is not requested of that view
    labels[1, 0, 0, 20:, :9] = 1.0
    got = model(images, labels, valid)
    expected = []
    for episode in range(2):
        for query in range(views):
            examples = [
                voters_of(model, *(x[episode, v][None, None] for x in (images, labels, valid)),
                     keep_ratio=TRAINING_SHARE)
                for v in range(views) if v != query
            ]  # fmt: skip
            others = [v for v in range(views) if v != query]
            requested = (labels[episode, others] > 0).flatten(2).any(2).any(0)
            features = model.extract_features(images[episode, query][None])
            expected.append(model.vote(features, Voters.concat(examples), requested[None]))
    close(got, [torch.cat(x) for x in zip(*expected, strict=True)])
    assert (got[0].view(2, views, ids, *size)[1, 0, 0] == UNREQUESTED).all()


def test_asked_is_what_another_view_shows():
    labels = torch.zeros(2, 3, 2, 4, 4)
    labels[0, 0, 0, 1, 2] = 1.0
    labels[0, 1:, 1, 3, 3] = 1.0
    expected = [[[0, 1], [1, 1], [1, 1]], [[0, 0], [0, 0], [0, 0]]]
    assert torch.equal(ids_of_other_views(labels), torch.tensor(expected, dtype=torch.bool))


@torch.no_grad()
def test_asked_chooses_what_is_computed(model):
    voters, features = voters_of(model, *draw_examples(1, 2, 3)), model.extract_features(queries(2))
    whole = model.vote(features, voters)
    requested = torch.tensor([[True, False, True], [False, False, True]])
    some = model.vote(features, voters, requested)
    for one, other in zip(some, whole, strict=True):
        assert (one[~requested] == UNREQUESTED).all()
        torch.testing.assert_close(one[requested], other[requested], atol=1e-5, rtol=1e-5)
    nothing = model.vote(features, voters, requested & False)
    assert all((x == UNREQUESTED).all() for x in nothing)


@pytest.mark.parametrize("share", [ALL, 1.0, 0.4])
@pytest.mark.parametrize("prompts", [1, 3])
@torch.no_grad()
def test_a_batch_equals_one_by_one(model, prompts, share):
    """With one prompt for all queries, and with one for each."""
    examples, query = draw_examples(prompts, 2, 2), queries(3)
    got = model.vote(model.extract_features(query), voters_of(model, *examples, keep_ratio=share))
    alone = []
    for b in range(3):
        own = [x[b : b + 1] if prompts > 1 else x for x in examples]
        alone.append(
            model.vote(
                model.extract_features(query[b : b + 1]), voters_of(model, *own, keep_ratio=share)
            )
        )
    close(got, [torch.cat(x) for x in zip(*alone, strict=True)])


@torch.no_grad()
def test_examples_in_any_order_and_number(model):
    """Permuted or given twice, they say the same."""
    examples, features = draw_examples(1, 3, 2), model.extract_features(queries(2))
    for share in (ALL, 1.0):
        expected = model.vote(features, voters_of(model, *examples, keep_ratio=share))
        for order in ([2, 0, 1], [0, 1, 2, 0, 1, 2]):
            other = voters_of(model, *(x[:, order] for x in examples), keep_ratio=share)
            close(model.vote(features, other), expected)


@torch.no_grad()
def test_other_ids_change_nothing(model):
    images, labels, valid = draw_examples(1, 2, 3)
    features = model.extract_features(queries(2))
    # Where all cells are kept: which ones are depends on where any object is.
    together = model.vote(features, voters_of(model, images, labels, valid, ALL))
    for k in range(3):
        alone = model.vote(features, voters_of(model, images, labels[:, :, k : k + 1], valid, ALL))
        close(alone, [x[:, k : k + 1] for x in together])


@torch.no_grad()
def test_labels_of_unknown_pixels_change_nothing(model):
    images, labels, valid = draw_examples(1, 2, 2)
    valid[0, 0, 9:22, 4:] = False
    features = model.extract_features(queries(1))
    for value in (0.0, 1.0):
        other = torch.where(valid[:, :, None], labels, value)
        for share in (ALL, 1.0, 0.5):
            expected = model.vote(features, voters_of(model, images, labels, valid, share))
            close(model.vote(features, voters_of(model, images, other, valid, share)), expected)


@torch.no_grad()
def test_examples_in_parts(model):
    """Joined, those of several calls are those of one; `start` goes on with the patterns."""
    examples, features = draw_examples(1, 4, 2), model.extract_features(queries(1))
    for share in (ALL, 1.0, 0.5):
        whole = voters_of(model, *examples, keep_ratio=share)
        parts = [
            voters_of(model, *(x[:, start:stop] for x in examples), keep_ratio=share, start=start)
            for start, stop in ((0, 1), (1, 4))
        ]
        close(model.vote(features, Voters.concat(parts)), model.vote(features, whole))


@torch.no_grad()
def test_examples_of_different_shares(model):
    """The naive twin fills thinned examples up with cells that weigh nothing."""
    images, labels, valid = draw_examples(1, 3, 2)
    features = model.extract_features(queries(2))
    thin = voters_of(model, images[:, :2], labels[:, :2], valid[:, :2], keep_ratio=0.4)
    full = voters_of(model, images[:, 2:], labels[:, 2:], valid[:, 2:])
    parts, goal = thin.tensors(), full.tensors()
    for name, x in parts.items():
        axis = CELL_AXES.get(name.split(".")[0], 2)
        missing = goal[name].shape[axis] - x.shape[axis]
        if missing:
            more = x.narrow(axis, 0, 1).repeat_interleave(missing, axis)
            more = torch.full_like(more, NO_WEIGHT) if name.startswith("weight") else more
            parts[name] = torch.cat([x, more], axis)
    expected = model.vote(features, Voters.concat([Voters.from_tensors(parts), full]))
    joined = Voters.concat([thin, full])
    close(model.vote(features, joined), expected)
    close(model.vote(features, joined.flatten()), expected)
    assert joined.fits(3)


@torch.no_grad()
def test_select_and_gather(model):
    examples, query = draw_examples(1, 4, 2), queries(2)
    features, which = model.extract_features(query), torch.tensor([[3, 0], [1, 3]])
    prompts = [voters_of(model, *(x[:, w] for x in examples)) for w in which]
    alone = [
        model.vote(model.extract_features(q[None]), p) for q, p in zip(query, prompts, strict=True)
    ]
    expected = [torch.cat(x) for x in zip(*alone, strict=True)]
    close(model.vote(features, voters_of(model, *examples).select(which)), expected)
    each = voters_of(model, *(x.transpose(0, 1) for x in examples))
    close(model.vote(features, each.regroup(which)), expected)


@torch.no_grad()
def test_voters_by_name_and_in_another_dtype(model):
    voters, features = voters_of(model, *draw_examples(1, 2, 2)), model.extract_features(queries(1))
    again = Voters.from_tensors(dict(voters.tensors()))
    expected = model.vote(features, voters)
    for one, other in zip(model.vote(features, again), expected, strict=True):
        assert torch.equal(one, other)
    small = voters.to(torch.float16)
    assert small.weight.dtype == small.cells[0].weight.dtype == torch.float32
    assert 0.49 * voters.nbytes < small.nbytes < 0.54 * voters.nbytes
    half = model.vote(features, small)
    assert half[0].dtype == torch.float32
    for one, other in zip(half, expected, strict=True):
        torch.testing.assert_close(one, other, atol=0.02, rtol=0.02)


@torch.no_grad()
def test_some_of_the_pictures(model):
    pictures = queries(3)
    features, alone = (
        model.extract_features(pictures).take(torch.tensor([2, 0])),
        model.extract_features(pictures[[2, 0]]),
    )
    voters = voters_of(model, *draw_examples(1, 1, 1))
    close(model.vote(features, voters), model.vote(alone, voters))


@torch.no_grad()
def test_painting(model):
    """Targets are read as labels by color; what is sure is painted in the id's color or black."""
    images, labels, valid = draw_examples(1, 2, 2)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (CONFIG.mean, CONFIG.std))
    plain = torch.tensor([[[0.9, 0.1, 0.2], [0.2, 0.8, 0.9]]])
    colors = (plain - mean.view(3)) / std.view(3)
    targets = (torch.einsum("pnkhw,pkc->pnchw", labels, plain) - mean) / std
    encoded = model.encode(images, targets, torch.tensor([True]), colors=colors)
    voters = voters_of(model, images, labels, torch.ones_like(valid))
    features = model.extract_features(queries(2))
    logits, _ = model.vote(features, voters)
    torch.testing.assert_close(model.vote(features, encoded.cache)[0], logits)
    torch.testing.assert_close(model.paint(features, encoded), compose(logits, colors, CONFIG))
    torch.testing.assert_close(model.paint(queries(2), encoded), compose(logits, colors, CONFIG))
    sure = compose(60.0 * labels[0] - 30.0, colors, CONFIG)
    torch.testing.assert_close(sure, targets[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("frozen", [(), ("stem", "copying")])
def test_gradients_reach_what_is_learned(frozen):
    model = assembled().train()
    for part in frozen:
        model.get_submodule(part).requires_grad_(False)
    logits, guess = model(*draw_examples(2, 2, 2))
    (logits.square().mean() + guess.square().mean()).backward()
    for name, parameter in model.named_parameters():
        still = name.split(".")[0] in ("backbone", *frozen)
        reached = parameter.grad is not None and bool(parameter.grad.any())
        assert reached != still, name


def test_gradients_reach_a_prompt_of_a_frozen_model():
    """What is kept of examples, or their pictures and soft labels; else there are none at all."""
    model = assembled().requires_grad_(False)
    examples, features = draw_examples(1, 2, 2), model.extract_features(queries(2))
    voters = voters_of(model, *examples, keep_ratio=0.5)
    assert not model.vote(features, voters)[0].requires_grad
    named = voters.tensors()
    learned = [n for n in named if n.split(".")[0] not in ("labels", "weight")]
    named |= {name: named[name].requires_grad_() for name in learned}
    model.vote(features, Voters.from_tensors(named))[0].square().mean().backward()
    assert all(named[name].grad.any() for name in learned)
    images, labels, valid = examples
    images.requires_grad_()
    soft = (4 * labels).softmax(2).requires_grad_()
    encoded = model.encode_batches(
        [ExampleBatch(images, images.detach(), valid, soft)], torch.tensor([True]),
        colors=torch.randn(1, 2, 3), keep_ratio=0.5,
    )  # fmt: skip
    model.paint(features, encoded).square().mean().backward()
    assert images.grad[0, 0].any()
    assert soft.grad.any()
    assert not soft.grad[~valid[:, :, None].expand_as(soft)].any()


@torch.no_grad()
def test_graft_takes_the_former_copy_path_over():
    """White on black stands for the ids; at the border the former pads with gray."""
    torch.manual_seed(0)
    former = load("incontext-small")
    model = VotingModel(replace(SIZES["votes"], image_size=64))
    assert not torch.equal(model.stem.stages[0][0].weight, former.encoder.stem.stages[0][0].weight)
    graft(model, former)
    images, labels, _ = draw_examples(1, 2, 1, (48, 64))
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (CONFIG.mean, CONFIG.std))
    targets = (labels.expand(-1, -1, 3, -1, -1) - mean) / std
    path = former.encoder.copy_path
    before = path.cache_examples(former.encoder.stem.skips(images[0]), targets)
    keys = model.copying.keys(model.stem.skips(images[0]))
    torch.testing.assert_close(keys, before.keys[0].transpose(0, 1), atol=1e-5, rtol=1e-4)
    learned = path.dim - 3
    values = model.copying.values(labels[0, :, 0])[..., 1 : 1 + learned]
    expected = before.values[0].transpose(0, 1)[..., 3:]
    inner, wanted = (x.unflatten(2, (12, 16))[:, :, 1:-1, 1:-1] for x in (values, expected))
    torch.testing.assert_close(inner, wanted, atol=1e-4, rtol=1e-4)
    # Colors come first there: the id's share is where they stand between black and white.
    share = model.copying.values(labels[0, :, 0])[..., 0]
    red = before.values[0].transpose(0, 1)[..., 0] * float(std[0]) + float(mean[0])
    torch.testing.assert_close(share, red, atol=1e-5, rtol=1e-5)
    assert torch.equal(model.copying.scale, path.scale)


def test_summary_begins_at_zero_and_answers_by_the_whole():
    """A mixer with a summary starts as the one without; learned, a far cell changes an answer."""
    torch.manual_seed(0)
    plain = assembled()
    wide = assemble(replace(CONFIG, mixer_summary=True))
    state = wide.state_dict() | plain.state_dict()
    wide.load_state_dict(state)
    x = torch.randn(2, CONFIG.mixer[0], 4, 4)
    assert torch.equal(wide.mixer.summary(x), x)
    with torch.no_grad():
        wide.mixer.summary.body[-1].weight.normal_()
        other = x.clone()
        other[:, :, 3, 3] += 5
        moved = wide.mixer.summary(other) - other - (wide.mixer.summary(x) - x)
    assert moved[:, :, 0, 0].abs().max() > 0.1


@torch.inference_mode()
def test_flattened_voters_vote_alike():
    """Also those joined of parts that keep the same number of cells at some strides only."""
    model = assembled(CONFIG)
    examples = draw_examples(1, 3, 2, (32, 32))
    features = model.embed_images(examples[0][0])
    parts = [model.build_voters(features, *examples[1:], ratio) for ratio in (0.3, 1.0)]
    voters = Voters.concat(parts)
    assert {x.shape[1] for x in voters.tensors().values()} == {1, 6}
    flat = voters.flatten()
    assert {x.shape[1] for x in flat.tensors().values()} == {1}
    for one, other in zip(model.vote(features, voters), model.vote(features, flat), strict=True):
        torch.testing.assert_close(one, other)
