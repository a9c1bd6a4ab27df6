"""Video files: real ones, made here, whole and damaged."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from incontext import write_overlay
from incontext.errors import InputError
from incontext.video.frames import open_frames
from incontext.video.video_file import CHUNK, VideoFile, writer


def picture(index: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Gray by number, white in the corner at the upper left."""
    pixels = np.full((size[1], size[0], 3), 4 * (index % 60), np.uint8)
    pixels[: size[1] // 4, : size[0] // 4] = 255
    return Image.fromarray(pixels)


def film(path: Path, count: int = 30, size: tuple[int, int] = (64, 48)) -> Path:
    with writer(path, size, Fraction(25)) as write:
        for index in range(count):
            write(picture(index, size), None)
    return path


def number(image: Image.Image) -> int:
    return round(np.asarray(image)[-8:, -8:].mean() / 4)


def test_every_frame_in_order(tmp_path):
    frames = open_frames(film(tmp_path / "a.mp4"))
    assert isinstance(frames, VideoFile)
    assert (frames.total, frames.rate) == (30, 25)
    found = list(frames.forward())
    assert [i for i, _ in found] == list(range(30))
    assert all(abs(number(p) - i) <= 1 for i, p in found)
    assert found[0][1].size == (64, 48)


def test_any_frame_and_backwards(tmp_path):
    count = 3 * CHUNK + 5
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:  # several key frames, so that it is seekable
        stream = container.add_stream("libx264", rate=25, options={"g": "20", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(count):
            container.mux(stream.encode(av.VideoFrame.from_image(picture(index % 60))))
        container.mux(stream.encode(None))
    frames = VideoFile(path)
    ahead = [np.asarray(p) for _, p in frames.forward()]
    back = list(VideoFile(path).backward(count - 1))
    assert [i for i, _ in back] == list(range(count - 1, -1, -1))
    for index, image in back:
        np.testing.assert_array_equal(np.asarray(image), ahead[index])
    for index in (0, 19, 20, 41, count - 1):
        np.testing.assert_array_equal(np.asarray(frames.at(index)), ahead[index])
    assert [i for i, _ in frames.forward(count - 3)] == [count - 3, count - 2, count - 1]
    with pytest.raises(InputError, match=f"no frame {count}"):
        frames.at(count)


def test_odd_sides_get_one_more_pixel(tmp_path):
    frames = VideoFile(film(tmp_path / "odd.mp4", 3, (65, 47)))
    [first, *_] = [p for _, p in frames.forward()]
    assert first.size == (66, 48)
    assert np.asarray(first)[2, 2].min() > 240


def test_variable_rate_is_kept(tmp_path):
    times = [0, 40, 80, 400, 440, 1000]
    with writer(tmp_path / "v.mp4", (64, 48), Fraction(25), Fraction(1, 1000)) as write:
        for index, time in enumerate(times):
            write(picture(index), time)
    frames = VideoFile(tmp_path / "v.mp4")
    seen = []
    for _ in frames.forward():
        assert frames.pts is not None
        seen.append(round(float(frames.pts * frames.time_base * 1000)))
    assert seen == times


@pytest.mark.parametrize("turned", [90, 180, 270])
def test_rotation_is_applied(tmp_path, turned):
    path = tmp_path / "r.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.set_display_rotation(turned)  # degrees counterclockwise
        for index in range(3):
            container.mux(stream.encode(av.VideoFrame.from_image(picture(index))))
        container.mux(stream.encode(None))
    [(_, image), *_] = VideoFile(path).forward()
    assert image.size == ((48, 64) if turned in (90, 270) else (64, 48))
    rgb = np.asarray(image)[..., 0]
    corners = {90: rgb[-3, 2], 180: rgb[-3, -3], 270: rgb[2, -3]}
    assert corners.pop(turned) > 200
    assert max(corners.values()) < 50


def test_cut_off_file_gives_what_is_there(tmp_path):
    whole = film(tmp_path / "a.mp4", 120).read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole[: len(whole) * 2 // 3])  # the index stands at its beginning
    with pytest.warns(UserWarning, match=r"cut off|ends early|damaged"):
        found = list(VideoFile(cut).forward())
    assert 5 < len(found) < 120
    assert all(abs(number(p) - i) <= 1 for i, p in found[:4])


def test_damaged_in_the_middle(tmp_path):
    whole = bytearray(film(tmp_path / "a.mp4", 120).read_bytes())
    start = whole.index(b"mdat") + (len(whole) - whole.index(b"mdat")) // 2
    whole[start : start + 300] = bytes(300)
    (tmp_path / "bad.mp4").write_bytes(whole)
    frames = VideoFile(tmp_path / "bad.mp4")
    with pytest.warns(UserWarning, match="damaged"):
        found = list(frames.forward())
    assert len(found) > 30


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "an empty file"),
        (b"<html>no film</html>" * 50, "not a video, or damaged"),
        (bytes(5000), "not a video, or damaged"),
    ],
)
def test_no_video(tmp_path, content, says):
    path = tmp_path / "x.mp4"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says):
        open_frames(path)


def test_without_index_or_frames(tmp_path):
    whole = film(tmp_path / "a.mp4", 20).read_bytes()
    (tmp_path / "head.mp4").write_bytes(whole[:200])
    with pytest.raises(InputError, match=r"no video in this file|not a video, or damaged"):
        open_frames(tmp_path / "head.mp4")
    with av.open(str(tmp_path / "none.avi"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    frames = VideoFile(tmp_path / "none.avi")
    with pytest.raises(InputError, match="no frame can be read"):
        list(frames.forward())


def test_only_sound(tmp_path):
    path = tmp_path / "s.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.rate = 44100
        for _ in range(4):
            container.mux(stream.encode(silence))
        container.mux(stream.encode(None))
    with pytest.raises(InputError, match="no video in this file"):
        open_frames(path)


def test_half_written_films_do_not_stay(tmp_path):
    def broken() -> None:
        with writer(tmp_path / "a.mp4", (64, 48), Fraction(25)) as write:
            write(picture(0), None)
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        broken()
    assert not list(tmp_path.iterdir())


def test_times_that_files_lack_or_repeat(tmp_path):
    """Raw H.264 says no times; broken ones say one twice: frames follow at the rate then."""
    with writer(tmp_path / "a.mp4", (64, 48), Fraction(25), Fraction(1, 1000)) as write:
        for index, pts in enumerate((None, None, 120, 120, 90)):
            write(picture(index), pts)
    frames = VideoFile(tmp_path / "a.mp4")
    seen = []
    for _ in frames.forward():
        assert frames.pts is not None
        seen.append(round(float(frames.pts * frames.time_base * 1000)))
    assert seen == [0, 40, 120, 160, 200]


def test_pixels_that_are_not_square(tmp_path):
    wide = Fraction(2)
    with writer(tmp_path / "w.mp4", (64, 48), Fraction(25), aspect=wide) as write:
        write(picture(0), None)
    assert VideoFile(tmp_path / "w.mp4").aspect == wide


@pytest.mark.parametrize("way", ["forward", "behind", "backward"])
def test_damage_is_noted_whatever_the_way(tmp_path, way):
    whole = film(tmp_path / "a.mp4", 120).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    frames = VideoFile(tmp_path / "cut.mp4")
    ways = {
        "forward": frames.forward, "behind": lambda: frames.forward(5),
        "backward": lambda: frames.backward(frames.last()),
    }  # fmt: skip
    with pytest.warns(UserWarning, match="of 120 frames"):
        list(ways[way]())
    assert any("of 120 frames" in note for note in frames.notes)


MATRICES = {  # a, b, c, d of the display matrix → how a stored frame becomes the one that is shown
    (1, 0, 0, 1): None, (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM, (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (0, 1, -1, 0): Image.Transpose.ROTATE_270, (0, -1, 1, 0): Image.Transpose.ROTATE_90,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE, (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}  # fmt: skip


@pytest.mark.parametrize("matrix", MATRICES)
def test_display_matrix(tmp_path, matrix):
    """Phones write mirrored matrices for front cameras; players show frames by them."""
    path = film(tmp_path / "a.mp4", 2)
    content = bytearray(path.read_bytes())
    start = content.find(b"tkhd") + 8 + 20 + 16
    a, b, c, d = (value << 16 for value in matrix)
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    frame = next(VideoFile(path).forward())[1]
    expected = picture(0) if MATRICES[matrix] is None else picture(0).transpose(MATRICES[matrix])
    assert frame.size == expected.size
    assert np.abs(np.asarray(frame).astype(int) - np.asarray(expected)).mean() < 3


def test_overlay_of_frames_in_a_list(tmp_path):
    """What `track` takes, with labels of some frames."""
    labels = np.zeros((48, 64), np.int32)
    labels[24:40, 24:40] = 1
    frames = [picture(index) for index in range(3)]
    path = write_overlay(tmp_path / "a.mp4", frames, {1: labels}.get, {1: (255, 0, 0)})
    plain, drawn = (np.asarray(open_frames(path).at(index)).astype(int) for index in (0, 1))
    assert np.ptp(plain[32, 32]) < 20
    assert drawn[32, 32, 0] > drawn[32, 32, 2] + 60
    assert open_frames(path).last() == 2
