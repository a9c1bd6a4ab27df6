"""Evidence: votes are counted as the model counts them, and lie where they come from."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from incontext import Example, InputError, Predictor
from incontext.model.thinning import TokenSelection
from incontext.model.votes.attribution import _place, _votes
from incontext.model.votes.cells import Cells
from incontext.model.votes.votes import cast_votes
from tests.model.test_voting import CONFIG, assembled, draw_examples

SIZE = (64, 64)


@pytest.fixture(scope="module")
def model():
    return assembled(replace(CONFIG, image_size=64))


def attribute(model, labels, region, keep_ratio=1.0, number=0, count=3):
    images, _, valid = draw_examples(1, count, labels.shape[2], SIZE)
    query = draw_examples(1, 1, 1, SIZE)[0][0] + 0.1
    features = model.embed_images(images[0])
    with torch.inference_mode():
        votes = model.attribute(
            model.embed_images(query), features, labels, valid, keep_ratio, region, number
        )
        voters = model.build_voters(features, labels, valid, keep_ratio)
    return votes, model.embed_images(query), voters


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("keep_ratio", [0.4, 1.0])
def test_votes_sum_to_the_shares_that_the_model_counts(model, keep_ratio, number):
    labels = draw_examples(1, 3, 2, SIZE)[1]
    region = torch.zeros(SIZE)
    region[8:40, 16:48] = torch.rand(32, 32)
    votes, query, voters = attribute(model, labels, region, keep_ratio, number)
    assert votes.shape == (3, 8, 8)
    assert (votes >= 0).all()
    frozen = []
    with torch.inference_mode():
        for q, k, level, grid in zip(
            query.blocks, voters.blocks, model.levels, query.grids, strict=True
        ):
            pooled = F.adaptive_avg_pool2d(region[None], grid).flatten()
            maps = cast_votes(q, k, voters.cells[level])[0, number, :2]  # at both temperatures
            frozen.append((maps @ (pooled / pooled.sum())).mean())
        pooled = F.adaptive_avg_pool2d(region[None], (8, 8)).flatten()
        heads = model.matching(query.match_features, voters.match_features, voters.cells[0])
        matched = (heads[0, number, : CONFIG.match_heads] @ (pooled / pooled.sum())).mean()
        fine = F.adaptive_avg_pool2d(region[None], (16, 16)).flatten()
        values = voters.pattern[:, :, number]
        copied = model.copying(query.keys, voters.keys, values, voters.weight)
        shares = copied[0].unflatten(0, (CONFIG.copy_heads, -1))[:, 0]
        copied = (shares @ (fine / fine.sum())).mean()
    expected = (torch.stack(frozen).mean() + matched + copied) / 3
    torch.testing.assert_close(votes.sum(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("keep_ratio", [0.4, 1.0])
def test_votes_lie_where_the_labels_are(model, keep_ratio):
    labels = torch.zeros(1, 3, 1, *SIZE)
    labels[0, 1, 0, 32:, :32] = 1  # a cell at stride 32, so that none of it is shared
    votes, _, _ = attribute(model, labels, torch.ones(SIZE), keep_ratio)
    assert votes[1, 4:, :4].sum() > 0
    assert (votes[1, 4:, :4] > 0).sum() == (votes > 0).sum()


def test_cells_are_placed_by_their_number():
    """A cell at stride 16 shares its votes among the four of stride 8 that it covers."""
    selection = TokenSelection(torch.tensor([[[1, 2]]]), torch.zeros(1, 1, 2))
    placed = _place(torch.tensor([[0.5, 0.25]]), selection, (2, 2), (4, 4))
    expected = torch.zeros(4, 4)
    expected[:2, 2:], expected[2:, :2] = 0.5 / 4, 0.25 / 4
    torch.testing.assert_close(placed[0], expected)
    cells = Cells(torch.tensor([[[[1.0, 0.0]], [[0.5, 1.0]]]]), torch.zeros(1, 2, 2))
    scores = torch.randn(3, 4)
    region = torch.tensor([0.2, 0.5, 0.3])
    naive = torch.zeros(2, 2)
    for example in range(2):
        for cell in range(2):
            for q in range(3):
                weights = scores[q].exp() / scores[q].exp().sum()
                share = cells.labels[0, example, 0, cell]
                naive[example, cell] += region[q] * weights[2 * example + cell] * share
    torch.testing.assert_close(_votes(scores, cells, region, 0), naive)


# With the bundled checkpoint.


def scene(things: list[tuple[str, tuple[int, int], tuple[int, int, int]]], seed: int):
    """A textured picture with discs and squares, and their masks."""
    rng = np.random.default_rng(seed)
    noise = Image.fromarray(rng.integers(90, 170, (24, 24, 3), np.uint8))
    image = noise.resize((192, 192), Image.Resampling.BICUBIC)
    mask = Image.new("L", image.size)
    for form, (x, y), color in things:
        box = (x - 26, y - 26, x + 26, y + 26)
        for canvas, fill in ((image, color), (mask, 1)):
            draw = ImageDraw.Draw(canvas)
            (draw.ellipse if form == "disc" else draw.rectangle)(box, fill=fill)
    return image, np.asarray(mask)


RED, BLUE = (205, 40, 40), (40, 60, 200)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.from_pretrained(device="cpu")


@pytest.fixture(scope="module")
def answer(predictor):
    """Two examples, of which one has a disc and a square, and the answer for other discs."""
    image, mask = scene([("disc", (50, 60), RED), ("square", (140, 120), BLUE)], 0)
    other, _ = scene([], 1)
    examples = [Example(image, mask), Example(other, np.zeros((192, 192), np.uint8))]
    query, truth = scene([("disc", (120, 70), RED)], 2)
    result = predictor.predict(query, predictor.prompt(examples))
    both = (result.mask(1) & (truth == 1)).sum() / (result.mask(1) | (truth == 1)).sum()
    assert both > 0.6
    return examples, result


def test_a_mask_is_voted_for_by_what_it_resembles(predictor, answer):
    examples, result = answer
    evidence = predictor.evidence(result, examples, 1)
    assert evidence.support > 0.5
    assert evidence.shares == pytest.approx((1, 0), abs=1e-6)
    for x, y, _ in evidence.places(0, 8):
        assert np.hypot(x - 50, y - 60) < 36  # of the disc, not of the square
    assert evidence.places(1) == []
    assert sum(share for *_, share in evidence.places(0, 10_000)) == pytest.approx(1)
    heat = np.asarray(evidence.overlay(0)).astype(int)
    assert heat.shape == (192, 192, 3)
    x, y, _ = evidence.places(0)[0]
    assert heat[y, x, 0] > heat[120, 140, 0] + 50


def test_a_pixel_is_voted_for_by_what_it_resembles(predictor, answer):
    examples, result = answer
    inside = predictor.evidence(result, examples, 1, at=(120, 70))
    outside = predictor.evidence(result, examples, 1, at=(20, 170))
    assert inside.support > 0.6 > 0.3 > outside.support
    x, y, _ = inside.places(0)[0]
    assert np.hypot(x - 50, y - 60) < 36


def test_erasing_the_named_places_changes_the_answer_more(predictor, answer):
    """Than erasing as many others of the object."""
    examples, result = answer
    votes = predictor.evidence(result, examples, 1).votes[0]
    rows, columns = votes.shape
    ids = examples[0].labels.ids
    object_places = [
        at for at in votes.ravel().argsort()[::-1].tolist()
        if (ids[np.ix_(*_pixels(at, rows, columns))] == 1).all()
    ]  # fmt: skip
    count = len(object_places) // 3
    changes = []
    for erased in (object_places[:count], object_places[-count:]):
        labels = ids.astype(np.int32)
        for at in erased:
            labels[np.ix_(*_pixels(at, rows, columns))] = 255
        changed = [Example(examples[0].image, labels, ignore=255), examples[1]]
        again = predictor.predict(result.image, predictor.prompt(changed))
        difference = np.abs(again.painting.astype(int) - result.painting).mean(2)
        changes.append(difference[result.mask(1)].mean())
    assert changes[0] > 1.5 * changes[1]


def _pixels(at: int, rows: int, columns: int) -> tuple[range, range]:
    row, column, high, wide = at // columns, at % columns, 192 / rows, 192 / columns
    return (
        range(round(row * high), round((row + 1) * high)),
        range(round(column * wide), round((column + 1) * wide)),
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(predictor, answer, dtype):
    examples, result = answer
    half = Predictor.from_pretrained(device="cpu", dtype=dtype)
    one, other = (p.evidence(result, examples, 1) for p in (predictor, half))
    assert other.support == pytest.approx(one.support, abs=0.02)
    assert np.abs(one.votes - other.votes).max() < 0.01


def test_votes_of_the_pass_that_paints_the_id(model):
    """Which cells are kept of many examples depends on the ids of a pass."""
    predictor = Predictor(model)
    rng = np.random.default_rng(0)
    examples = [
        Example(rng.integers(0, 255, (64, 64, 3), np.uint8),
                rng.integers(0, 7, (8, 8)).repeat(8, 0).repeat(8, 1))
        for _ in range(3)
    ]  # fmt: skip
    result = predictor.predict(examples[0].image, predictor.prompt(examples))
    for index in (1, 6):
        seen = []
        original = predictor.model.build_voters

        def build(features, labels, valid, *rest, seen=seen, original=original):
            seen.append(labels)
            return original(features, labels, valid, *rest)

        predictor.model.build_voters = build
        predictor.evidence(result, examples, index, at=(5, 5))
        made = len(seen)
        predictor.prompt(examples)
        predictor.model.build_voters = original
        assert any(torch.equal(seen[0], labels) for labels in seen[made:])


def test_what_is_refused(predictor, answer):
    examples, result = answer
    for options, text in (
        ({"index": 2}, r"no id 2 in the examples; accepted: \[1\]"),
        (
            {"index": 1, "at": (192, 0)},
            r"at=\(192, 0\) is no pixel of the image; accepted: 0 … 191",
        ),
        ({"index": 1, "at": (1.5, 0)}, r"at=\(1.5, 0\) is no pixel"),
        ({"index": 1, "thin_to": 0}, "thin_to is 0"),
    ):
        with pytest.raises(InputError, match=text):
            predictor.evidence(result, examples, **options)
    empty = predictor.predict(scene([], 3)[0], predictor.prompt(examples), min_presence=1.0)
    assert not empty.mask(1).any()
    with pytest.raises(InputError, match="id 1 has no mask here; pass a pixel"):
        predictor.evidence(empty, examples, 1)
    small = Predictor.from_pretrained("incontext-small", device="cpu")
    with pytest.raises(InputError, match="whose examples vote, such as incontext-votes"):
        small.evidence(result, examples, 1)
