"""Frames of every source: numbers, order, nothing read ahead, clear errors."""

import numpy as np
import pytest
import torch
from PIL import Image

from incontext.errors import InputError
from incontext.video.frames import MultiPageImage, Stream, Volume, natural_key, open_frames


def gray(value: int, size: tuple[int, int] = (8, 6)) -> Image.Image:
    return Image.new("RGB", size, (value, value, value))


def values(frames, start: int = 0) -> list[tuple[int, int]]:
    return [(i, int(np.asarray(p)[0, 0, 0])) for i, p in frames.forward(start)]


@pytest.fixture
def folder(tmp_path):
    for number in (2, 10, 1):
        gray(number).save(tmp_path / f"f{number}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def sources(folder):
    pictures = [gray(v) for v in (1, 2, 10)]
    stacked = np.stack([np.asarray(p) for p in pictures])
    pictures[0].save(folder / "stack.tif", save_all=True, append_images=pictures[1:])
    only = folder / "only"
    only.mkdir()
    for number in (2, 10, 1):
        gray(number).save(only / f"f{number}.png")
    return [
        only, str(only), pictures, tuple(pictures), stacked, torch.from_numpy(stacked),
        folder / "stack.tif", sorted(only.glob("*.png"), key=lambda p: natural_key(p.name)),
    ]  # fmt: skip


def test_all_that_can_be_asked_for_by_number(folder):
    for source in sources(folder):
        frames = open_frames(source)
        assert frames.seekable
        assert frames.total == 3
        assert values(frames) == [(0, 1), (1, 2), (2, 10)]
        assert values(frames, 1) == [(1, 2), (2, 10)]
        assert [i for i, _ in frames.backward(1)] == [1, 0]
        assert int(np.asarray(frames.at(2))[0, 0, 0]) == 10
        with pytest.raises(InputError, match="no frame 3"):
            frames.at(3)
        with pytest.raises(InputError, match="no frame -1"):
            frames.at(-1)
        frames.close()


def test_folder_keeps_names(folder):
    assert open_frames(folder).names == ["f1", "f2", "f10"]


def test_stream_is_read_as_it_comes():
    taken = []

    def camera():
        for value in range(5):
            taken.append(value)
            yield gray(value)

    frames = open_frames(camera())
    assert isinstance(frames, Stream)
    assert not frames.seekable
    assert frames.total is None
    moving = frames.forward()
    next(moving)
    assert taken == [0]
    assert [i for i, _ in frames.forward(3)] == [3, 4]


def test_volume_is_stretched_as_a_whole():
    volume = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6) - 1000
    frames = open_frames(volume)
    assert isinstance(frames, Volume)
    pictures = [np.asarray(p) for _, p in frames.forward()]
    assert pictures[0].min() == 0
    assert pictures[-1].max() == 255
    assert pictures[0].max() < pictures[1].max() < pictures[2].max()
    flat = open_frames(np.full((2, 5, 6), 7.5))
    assert [int(np.asarray(p).max()) for _, p in flat.forward()] == [0, 0]
    with pytest.raises(InputError, match="NaN"):
        open_frames(np.full((2, 5, 6), np.nan))
    with pytest.raises(InputError, match="complex"):
        open_frames(np.zeros((2, 5, 6), complex))


def test_stack_of_sixteen_bits_is_stretched_as_a_whole(tmp_path):
    pages = [Image.fromarray(np.full((5, 6), v, np.uint16)) for v in (100, 200, 300)]
    pages[0].save(tmp_path / "s.tif", save_all=True, append_images=pages[1:])
    frames = open_frames(tmp_path / "s.tif")
    assert isinstance(frames, MultiPageImage)
    assert [v for _, v in values(frames)] in ([0, 127, 255], [0, 128, 255])


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("nowhere.mp4", "no such file or folder"),
        ([], "no frames"),
        (np.zeros((6, 8, 3), np.uint8), r"shape \(6, 8, 3\)"),
        (np.zeros(5), "shape"),
        (Image.new("RGB", (4, 4)), "Image as frames"),
        (7, "int as frames"),
    ],
)
def test_what_holds_no_frames(source, says):
    with pytest.raises(InputError, match=says):
        open_frames(source)


def test_bad_frames_are_named(tmp_path):
    with pytest.raises(InputError, match="without a frame"):
        list(open_frames(iter([])).forward())
    with pytest.raises(InputError, match="frame 1: "):
        list(open_frames([gray(1), np.zeros(3)]).forward())
    with pytest.raises(InputError, match="no picture in this folder"):
        open_frames(tmp_path)
    (tmp_path / "empty.tif").touch()
    with pytest.raises(InputError, match="an empty file"):
        open_frames(tmp_path / "empty.tif")
    (tmp_path / "page.html").write_text("<html>")
    (tmp_path / "page.html").rename(tmp_path / "page.png")
    with pytest.raises(InputError, match="not a picture"):
        open_frames(tmp_path / "page.png")


def test_hidden_and_numberless_names(tmp_path):
    for name in ("b.png", "a²3.png", "._b.png"):
        gray(1).save(tmp_path / name)
    assert open_frames(tmp_path).names == ["a²3", "b"]


def test_volumes_with_bad_numbers_anywhere():
    volume = np.zeros((4, 5, 6))
    volume[2, 0, 0] = np.nan
    with pytest.raises(InputError, match="NaN"):
        open_frames(volume)
    with pytest.raises(InputError, match="nothing to see"):
        open_frames(np.zeros((2, 0, 5)))
