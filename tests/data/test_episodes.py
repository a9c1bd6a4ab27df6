"""Episodes: what is drawn is true, varied, and the same for the same seed."""

import numpy as np
import pytest
import torch
from PIL import Image

from incontext.data.episodes import EpisodeSampler
from incontext.data.pictures import IGNORE_INDEX, load_set
from incontext.data.plan import Mixture
from incontext.data.scenes import draw_scenes


@pytest.fixture
def folder(tmp_path):
    """Six pictures: a red class 3 and a blue class 9 on gray, a frame of ignored pixels."""
    rng = np.random.default_rng(0)
    for part in ("images", "labels"):
        (tmp_path / "set" / part).mkdir(parents=True)
    for i in range(6):
        labels = np.zeros((60, 80), np.uint8)
        labels[10:30, 5 + 5 * i : 30 + 5 * i] = 3
        if i % 2:
            labels[35:55, 40:70] = 9
        colors = np.zeros((256, 3), np.uint8)
        colors[[0, 3, 9]] = (128, 128, 128), (220, 30, 30), (30, 30, 220)
        picture = colors[labels] + rng.integers(0, 8, (60, 80, 3), dtype=np.uint8)
        labels[:2] = IGNORE_INDEX
        Image.fromarray(picture).save(tmp_path / f"set/images/{i}.png")
        Image.fromarray(labels).save(tmp_path / f"set/labels/{i}.png")
    return tmp_path / "set"


def test_labels_stay_on_their_pixels(folder):
    """After crop, flip and color jitter the red class is still where the picture is red."""
    data = load_set(folder, 48)
    for change in ({}, {"stitched": 1.0, "several": 1.0}, {"pasted": 1.0, "two_views": 0.0}):
        mixture = Mixture(**({"scenes": 0, "several": 0, "absent": 0} | change))
        batch = EpisodeSampler([data], mixture, seed=1).batch(0, 24, 2, 32)
        assert batch.images.shape == (24, 3, 3, 32, 32)
        assert batch.labels.shape == (24, 3, 32, 32)
        assert 0 <= batch.images.min() <= batch.images.max() <= 1
        checked = 0
        views = zip(batch.images.flatten(0, 1), batch.labels.flatten(0, 1), strict=True)
        for image, labels in views:
            for index in range(1, 5):
                inside = labels == index
                if 20 < inside.sum() < 900:
                    color = image[:, inside].mean(1) - image[:, labels == 0].mean(1)
                    assert max(color[0], color[2]) > color[1] + 0.03
                    checked += 1
        assert checked > 20


def test_targets_are_painted_in_the_episode_colors(folder):
    batch = EpisodeSampler([load_set(folder, 48)], Mixture(several=1.0), seed=0).batch(0, 8, 1, 32)
    targets = batch.targets()
    for e in range(8):
        for value in batch.labels[e].unique().tolist():
            color = batch.colors[e, 0 if value == IGNORE_INDEX else value]
            painted = targets[e].permute(0, 2, 3, 1)[batch.labels[e] == value]
            assert torch.equal(painted, color.expand_as(painted))
    assert (batch.colors[:, 0] == 0).all()


EVERYTHING = Mixture(
    scenes=0.1, regions=0.2, two_views=0.3, instances=0.5, absent=0.3, emptied=0.1, several=0.5,
    stitched=0.4, pasted=0.4, min_area=0.05,
)  # fmt: skip


def test_unknown_classes_are_background(folder):
    """What no example shows cannot be asked for; some queries hold nothing at all."""
    batch = EpisodeSampler([load_set(folder, 48)], EVERYTHING, seed=0).batch(0, 64, 1, 32)
    assert set(batch.labels.unique().tolist()) <= {0, 1, 2, 3, 4, IGNORE_INDEX}
    empty = 0
    for episode in batch.labels:
        asked = set(episode[-1].unique().tolist()) - {0, IGNORE_INDEX}
        assert asked <= set(episode[:-1].unique().tolist())
        empty += not asked
    assert 3 < empty < 40


def test_classes_asked_beside_are_shown(folder):
    """They come from the first example, so that it can show them."""
    sampler = EpisodeSampler([load_set(folder, 48)], Mixture(two_views=0, absent=0, several=1.0))
    pairs = 0
    for number in range(60):
        context = sampler._context(np.random.default_rng(number), 3, 4)
        assert len(context.rows) == 3
        assert context.semantic
        first = set(np.unique(context.labels[0]).tolist())
        assert set(np.unique(np.stack(context.labels)).tolist()) <= first | {0, IGNORE_INDEX}
        pairs += 2 in first
    assert pairs > 10


def test_absent_queries_do_not_hold_the_class(folder, tmp_path):
    """Of the same set, or of another domain."""
    data = load_set(folder, 48)
    data.domain = "signs"
    other = load_set(folder, 48)
    other.name, other.domain = "other", "elsewhere"
    mixture = Mixture(two_views=0, absent=1.0, several=0, weights={"other": 0.0})
    sampler = EpisodeSampler([data, other], mixture)
    sources = set()
    for number in range(40):
        context = sampler._context(np.random.default_rng(number), 2, 4)
        if context.negatives:
            assert not (context.labels[-1] == 1).any()
            sources.add(context.rows[-1] >= 6)
    assert sources == {True, False}


def test_instances_are_one_part(folder, tmp_path):
    """Of two views told as instance kind, one connected part is asked."""
    from skimage.measure import label

    for part in ("images", "labels"):
        (tmp_path / "two" / part).mkdir(parents=True)
    ids = np.zeros((32, 32), np.uint8)
    ids[2:10, 2:10] = ids[20:30, 20:30] = 1
    Image.fromarray(ids).save(tmp_path / "two/labels/a.png")
    Image.fromarray(ids * 200).convert("RGB").save(tmp_path / "two/images/a.png")
    data = load_set(tmp_path / "two", 32)
    parts = {}
    for share in (0.0, 1.0):
        sampler = EpisodeSampler([data], Mixture(two_views=1.0, instances=share))
        contexts = [sampler._context(np.random.default_rng(i), 2, 4) for i in range(8)]
        assert all(c.semantic == (share == 0) for c in contexts)
        parts[share] = {label(c.labels[0] == 1).max() for c in contexts}
    assert parts == {0.0: {2}, 1.0: {1}}


def test_regions_need_no_labels(tmp_path):
    """A set of kind regions or any other: two views of a picture share segments."""
    for part in ("images", "labels"):
        (tmp_path / "set" / part).mkdir(parents=True)
    picture = np.full((48, 48, 3), 40, np.uint8)
    picture[:20], picture[20:, :24] = (200, 30, 30), (30, 30, 200)
    ids = np.zeros((48, 48), np.uint8)
    ids[:8, :8] = 1
    Image.fromarray(picture).save(tmp_path / "set/images/a.png")
    Image.fromarray(ids).save(tmp_path / "set/labels/a.png")
    sampler = EpisodeSampler(
        [load_set(tmp_path / "set", 48)], Mixture(scenes=0, regions=1.0, several=1.0)
    )
    context = sampler._context(np.random.default_rng(0), 3, 4)
    assert len(set(context.rows)) == 1
    assert len(np.unique(context.labels[0])) >= 3
    for index in np.unique(context.labels[0])[1:]:
        colors = picture[context.labels[0] == index]
        assert np.abs(colors - colors.mean(0)).max() < 100


def test_stitched_views_hold_two_contexts(folder):
    """Both under one coloring, each in its own part of a view."""
    sampler = EpisodeSampler([load_set(folder, 48)], Mixture(scenes=0, several=0, stitched=1.0))
    plan = sampler.plan(0, range(30), 2, 32)
    alone = 0
    for place in range(30):
        cells = [c for c in plan.cells if c.episode == place]
        assert {c.view for c in cells} == {0, 1, 2}
        for view in (0, 1):
            one, other = (c.window for c in cells if c.view == view)
            covered = np.zeros((32, 32), int)
            covered[one.pixels(32)] += 1
            covered[other.pixels(32)] += 1
            assert (covered == 1).all()
        alone += sum(c.view == 2 for c in cells) == 1
    assert 2 < alone < 20  # the query shows one of the two
    batch = sampler.render(plan)
    assert any({1, 2} <= set(e.unique().tolist()) for e in batch.labels)


def test_pasted_objects_lie_on_other_pictures(tmp_path):
    """Around the object there is the other picture, which does not hold the class."""
    for part in ("images", "labels"):
        (tmp_path / "set" / part).mkdir(parents=True)
    for name, gray, value in (("a", 250, 1), ("b", 250, 1), ("c", 5, 2)):
        ids = np.zeros((32, 32), np.uint8)
        ids[8:24, 8:24] = value
        Image.fromarray(ids).save(tmp_path / f"set/labels/{name}.png")
        Image.new("RGB", (32, 32), (gray, gray, gray)).save(tmp_path / f"set/images/{name}.png")
    mixture = Mixture(scenes=0, two_views=0, absent=0, several=0, pasted=1.0, min_area=0.99)
    sampler = EpisodeSampler([load_set(tmp_path / "set", 32)], mixture)
    plan = sampler.plan(0, range(30), 1, 32)
    batch = sampler.render(plan)
    seen = 0
    for cell in plan.cells:
        if cell.background < 0:
            continue
        assert (sampler.labels[cell.background] != sampler.labels[cell.source].max()).all()
        image, ids = batch.images[cell.episode, cell.view], batch.labels[cell.episode, cell.view]
        if (ids == 1).any() and (ids == 0).any():
            inside, outside = image[:, ids == 1].mean(), image[:, ids == 0].mean()
            assert (inside > outside) == (sampler.images[cell.source].max() > 100)
            seen += 1
    assert seen > 5


def test_emptied_episodes_ask_for_nothing(folder):
    sampler = EpisodeSampler([load_set(folder, 48)], Mixture(scenes=0, emptied=1.0))
    batch = sampler.batch(0, 8, 2, 32)
    assert set(batch.labels.unique().tolist()) <= {0, IGNORE_INDEX}


def test_ignored_pixels_stay_ignored(tmp_path):
    """Also where no example has any."""
    for part in ("images", "labels"):
        (tmp_path / "set" / part).mkdir(parents=True)
    for name, frame in (("a", 0), ("b", IGNORE_INDEX)):
        labels = np.full((32, 32), frame, np.uint8)
        labels[8:24, 8:24] = 1
        Image.fromarray(labels).save(tmp_path / f"set/labels/{name}.png")
        Image.fromarray(labels).convert("RGB").save(tmp_path / f"set/images/{name}.png")
    mixture = Mixture(scenes=0, two_views=0, several=0, absent=0, min_area=0.99)
    batch = EpisodeSampler([load_set(tmp_path / "set", 32)], mixture, seed=0).batch(0, 40, 1, 32)
    alone = [
        e[1] for e in batch.labels if (e[0] != IGNORE_INDEX).all() and (e[1] == IGNORE_INDEX).any()
    ]
    assert alone
    assert batch.shown_classes()[:, 1].all()


def test_same_seed_same_episodes(folder):
    """A step's episodes depend on seed and numbers only, however they are shared out."""
    data = load_set(folder, 48)
    first, second = (EpisodeSampler([data], EVERYTHING, seed=5) for _ in range(2))
    first.batch(0, 4, 2, 32)
    expected = first.batch(7, 6, 1, 32)
    parts = [second.render(second.plan(7, range(at, at + 3), 1, 32)) for at in (0, 3)]
    for name in ("images", "labels", "colors", "semantic"):
        got = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(getattr(expected, name), got), name
    assert not torch.equal(first.batch(8, 6, 1, 32).images, expected.images)
    other = EpisodeSampler([data], EVERYTHING, 6).batch(7, 6, 1, 32)
    assert not torch.equal(other.images, expected.images)


def test_scenes():
    rng = torch.Generator().manual_seed(0)
    shares = []
    for number in range(20):
        pictures, labels = draw_scenes(rng, 3, 48, 2, absent=number == 0)
        assert pictures.shape == (3, 3, 48, 48)
        assert pictures.isfinite().all()
        assert 0 <= pictures.min() <= pictures.max() <= 1
        assert set(labels.unique().tolist()) <= {0, 1, 2}
        shares.append(float((labels > 0).float().mean()))
        if number == 0:
            assert (labels[-1] == 0).all()
    assert 0.05 < np.mean(shares) < 0.7


def test_pictures_are_held_once(folder):
    """Gigabytes of them: the sets become views of what the sampler holds."""
    sets = [load_set(folder, 16), load_set(folder, 16)]
    before = [s.images.clone() for s in sets]
    sampler = EpisodeSampler(sets, Mixture())
    for data, images in zip(sets, before, strict=True):
        assert torch.equal(data.images, images)
        storage = data.images.untyped_storage().data_ptr()
        assert storage == sampler.images.untyped_storage().data_ptr()
