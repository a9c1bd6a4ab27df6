"""A video with its labels drawn over it, as H.264 MP4."""

import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

from incontext.inference.segmentation import overlay
from incontext.labels.color_mask import Rgb
from incontext.labels.encodings import IdMap
from incontext.video.frames import Frames

Tell = Callable[[str, int, int | None], None]  # what is being done, how far, of how much
RATE = 24  # frames a second of what has no rate of its own


def write_overlay(
    path: str | Path,
    frames: Frames,
    labels: "Callable[[int], IdMap | None]",
    colors: Mapping[int, Rgb],
    rate: Fraction | None = None,
    tell: Tell = lambda what, done, total: None,
) -> Path:
    """Draw every frame with its labels, in step with the source.

    Args:
        frames: of `open_frames`.
        labels: ids (H, W) of a frame, or None: it stays as it is.
        colors: of the ids.
        rate: frames a second; None: those of the source, or 24.
        tell: hears what is being done.

    Raises:
        InputError: PyAV is missing, or a frame cannot be read.
        OSError: it cannot be written.
    """
    from incontext.video.movie import Movie, writer

    path, base, aspect = Path(path), None, Fraction(1)
    if isinstance(frames, Movie):
        base, aspect = frames.time_base, frames.aspect
    rate = rate or Fraction(getattr(frames, "rate", RATE))
    with warnings.catch_warnings(), ExitStack() as stack:
        warnings.simplefilter("ignore")  # noted when the frames were answered
        write = None
        for index, picture in frames.forward():
            if write is None:
                write = stack.enter_context(writer(path, picture.size, rate, base, aspect))
            ids = labels(index)
            drawn = picture if ids is None else overlay(picture, ids, colors)
            write(drawn, frames.pts if isinstance(frames, Movie) else None)
            tell("writing the overlay", index + 1, frames.total)
    return path
