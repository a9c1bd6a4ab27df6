"""Tuning: the model is left alone, noise is called noise, a killed run goes on."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from incontext import Example, InputError, Predictor
from incontext.checkpoints.checkpoint import load
from incontext.evaluation.confusion import miou
from incontext.evaluation.labelled_set import LabelledSet
from incontext.model import SIZES, SegGPT, assemble
from incontext.tuning.baselines import capped_examples
from incontext.tuning.run import split
from incontext.tuning.settings import Settings
from incontext.tuning.tune import freeze, tune
from incontext.tuning.tuner import Tuner
from tests.model.test_voting import assembled

QUICK = Settings(steps=6, evaluations=3, examples=3)


def weights_hash(predictor):
    parts = (x.numpy().tobytes() for _, x in sorted(predictor.model.state_dict().items()))
    return hashlib.sha256(b"".join(parts)).hexdigest()


def scene(rng, noise=False, ids=1):
    """A bright disc on a dark ground for each id, or labels that have nothing to do with it."""
    rows, columns = np.mgrid[:32, :32]
    picture = rng.integers(0, 60, (32, 32, 3))
    labels = np.zeros((32, 32), np.uint8)
    for index in range(1, ids + 1):
        row, column = rng.integers(6, 26, 2)
        inside = (rows - row) ** 2 + (columns - column) ** 2 < 25
        picture[inside] = picture[inside] / 2 + 150 * np.eye(3)[index % 3]
        labels[inside] = index
    if noise:
        labels = (rng.random((32, 32)) < 0.3).astype(np.uint8)
    return Example(picture.astype(np.uint8), labels)


def pool_of(count, seed=0, **options):
    rng = np.random.default_rng(seed)
    return LabelledSet.from_examples([scene(rng, **options) for _ in range(count)], 32)


@pytest.fixture(scope="module", params=["joint", "independent", "votes"])
def predictor(request):
    if request.param == "votes":
        return Predictor(assembled(), name="toy")
    torch.manual_seed(0)
    config = SIZES["tiny"] if request.param == "joint" else SIZES["small"]
    small = {} if request.param == "joint" else {"embed_dim": 24, "stem": (8, 8, 8), "depth": 4,
                                                 "taps": (2, 3), "copy_dim": 8}  # fmt: skip
    return Predictor(SegGPT(replace(config, image_size=32, **small)), name="toy")


@pytest.mark.parametrize("space", ["tokens", "pixels"])
def test_only_the_prompt_is_learned(predictor, space):
    """The weights stay, bit for bit."""
    before = weights_hash(predictor)
    wanted = [p.requires_grad for p in predictor.model.parameters()]
    outcome = tune(predictor, pool_of(12, ids=2), settings=replace(QUICK, space=space))
    assert weights_hash(predictor) == before
    assert [p.requires_grad for p in predictor.model.parameters()] == wanted
    assert all(p.grad is None for p in predictor.model.parameters())
    assert [step for _, step, _, _ in outcome.curve] == [0, 2, 4, 6]
    assert outcome.tuned_prompt.ids == (1, 2)
    assert outcome.tuned_prompt.model_name == "toy"
    assert outcome.tuned_prompt.provenance["by"] == "tune"


@pytest.mark.parametrize("space", ["tokens", "pixels"])
@pytest.mark.slow
def test_the_loss_falls(predictor, space):
    """On the very same queries and colorings, before and after."""
    pool = pool_of(6)
    settings = replace(QUICK, space=space, steps=60, learning_rate=0.1, evaluations=1)
    with freeze(predictor):
        tuner = Tuner(predictor, pool, pool, "semantic", settings)
        still = Tuner(predictor, pool, pool, "semantic", replace(settings, learning_rate=1e-9))
        before = [still.train_step() for _ in range(8)]
        tuner.run()
        still.set_values(tuner.average)
        still.step = 0
        after = [still.train_step() for _ in range(8)]
    assert all(np.less(after, before))


@pytest.mark.slow
def test_votes_are_tuned_to_one_kind_of_disc():
    """Of discs in four colors one color counts; the bundled checkpoint at a small size.

    Of three colors it tells the right one without tuning (mIoU 90), which leaves little to gain.
    """
    bundled = load("incontext-votes")
    model = assemble(replace(bundled.config, image_size=64))
    model.load_state_dict(bundled.state_dict())
    pools = []
    for seed, count in ((0, 6), (1, 12)):
        rng = np.random.default_rng(seed)
        drawn = [scene(rng, ids=4) for _ in range(count)]
        pools.append(
            LabelledSet.from_examples([Example(e.image, e.labels.ids == 1) for e in drawn], 64)
        )
    predictor = Predictor(model)
    with freeze(predictor):
        settings = replace(QUICK, steps=20, learning_rate=0.1, evaluations=1, examples=1)
        tuner = Tuner(predictor, *pools, "semantic", settings)
        tuner.run()
    before, after = (float(miou(counts)) for _, _, counts in tuner.history)
    assert after > before + 10


def test_a_tuned_prompt_of_votes_is_small():
    """One id, sixteen examples: no more than a whole example and a quarter, in float16."""
    predictor = Predictor(load("incontext-votes"))
    example = predictor.prompt(pool_of(1).example(0), half=True)
    pool = LabelledSet.from_examples(
        [scene(np.random.default_rng(i)) for i in range(16)], predictor.size
    )
    prompt = Tuner(predictor, pool, pool, "semantic", Settings()).prompt()
    assert prompt.examples == 16
    assert prompt.nbytes < min(1.26 * example.nbytes, 2e6)


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_result(predictor, tmp_path):
    pool = pool_of(8)
    whole = tune(predictor, pool, settings=QUICK)

    class KilledError(Exception):
        pass

    for calls in (2, 8, 3, 3):  # before any state, and twice between two states
        left = iter(range(calls))

        def on_progress(what, done, total, left=left):
            if next(left, None) is None:
                raise KilledError

        with pytest.raises(KilledError):
            tune(predictor, pool, tmp_path, settings=QUICK, on_progress=on_progress)
    again = tune(predictor, pool, tmp_path, settings=QUICK)
    np.testing.assert_equal(again.curve, whole.curve)  # no loss yet at step 0: NaN
    assert again.comparison == whole.comparison
    mine, theirs = (o.tuned_prompt._tensors() for o in (again, whole))
    assert all(np.array_equal(mine[name], theirs[name]) for name in theirs)
    # Finished: nothing is done anew.
    heard = []
    tune(predictor, pool, tmp_path, settings=QUICK, on_progress=lambda *a: heard.append(a))
    assert not heard
    with pytest.raises(InputError, match=r"other settings \(learning_rate, steps\)"):
        tune(predictor, pool, tmp_path, settings=replace(QUICK, steps=8, learning_rate=0.5))
    (tmp_path / "state.pt").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(InputError, match="damaged state"):
        tune(predictor, pool, tmp_path, settings=QUICK)


@pytest.mark.slow
def test_noise_is_not_learned(predictor):
    """Labels that nothing in the pictures tells: the verdict says so and names what to use."""
    rng = np.random.default_rng(0)
    pool = LabelledSet.from_examples([scene(rng, noise=True) for _ in range(14)], predictor.size)
    outcome = tune(predictor, pool, settings=replace(QUICK, steps=40, learning_rate=0.1))
    comparison = outcome.comparison
    assert not comparison.improves
    assert "Use " + comparison.best in comparison.lines()[-1]
    assert outcome.prompt.provenance["used"] == comparison.best
    assert outcome.prompt is not outcome.tuned_prompt


@pytest.mark.parametrize("count", [2, 3, 9])
@pytest.mark.slow
def test_few_pictures_are_cross_validated(predictor, count):
    """Each is judged once by a prompt that did not learn from it, and all are learned from."""
    pool = pool_of(count)
    folds = split(pool, 0)
    assert sorted(i for _, held in folds for i in held) == list(range(count))
    assert all(not set(learn) & set(held) for learn, held in folds)
    outcome = tune(predictor, pool, settings=replace(QUICK, steps=4, evaluations=2))
    assert outcome.comparison.held_out == count
    assert len(outcome.dataset) == count


@pytest.mark.slow
def test_few_pictures_with_ids_of_their_own(predictor):
    """Folds that show different ids are judged under the same names."""
    rng = np.random.default_rng(0)
    examples = [scene(rng) for _ in range(4)] + [scene(rng, ids=3) for _ in range(2)]
    outcome = tune(predictor, examples, settings=replace(QUICK, steps=4, evaluations=2))
    assert outcome.comparison.held_out == 6
    assert outcome.tuned_prompt.ids == (1, 2, 3)
    assert {len(curve) for curve in outcome.baseline_examples.values()} <= set(range(1, 7))


@pytest.mark.parametrize(("showing", "empty"), [(2, 7), (2, 12), (12, 9)])
def test_pictures_without_an_object_are_shared_out(showing, empty):
    """Every part to learn from and every part to judge by shows an object."""
    rng = np.random.default_rng(0)
    examples = [scene(rng) for _ in range(showing)]
    examples += [Example(scene(rng).image, np.zeros((32, 32))) for _ in range(empty)]
    pool = LabelledSet.from_examples(examples, 32)
    there = set(pool.indices_with_objects())
    for seed in range(4):
        folds = split(pool, seed)
        assert all(there & set(learn) and there & set(held) for learn, held in folds)
        if len(folds) > 1:
            assert sorted(i for _, held in folds for i in held) == list(range(len(pool)))


def test_unknown_pictures_do_not_shift_numbers(predictor):
    """What all of which is unknown is left out; numbers go with the pool of the outcome."""
    rng = np.random.default_rng(0)
    blank = Example(scene(rng).image, np.full((32, 32), 9), ignore=9)
    outcome = tune(predictor, [blank, *(scene(rng) for _ in range(3))],
                   settings=replace(QUICK, steps=2, evaluations=1))  # fmt: skip
    assert outcome.dataset.sources == ("example 2", "example 3", "example 4")
    assert max(i for shown in outcome.baseline_examples.values() for i in shown) == 2


def test_all_examples_show_every_id():
    """Of more pictures than can be shown, rare ids are among those that are."""
    rng = np.random.default_rng(0)
    pool = LabelledSet.from_examples([scene(rng) for _ in range(80)] + [scene(rng, ids=2)], 32)
    some = capped_examples(pool, np.random.default_rng(0))
    assert len(some) == 64
    assert 80 in some


def test_every_id_is_learned():
    """One picture alone shows id 3: it is not held out."""
    rng = np.random.default_rng(0)
    examples = [scene(rng, ids=2) for _ in range(15)] + [scene(rng, ids=3)]
    pool = LabelledSet.from_examples(examples, 32)
    for seed in range(5):
        [(learn, held)] = split(pool, seed)
        assert 15 in learn
        assert len(held) == 4


def test_passes_negative_and_unknown(predictor):
    """Six ids take two paintings; negative and unknown pixels take part."""
    rng = np.random.default_rng(0)
    examples = []
    for _ in range(4):
        one = scene(rng, ids=7)
        ids = one.labels.ids.copy()
        ids[:3] = -1
        marked = np.where(ids == -1, 255, ids)
        examples.append(Example(one.image, marked, ignore=255, negative=7))
    pool = LabelledSet.from_examples(examples, 32)
    with freeze(predictor):
        tuner = Tuner(predictor, pool, pool, "semantic", replace(QUICK, steps=2))
        assert [len(c.ids) for c in tuner.colorings] == [3, 3]
        tuner.run()
        prompt = tuner.prompt()
    result = predictor.predict(examples[0].image, prompt)
    assert set(result.presence) == set(range(1, 7))


def test_tuned_prompts_travel(predictor, tmp_path):
    """Saved and loaded they say the same; another checkpoint is refused, by name."""
    outcome = tune(predictor, pool_of(10), settings=QUICK)
    path = outcome.tuned_prompt.save(tmp_path / "scene.safetensors")
    prompt = predictor.load_prompt(path)
    query = scene(np.random.default_rng(9)).image
    assert prompt.provenance == outcome.tuned_prompt.provenance
    one, other = (predictor.predict(query, p) for p in (prompt, outcome.tuned_prompt))
    assert np.array_equal(one.labels, other.labels)
    torch.manual_seed(1)
    stranger = Predictor(assemble(predictor.model.config), name="another")
    with pytest.raises(InputError, match=r"made with another checkpoint \(toy, .*this is another"):
        stranger.load_prompt(path)


@pytest.mark.parametrize("space", ["tokens", "pixels"])
def test_any_coloring(predictor, space):
    """Learned values go with other colors; the default ones give the tuned prompt again."""
    outcome = tune(predictor, pool_of(10, ids=2), settings=replace(QUICK, space=space))
    [part] = outcome.tuned_prompt.passes
    default = dict(zip(part.coloring.ids, part.coloring.colors, strict=True))
    same = outcome.recolor(default)._tensors()
    theirs = replace(outcome.tuned_prompt, thumbnail=None)._tensors()
    assert all(torch.equal(same[name], x) for name, x in theirs.items())
    other = outcome.recolor({1: (0, 0, 255), 2: (255, 255, 0)})
    assert other.passes[0].coloring.colors == ((0, 0, 255), (255, 255, 0))
    changed = other._tensors()
    assert any(not torch.equal(changed[name], x) for name, x in theirs.items())
    with pytest.raises(InputError, match="lacks a color for id 2"):
        outcome.recolor({1: (0, 0, 255)})


def test_one_run_at_a_time(predictor, tmp_path):
    """Killed and started again while the first is still there: said, not mixed up."""

    def on_progress(what, done, total):
        with pytest.raises(InputError, match="another run is using"):
            tune(predictor, pool_of(4), tmp_path, settings=QUICK)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(predictor, pool_of(4), tmp_path, settings=QUICK, on_progress=on_progress)
    tune(predictor, pool_of(4), tmp_path, settings=replace(QUICK, steps=2, evaluations=1))


def test_refused(predictor):
    for settings in ({"space": "time"}, {"steps": 0}, {"learning_rate": -1.0}):
        with pytest.raises(InputError):
            Settings(**settings)
    with pytest.raises(InputError, match="needs two or more"):
        tune(predictor, pool_of(1))
    half = Predictor(SegGPT(SIZES["tiny"]), dtype=torch.bfloat16)
    with pytest.raises(InputError, match="float32"):
        tune(half, pool_of(3))
    with pytest.raises(InputError, match="kind"):
        tune(predictor, pool_of(3), kind="thing")
