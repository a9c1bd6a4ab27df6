"""Frames: images in an order from any source, read one at a time.

Lists, folders, arrays and multi-page files can be read from any frame on, in both directions;
generators only as they come. Video files are in `incontext.video.video_file`.
"""

import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image
from torch import Tensor

from incontext.errors import InputError, former_attributes
from incontext.images.folder import SUFFIXES, list_images
from incontext.images.image import read_image, to_numpy
from incontext.images.image_file import open_header

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


class Frames(ABC):
    """A source of frames: upright RGB images with numbers from 0 on.

    Attributes:
        total: number of frames; None if it is known at the end only.
        names: of their files; empty if they have none.
        seekable: whether frames can be read from any one on, and backwards.
        notes: damage found so far.
    """

    total: int | None = None
    names: Sequence[str] = ()
    seekable: bool = True
    notes: Sequence[str] = ()

    __getattr__ = former_attributes(sought="seekable", where="file_of")

    @abstractmethod
    def forward(self, start: int = 0) -> Iterator[tuple[int, Image.Image]]:
        """Yield (number, frame) from `start` on.

        Raises:
            InputError: a frame cannot be read, or there is none at all.
        """

    def backward(self, start: int) -> Iterator[tuple[int, Image.Image]]:
        """Yield (number, frame) from `start` down to 0; only if `seekable`."""
        raise NotImplementedError

    def last(self) -> int:
        """Return the number of the last frame; only if `seekable`."""
        return (self.total or 1) - 1

    def file_of(self, index: int) -> str | Path | None:
        """Return the file of a frame; None if it has none of its own."""
        return None

    def at(self, index: int) -> Image.Image:
        """Return one frame; only if `seekable`.

        Raises:
            InputError: there is no such frame.
        """
        for _, picture in self.forward(index) if index >= 0 else ():
            return picture
        raise InputError(f"there is no frame {index}; accepted: 0 … {(self.total or 1) - 1}")

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Close what reading keeps open."""


class Stream(Frames):
    """Frames as they come, each once: a generator, a camera."""

    seekable = False

    def __init__(self, source: Iterable[Any]) -> None:
        self.source, self.next = iter(source), 0

    def forward(self, start: int = 0) -> Iterator[tuple[int, Image.Image]]:
        """See `Frames`; frames before `start` are read and skipped."""
        for picture in self.source:
            index, self.next = self.next, self.next + 1
            if index >= start:
                yield index, _read(picture, index)
        if not self.next:
            raise InputError("a stream without a frame")

    def close(self) -> None:
        """Close a generator, so that it releases what it holds."""
        if hasattr(self.source, "close"):
            self.source.close()


class ImageSequence(Frames):
    """Images or their paths, read by number."""

    def __init__(self, pictures: Sequence[Any] | Array, names: Sequence[str] = ()) -> None:
        if not len(pictures):
            raise InputError("no frames: an empty list")
        self.pictures, self.total, self.names = pictures, len(pictures), names

    def forward(self, start: int = 0) -> Iterator[tuple[int, Image.Image]]:
        """See `Frames`."""
        return ((i, self._picture(i)) for i in range(start, len(self.pictures)))

    def backward(self, start: int) -> Iterator[tuple[int, Image.Image]]:
        """See `Frames`."""
        return ((i, self._picture(i)) for i in range(start, -1, -1))

    def file_of(self, index: int) -> str | Path | None:
        """See `Frames`."""
        source = self.pictures[index]
        return source if isinstance(source, (str, Path)) else None

    def _picture(self, index: int) -> Image.Image:
        return _read(self.pictures[index], index)


class Volume(ImageSequence):
    """Slices (D, H, W) of any numbers, scaled from the lowest, black, to the highest, white."""

    def __init__(self, values: Array) -> None:
        super().__init__(values)
        if np.iscomplexobj(values):
            raise InputError(f"a volume of {values.dtype}; accepted: real numbers")
        self.low, self.high = _value_range(values)

    def _picture(self, index: int) -> Image.Image:
        values = np.asarray(self.pictures[index], np.float64)
        spread = (values - self.low) * (255 / ((self.high - self.low) or 1))
        return _read(np.round(spread).astype(np.uint8), index)


class MultiPageImage(ImageSequence):
    """Pages of one image file: TIFF stacks, animations. Of more than 8 bits: see `Volume`."""

    def __init__(self, path: Path) -> None:
        self.image = _open_image(path)
        self.path, self.limits = path, None
        try:
            self.total = getattr(self.image, "n_frames", 1)
        except Exception as error:  # see `_page`
            raise InputError(f"{path}: damaged ({type(error).__name__}: {error})") from None
        if self.image.mode.startswith("I") or self.image.mode == "F":
            self.limits = _value_range(np.asarray(self._page(i)) for i in range(self.total))
        self.pictures = range(self.total)

    def _page(self, index: int) -> Image.Image:
        try:
            self.image.seek(index)
            self.image.load()
        except Exception as error:  # decoders raise nearly anything on damaged data
            raise InputError(
                f"{self.path}: frame {index} is damaged ({type(error).__name__}: {error})"
            ) from None
        return self.image

    def _picture(self, index: int) -> Image.Image:
        page = self._page(index)
        if self.limits is None:
            return _read(page.copy(), index)
        low, high = self.limits
        spread = (np.asarray(page, np.float64) - low) * (255 / ((high - low) or 1))
        return _read(np.round(spread).astype(np.uint8), index)

    def close(self) -> None:
        """See `Frames`."""
        self.image.close()


def open_frames(source: Any) -> Frames:
    """Open frames of any source.

    Args:
        source: a video file; a folder of images, in the order of the numbers in their names; an
            image file with several pages; a list of what `read_image` takes; an array or tensor
            (T, H, W, 3) uint8 or 0–1, or (D, H, W) of any numbers, such as slices of a volume; any
            other iterable of images, read as it comes.

    Raises:
        InputError: no such file, no frame in it, or something else.
    """
    if isinstance(source, Frames):
        return source
    if isinstance(source, (str, Path)):
        return _open_path(Path(source))
    if isinstance(source, (np.ndarray, Tensor)):
        return _open_array(to_numpy(source))
    if isinstance(source, (list, tuple)):
        return ImageSequence(source)
    if isinstance(source, Image.Image) or not isinstance(source, Iterable):
        raise InputError(
            f"{type(source).__name__} as frames; accepted: a video file, a folder, an array, or "
            "an iterable of pictures"
        )
    return Stream(source)


def natural_key(name: str) -> list[Any]:
    """Return a sort key that puts `frame2` before `frame10`."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"([0-9]+)", name))]


def _open_path(path: Path) -> Frames:
    if path.is_dir():
        listing = list_images(path, recursive=False)
        image_paths, others = listing.paths, listing.describe_unreadable()
        if not image_paths:
            raise InputError(f"{path}: no picture in this folder{others and f', only {others}'}")
        if others:
            warnings.warn(f"{path}: left out, as they are not read here: {others}", stacklevel=3)
        image_paths.sort(key=lambda p: natural_key(p.name))
        names = [p.stem for p in image_paths]
        unique = len(set(names)) == len(names)
        return ImageSequence(image_paths, names if unique else [p.name for p in image_paths])
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder")
    if path.suffix.lower() in SUFFIXES:
        return MultiPageImage(path)
    from incontext.video.video_file import VideoFile

    return VideoFile(path)


def _open_array(values: Array) -> Frames:
    if values.ndim == 3 and values.shape[-1] not in (3, 4):
        return ImageSequence(values) if values.dtype in (np.uint8, np.bool_) else Volume(values)
    if values.ndim == 4 and values.shape[-1] in (1, 3, 4):
        return ImageSequence(values)
    raise InputError(
        f"frames of shape {values.shape}; accepted: (T, H, W, 3) pictures, or (D, H, W) slices"
    )


def _read(picture: Any, index: int) -> Image.Image:
    try:
        return read_image(picture)
    except InputError as error:
        raise InputError(f"frame {index}: {error}") from None


def _value_range(parts: Iterable[Array]) -> tuple[float, float]:
    """Return the lowest and the highest number of all parts.

    Raises:
        InputError: a part without numbers, or NaN or infinite values.
    """
    low, high = np.inf, -np.inf
    for part in parts:
        if not part.size:
            raise InputError(f"a volume whose slices have shape {part.shape}: nothing to see")
        part_range = float(part.min()), float(part.max())  # NaN if any number is
        if not np.isfinite(part_range).all():
            raise InputError("the volume holds NaN or infinite values")
        low, high = min(low, part_range[0]), max(high, part_range[1])
    return low, high


def _open_image(path: Path) -> Image.Image:
    try:
        return open_header(path, str(path))
    except InputError:
        raise
    except Exception as error:  # see `_page`
        problem = "not a picture" if path.stat().st_size else "an empty file"
        raise InputError(f"{path}: {problem} ({type(error).__name__})") from None
