"""Clips: drawn ones are what they say; datasets are read in their real layout."""

import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from eval.core import clips
from eval.core.metrics import JandF
from eval.core.setting import Setting
from eval.datasets import VIDEOS
from eval.runs.video import POLICIES, dataset, predict_clip
from incontext import VideoPredictor
from incontext.errors import InputError
from incontext.video.annotations import NewObjects


def test_drawn_clips_repeat_and_tell_their_stories():
    clip, same_clip = clips.draw_clip(3, 12), clips.draw_clip(3, 12)
    for a, b in zip(clip.frames, same_clip.frames, strict=True):
        np.testing.assert_array_equal(a, b)
    assert clip.truth is not None
    assert clip.truth[0].max() >= 1
    areas = [(clips.draw_clip(7, 12).truth[t] == 1).sum() for t in range(12)]
    assert areas[0] > 0
    assert min(areas) == 0  # it leaves …
    assert areas[-1] > 0  # … and returns
    assert set(np.unique(clips.draw_clip(4, 3, objects=3).truth)) == {0, 1, 2, 3}


def palette(ids: np.ndarray, path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(ids.astype(np.uint8))
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    image.save(path)


def jpeg(path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (24, 16), (value, 90, 40)).save(path)


def square(index: int, at: int = 2) -> np.ndarray:
    ids = np.zeros((16, 24), np.uint8)
    ids[at : at + 8, at : at + 8] = index
    return ids


@pytest.fixture
def davis(tmp_path):
    for t in range(4):
        jpeg(tmp_path / f"JPEGImages/480p/bear/{t:05d}.jpg", 40 * t)
        palette(square(2, 2 + t), tmp_path / f"Annotations/480p/bear/{t:05d}.png")
    for year, lines in (("2017", "bear\n"), ("2016", "/JPEGImages/480p/bear/00000.jpg /a/b.png\n")):
        listed = tmp_path / f"ImageSets/{year}/val.txt"
        listed.parent.mkdir(parents=True)
        listed.write_text(lines)
    return tmp_path


def test_davis(davis):
    clip = VIDEOS["davis-2017"].clips(davis, "val")["bear"]()
    assert (clip.name, len(clip.frames)) == ("bear", 4)
    assert set(np.unique(clip.given_labels[0])) == {0, 2}
    assert clip.truth.shape == (4, 16, 24)
    # A prediction that stays where the object was: by hand, the two inner frames' IoU.
    meter = JandF()
    meter.add(clip.truth, np.stack([clip.truth[0]] * 4))
    assert meter.means()["J"] == pytest.approx((49 / 79 + 36 / 92) / 2)
    binary_clip = VIDEOS["davis-2016"].clips(davis, "val")["bear"]()
    assert set(np.unique(binary_clip.truth)) == {0, 1}
    with pytest.raises(InputError, match="ImageSets"):
        VIDEOS["davis-2017"].clips(davis / "nowhere", "val")


def test_davis_is_scored(davis, tiny_checkpoint, tmp_path, capsys):
    """Of four frames the inner two are judged; the rest follows from masks."""
    out = tmp_path / "o"
    setting = Setting(str(tiny_checkpoint))
    dataset(VIDEOS["davis-2017"], davis, "", setting, 0, "ours", out)
    row = json.loads((out / "davis-2017.json").read_text())["rows"][0]
    clip = VIDEOS["davis-2017"].clips(davis, "val")["bear"]()
    maps = predict_clip(
        VideoPredictor.from_pretrained(tiny_checkpoint, policy=POLICIES["ours"](0)), clip
    )
    ious = []
    for truth, ours in zip(clip.truth[1:3], maps[1:3], strict=True):
        union = ((truth == 2) | (ours == 2)).sum()
        ious.append(((truth == 2) & (ours == 2)).sum() / union)
    assert abs(row["figures"]["J"] - 100 * np.mean(ious)) < 1e-9
    assert "| SegGPT | 75.6 |" in capsys.readouterr().out
    # Again from the journal; the official model's own settings without any said.
    dataset(VIDEOS["davis-2017"], davis, "", setting, 0, "ours", out)
    assert json.loads((out / "davis-2017.json").read_text())["rows"][0] == row
    dataset(VIDEOS["davis-2017"], davis, "", setting, None, "", tmp_path / "p")
    assert "official rule, 8 frames remembered" in capsys.readouterr().out
    dataset(VIDEOS["davis-2017"], davis, "", setting, 1, "ours", tmp_path / "w", masks=True)
    names = sorted(p.name for p in (tmp_path / "w/Annotations/bear").iterdir())
    assert names == [f"{t:05d}.png" for t in range(4)]


@pytest.mark.parametrize("name", ["youtube-vos", "mose"])
def test_youtube_vos(tmp_path, tiny_checkpoint, name):
    for t in range(0, 25, 5):
        jpeg(tmp_path / f"valid/JPEGImages/0a/{t:05d}.jpg", t)
    palette(square(1), tmp_path / "valid/Annotations/0a/00000.png")
    both = np.where(square(2, 8) > 0, 2, square(1))
    palette(both, tmp_path / "valid/Annotations/0a/00010.png")
    clip = VIDEOS[name].clips(tmp_path, "valid")["0a"]()
    assert clip.name == "0a"
    assert set(np.unique(clip.given_labels[0])) == {0, 1}
    assert isinstance(clip.given_labels[2], NewObjects)
    assert set(np.unique(clip.given_labels[2].labels)) == {0, 2}
    assert clip.truth is None
    with pytest.raises(InputError, match="JPEGImages"):
        VIDEOS[name].clips(tmp_path, "test")
    with pytest.raises(InputError, match="0a has no truth"):
        dataset(VIDEOS[name], tmp_path, "", Setting(str(tiny_checkpoint)), 1, "ours")
    palette(square(3), tmp_path / "valid/Annotations/0a/00003.png")
    with pytest.raises(InputError, match="no such frame"):
        VIDEOS[name].clips(tmp_path, "valid")["0a"]()


@pytest.mark.parametrize("name", ["youtube-vos", "mose"])
def test_youtube_vos_with_truth(tmp_path, name):
    for t in range(4):
        jpeg(tmp_path / f"train/JPEGImages/0a/{t:05d}.jpg", t)
        palette(square(1, 2 + t), tmp_path / f"train/Annotations/0a/{t:05d}.png")
    clip = VIDEOS[name].clips(tmp_path, "train")["0a"]()
    meter = JandF()
    meter.add(clip.truth, np.stack([clip.truth[0]] * 4))
    assert meter.means()["J"] == pytest.approx((49 / 79 + 36 / 92) / 2)


def test_set_of_clips(tmp_path):
    items = []
    with tarfile.open(tmp_path / "v.tar", "w") as tar:
        for t in range(3):
            jpeg(tmp_path / f"images/{t}.jpg", t)
            ids = square(1) if t else np.zeros((16, 24), np.uint8)
            palette(ids, tmp_path / f"labels/{t}.png")
            tar.add(tmp_path / f"images/{t}.jpg", f"images/{t}.jpg")
            tar.add(tmp_path / f"labels/{t}.png", f"labels/{t}.png")
            items.append({"id": str(t), "size": [24, 16], "classes": [1], "group": "g"})
    about = {"kind": "video", "classes": {"1": "it"}, "items": items, "title": "", "domain": ""}
    (tmp_path / "v.json").write_text(json.dumps(about))
    [clip] = clips.read_clips(tmp_path / "v.tar")
    assert len(clip.frames) == 2  # from the first frame that shows something on
    assert clip.given_labels[0].max() == 1
