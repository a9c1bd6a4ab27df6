"""The doctor: bad masks, near-duplicates, confused and small ids, and what it predicts."""

import numpy as np
import pytest
import torch
from PIL import Image

from incontext import Example, InputError, Predictor
from incontext.evaluation.diagnostics import (
    confusions,
    discount_missing_ids,
    example_effects,
    near_duplicates,
    predicted_curve,
    small_ids,
)
from incontext.evaluation.doctor import examine
from incontext.evaluation.doctor_report import report_lines, report_page
from incontext.evaluation.episodes import (
    Episode,
    EpisodeRunner,
    candidate_subsets,
    covering_subset,
    evaluate,
    plan_leave_one_out,
)
from incontext.evaluation.labelled_set import LabelledSet
from incontext.model import SIZES, SegGPT


def disc(rng, size=96, center=None):
    """A bright disc on a dark ground, and its mask."""
    rows, columns = np.mgrid[:size, :size]
    row, column = center or rng.integers(24, size - 24, 2)
    inside = (rows - row) ** 2 + (columns - column) ** 2 < 300
    picture = rng.integers(0, 60, (size, size, 3)) + np.linspace(0, 60, size)[:, None].astype(int)
    picture[inside] += 120
    return picture.astype(np.uint8), inside.astype(np.uint8)


def pool_of(count, ids=1, size=16):
    """Pictures that all show every id."""
    rng = np.random.default_rng(0)
    examples = []
    for _ in range(count):
        labels = np.zeros((64, 64), np.uint8)
        for index in range(1, ids + 1):
            labels[8 * index : 8 * index + 8] = index
        examples.append(Example(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8), labels))
    return LabelledSet.from_examples(examples, size, sources=[f"p{i}" for i in range(count)])


@pytest.fixture(scope="module")
def diagnosis():
    """Six discs and a twin of the first; the fifth has the mask of another picture."""
    rng = np.random.default_rng(1)
    drawn = [disc(rng) for _ in range(6)]
    examples = [Example(picture, mask) for picture, mask in drawn]
    examples[4] = Example(drawn[4][0], np.roll(drawn[4][1], (40, 40), (0, 1)))
    examples.append(Example(np.clip(drawn[0][0].astype(int) + 2, 0, 255).astype(np.uint8),
                            drawn[0][1]))  # fmt: skip
    predictor = Predictor.from_pretrained()
    heard = []
    pool = LabelledSet.from_examples(examples, predictor.size, names={1: "disc <b>"})
    found = examine(predictor, pool, on_progress=lambda *a: heard.append(a))
    assert heard[-1][0] <= heard[-1][1]
    return found


@pytest.mark.slow
def test_a_bad_mask_is_named(diagnosis):
    assert [e.source for e in diagnosis.harmful] == ["example 5"]
    assert diagnosis.harmful[0].why == "mask"
    assert diagnosis.order[0] == 4
    assert "example 5" not in diagnosis.best


@pytest.mark.slow
def test_the_report_says_it(diagnosis, tmp_path):
    text = "\n".join(report_lines(diagnosis))
    assert "example 5 hurts: its mask looks wrong" in text
    assert diagnosis.without_harmful.value > max(v.value for v in diagnosis.curve.values())
    assert f"without those that hurt {diagnosis.without_harmful}" in text
    assert "7 examples, 1 of them hurt" in repr(diagnosis)
    assert "example 1 and example 7 are nearly the same picture." in text, text
    assert "1 example " in text
    assert "7 examples" in text
    html = report_page(diagnosis, str(tmp_path / "a" / "report.html")).read_text(encoding="utf-8")
    assert html.count("<figure") == 7
    assert html.count('class="bad"') == 1
    assert html.count("data:image/jpeg;base64,") == 7
    assert "http" not in html.replace("http-equiv", "")


def test_twins_are_not_shown_to_each_other():
    trials, whole = plan_leave_one_out(6, list(range(6)), np.random.default_rng(0), {(1, 4)})
    assert not any({t.query, *t.examples} >= {1, 4} and t.query in (1, 4) for t in trials)
    assert set(trials[whole[1]].examples) == {0, 2, 3, 5}
    assert set(trials[whole[0]].examples) == {1, 2, 3, 4, 5}
    assert all(t.query not in t.examples for t in trials)
    assert {len(t.examples) for t in trials} == {1, 2, 4, 5}


def test_effects_are_recovered():
    """From trials whose mIoU is a query's level plus the mean effect of what is shown."""
    rng = np.random.default_rng(0)
    pool = pool_of(8)
    trials, whole = plan_leave_one_out(8, list(range(8)), rng, set())
    level, effect = rng.uniform(45, 55, 8), np.zeros(8)
    effect[3], level[3] = -30, 10  # a wrong mask
    effect[6] = -20  # unlike the others
    values = [level[t.query] + effect[list(t.examples)].mean() for t in trials]
    counts = np.array([[[0, 0], [1000 - round(10 * v), round(10 * v)]] for v in values])
    found, order = example_effects(pool, trials, counts)
    assert order[:2] == [3, 6]
    assert [(e.source, e.why) for e in found if e.why] == [("p3", "mask"), ("p6", "unlike")]
    assert found[0].gain == pytest.approx(-30, abs=4)
    predicted = predicted_curve(trials, whole, counts, 8, 8)
    assert sorted(predicted) == [1, 2, 4, 8]
    assert np.mean(values) in predicted[2]


def test_a_rare_id_is_not_blamed():
    """A model without fault: examples fail only where they do not show what is asked for."""
    rng = np.random.default_rng(0)
    examples = []
    for number in range(11):
        labels = np.zeros((64, 64), np.uint8)
        labels[8:24] = 2 if number > 8 else 1  # nine of one id, two of another
        examples.append(Example(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8), labels))
    pool = LabelledSet.from_examples(examples, 16)
    trials, _ = plan_leave_one_out(11, list(range(11)), rng, set())
    index = [2 if n > 8 else 1 for n in range(11)]
    counts = np.zeros((len(trials), 3, 3), int)
    for n, trial in enumerate(trials):
        right = any(index[i] == index[trial.query] for i in trial.examples)
        counts[n, index[trial.query], index[trial.query] if right else 0] = 100
    found, _ = example_effects(pool, trials, discount_missing_ids(pool, trials, counts))
    assert not any(e.why for e in found)


def test_pictures_without_an_object_are_asked():
    """They are no examples, but what is painted on them counts against the prediction."""
    torch.manual_seed(0)
    predictor = Predictor(SegGPT(SIZES["tiny"]))
    rng = np.random.default_rng(0)
    examples = [Example(*disc(rng)) for _ in range(4)]
    examples += [Example(disc(rng)[0], np.zeros((96, 96), np.uint8)) for _ in range(2)]
    found = examine(predictor, examples)
    assert found.given_count == found.examined_count == 6
    assert max(found.curve) == 4
    assert len(found.effects) == 4


def test_one_picture_of_each_id():
    """No smaller set has every id: all examples are proposed."""
    torch.manual_seed(0)
    predictor = Predictor(SegGPT(SIZES["tiny"]))
    rng = np.random.default_rng(0)
    examples = [Example(p, m * index) for index in (1, 2, 3) for p, m in [disc(rng)]]
    found = examine(predictor, examples)
    assert len(found.best) == 3
    assert found.best_gain.value == 0


@pytest.mark.parametrize("count", [3, 4, 6])
def test_joint_attention(count):
    torch.manual_seed(0)
    predictor = Predictor(SegGPT(SIZES["tiny"]))
    rng = np.random.default_rng(0)
    assert examine(predictor, [Example(*disc(rng)) for _ in range(count)]).curve


def test_confused_ids():
    pool = pool_of(2, ids=3)
    total = np.diag([100, 60, 80, 90])
    total[1, 2], total[2, 0], total[3, 1] = 40, 20, 5
    assert confusions(pool, total) == [(1, 2, 0.4)]


def test_small_ids():
    """Strips of 8 of 64 rows are 2 of 16: 32 pixels."""
    pool = pool_of(2, ids=2)
    assert small_ids(pool, 30) == []
    assert small_ids(pool, 64) == [(1, 32.0, 512.0), (2, 32.0, 512.0)]


def test_twins_with_other_masks():
    """Two small masks apart agree on most pixels, but not on what they mark."""
    rng = np.random.default_rng(0)
    picture, mask = disc(rng)
    other = disc(np.random.default_rng(5))
    moved = np.roll(mask, 40, 0)
    examples = [Example(picture, mask), Example(*other), Example(picture, moved)]
    assert near_duplicates(LabelledSet.from_examples(examples, 32)) == [(0, 2, False)]


def test_covers_and_candidates():
    pool = pool_of(5, ids=2)
    assert covering_subset(pool, [3, 1, 0]) == [3]
    assert covering_subset(pool, [3, 1, 0], 2) == [3, 1]
    sets = candidate_subsets(pool, np.random.default_rng(0))
    assert {len(one) for one in sets} == {1, 4}
    assert all(len(set(one)) == len(one) for one in sets)


def test_trials_equal_prompts_of_the_same_examples():
    """What is encoded once and chosen from paints as if encoded anew."""
    torch.manual_seed(0)
    predictor = Predictor.from_pretrained()
    rng = np.random.default_rng(2)
    pool = LabelledSet.from_examples([Example(*disc(rng)) for _ in range(4)], predictor.size)
    [counts] = EpisodeRunner(predictor, pool).run([Episode(0, (1, 3))])
    prompt = predictor.prompt([pool.example(1), pool.example(3)], half=True)
    [expected] = evaluate(predictor, prompt, pool.subset([0]))
    assert np.abs(counts - expected).max() <= 3


def test_a_fixed_camera(tmp_path):
    """Pictures that are all alike are shown to each other, and one line says so."""
    torch.manual_seed(0)
    predictor = Predictor(SegGPT(SIZES["tiny"]))
    rng = np.random.default_rng(0)
    picture, mask = disc(rng)
    found = examine(predictor, [Example(picture, mask) for _ in range(5)])
    assert sorted(found.curve) == [1, 2, 5]
    text = "\n".join(report_lines(found))
    assert "as from a fixed camera" in text
    assert "nearly the same picture" not in text


def test_too_few():
    predictor = Predictor.from_pretrained()
    rng = np.random.default_rng(0)
    examples = [Example(*disc(rng)), Example(*disc(rng)), Example(disc(rng)[0], np.zeros((96, 96)))]
    with pytest.raises(InputError, match="2 examples show an object"):
        examine(predictor, LabelledSet.from_examples(examples, predictor.size))
    with pytest.raises(InputError, match="no example shows an object"):
        LabelledSet.from_examples([examples[2]], 32)
    with pytest.raises(InputError, match="Example"):
        LabelledSet.from_examples([3], 32)
    mask = np.zeros((96, 96, 3), np.uint8)
    mask[:4] = (200, 0, 0)
    colored = Example(disc(rng)[0], mask)
    with pytest.raises(InputError, match="pass colors"):
        LabelledSet.from_examples([colored], 32)


def test_reports_call_examples_by_their_files(tmp_path):
    """Two files of the same name, and arrays, go by their numbers."""
    mask = np.zeros((16, 16), np.uint8)
    mask[4:12, 4:12] = 1
    paths = [tmp_path / name for name in ("a.png", "twice.png", "more/twice.png")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(mask * 100).save(path)
    examples = [*(Example(path, mask) for path in paths), Example(mask * 100, mask)]
    dataset = LabelledSet.from_examples(examples, 16)
    assert dataset.sources == ("a.png", "example 2", "example 3", "example 4")
    named = LabelledSet.from_examples(examples[:1], 16, sources=["mine"])
    assert named.sources == ("mine",)
