"""Video files through PyAV: read from any frame on, and written."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from incontext.errors import InputError, first_line
from incontext.files import atomic
from incontext.images.image_file import MAX_PIXELS
from incontext.video.frames import Frames

if TYPE_CHECKING:
    import av

SQUARE = Fraction(1)  # pixels
CHUNK = 24  # frames held at once when a file is read backwards
# Signs of a display matrix (a, b, c, d): the stored pixel (x, y) is shown at (ax + cy, bx + dy).
TRANSPOSITIONS: dict[tuple[int, ...], Image.Transpose] = {
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT, (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180, (0, 1, -1, 0): Image.Transpose.ROTATE_270,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90, (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
}  # fmt: skip


def import_av() -> Any:
    """Return PyAV.

    Raises:
        InputError: it is not installed.
    """
    try:
        import av
    except ImportError:
        raise InputError(
            "video files need PyAV: pip install 'incontext-seg[video]'; folders of pictures do not"
        ) from None
    av.logging.set_level(None)  # decoders write to stderr what is reported in one sentence here
    return av


class VideoFile(Frames):
    """Frames of a video file, rotated and mirrored by its display matrix.

    Attributes:
        rate: frames a second on average.
        pts: of the frame read last, in units of `time_base`; None if the file has no times.
        aspect: width of a pixel over its height, as stored.

    Raises:
        InputError: PyAV is missing, or the file holds no video.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open() as (_, stream):
            if stream.codec_context is None:
                raise InputError(f"{path}: a video of a kind that cannot be decoded here")
            self.total = self._announced = stream.frames or None
            self.aspect = Fraction(stream.sample_aspect_ratio or 1)
            self.rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
            self.time_base = Fraction(stream.time_base or 1 / self.rate)
            wide = stream.codec_context.width * stream.codec_context.height
        if wide > MAX_PIXELS:
            raise InputError(f"{path}: frames of {wide // 10**6} megapixels are too large")
        self.pts: int | None = None
        self.notes: list[str] = []
        self._pts: list[int] = []  # of every frame, once `_index` has read them
        self._key_frames: list[int] = []

    @contextmanager
    def _open(self) -> Iterator[tuple[Any, Any]]:
        """Open the file and its first video stream."""
        av = import_av()
        try:
            container = av.open(str(self.path))
        except (av.error.FFmpegError, OSError) as error:
            problem = "an empty file" if not self.path.stat().st_size else "not a video, or damaged"
            raise InputError(f"{self.path}: {problem} ({_error_text(error)})") from None
        with container:
            if not container.streams.video:
                raise InputError(f"{self.path}: no video in this file")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            yield container, stream

    def _decode(self, container: Any, stream: Any) -> Iterator["av.VideoFrame"]:
        """Decode frames from the current position; what is damaged is skipped, with a warning."""
        av, damaged_count = import_av(), 0
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except av.error.FFmpegError as error:
                self._note(f"ends early, damaged ({_error_text(error)})")
                break
            try:
                yield from packet.decode()
            except av.error.FFmpegError:
                damaged_count += 1
        if damaged_count:
            self._note(f"{damaged_count} damaged pieces are left out")

    def _note(self, text: str) -> None:
        """Warn of damage, once."""
        note = f"{self.path}: {text}"
        if note not in self.notes:
            self.notes.append(note)
            warnings.warn(note, stacklevel=3)

    def _set_total(self, count: int) -> None:
        """Set the number of frames, which all were read.

        Raises:
            InputError: there are none.
        """
        if not count:
            raise InputError(f"{self.path}: no frame can be read; the file is damaged or empty")
        if self._announced and count < self._announced:
            self._note(f"ends after {count} of {self._announced} frames; it is cut off or damaged")
        self.total = count

    def forward(self, start: int = 0) -> Iterator[tuple[int, Image.Image]]:
        """See `Frames`."""
        if start:
            yield from self._between(start, len(self._index()))
            return
        index = -1
        with self._open() as (container, stream):
            for index, frame in enumerate(self._decode(container, stream)):
                self.pts = frame.pts
                yield index, _upright(frame)
        self._set_total(index + 1)

    def last(self) -> int:
        """See `Frames`; decodes the whole file the first time."""
        return len(self._index()) - 1

    def backward(self, start: int) -> Iterator[tuple[int, Image.Image]]:
        """See `Frames`; decodes chunk after chunk, each from the key frame before it on."""
        for end in range(min(start, len(self._index()) - 1) + 1, 0, -CHUNK):
            yield from reversed(list(self._between(max(0, end - CHUNK), end)))

    def _index(self) -> list[int]:
        """Return the pts of every frame; decodes the whole file the first time."""
        if not self._pts:
            with self._open() as (container, stream):
                for index, frame in enumerate(self._decode(container, stream)):
                    self._pts.append(-1 if frame.pts is None else frame.pts)
                    self._key_frames += [index] if frame.key_frame else []
            self._set_total(len(self._pts))
        return self._pts

    def _between(self, start: int, end: int) -> Iterator[tuple[int, Image.Image]]:
        """Yield frames start … end - 1."""
        all_pts = self._index()
        index_of = {pts: index for index, pts in enumerate(all_pts)}
        with self._open() as (container, stream):
            key = max((k for k in self._key_frames if k <= start), default=0)
            exact = len(index_of) == len(all_pts) and all_pts == sorted(all_pts)
            if exact and key:
                container.seek(all_pts[key], stream=stream)
            for index, frame in enumerate(self._decode(container, stream)):
                # Without usable times every frame is counted from the first one on.
                number = index_of.get(frame.pts or 0, -1) if exact else index
                if start <= number < end:
                    self.pts = frame.pts
                    yield number, _upright(frame)
                if number >= end - 1:
                    return


def _error_text(error: Exception) -> str:
    return first_line(error).rpartition("] ")[2]


def _upright(frame: Any) -> Image.Image:
    """Return a frame as RGB, rotated and mirrored as it is to be shown."""
    image: Image.Image = frame.to_image()
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return image
    # 3 × 3 in fixed point. Other angles than multiples of 90 degrees are left as they are.
    linear = np.frombuffer(data, np.int32)[[0, 1, 3, 4]].astype(np.int64)
    signs = np.sign(linear) * (np.abs(linear) * 50 > np.abs(linear).max())
    transposition = TRANSPOSITIONS.get(tuple(signs.tolist()))
    return image if transposition is None else image.transpose(transposition)


@contextmanager
def writer(
    path: Path,
    size: tuple[int, int],
    rate: Fraction,
    time_base: Fraction | None = None,
    aspect: Fraction = SQUARE,
) -> Iterator[Callable[[Image.Image, int | None], None]]:
    """Write an H.264 MP4 that appears whole or not at all.

    H.264 in its common form has even sides: an odd one gets one more column or row.

    Args:
        size: (width, height).
        rate: frames a second.
        time_base: of the `pts` that frames come with; None: they follow each other at `rate`. A
            frame whose pts is None, or not after the one before, follows at `rate` as well.
        aspect: width of a pixel over its height.

    Yields:
        A function that takes an image of that size and its pts.
    """
    av = import_av()
    width, height = size
    even = (width + width % 2, height + height % 2)
    try:
        options = {"movflags": "faststart"}
        with (
            atomic(path) as draft,
            av.open(str(draft), "w", format="mp4", options=options) as container,
        ):
            stream = container.add_stream("libx264", rate=rate, options={"crf": "20"})
            stream.width, stream.height = even
            stream.pix_fmt = "yuv420p"
            base = time_base or 1 / rate
            stream.codec_context.time_base = base
            stream.codec_context.sample_aspect_ratio = aspect
            step, last = max(1, round(1 / (rate * base))), -1

            def write(image: Image.Image, pts: int | None = None) -> None:
                nonlocal last
                if image.size != size:
                    image = image.resize(size)
                pad = ((0, height % 2), (0, width % 2), (0, 0))
                pixels = np.pad(np.asarray(image), pad, "edge")
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                after = 0 if last < 0 else last + step
                last = pts if time_base and pts is not None and pts > last else after
                frame.pts, frame.time_base = last, base
                container.mux(stream.encode(frame))

            yield write
            container.mux(stream.encode(None))
    except av.error.FFmpegError as error:
        raise OSError(getattr(error, "errno", None), _error_text(error), str(path)) from None
