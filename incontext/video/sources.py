"""Sources: what frames can be read from, by what was given."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from incontext.errors import InputError
from incontext.images.image import SUFFIXES, to_numpy
from incontext.video.frames import Array, Frames, Listed, Stack, Stream, Volume
from incontext.video.movie import Movie


def open_frames(source: Any) -> Frames:
    """Frames of any source.

    Args:
        source: a video file; a folder of pictures, in the order of the numbers in their names; a
            picture file with several pages; a list of what `read_image` takes; an array or tensor
            (T, H, W, 3) uint8 or 0–1, or (D, H, W) of any numbers, such as slices of a volume; any
            other iterable of pictures, read as it comes.

    Raises:
        InputError: no such file, no frame in it, or something else.
    """
    if isinstance(source, Frames):
        return source
    if isinstance(source, (str, Path)):
        return _of_path(Path(source))
    if isinstance(source, (np.ndarray, Tensor)):
        return _of_array(to_numpy(source))
    if isinstance(source, (list, tuple)):
        return Listed(source)
    if isinstance(source, Image.Image) or not isinstance(source, Iterable):
        raise InputError(
            f"{type(source).__name__} as frames; accepted: a video file, a folder, an array, or "
            "an iterable of pictures"
        )
    return Stream(source)


def natural(name: str) -> list[Any]:
    """Sorts `frame2` before `frame10`."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"([0-9]+)", name))]


def _of_path(path: Path) -> Frames:
    if path.is_dir():
        shown = [p for p in path.iterdir() if not p.name.startswith(".") and p.is_file()]
        inside = [p for p in shown if p.suffix.lower() in SUFFIXES]
        if not inside:
            raise InputError(f"{path}: no picture in this folder")
        several = sorted(inside, key=lambda p: natural(p.name))
        names = [p.stem for p in several]
        return Listed(
            several, names if len(set(names)) == len(names) else [p.name for p in several]
        )
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder")
    if path.suffix.lower() in SUFFIXES:
        return Stack(path)
    return Movie(path)


def _of_array(values: Array) -> Frames:
    if values.ndim == 3 and values.shape[-1] not in (3, 4):
        return Listed(values) if values.dtype in (np.uint8, np.bool_) else Volume(values)
    if values.ndim == 4 and values.shape[-1] in (1, 3, 4):
        return Listed(values)
    raise InputError(
        f"frames of shape {values.shape}; accepted: (T, H, W, 3) pictures, or (D, H, W) slices"
    )
