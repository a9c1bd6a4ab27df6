"""Overlay: a video with its labels drawn over it, as H.264 MP4."""

import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

from incontext.errors import former_parameters
from incontext.inference.segmentation import overlay
from incontext.labels.color_mask import Rgb
from incontext.labels.encodings import IdMap
from incontext.video.frames import open_frames

OnProgress = Callable[[str, int, int | None], None]  # stage, done, total
RATE = 24  # frames a second of what has no rate of its own


@former_parameters(tell="on_progress")
def write_overlay(
    path: str | Path,
    frames: Any,
    labels: "Callable[[int], IdMap | None]",
    colors: Mapping[int, Rgb],
    rate: Fraction | None = None,
    on_progress: OnProgress = lambda stage, done, total: None,
) -> Path:
    """Draw every frame with its labels, in step with the source.

    Args:
        frames: see `incontext.video.frames.open_frames`; a stream that was read is over.
        labels: returns the ids (H, W) of a frame, or None: the frame stays as it is.
        colors: of the ids.
        rate: frames a second; None: those of the source, or 24.
        on_progress: called after each frame.

    Raises:
        InputError: PyAV is missing, or frames that cannot be read.
        OSError: it cannot be written.
    """
    from incontext.video.video_file import VideoFile, writer

    path, frames, base, aspect = Path(path), open_frames(frames), None, Fraction(1)
    if isinstance(frames, VideoFile):
        base, aspect = frames.time_base, frames.aspect
    rate = rate or Fraction(getattr(frames, "rate", RATE))
    with warnings.catch_warnings(), ExitStack() as stack:
        warnings.simplefilter("ignore")  # noted when the frames were segmented
        write = None
        for index, image in frames.forward():
            if write is None:
                write = stack.enter_context(writer(path, image.size, rate, base, aspect))
            ids = labels(index)
            frame = image if ids is None else overlay(image, ids, colors)
            write(frame, frames.pts if isinstance(frames, VideoFile) else None)
            on_progress("writing the overlay", index + 1, frames.total)
    return path
