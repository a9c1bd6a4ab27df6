"""Tracks: every way through frames, and what may happen on the way."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from incontext import Example, VideoPredictor
from incontext.errors import InputError
from incontext.inference.predictor import Predictor
from incontext.labels.encodings import Labels
from incontext.model import SIZES, SegGPT
from incontext.video.policies import Decision, MemoryPolicy
from tests.model.test_voting import assembled


class All(MemoryPolicy):
    """Remembers everything as it was answered."""

    def decide(self, image, result, memory):
        return Decision(result, result.labels)


@pytest.fixture(scope="module", params=["tokens", "votes"])
def predictor(request) -> Predictor:
    if request.param == "votes":
        return Predictor(assembled())
    torch.manual_seed(0)
    config = replace(
        SIZES["tiny"], example_attention="independent", relative_position=False,
        stem=(16, 16, 32), stem_blocks=1, copy_heads=2, copy_dim=8,
    )  # fmt: skip
    return Predictor(SegGPT(config))


@pytest.fixture(scope="module")
def video(predictor) -> VideoPredictor:
    return VideoPredictor(predictor, policy=All(2))


def frame(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (30, 40, 3), np.uint8)
    return Image.fromarray(pixels)


FRAMES = [frame(i) for i in range(6)]


def ids(*boxes: tuple[int, int]) -> np.ndarray:
    made = np.zeros((30, 40), np.uint8)
    for index, left in boxes:
        made[8:20, left : left + 10] = index
    return made


ONE = ids((1, 5))


def same(ours, theirs) -> None:
    np.testing.assert_array_equal(ours.labels, theirs.labels)
    np.testing.assert_array_equal(ours.confidence, theirs.confidence)


def test_first_labels_are_the_first_answer(video):
    results = dict(video.track(FRAMES, ONE))
    assert list(results) == list(range(6))
    np.testing.assert_array_equal(results[0].labels, ONE)
    assert results[0].presence == {1: 1.0}
    assert results[0].confidence.min() == 1
    assert results[3].labels.shape == (30, 40)


@pytest.mark.parametrize("attention", ["joint", "independent"])
def test_without_memory_frame_by_frame(predictor, attention):
    """K = 0: the image predictor with the labelled frame as its example."""
    if attention == "joint":
        torch.manual_seed(0)
        predictor = Predictor(SegGPT(SIZES["tiny"]))
    still = predictor.prompt([Example(FRAMES[0], ONE)], kind="instance", views=False)
    for index, result in VideoPredictor(predictor, policy=All(0)).track(FRAMES, ONE):
        if index:
            same(result, predictor.predict(FRAMES[index], still))


def test_sources_give_the_same(video, tmp_path):
    for index, picture in enumerate(FRAMES):
        picture.save(tmp_path / f"{index}.png")
    wanted = dict(video.track(FRAMES, ONE))
    for source in (tmp_path, np.stack([np.asarray(f) for f in FRAMES]), iter(FRAMES)):
        results = dict(video.track(source, ONE))
        assert results.keys() == wanted.keys()
        for index, result in results.items():
            same(result, wanted[index])


def test_slices_of_a_volume(video):
    volume = np.random.default_rng(0).normal(size=(4, 30, 40))
    assert [i for i, _ in video.track(volume, ONE)] == [0, 1, 2, 3]


def test_a_stream_is_read_as_it_is_answered(video):
    taken = []

    def camera():
        for index in range(100):
            taken.append(index)
            yield FRAMES[index % 6]

    track = video.track(camera(), ONE)
    kept = [next(track) for _ in range(3)]
    track.stop()
    assert taken == [0, 1, 2]
    assert [i for i, _ in kept] == [0, 1, 2]
    assert list(track) == []


def test_directions(video):
    def order(**options):
        return [i for i, _ in video.track(FRAMES, {3: ONE}, **options)]

    assert order() == order(direction="both") == [3, 4, 5, 2, 1, 0]
    assert order(direction="forward") == [3, 4, 5]
    assert order(direction="backward") == [3, 2, 1, 0]
    several = video.track(FRAMES, {1: ONE, 4: ONE}, direction="backward")
    assert [i for i, _ in several] == [4, 3, 2, 1, 0]
    assert [i for i, _ in video.track(iter(FRAMES), {3: ONE})] == [3, 4, 5]
    with pytest.raises(InputError, match="not a stream"):
        video.track(iter(FRAMES), {3: ONE}, direction="both")
    with pytest.raises(InputError, match="accepted: auto, forward"):
        order(direction="sideways")


def test_backwards_is_forwards_of_the_turned_video(video):
    turned = dict(video.track(FRAMES[::-1], ONE))
    for index, result in video.track(FRAMES, {5: ONE}, direction="backward"):
        same(result, turned[5 - index])


def test_later_labels_count_from_the_start_where_frames_are_seekable(video, predictor):
    given = {0: ONE, 4: ids((1, 20))}
    still = predictor.prompt(
        [Example(FRAMES[0], ONE), Example(FRAMES[4], given[4])], kind="instance", views=False
    )
    results = dict(VideoPredictor(predictor, policy=All(0)).track(FRAMES, given))
    same(results[2], predictor.predict(FRAMES[2], still))
    np.testing.assert_array_equal(results[4].labels, given[4])
    streamed = dict(VideoPredictor(predictor, policy=All(0)).track(iter(FRAMES), given))
    same(streamed[5], results[5])


def test_an_object_that_comes_up_later(video):
    """Ids of later frames; where the labels are unknown the prediction stands."""
    late = ids((2, 25))
    results = dict(
        video.track(iter(FRAMES), {0: ONE, 3: late}, unlabelled="unknown", names={2: "late"})
    )
    assert results[2].presence.keys() == {1}
    assert results[5].presence.keys() == {1, 2}
    assert results[5].names[2] == "late"
    assert (results[3].labels[late > 0] == 2).all()


def test_add_correct_remove(video):
    track = video.track(FRAMES, ONE)
    next(track)
    next(track)
    answered = track.add(2, ids((1, 25)) > 0, "second")
    assert (answered.labels[8:20, 25:35] == 2).all()
    index, result = next(track)
    assert index == 2
    assert result.presence.keys() == {1, 2}
    assert result.names == {1: "1", 2: "second"}
    corrected = track.correct(ids((1, 0), (2, 14)))
    np.testing.assert_array_equal(corrected.labels, ids((1, 0), (2, 14)))
    assert sorted(track.memory.annotated) == [0, 1, 2]
    next(track)
    track.remove(1)
    index, result = next(track)
    assert (index, set(result.presence)) == (4, {2})
    assert set(np.unique(result.labels)) <= {0, 2}


def test_given_labels_forget_what_was_removed(video):
    track = video.track(FRAMES, {0: ids((1, 5), (2, 22)), 2: ids((1, 6), (2, 22))})
    next(track)
    track.remove(2)
    results = dict(track)
    assert set(np.unique(results[2].labels)) == {0, 1}
    assert results[2].presence.keys() == {1}
    only = video.track(FRAMES, ONE)
    next(only)
    with pytest.raises(InputError, match="all there is to look for"):
        only.remove(1)
    assert len(list(only)) == 5


def test_backward_without_labels_begins_at_the_end(video):
    others = [Example(frame(20), ids((4, 5)))]
    track = video.track(FRAMES, examples=others, direction="backward")
    assert [i for i, _ in track] == [5, 4, 3, 2, 1, 0]


def test_labels_of_the_wrong_shape_or_kind(video):
    with pytest.raises(InputError, match="the frame is"):
        video.track(FRAMES, Labels(np.ones((5, 7), np.int32)))
    red = np.zeros((30, 40, 3), np.uint8)
    red[8:20, 5:15] = (255, 0, 0)
    with pytest.raises(InputError, match="which is which is unknown"):
        video.track(FRAMES, red, examples=[Example(frame(20), ONE)])
    # Colors of the examples hold for frames, too.
    blue = np.roll(red, 2, 2)
    shown = [Example(frame(20), np.where(np.arange(40)[None, :, None] < 10, red, blue))]
    results = dict(video.track(FRAMES, red, examples=shown))
    assert results[0].labels.max() == 2  # blue is 1, by ascending (r, g, b)


def test_options_that_are_none(video):
    with pytest.raises(TypeError, match="rule of memory"):
        video.track(FRAMES, ONE, keep=0)
    assert [i for i, _ in video.track(FRAMES, ONE, direction="auto")] == [0, 1, 2, 3, 4, 5]


def test_statistics_and_frames_to_review(video):
    track = video.track(FRAMES, ONE)
    next(track)
    assert track.object_stats[1].pixels == 120
    assert not track.object_stats[1].warning
    assert not track.frames_to_review()


def test_former_names(predictor):
    with pytest.warns(DeprecationWarning, match="rule is now called policy"):
        former = VideoPredictor(predictor, rule=All(2))
    track = former.track(FRAMES, ONE)
    next(track)
    with pytest.warns(DeprecationWarning, match="seen is now called object_stats"):
        assert track.seen == track.object_stats
    with pytest.warns(DeprecationWarning, match="frames_to_review"):
        assert track.worth_a_look() == []
    with pytest.warns(DeprecationWarning, match="seekable"):
        assert track.frames.sought
    with pytest.warns(DeprecationWarning, match="new_ids"):
        track.correct(ids((1, 5), (2, 20)), news=(2,))


def test_what_cannot_be_corrected(video):
    track = video.track(FRAMES, ONE)
    with pytest.raises(InputError, match="no frame has been answered"):
        track.correct(ONE)
    next(track)
    with pytest.raises(InputError, match="labels of frame 0: "):
        track.correct(np.zeros((3, 3), np.uint8))
    with pytest.raises(InputError, match="a mask of shape"):
        track.add(2, np.ones((3, 3), bool))
    with pytest.raises(InputError, match=r"several: correct\(\)"):
        track.add(2, ids((1, 5), (3, 20)))
    with pytest.raises(InputError, match="the mask is empty"):
        track.add(2, np.zeros((30, 40), bool))
    with pytest.raises(InputError, match=r"id 70000; accepted"):
        track.add(70_000, ONE > 0)
    with pytest.raises(InputError, match="no id 9"):
        track.remove(9)
    assert [i for i, _ in track] == [1, 2, 3, 4, 5]


def test_examples_and_prompts_instead_of_labels(video, predictor):
    others = [Example(frame(20), ids((4, 5)))]
    by_examples = dict(video.track(FRAMES, examples=others))
    by_prompt = dict(video.track(iter(FRAMES), prompt=predictor.prompt(others, kind="instance")))
    assert list(by_examples) == list(by_prompt) == list(range(6))
    assert by_prompt[0].presence.keys() == {4}
    beside = dict(video.track(FRAMES, ONE, examples=others))
    assert beside[1].presence.keys() == {1, 4}


def test_color_masks_keep_their_ids(video):
    red, blue = np.zeros((30, 40, 3), np.uint8), np.zeros((30, 40, 3), np.uint8)
    red[8:20, 5:15] = (255, 0, 0)
    blue[8:20, 5:15] = (0, 0, 255)
    both = red + np.roll(blue, 18, 1)
    results = dict(video.track(FRAMES, {0: both, 2: red}))
    assert set(np.unique(results[0].labels)) == {0, 1, 2}
    assert results[0].labels[10, 6] == results[2].labels[10, 6] == 2  # by ascending (r, g, b)
    assert results[0].colors[2] == (255, 0, 0)
    with pytest.raises(InputError, match=r"labels of frame 2: .*does not name"):
        video.track(FRAMES, {0: red, 2: blue})


def test_resumed_is_uninterrupted(video):
    whole = dict(video.track(FRAMES, {2: ONE}))
    for stop in range(1, 6):
        track = video.track(FRAMES, {2: ONE})
        done = [next(track)[0] for _ in range(stop)]
        state = track.memory.state()
        again = video.track(FRAMES, {2: ONE})
        again.resume(done[-1], state)
        rest = dict(again)
        assert done + list(rest) == list(whole)
        for index, result in rest.items():
            same(result, whole[index])


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (None, "nothing to look for"),
        ({-1: ONE}, "labels of frame -1"),
        ({9: ONE}, "no frame 9"),
        (np.zeros((30, 40), np.uint8), "nothing to look for|no labels with an object"),
        (np.zeros((5, 5), np.uint8), "labels of frame 0: .*same size"),
    ],
)
def test_labels_that_cannot_be_used(video, labels, says):
    with pytest.raises(InputError, match=says):
        list(video.track(FRAMES, labels))


def test_labels_of_a_frame_that_never_comes(video):
    with pytest.raises(InputError, match="labels of frame 9, which never came"):
        list(video.track(iter(FRAMES), {0: ONE, 9: ONE}))


def test_prompts_of_other_checkpoints(video):
    torch.manual_seed(1)
    other = Predictor(SegGPT(SIZES["tiny"]))
    prompt = other.prompt([Example(FRAMES[0], ONE)])
    with pytest.raises(InputError, match="another checkpoint"):
        video.track(FRAMES, prompt=prompt)
    with pytest.raises(InputError, match="kind"):
        VideoPredictor(other, kind="other")


@pytest.mark.slow
def test_three_objects_keep_their_ids():
    """Drawn ones, with the bundled checkpoint: one leaves, is not seen, and returns."""
    from eval.core.clips import draw_clip

    clip = draw_clip(3, 24, objects=3)
    scores = []
    for index, result in VideoPredictor.from_pretrained().track(clip.frames, clip.given_labels):
        truth = clip.truth[index]
        for one in (1, 2, 3):
            there, ours = truth == one, result.labels == one
            if there.sum() > 100:
                scores.append((one, (there & ours).sum() / (there | ours).sum()))
            elif not there.any():
                assert ours.sum() < 40, (index, one)
    for one in (1, 2, 3):
        assert np.mean([iou for index, iou in scores if index == one]) > 0.5
    back = [iou for index, iou in scores[-6:] if index == 1]
    assert min(back) > 0.4


def test_start_answers_from_a_frame_on(video):
    labels = {0: ONE, 2: ids((1, 12))}
    whole = dict(video.track(FRAMES, labels))
    later = dict(video.track(FRAMES, labels, start=2, direction="forward"))
    assert list(later) == [2, 3, 4, 5]
    same(later[2], whole[2])
    down = video.track(FRAMES, labels, start=1, direction="backward")
    assert [i for i, _ in down] == [1, 0]


def test_start_is_not_for_streams(video):
    with pytest.raises(InputError, match="not a stream"):
        video.track((f for f in FRAMES), ONE, start=2)
    assert list(dict(video.track(FRAMES, ONE, start=np.int64(4), direction="forward"))) == [4, 5]


@pytest.mark.parametrize("start", [-1, 99, True, 1.5])
def test_start_that_is_no_frame(video, start):
    with pytest.raises(InputError, match=r"start|no frame 99"):
        video.track(FRAMES, ONE, start=start)
