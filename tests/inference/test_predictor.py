"""Predictor: examples in, label maps out, in the caller's sizes and ids."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from incontext import Example, InputError, Predictor
from incontext.inference.id_table import CLASSES_PER_PASS
from incontext.model import SIZES, SegGPT


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.from_pretrained()


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint) -> Predictor:
    return Predictor.from_pretrained(tiny_checkpoint)


def disc(size: tuple[int, int], center: tuple[float, float], radius: float) -> np.ndarray:
    """(H, W) bool."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    return (rows - center[0]) ** 2 + (columns - center[1]) ** 2 < radius**2


def scene(
    size: tuple[int, int], discs: list[tuple[tuple[float, float], float, tuple[int, int, int]]]
) -> tuple[np.ndarray, np.ndarray]:
    """A gray picture with colored discs on it; labels number them in order."""
    rng = np.random.default_rng(size[0])
    picture = np.clip(110 + rng.normal(0, 6, (*size, 1)), 0, 255).repeat(3, 2).astype(np.uint8)
    labels = np.zeros(size, np.uint8)
    for index, (center, radius, color) in enumerate(discs, 1):
        where = disc(size, center, radius)
        picture[where] = color
        labels[where] = index
    return picture, labels


RED, GREEN, BLUE = (210, 30, 30), (20, 190, 60), (40, 60, 220)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_finds_what_the_example_shows(predictor):
    picture, labels = scene((120, 160), [((60, 50), 30, RED)])
    query, truth = scene((200, 150), [((130, 90), 40, RED)])
    result = predictor.predict(query, predictor.prompt(Example(picture, labels)))
    assert result.labels.shape == (200, 150)
    assert set(np.unique(result.labels)) <= {0, 1}
    assert iou(result.mask(1), truth == 1) > 0.7
    assert result.presence[1] > 0.8
    assert result.confidence.shape == (200, 150)
    assert 0 <= result.confidence.min() <= result.confidence.max() <= 1


def test_absent_object_gives_an_empty_mask(predictor):
    picture, labels = scene((128, 128), [((60, 50), 30, RED)])
    empty, _ = scene((128, 128), [])
    present, _ = scene((128, 128), [((70, 70), 30, RED)])
    prompt = predictor.prompt(Example(picture, labels))
    without, with_it = predictor.predict([empty, present], prompt)
    assert without.mask(1).mean() < 0.01
    assert without.presence[1] < 0.5 < with_it.presence[1]


def test_several_ids_by_color(predictor):
    """Ids need not be consecutive; those that are shown in different examples are joined."""
    discs = [((40, 40), 24, RED), ((90, 90), 24, BLUE)]
    picture, labels = scene((128, 128), discs)
    labels = np.array([0, 7, 40_000], np.uint16)[labels]
    query, truth = scene((128, 128), [((90, 35), 24, RED), ((40, 95), 24, BLUE)])
    prompt = predictor.prompt(Example(picture, labels), names={7: "red"})
    assert prompt.ids == (7, 40_000)
    assert prompt.names == {7: "red", 40_000: "40000"}
    result = predictor.predict(query, prompt)
    assert iou(result.mask(7), truth == 1) > 0.5
    assert iou(result.mask(40_000), truth == 2) > 0.5
    with pytest.raises(InputError, match="no id 3"):
        result.mask(3)


@pytest.mark.parametrize("per_pass", [1, 2, 25])
def test_passes_are_merged(predictor, per_pass):
    """More ids than one pass takes: every id comes back under its number."""
    discs = [((30, 30), 20, RED), ((30, 95), 20, GREEN), ((95, 60), 22, BLUE)]
    picture, labels = scene((128, 128), discs)
    query = picture[:, ::-1].copy()
    prompt = predictor.prompt(Example(picture, labels), classes_per_pass=per_pass)
    assert len(prompt.passes) == -(-3 // per_pass)
    result = predictor.predict(query, prompt)
    for index in (1, 2, 3):
        assert iou(result.mask(index), labels[:, ::-1] == index) > 0.4


def test_many_ids(tiny):
    """Dozens of ids run, in several passes of about equal size."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 31, (64, 64)).astype(np.uint8)
    picture = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    prompt = tiny.prompt(Example(picture, labels))
    assert sorted(i for p in prompt.passes for i in p.coloring.ids) == list(range(1, 31))
    sizes = [len(p.coloring.ids) for p in prompt.passes]
    assert max(sizes) <= CLASSES_PER_PASS
    assert max(sizes) - min(sizes) <= 1
    result = tiny.predict(picture, prompt)
    assert set(result.presence) == set(range(1, 31))


def test_one_list_or_stream(tiny):
    picture, labels = scene((40, 60), [((20, 30), 10, RED)])
    prompt = tiny.prompt(Example(picture, labels))
    pictures = [scene((30 + i, 50), [((20, 20), 9, RED)])[0] for i in range(5)]
    singles = [tiny.predict(p, prompt) for p in pictures]
    several = tiny.predict(pictures, prompt, batch_size=2)
    assert isinstance(several, list)
    read = []

    def source():
        for p in pictures:
            read.append(p)
            yield p

    stream = tiny.predict(source(), prompt, batch_size=2)
    first = next(stream)
    assert len(read) == 2
    for one, two, three in zip(singles, several, itertools.chain([first], stream), strict=True):
        assert np.array_equal(one.labels, two.labels)
        assert np.array_equal(one.labels, three.labels)
        np.testing.assert_allclose(one.confidence, two.confidence, atol=1e-4)
    assert tiny.predict([], prompt) == []


def test_prompt_is_encoded_once(tiny, monkeypatch):
    calls = []
    encode = SegGPT.encode_batches
    monkeypatch.setattr(
        SegGPT, "encode_batches", lambda *a, **k: calls.append(1) or encode(*a, **k)
    )
    picture, labels = scene((40, 60), [((20, 30), 10, RED)])
    prompt = tiny.prompt([Example(picture, labels)] * 3)
    list(tiny.predict((picture for _ in range(10)), prompt))
    assert len(calls) == 1


@pytest.mark.slow
def test_chunk_changes_nothing(predictor):
    examples = [Example(*scene((64, 64), [((30, 10 + 8 * i), 9, RED)])) for i in range(5)]
    query, _ = scene((64, 64), [((30, 30), 12, RED)])
    results = [
        predictor.predict(query, predictor.prompt(examples, chunk=chunk), chunk=chunk)
        for chunk in (None, 1, 2)
    ]
    for other in results[1:]:
        assert np.abs(results[0].painting.astype(int) - other.painting).max() <= 1


def test_inputs_of_every_type_agree(tiny, tmp_path):
    picture, labels = scene((48, 48), [((20, 30), 10, RED)])
    Image.fromarray(picture).save(tmp_path / "a.png")
    prompt = tiny.prompt(Example(picture, labels))
    expected = tiny.predict(picture, prompt).labels
    for same in (
        tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(picture),
        torch.from_numpy(picture), torch.from_numpy(picture).permute(2, 0, 1),
        picture.astype(np.float32) / 255,
    ):  # fmt: skip
        assert np.array_equal(tiny.predict(same, prompt).labels, expected)


@pytest.mark.slow
def test_tiles(predictor):
    """Small discs on a large picture: tiles with cropped examples find them, without seams."""
    picture, labels = scene((128, 128), [((64, 64), 30, RED)])
    spots = [((60 + 150 * i, 80 + 170 * j), 30, RED) for i in range(4) for j in range(4)]
    query, truth = scene((600, 700), spots)
    example = Example(picture, labels)
    tiled = predictor.predict(query, predictor.prompt(example, crop=True), tile=160)
    assert tiled.labels.shape == (600, 700)
    assert iou(tiled.mask(1), truth > 0) > 0.6
    assert tiled.painting.shape == (600, 700, 3)
    # One tile as large as the picture is the plain prediction.
    prompt = predictor.prompt(example)
    whole = predictor.predict(picture, prompt)
    once = predictor.predict(picture, prompt, tile=128)
    assert (whole.labels == once.labels).mean() > 0.999


def test_odd_sizes(tiny):
    picture, labels = scene((1, 5000), [((0, 2000), 900, RED)])
    prompt = tiny.prompt(Example(picture, labels))
    for size in ((1, 1), (1, 5000), (3000, 2), (33, 7)):
        query = np.zeros((*size, 3), np.uint8)
        assert tiny.predict(query, prompt).labels.shape == size
        assert tiny.predict(query, prompt, tile=64).labels.shape == size


def test_saved_files(tiny, tmp_path):
    picture, labels = scene((40, 60), [((20, 30), 10, RED)])
    source = Image.fromarray(np.where(labels == 1, 3, 0).astype(np.uint8)).convert("P")
    source.putpalette([0, 0, 0, 1, 1, 1, 2, 2, 2, 17, 34, 51])
    result = tiny.predict(picture, tiny.prompt(Example(picture, source)))
    written = result.save(tmp_path, "deep/name")
    stored = Image.open(written["labels"])
    assert stored.mode == "P"
    assert stored.getpalette()[9:12] == [17, 34, 51]
    assert np.array_equal(np.asarray(stored), result.labels)
    assert Image.open(written["overlay"]).size == (60, 40)
    belief = np.asarray(Image.open(written["confidence"])) / 255
    np.testing.assert_allclose(belief, result.confidence, atol=0.003)
    assert not list(tmp_path.rglob("*.part"))


def test_wide_ids_are_stored_in_16_bits(tiny, tmp_path):
    picture, labels = scene((40, 60), [((20, 30), 10, RED)])
    ids = np.where(labels == 1, 65_535, 0).astype(np.uint16)
    result = tiny.predict(picture, tiny.prompt(Example(picture, ids)))
    stored = Image.open(result.save(tmp_path, "a")["labels"])
    assert np.array_equal(np.asarray(stored).astype(np.int32), result.labels)


def test_cropped_example():
    picture, labels = scene((100, 200), [((50, 150), 20, RED)])
    part = Example(picture, labels).cropped(0.25)
    assert part.image.size == part.labels.ids.shape[::-1]
    assert 50 <= part.image.width <= 65
    assert (part.labels.ids > 0).sum() == (labels > 0).sum()


@pytest.mark.slow
def test_presence_and_masks_agree(predictor):
    """An id has pixels only where it is present; a small object in a large picture is."""
    picture, labels = scene((128, 128), [((64, 64), 30, RED)])
    query, truth = scene((900, 900), [((500, 400), 40, RED)])
    prompt = predictor.prompt(Example(picture, labels), crop=True)
    result = predictor.predict(query, prompt, tile=160)
    assert result.presence[1] > 0.8
    assert iou(result.mask(1), truth == 1) > 0.8
    noise = np.random.default_rng(0).integers(0, 255, (4, 64, 64, 3), dtype=np.uint8)
    for answer in predictor.predict(list(noise), prompt):
        assert answer.mask(1).any() <= (answer.presence[1] >= 0.5)


def test_palettes_that_disagree_are_refused(tiny):
    """Id 1 red in one file and green in the other: joined they would be silently wrong."""
    picture, labels = scene((40, 60), [((20, 30), 10, RED)])
    masks = [Image.fromarray(labels).convert("P") for _ in range(2)]
    masks[0].putpalette([0, 0, 0, 255, 0, 0])
    masks[1].putpalette([0, 0, 0, 0, 255, 0])
    with pytest.raises(InputError, match="same id must mean the same thing"):
        tiny.prompt([Example(picture, m) for m in masks])


def test_prompt_of_another_model_is_refused(tiny, predictor):
    picture, labels = scene((40, 60), [((20, 30), 10, RED)])
    with pytest.raises(InputError, match="another checkpoint"):
        predictor.predict(picture, tiny.prompt(Example(picture, labels)))


def test_refusals(tiny):
    picture, labels = scene((40, 60), [((20, 30), 10, RED)])
    good = Example(picture, labels)
    prompt = tiny.prompt(good)
    for call, text in [
        (lambda: tiny.prompt([]), "one example or more"),
        (lambda: tiny.prompt(Example(picture, labels * 0)), "no example shows an object"),
        (lambda: tiny.prompt([(picture, labels)]), "accepted: Example"),
        (lambda: tiny.prompt(good, kind="panoptic"), "instance, semantic"),
        (lambda: tiny.prompt(good, classes_per_pass=0), "classes_per_pass"),
        (lambda: tiny.prompt(good, names={5: "x"}), "id 5"),
        (lambda: tiny.prompt(good, coloring={2: (1, 2, 3)}), "lacks a color for id 1"),
        (lambda: tiny.predict(picture, good), "make it with"),
        (lambda: tiny.predict(picture, prompt, batch_size=0), "batch_size"),
        (lambda: tiny.predict(picture, prompt, tile=3), "tile"),
        (lambda: tiny.predict(picture, prompt, tile=20.5), "tile"),
        (lambda: tiny.predict(picture, prompt, chunk=-1), "chunk"),
        (lambda: tiny.prompt(good, chunk=0), "chunk"),
        (lambda: tiny.predict("nowhere.png", prompt), "no such file"),
        (lambda: tiny.predict(np.zeros((5, 5, 7)), prompt), "shape"),
    ]:
        with pytest.raises(InputError, match=text):
            call()


def test_half_precision_predictor(tiny_checkpoint):
    """Types other than float32 work end to end (pictures are cast where the model needs it)."""
    picture, labels = scene((40, 60), [((20, 30), 10, RED)])
    plain = Predictor.from_pretrained(tiny_checkpoint)
    for dtype in (torch.bfloat16, torch.float16):
        half = Predictor.from_pretrained(tiny_checkpoint, dtype=dtype)
        results = [p.predict(picture, p.prompt(Example(picture, labels))) for p in (plain, half)]
        gap = np.abs(results[0].painting.astype(float) - results[1].painting)
        assert gap.mean() < 2


def test_any_half_size():
    """A predictor follows its model's image size."""
    predictor = Predictor(SegGPT(replace(SIZES["tiny"], image_size=48)))
    picture, labels = scene((40, 60), [((20, 30), 10, RED)])
    result = predictor.predict(picture, predictor.prompt(Example(picture, labels)))
    assert result.paintings[0].shape == (48, 48, 3)


@pytest.mark.parametrize("which", ["tiny", "predictor"])
@pytest.mark.slow
def test_nearest_is_a_prompt_of_those_alone(which, request):
    """Both attention modes: a query sees its nearest examples as if there were no others.

    Of all their cells: which ones are kept where there are too many depends on an example's number.
    """
    predictor = request.getfixturevalue(which)
    colors = [RED, GREEN, BLUE, RED, GREEN, BLUE]
    examples = [
        Example(*scene((40, 60), [((20, 12 + 7 * i), 9, color)])) for i, color in enumerate(colors)
    ]
    whole = predictor.prompt(examples, nearest=2, chunk=4, thin_to=None)
    queries = [e.image for e in examples[::-1]]
    seen = predictor.model.embed_images(predictor.encoder.normalize(queries))
    [chosen] = whole.example_index.search(predictor.model.descriptor(seen))
    together = predictor.paint(queries, whole)
    for row, query, painted in zip(chosen, queries, together, strict=True):
        assert examples[[e.image for e in examples].index(query)] in [examples[i] for i in row]
        alone = predictor.prompt([examples[i] for i in row], chunk=1, thin_to=None)
        [expected] = predictor.paint([query], alone)
        torch.testing.assert_close(painted[0], expected[0], atol=2e-3, rtol=0)


def test_spilled_examples_change_nothing(tiny, tmp_path):
    examples = [Example(*scene((40, 60), [((20, 12 + 7 * i), 9, RED)])) for i in range(5)]
    query, _ = scene((50, 70), [((25, 40), 9, RED)])
    kept = tiny.predict([query, query[:, ::-1].copy()], tiny.prompt(examples))
    prompt = tiny.prompt(examples, spill=tmp_path, chunk=2)
    assert list(tmp_path.iterdir())
    for one, other in zip(kept, tiny.predict([query, query[:, ::-1].copy()], prompt), strict=True):
        assert np.array_equal(one.paintings[0], other.paintings[0])


@pytest.mark.slow
def test_thinned_prompts(predictor):
    """As many tokens as a few examples have, whatever their number; the answer hardly changes."""
    examples = [Example(*scene((120, 160), [((60, 30 + 5 * i), 25, RED)])) for i in range(12)]
    query, truth = scene((200, 150), [((130, 90), 40, RED)])
    four, many, all_kept = (
        predictor.prompt(examples[:4]),
        predictor.prompt(examples),
        predictor.prompt(examples, thin_to=None),
    )
    assert many.nbytes < 1.05 * four.nbytes < 0.4 * all_kept.nbytes
    sizes = {n: predictor.prompt(examples, thin_to=n).nbytes for n in ("auto", 1, 2, 4)}
    assert sizes["auto"] == sizes[predictor.model.default_thin_to]
    assert sizes[1] < sizes[2] < sizes[4]
    thin, full = (predictor.predict(query, p) for p in (many, all_kept))
    assert iou(thin.mask(1), truth == 1) > 0.7
    assert iou(thin.mask(1), full.mask(1)) > 0.9


@pytest.mark.parametrize("name", ["chunk", "nearest", "thin_to"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2"])
def test_counts_of_a_prompt_are_checked(tiny, name, value):
    picture, labels = scene((40, 60), [((20, 30), 10, RED)])
    with pytest.raises(InputError, match=f"{name} is .*; accepted: whole numbers, 1 or more"):
        tiny.prompt(Example(picture, labels), **{name: value})


def test_options_that_mean_nothing_are_refused(tiny, predictor, tmp_path):
    picture, labels = scene((40, 60), [((20, 30), 10, RED)])
    example = Example(picture, labels)
    with pytest.raises(InputError, match="spill is for checkpoints with joint attention"):
        predictor.prompt(example, spill=True)
    for spill in (tmp_path / "none", 3):
        with pytest.raises(InputError, match=r"spill .*; accepted: True, or a folder"):
            tiny.prompt(example, spill=spill)


@pytest.mark.parametrize("dtype", ["int8", torch.uint8, torch.float64])
def test_other_dtypes_are_refused(tiny, dtype):
    with pytest.raises(InputError, match=r"dtype .*; accepted: torch.float32, torch.float16"):
        Predictor(tiny.model, dtype=dtype)
