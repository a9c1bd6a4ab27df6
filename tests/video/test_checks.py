"""Checks of cycle consistency: few, none of them too late, and what they found stays."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from incontext.errors import InputError
from incontext.inference.example import Example
from incontext.inference.predictor import Predictor
from incontext.inference.segmentation import Segmentation
from incontext.labels.encodings import Labels
from incontext.video.checks import Check, MaskSummary
from incontext.video.memory import Memory
from incontext.video.policies import CycleConsistencyPolicy
from tests.video.test_memory import answer, filled, frame, labels, made

RED = (220, 60, 60)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return made("votes")


def lenient(**options) -> CycleConsistencyPolicy:
    """A policy that remembers what it checks, whatever the check finds."""
    return CycleConsistencyPolicy(4, back=1e-9, absent=0, **options)


def observed(memory: Memory, boxes: dict[int, int]) -> dict[int, bool]:
    """Observe a box at these left sides, by frame; returns whether each frame was checked."""
    return {
        index: memory.observe(index, frame(index), answer(labels((1, left)))).check is not None
        for index, left in boxes.items()
    }


def test_few_frames_are_checked_while_nothing_changes(predictor):
    memory = filled(predictor, lenient(interval=4))
    checked = observed(memory, {index: index for index in range(1, 13)})
    assert [index for index, yes in checked.items() if yes] == [1, 5, 9] == [
        kept.index for kept in memory.recent
    ]  # fmt: skip
    every = filled(predictor, lenient(interval=1))
    assert all(observed(every, {index: index for index in range(1, 5)}).values())


def test_what_a_check_found_stands_until_the_next(predictor):
    memory = filled(predictor, lenient())
    first = memory.observe(1, frame(1), answer(labels((1, 5))))
    second = memory.observe(2, frame(2), answer(labels((1, 6))))
    assert first.check
    assert second.check is None
    assert second.trust == first.trust != {}


@pytest.mark.parametrize("change", ["grows", "shrinks", "jumps", "goes", "worse", "another"])
def test_a_change_is_checked_at_once(predictor, change):
    def result(ids: Labels, quality: float = 0.8) -> Segmentation:
        return replace(answer(ids), quality={1: quality})

    memory = filled(predictor, lenient())
    assert memory.observe(1, frame(1), result(labels((1, 5)))).check
    assert memory.observe(2, frame(2), result(labels((1, 7)), 0.75)).check is None
    small = Labels(np.where(np.arange(30)[:, None] < 15, labels((1, 7)).ids, 0))
    later = {
        "grows": result(labels((1, 7), (1, 14))), "shrinks": result(small),
        "jumps": result(labels((1, 20))), "goes": result(labels()),
        "worse": result(labels((1, 7)), 0.6),
        "another": replace(result(labels((1, 7))), presence={1: 1.0, 2: 0.0}),
    }  # fmt: skip
    assert memory.observe(3, frame(3), later[change]).check


@pytest.mark.parametrize("change", ["annotate", "remove", "forget_recent"])
def test_a_check_ends_with_the_examples_that_it_was_made_with(predictor, change):
    memory = Memory(predictor, lenient(), "instance")
    memory.annotate(0, Example.from_labels(frame(0), labels((1, 5), (2, 20))))
    memory.prompt()
    assert observed(memory, {1: 5, 2: 5}) == {1: True, 2: False}
    if change == "annotate":
        memory.annotate(2, Example.from_labels(frame(2), labels((1, 5))))
    elif change == "remove":
        memory.remove(2)
    else:
        memory.forget_recent()
    memory.prompt()
    assert observed(memory, {3: 5}) == {3: True}


def test_a_lost_object_stays_erased_between_checks():
    predictor = Predictor.from_pretrained()
    memory = Memory(predictor, CycleConsistencyPolicy(4), "instance")
    picture = np.full((60, 80, 3), (40, 90, 40), np.uint8)
    picture[20:40, 20:40] = RED
    inside = np.all(picture == RED, -1).astype(np.int32)
    memory.annotate(0, Example.from_labels(Image.fromarray(picture), Labels(inside)))
    memory.prompt()
    astray = answer(Labels(np.roll(inside, 25, 1)))
    decisions = [memory.observe(i, Image.fromarray(picture), astray) for i in (1, 2, 3)]
    assert [decision.check is not None for decision in decisions] == [True, False, False]
    for decision in decisions:
        assert not decision.result.labels.any()
        assert decision.result.presence[1] == decision.trust[1] < 0.2
        assert decision.labels is None


def test_a_restored_memory_goes_on_alike(predictor):
    boxes = {index: 2 * index for index in range(1, 12)}
    whole = filled(predictor, lenient())
    expected = observed(whole, boxes)
    for stop in range(1, 11):
        first, second = filled(predictor, lenient()), filled(predictor, lenient())
        observed(first, {i: left for i, left in boxes.items() if i <= stop})
        second.restore(first.state())
        assert second.last_check == first.last_check
        rest = {i: left for i, left in boxes.items() if i > stop}
        assert observed(second, rest) == {i: expected[i] for i in rest}
        np.testing.assert_equal(second.state(), whole.state())


def test_a_check_comes_back_from_its_array():
    masks = {1: MaskSummary(0.1, 0.3, 0.7, 0.9), 5: MaskSummary()}
    check = Check(12, masks, {1: 0.75})
    assert Check.from_array(check.to_array()) == check


def test_summary_of_a_mask():
    ids = np.zeros((10, 20), np.int32)
    ids[2:6, 4:14] = 1
    result = replace(answer(labels((1, 5))), labels=ids, quality={1: 0.8})
    summary = MaskSummary.from_result(result, 1)
    assert (summary.area, summary.quality) == (0.2, 0.8)
    assert (summary.y, summary.x) == pytest.approx((3.5 / 200**0.5, 8.5 / 200**0.5))
    assert MaskSummary.from_result(result, 2) == MaskSummary()


def test_a_move_counts_alike_in_both_directions():
    """In a frame twice as wide as high: just less than half of the object's side, and just more."""
    ids = np.zeros((40, 80), np.int32)
    ids[10:20, 30:40] = 1
    result = replace(answer(labels((1, 5))), labels=ids, quality={1: 0.8})
    before = MaskSummary.from_result(result, 1)
    for axis in (0, 1):
        for pixels, expected in ((4, False), (6, True)):
            moved = replace(result, labels=np.roll(ids, pixels, axis))
            assert MaskSummary.from_result(moved, 1).differs(before) == expected


def test_the_prompt_is_joined_again_only_after_a_change(predictor):
    memory = filled(predictor, lenient())
    observed(memory, {1: 5})
    before = memory.prompt().passes
    observed(memory, {2: 5})
    assert memory.prompt().passes is before
    observed(memory, {5: 5})
    assert memory.prompt().passes is not before
    assert memory.prompt().examples == 3


@pytest.mark.parametrize("interval", [0, 1.5, True])
def test_bad_interval(interval):
    with pytest.raises(InputError, match="interval is"):
        CycleConsistencyPolicy(4, interval=interval)
