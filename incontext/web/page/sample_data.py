"""Sample data: drawn here, or photographs that scikit-image ships; all offline."""

from collections.abc import Callable
from fractions import Fraction
from functools import cache, wraps
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from incontext.web import photographs
from incontext.web.limits import root

Array = np.ndarray[Any, Any]
SCENES = {
    "Cat's eye": photographs.eyes, "Coins": photographs.coins, "Galaxies": photographs.galaxies,
}  # fmt: skip
CLIP = (240, 320, 36)  # height, width, frames
CELLS = 12  # pictures of the set for tuning and the doctor


@cache
def scene(name: str) -> photographs.Scene:
    """Return one of `SCENES`."""
    return SCENES[name]()


_lock = Lock()


def _locked(make: Callable[..., Any]) -> Callable[..., Any]:
    """Make files under a lock, so that no thread sees half of one."""

    @wraps(make)
    def call(*arguments: Any) -> Any:
        with _lock:
            return make(*arguments)

    return call


@_locked
def target(name: str) -> Path:
    """Write the image to segment; returns its file."""
    path = folder() / f"{name.lower().replace(chr(39), '').replace(' ', '-')}.png"
    if not path.is_file():
        Image.fromarray(scene(name).query).convert("RGB").save(path)
    return path


@_locked
def clip() -> Path:
    """Write a video of a red disc and a blue square that move over a rough ground."""
    path = folder() / "disc-and-square.mp4"
    if not path.is_file():
        _write_clip(path)
    return path


def clip_ids(index: int) -> Array:
    """Return the ids of a frame of `clip`: 1 the disc, 2 the square."""
    canvas = Image.new("L", (CLIP[1], CLIP[0]))
    pen = ImageDraw.Draw(canvas)
    pen.ellipse(_disc(index), fill=1)
    pen.rectangle(_square(index), fill=2)
    return np.asarray(canvas)


@_locked
def cells() -> tuple[list[Path], list[Path]]:
    """Write images of drawn cells and a mask for each; the last mask is wrong, for the doctor."""
    pictures = [folder() / "cells" / f"cells-{n:02d}.png" for n in range(CELLS)]
    masks = [folder() / "masks" / path.name for path in pictures]
    if not masks[-1].is_file():
        for parent in (pictures[0].parent, masks[0].parent):
            parent.mkdir(exist_ok=True)
        for number, (picture, mask) in enumerate(zip(pictures, masks, strict=True)):
            image, ids = _cells(np.random.default_rng(number))
            wrong = number == CELLS - 1
            Image.fromarray(image).save(picture)
            Image.fromarray(np.roll(1 - ids, 40, 0) if wrong else ids).save(mask)
    return pictures, masks


def painted_cat() -> tuple[Image.Image, Array]:
    """Return one half of a cat's face, and the ids (H, W) uint8 of the eye painted on it."""
    half = scene("Cat's eye")
    return Image.fromarray(half.example), half.mask.astype(np.uint8)


@_locked
def cats() -> list[Path]:
    """Write pictures of the same cat: the other half of its face, then all of it, turned round and
    in dim light."""
    paths = [folder("cats") / f"{name}.png" for name in ("other", "tilted", "dusk")]
    if not paths[-1].is_file():
        half = scene("Cat's eye")
        cat = Image.fromarray(np.hstack([half.example, half.query]))
        tilted = cat.transpose(Image.Transpose.FLIP_LEFT_RIGHT).rotate(
            -12, Image.Resampling.BICUBIC
        )
        dim = cat.crop((20, 40, 420, 260)).point(lambda value: round(value * 0.55))
        pictures = [Image.fromarray(half.query), tilted.crop((60, 45, 400, 265)), dim]
        for picture, path in zip(pictures, paths, strict=True):
            picture.save(path)
    return paths


def folder(name: str = "") -> Path:
    """Create a folder of sample data, which `sweep` leaves alone."""
    path = root() / "samples" / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def _disc(index: int) -> tuple[int, int, int, int]:
    x, y = 30 + 5 * index, round(90 + 45 * np.sin(index / 6))
    return x, y, x + 64, y + 64


def _square(index: int) -> tuple[int, int, int, int]:
    x, y = 240 - 4 * index, round(150 + 20 * np.cos(index / 5))
    return x, y, x + 50, y + 50


def _ground(rng: np.random.Generator, size: tuple[int, int], around: tuple[int, ...]) -> Array:
    """Draw clouds of a color, (height, width, 3)."""
    light = rng.integers(-22, 22, (size[0] // 16 + 1, size[1] // 16 + 1, 1))
    coarse = light + np.array(around)
    image = Image.fromarray(coarse.clip(0, 255).astype(np.uint8))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BICUBIC))


def _write_clip(path: Path) -> None:
    import av

    ground = Image.fromarray(_ground(np.random.default_rng(3), CLIP[:2], (95, 110, 85)))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(12), options={"crf": "18"})
        stream.height, stream.width, stream.pix_fmt = CLIP[0], CLIP[1], "yuv420p"
        for index in range(CLIP[2]):
            picture = ground.copy()
            pen = ImageDraw.Draw(picture)
            pen.ellipse(_disc(index), fill=(205, 60, 50), outline=(130, 25, 30), width=3)
            pen.rectangle(_square(index), fill=(50, 90, 190), outline=(20, 40, 110), width=3)
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode(None))


def _cells(rng: np.random.Generator) -> tuple[Array, Array]:
    """Draw an image of cells (240, 320, 3) and a mask of the cells (240, 320)."""
    height, width = 240, 320
    picture = Image.fromarray(_ground(rng, (height, width), (215, 190, 205)))
    mask = Image.new("L", (width, height))
    pen, shape = ImageDraw.Draw(picture), ImageDraw.Draw(mask)
    for _ in range(int(rng.integers(5, 10))):
        x, y = rng.integers(20, width - 20), rng.integers(20, height - 20)
        a, b = rng.integers(14, 34, 2)
        box = (int(x - a), int(y - b), int(x + a), int(y + b))
        stain = tuple((rng.integers(-15, 15, 3) + np.array([140, 85, 150])).tolist())
        pen.ellipse(box, fill=stain, outline=(110, 60, 120), width=2)
        core = (int(x - a / 3), int(y - b / 3), int(x + a / 3), int(y + b / 3))
        pen.ellipse(core, fill=(80, 40, 110))
        shape.ellipse(box, fill=1)
    blurred = np.asarray(picture.filter(ImageFilter.GaussianBlur(1))).astype(int)
    noisy = blurred + rng.integers(-8, 9, blurred.shape)
    return noisy.clip(0, 255).astype(np.uint8), np.asarray(mask)
