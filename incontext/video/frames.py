"""Frames: any source of pictures in an order, read one at a time.

Lists, folders, arrays and stacks can be read from any frame on, in both directions; generators only
as they come. Video files are `incontext.video.movie`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from incontext.errors import InputError
from incontext.images.image import MAX_PIXELS, read_image

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


class Frames(ABC):
    """A source of frames: upright RGB pictures with numbers from 0 on.

    `total`: how many there are, None where that shows at the end only; `names`: of files, empty
    where frames have none; `sought`: whether frames can be read from any one on, and backwards;
    `notes`: what was found damaged so far.
    """

    notes: Sequence[str] = ()

    total: int | None = None
    names: Sequence[str] = ()
    sought: bool = True

    @abstractmethod
    def forward(self, start: int = 0) -> Iterator[tuple[int, Image.Image]]:
        """Frames from `start` on.

        Raises:
            InputError: a frame that cannot be read, or no frame at all.
        """

    def backward(self, start: int) -> Iterator[tuple[int, Image.Image]]:
        """Frames from `start` down to 0; only where `sought`."""
        raise NotImplementedError

    def last(self) -> int:
        """Number of the last frame; only where `sought`."""
        return (self.total or 1) - 1

    def where(self, index: int) -> str | Path | None:
        """The file of a frame; None where it has none by itself."""
        return None

    def at(self, index: int) -> Image.Image:
        """One frame; only where `sought`.

        Raises:
            InputError: there is no such frame.
        """
        for _, picture in self.forward(index) if index >= 0 else ():
            return picture
        raise InputError(f"there is no frame {index}; accepted: 0 … {(self.total or 1) - 1}")

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Give back what reading holds open."""


class Stream(Frames):
    """Frames as they come, each once: a generator, a camera."""

    sought = False

    def __init__(self, source: Iterable[Any]) -> None:
        self.source, self.next = iter(source), 0

    def forward(self, start: int = 0) -> Iterator[tuple[int, Image.Image]]:
        """See `Frames`; what comes before `start` is read and left out."""
        for picture in self.source:
            index, self.next = self.next, self.next + 1
            if index >= start:
                yield index, _read(picture, index)
        if not self.next:
            raise InputError("a stream without a frame")

    def close(self) -> None:
        """Close a generator, so that what it holds is given back."""
        if hasattr(self.source, "close"):
            self.source.close()


class Listed(Frames):
    """Frames that can be asked for by number: pictures, or paths of pictures."""

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

    def where(self, index: int) -> str | Path | None:
        """See `Frames`."""
        source = self.pictures[index]
        return source if isinstance(source, (str, Path)) else None

    def _picture(self, index: int) -> Image.Image:
        return _read(self.pictures[index], index)


class Volume(Listed):
    """Slices (D, H, W) of numbers of any kind, lowest black and highest white over the whole."""

    def __init__(self, values: Array) -> None:
        super().__init__(values)
        if np.iscomplexobj(values):
            raise InputError(f"a volume of {values.dtype}; accepted: real numbers")
        self.low, self.high = _ends(values)

    def _picture(self, index: int) -> Image.Image:
        values = np.asarray(self.pictures[index], np.float64)
        spread = (values - self.low) * (255 / ((self.high - self.low) or 1))
        return _read(np.round(spread).astype(np.uint8), index)


class Stack(Listed):
    """Pages of one picture file: TIFF stacks, animations. Of more than 8 bits: see `Volume`."""

    def __init__(self, path: Path) -> None:
        self.image = _opened(path)
        self.path, self.limits = path, None
        try:
            self.total = getattr(self.image, "n_frames", 1)
        except Exception as error:  # see `_page`
            raise InputError(f"{path}: damaged ({type(error).__name__}: {error})") from None
        if self.image.mode.startswith("I") or self.image.mode == "F":
            self.limits = _ends(np.asarray(self._page(i)) for i in range(self.total))
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


def _read(picture: Any, index: int) -> Image.Image:
    try:
        return read_image(picture)
    except InputError as error:
        raise InputError(f"frame {index}: {error}") from None


def _ends(parts: Iterable[Array]) -> tuple[float, float]:
    """The lowest and the highest number in all parts.

    Raises:
        InputError: no numbers, or some that are none.
    """
    low, high = np.inf, -np.inf
    for part in parts:
        if not part.size:
            raise InputError(f"a volume whose slices have shape {part.shape}: nothing to see")
        ends = float(part.min()), float(part.max())  # NaN if any number is
        if not np.isfinite(ends).all():
            raise InputError("the volume holds NaN or infinite values")
        low, high = min(low, ends[0]), max(high, ends[1])
    return low, high


def _opened(path: Path) -> Image.Image:
    try:
        image = Image.open(path)
    except Exception as error:  # see `_page`
        problem = "not a picture" if path.stat().st_size else "an empty file"
        raise InputError(f"{path}: {problem} ({type(error).__name__})") from None
    if image.width * image.height > MAX_PIXELS:
        raise InputError(f"{path}: {image.width}×{image.height} pixels are too many")
    return image
