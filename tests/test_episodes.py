"""Episodes: what is drawn is true, varied, and the same for the same seed."""

import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from incontext import InputError
from incontext.episodes import IGNORE, Mixture, Sampler, load_set, read_pairs
from incontext.scenes import draw_scenes


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
        labels[:2] = IGNORE
        Image.fromarray(picture).save(tmp_path / f"set/images/{i}.png")
        Image.fromarray(labels).save(tmp_path / f"set/labels/{i}.png")
    return tmp_path / "set"


def test_sets_are_read_alike_from_folder_and_tar(folder, tmp_path):
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        tar.add(folder, ".")
    (tmp_path / "set.json").write_text(json.dumps({"kind": "semantic", "items": []}))
    one, two = load_set(folder, 32), load_set(tmp_path / "set.tar", 32)
    assert torch.equal(one.images, two.images)
    assert torch.equal(one.labels, two.labels)
    assert one.holders == two.holders
    assert sorted(one.holders) == [3, 9]
    assert len(one.holders[3]) == 6
    assert len(one.holders[9]) == 3
    with pytest.raises(ValueError, match="no picture under images/"):
        list(read_pairs(tmp_path / "nowhere"))


def test_labels_stay_on_their_pixels(folder):
    """After crop, flip and color jitter the red class is still where the picture is red."""
    data = load_set(folder, 48)
    mixture = Mixture(scenes=0, several=0, absent=0)
    batch = Sampler([data], 32, mixture, seed=1).batch(24, 2)
    assert batch.images.shape == (24, 3, 3, 32, 32)
    assert batch.labels.shape == (24, 3, 32, 32)
    assert 0 <= batch.images.min() <= batch.images.max() <= 1
    checked = 0
    for image, labels in zip(batch.images.flatten(0, 1), batch.labels.flatten(0, 1), strict=True):
        inside = labels == 1
        if 20 < inside.sum() < 900:
            color = image[:, inside].mean(1) - image[:, labels == 0].mean(1)
            assert max(color[0], color[2]) > color[1] + 0.03
            checked += 1
    assert checked > 30


def test_targets_are_painted_in_the_episode_colors(folder):
    batch = Sampler([load_set(folder, 48)], 32, Mixture(several=1.0), seed=0).batch(8, 1)
    targets = batch.targets()
    for e in range(8):
        for value in batch.labels[e].unique().tolist():
            color = batch.colors[e, 0 if value == IGNORE else value]
            painted = targets[e].permute(0, 2, 3, 1)[batch.labels[e] == value]
            assert torch.equal(painted, color.expand_as(painted))
    assert (batch.colors[:, 0] == 0).all()


def test_unknown_classes_are_background(folder):
    """What no example shows cannot be asked for."""
    batch = Sampler([load_set(folder, 48)], 32, Mixture(absent=0.5, min_area=0.05), seed=0).batch(
        64, 1
    )
    for episode in batch.labels:
        asked = set(episode[-1].unique().tolist()) - {0, IGNORE}
        assert asked <= set(episode[:-1].unique().tolist())
    empty = [
        (e[-1] == 0).all() or set(e[-1].unique().tolist()) <= {0, IGNORE} for e in batch.labels
    ]
    assert any(empty)


def test_classes_asked_beside_are_shown(folder):
    """They come from the first example, so that it can show them."""
    sampler = Sampler([load_set(folder, 48)], 32, Mixture(two_views=0, absent=0, several=1.0))
    [data] = sampler.sets
    pairs = 0
    for _ in range(60):
        pictures, asked = sampler._choose(data, 3)
        assert len(pictures) == 3
        assert all(pictures[0] in data.holders[c] for c in asked[1:])
        pairs += len(asked) > 1
    assert pairs > 10


def test_ignored_pixels_stay_ignored(tmp_path):
    """Also where no example has any."""
    for part in ("images", "labels"):
        (tmp_path / "set" / part).mkdir(parents=True)
    for name, frame in (("a", 0), ("b", IGNORE)):
        labels = np.full((32, 32), frame, np.uint8)
        labels[8:24, 8:24] = 1
        Image.fromarray(labels).save(tmp_path / f"set/labels/{name}.png")
        Image.fromarray(labels).convert("RGB").save(tmp_path / f"set/images/{name}.png")
    mixture = Mixture(scenes=0, two_views=0, several=0, absent=0, min_area=0.99)
    batch = Sampler([load_set(tmp_path / "set", 32)], 32, mixture, seed=0).batch(40, 1)
    alone = [e[1] for e in batch.labels if (e[0] != IGNORE).all() and (e[1] == IGNORE).any()]
    assert alone
    assert batch.asked()[:, 1].all()


def test_labels_must_fit_their_pictures(tmp_path):
    for part, size in (("images", (20, 10)), ("labels", (10, 20))):
        (tmp_path / part).mkdir()
        Image.new("L", size).save(tmp_path / part / "a.png")
    with pytest.raises(InputError, match="height and width"):
        load_set(tmp_path, 16)


def test_same_seed_same_episodes(folder):
    data = load_set(folder, 48)
    first, second = (Sampler([data], 32, Mixture(), seed=5) for _ in range(2))
    first.batch(4, 2)
    state = first.state()
    expected = first.batch(4, 1)
    second.restore(state)
    got = second.batch(4, 1)
    for name in ("images", "labels", "colors", "semantic"):
        assert torch.equal(getattr(expected, name), getattr(got, name))
    assert not torch.equal(Sampler([data], 32, Mixture(), 6).batch(4, 1).images, expected.images)


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
