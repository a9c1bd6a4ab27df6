"""Memory: what is remembered, as what, and that nothing is encoded twice."""

from collections import deque
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from incontext.errors import InputError
from incontext.inference.example import Example
from incontext.inference.predictor import Predictor
from incontext.inference.segmentation import Segmentation
from incontext.labels.coloring import Coloring
from incontext.labels.encodings import Labels
from incontext.model import SIZES, SegGPT
from incontext.video import policies
from incontext.video.memory import Memory
from incontext.video.policies import CycleConsistencyPolicy, Decision, MemoryPolicy, SegGPTPolicy
from incontext.video.predictor import VideoPredictor
from tests.model.test_voting import assembled

INDEPENDENT = replace(
    SIZES["tiny"], example_attention="independent", relative_position=False, stem=(16, 16, 32),
    stem_blocks=1, copy_heads=2, copy_dim=8,
)  # fmt: skip


def made(name: str) -> Predictor:
    if name == "votes":
        return Predictor(assembled())
    torch.manual_seed(0)
    return Predictor(SegGPT(INDEPENDENT if name == "independent" else SIZES["tiny"]))


@pytest.fixture(scope="module", params=["joint", "independent", "votes"])
def predictor(request) -> Predictor:
    return made(request.param)


@pytest.fixture(scope="module", params=["independent", "votes"])
def independent(request) -> Predictor:
    return made(request.param)


def frame(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels)


def labels(*boxes: tuple[int, int]) -> Labels:
    """Id and left side of squares."""
    ids = np.zeros((30, 40), np.int32)
    for index, left in boxes:
        ids[8:20, left : left + 10] = index
    return Labels(ids)


def answer(ids: Labels, presence: float = 1.0, confidence: float = 0.9) -> Segmentation:
    sure = np.full(ids.ids.shape, confidence, np.float32)
    painting = np.where(ids.ids[..., None] > 0, 255, 0).astype(np.uint8).repeat(3, 2)
    return Segmentation(ids.ids, sure, {1: presence}, frame(0), (painting,), {}, {})


class All(MemoryPolicy):
    """Remembers everything as it was answered."""

    def decide(self, image, result, memory):
        return Decision(result, result.labels)


def filled(predictor: Predictor, policy: MemoryPolicy) -> Memory:
    memory = Memory(predictor, policy, "instance")
    memory.annotate(0, Example.from_labels(frame(0), labels((1, 5))))
    memory.prompt()
    return memory


def test_seggpt_policy_is_its_definition(independent):
    """First frame and a FIFO of K; a painting is white where the mean of RGB is over 128."""
    rng = np.random.default_rng(0)
    memory = filled(independent, SegGPTPolicy(3))
    side = independent.size
    fifo: deque[np.ndarray] = deque(maxlen=3)
    for index in range(1, 8):
        painting = rng.integers(0, 256, (side, side, 3), np.uint8)
        painting[0, 0], painting[0, 1] = (128, 128, 128), (128, 128, 129)
        result = replace(answer(labels((1, 5))), paintings=(painting,))
        memory.observe(index, frame(index), result)
        memory.prompt()
        white = np.zeros((side, side, 3), np.uint8)
        white[painting.astype(float).mean(-1) > 128] = 255
        fifo.append(white)
        kept = [Coloring((1,), ((255, 255, 255),)).paint(k.example.labels.ids)
                for k in memory.recent]  # fmt: skip
        np.testing.assert_array_equal(kept, list(fifo))
        assert list(memory.annotated) == [0]
    with pytest.raises(InputError, match="one object"):
        SegGPTPolicy(3, per_pass=4)


def test_seggpt_policy_paints_one_object_at_a_time(independent):
    memory = Memory(independent, SegGPTPolicy(2), "instance")
    memory.annotate(0, Example.from_labels(frame(0), labels((1, 0), (2, 12), (5, 24))))
    assert [part.coloring.ids for part in memory.prompt().passes] == [(1,), (2,), (5,)]


def test_unsure_frames_are_not_remembered(independent):
    memory = filled(independent, CycleConsistencyPolicy(4, back=0))
    seen = labels((1, 5))
    memory.observe(1, frame(1), answer(seen, presence=0.55))
    memory.observe(2, frame(2), answer(seen, confidence=0.3))
    memory.observe(3, frame(3), answer(labels(), presence=0.0))
    memory.observe(4, frame(4), answer(seen))
    assert [k.index for k in memory.recent] == [4]


def test_frames_that_are_not_cycle_consistent_are_not_remembered():
    """A frame with its own labels reproduces the annotated one; with labels astray it does not."""
    predictor = Predictor.from_pretrained()
    memory = Memory(predictor, CycleConsistencyPolicy(4), "instance")
    picture = np.full((60, 80, 3), (40, 90, 40), np.uint8)
    picture[20:40, 20:40] = (220, 60, 60)
    moved = np.roll(picture, 12, 1)
    here, there = (np.all(p == (220, 60, 60), -1).astype(np.int32) for p in (picture, moved))
    memory.annotate(0, Example.from_labels(Image.fromarray(picture), Labels(here)))
    memory.prompt()
    good, bad = answer(Labels(there)), answer(Labels(np.roll(there, 20, 0)))
    kept = memory.observe(1, Image.fromarray(moved), good)
    assert kept.trust[1] > 0.9
    assert kept.labels is not None
    refused = memory.observe(2, Image.fromarray(moved), bad)
    assert refused.trust[1] < 0.2
    assert refused.labels is None
    assert not refused.result.labels.any()  # what brings nothing back is no object
    assert refused.result.presence[1] < 0.2
    assert [k.index for k in memory.recent] == [1]


def test_prompt_equals_that_of_examples(predictor, monkeypatch):
    """Frames encoded one by one are the prompt that all of them as examples would be."""
    monkeypatch.setattr("incontext.video.memory.RECENT_SHARE", 1.0)
    memory = filled(predictor, All(1))  # two frames in all, which are not thinned
    shown = [Example.from_labels(frame(i), labels((1, at))) for i, at in ((0, 5), (3, 3))]
    for index in (1, 2, 3):
        memory.observe(index, frame(index), answer(labels((1, index))))
    query = frame(9)
    whole = predictor.prompt(shown, kind="instance", thin_to=None, views=False)
    ours = predictor.predict(query, memory.prompt())
    theirs = predictor.predict(query, whole)
    np.testing.assert_allclose(ours.confidence, theirs.confidence, atol=1e-4)
    assert memory.prompt().examples == 2


def test_without_memory_it_is_the_image_prompt(predictor):
    memory = Memory(predictor, All(0), "instance")
    examples = [Example.from_labels(frame(i), labels((1, i), (2, 20))) for i in (0, 1)]
    for index, example in enumerate(examples):
        memory.annotate(index, example)
    assert memory.observe(2, frame(2), answer(labels((1, 3)))).labels is None
    ours = memory.prompt().passes[0].encoded_prompt.tensors()
    whole = predictor.prompt(examples, kind="instance", views=False)
    theirs = whole.passes[0].encoded_prompt.tensors()
    assert ours.keys() == theirs.keys()
    for name, x in ours.items():
        assert torch.equal(x, theirs[name]), name


def test_every_frame_is_encoded_once(independent):
    """Also where it is checked first; the one more is the annotated frame alone."""
    checked = CycleConsistencyPolicy(3, interval=1, sure=0, back=1e-9, absent=0)
    for policy, more in ((All(3), 0), (checked, 1)):
        memory = filled(independent, policy)
        for index in range(1, 21):
            memory.observe(index, frame(index), answer(labels((1, index % 20))))
            memory.prompt()
        assert memory.encodings == 21 + more


def test_remembered_frames_keep_half_the_cells():
    memory = filled(made("votes"), All(2))
    memory.observe(1, frame(1), answer(labels((1, 6))))
    memory.prompt()
    annotated, recent = (
        part.tensors()["known.block.0"].shape[2]
        for part in (memory._annotated_encodings[0], memory.recent[0].encoded[0])
    )
    assert recent == annotated / 2


def test_size_does_not_grow(independent):
    memory = filled(independent, All(3))
    sizes = []
    for index in range(1, 12):
        memory.observe(index, frame(index), answer(labels((1, index))))
        sizes.append(memory.prompt().nbytes)
    assert len(set(sizes[3:])) == 1


def test_objects_come_and_go(independent):
    memory = filled(independent, All(2))
    memory.observe(1, frame(1), answer(labels((1, 6))))
    memory.annotate(2, Example.from_labels(frame(2), labels((1, 7), (3, 25))))
    assert memory.prompt().ids == (1, 3)
    memory.remove(1)
    prompt = memory.prompt()
    assert prompt.ids == (3,)
    assert not any((k.example.labels.ids == 1).any() for k in memory.recent)
    with pytest.raises(InputError, match="no id 1"):
        memory.remove(1)
    with pytest.raises(InputError, match="all there is to look for"):
        memory.remove(3)


def test_cycle_consistency_after_an_object_went(independent):
    memory = Memory(independent, CycleConsistencyPolicy(2, back=1e-9, absent=0), "instance")
    memory.annotate(0, Example.from_labels(frame(0), labels((1, 5), (2, 22))))
    memory.prompt()
    assert memory.cycle_consistency(frame(1), labels((1, 5), (2, 22)).ids).keys() <= {1, 2}
    memory.remove(2)
    memory.prompt()
    assert memory.cycle_consistency(frame(1), labels((1, 5)).ids).keys() <= {1}


def test_prompt_of_other_pictures_goes_along(independent):
    others = [Example.from_labels(frame(20), labels((7, 5)))]
    base = independent.prompt(others, kind="instance")
    memory = Memory(independent, All(2), "instance", base)
    assert memory.prompt().ids == (7,)
    memory.annotate(0, Example.from_labels(frame(0), labels((1, 5), (7, 22))))
    memory.observe(1, frame(1), answer(labels((1, 6), (7, 22))))
    prompt = memory.prompt()
    assert prompt.ids == (1, 7)
    assert [part.coloring.ids for part in prompt.passes] == [(7,), (1,)]
    assert independent.predict(frame(2), prompt).presence.keys() == {1, 7}
    with pytest.raises(InputError, match="one of the prompt's"):
        memory.remove(7)
    as_examples = Memory(independent, All(2), "instance", examples=others)
    assert as_examples.prompt().ids == (7,)


def test_prompts_that_no_frame_can_join(independent):
    several = [Example.from_labels(frame(i), labels((1, 5), (2, 20))) for i in range(3)]
    with pytest.raises(InputError, match="nearest"):
        Memory(independent, All(2), "instance", independent.prompt(several, nearest=2))
    with pytest.raises(InputError, match="one object a painting, in white"):
        Memory(independent, SegGPTPolicy(2), "instance", independent.prompt(several))
    torch.manual_seed(0)
    joint = Predictor(SegGPT(SIZES["tiny"]))
    with pytest.raises(InputError, match="joint attention"):
        Memory(joint, All(2), "instance", joint.prompt(several))


def test_state_brings_it_back(independent):
    memory = filled(independent, All(3))
    for index in range(1, 6):
        memory.observe(index, frame(index), answer(labels((1, index))))
    again = filled(independent, All(3))
    again.restore(memory.state())
    ours, theirs = (m.prompt().passes[0].encoded_prompt.tensors() for m in (memory, again))
    for name, x in ours.items():
        assert torch.equal(x, theirs[name]), name


def test_former_names_of_policies():
    for former, policy in (("Trusted", CycleConsistencyPolicy), ("Official", SegGPTPolicy)):
        with pytest.warns(DeprecationWarning, match=former):
            assert getattr(policies, former) is policy
    with pytest.raises(AttributeError, match="Nothing"):
        policies.Nothing


@pytest.mark.parametrize("keep", [-1, 1.5, True])
def test_bad_keep(keep):
    with pytest.raises(InputError, match="keep is"):
        CycleConsistencyPolicy(keep)


def test_objects_too_small_for_the_model_keep_their_ids(independent):
    """As in a prompt of the image predictor."""
    ids = np.zeros((300, 400), np.int32)
    ids[80:200, 50:150] = 1
    ids[7, 7] = 2
    shown = Example.from_labels(frame(0, (400, 300)), Labels(ids))
    memory = Memory(independent, All(0), "instance")
    memory.annotate(0, shown)
    assert memory.prompt().ids == independent.prompt([shown]).ids == (1, 2)


def test_the_kind_is_the_prompts(independent):
    base = independent.prompt([Example.from_labels(frame(20), labels((7, 5)))], kind="semantic")
    memory = Memory(independent, All(2), "instance", base)
    memory.annotate(0, Example.from_labels(frame(0), labels((1, 5))))
    prompt = memory.prompt()
    assert prompt.kind == "semantic"
    assert all(part.encoded_prompt.semantic.all() for part in prompt.passes)


def test_colors_stay_and_differ(independent):
    base = independent.prompt([Example.from_labels(frame(20), labels((7, 5)))], kind="instance")
    memory = Memory(independent, All(2), "instance", base)
    memory.annotate(0, Example.from_labels(frame(0), labels((1, 5), (2, 22))))
    before = memory.colors
    assert len(set(before.values())) == 3
    memory.remove(1)
    assert memory.colors == {i: before[i] for i in (2, 7)}


def test_what_is_unknown_is_not_held_against_a_frame(independent):
    """Cycle consistency counts only the known pixels of the annotated frame."""
    known = labels((1, 5)).ids
    partly = np.where(known > 0, known, -1)
    for ids in (known, partly):
        memory = Memory(independent, CycleConsistencyPolicy(2, absent=0), "instance")
        memory.annotate(0, Example.from_labels(frame(0), Labels(ids)))
        memory.prompt()
        memory.cycle_consistency(frame(0), known)
        truth = memory.annotated[0].labels.ids == 1
        answer = independent.predict(memory.annotated[0].image, memory.prompt()).labels == 1
        if ids is partly:
            assert memory._self_ious[0][1] >= (answer & truth).sum() / truth.sum() - 1e-9


def test_each_object_is_checked_on_the_nearest_frame_that_shows_it(independent):
    memory = Memory(independent, CycleConsistencyPolicy(2, absent=0), "instance")
    memory.annotate(0, Example.from_labels(frame(0), labels((1, 5))))
    memory.annotate(90, Example.from_labels(frame(90), labels((1, 9), (2, 22))))
    memory.prompt()
    memory.frame = 5
    memory.cycle_consistency(frame(5), labels((1, 5)).ids)
    assert set(memory._self_ious) == {0}
    memory.cycle_consistency(frame(5), labels((1, 5), (2, 22)).ids)
    assert set(memory._self_ious) == {0, 90}
    memory.annotate(
        40, Example.from_labels(frame(40), labels((3, 9)))
    )  # other paintings from here on
    assert not memory._self_ious


def test_earlier_labels_may_show_what_is_new_where_they_are_blank(independent):
    memory = Memory(independent, All(2), "instance")
    memory.annotate(0, Example.from_labels(frame(0), labels((1, 5))))
    memory.prompt()
    memory.observe(1, frame(1), answer(labels((1, 6))))
    memory.annotate(2, Example.from_labels(frame(2), labels((1, 7), (3, 25))), new_ids=[3])
    assert not memory.recent
    first, second = memory._examples_for([1, 3])
    assert set(np.unique(first.labels.ids)) == {-1, 1}
    assert set(np.unique(second.labels.ids)) == {0, 1, 3}
    assert set(np.unique(memory._examples_for([1])[0].labels.ids)) == {0, 1}
    # Ids that are looked for already are no news.
    memory.annotate(3, Example.from_labels(frame(3), labels((1, 7))), new_ids=[1])
    assert set(np.unique(memory._examples_for([1])[0].labels.ids)) == {0, 1}


def test_features_of_a_frame_are_extracted_once():
    """Also for the check of its consistency; results are those without a cache."""
    frames = [np.roll(np.asarray(frame(5, (80, 60))), 2 * number, 1) for number in range(10)]
    first = np.zeros((60, 80), np.uint8)
    first[10:40, 20:50] = 1
    tracks, extractions = [], []
    for cached in (True, False):
        video = VideoPredictor.from_pretrained()
        model = video.predictor.model
        if not cached:
            model.feature_cache = None
        counts = []
        model.backbone.register_forward_hook(lambda *_, counts=counts: counts.append(1))
        tracks.append([result for _, result in video.track(frames, first)])
        extractions.append(len(counts))
    assert extractions[0] == len(frames) < extractions[1]
    for one, other in zip(*tracks, strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.confidence, other.confidence)
