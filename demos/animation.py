"""The animation of README, drawn from results of the bundled checkpoint.

`python -m demos.animation docs/demo.webp`. An object is painted in one picture and appears in
others, twice; then objects painted in one frame are followed through a clip. Photographs that may
be published anywhere (see `FREE_SCENES`), no network; the same every time.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from skimage import data

from incontext import Example, Predictor, VideoPredictor
from incontext.web.photographs import eyes, galaxies

WIDTH, HEIGHT, BAR, GAP = 640, 324, 40, 6  # pixels; the bar holds the sentence
LARGE = (310, HEIGHT - BAR - GAP)  # the painted picture
SMALL = ((WIDTH - LARGE[0] - 3 * GAP) // 2, (LARGE[1] - GAP) // 2)  # four others beside it
BRUSH_FRAMES, CLIP_FRAMES = 12, 32
QUICK, SLOW, HOLD = 80, 450, 1800  # milliseconds of a frame
COLOR = np.array([30, 136, 229])  # of the brush, as results have it

Array = np.ndarray[Any, Any]
Frame = tuple[Image.Image, int]  # and how long it stays, in milliseconds


@dataclass(frozen=True)
class Act:
    """A painted example, pictures to segment, and the sentences that go with them."""

    example: Image.Image
    mask: Array
    queries: Sequence[Image.Image]
    sentences: tuple[str, str]


def fill(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Cut out the middle of an image in the shape of `size`, and scale it to that."""
    width, height = image.size
    scale = min(width / size[0], height / size[1])
    w, h = size[0] * scale, size[1] * scale
    box = ((width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2)
    return image.resize(size, Image.Resampling.BICUBIC, box)


def cat_act() -> Act:
    """Make the first act: one eye of a cat, and four other views that show eyes."""
    scene, photo = eyes(), Image.fromarray(data.chelsea())
    queries = [
        photo.crop((250, 30, 440, 195)),
        photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT).crop((80, 20, 400, 280)),
        photo.rotate(14, Image.Resampling.BICUBIC).crop((92, 72, 352, 264)),
        photo.crop((100, 50, 380, 250)),
    ]
    sentences = ("Paint an object in one picture …", "… and it is found in the others.")
    return Act(
        Image.fromarray(scene.example[:228]), scene.mask[:228],
        [fill(query, (2 * SMALL[0], 2 * SMALL[1])) for query in queries], sentences,
    )  # fmt: skip


def sky_act() -> Act:
    """Make the second act: bright galaxies in one corner of the sky, and four other corners."""
    scene, sky = galaxies(), data.hubble_deep_field()
    queries = [Image.fromarray(sky[y : y + 184, x : x + 214])
               for y, x in ((0, 440), (310, 560), (620, 200), (440, 690))]  # fmt: skip
    sentences = ("Many small objects, one example …", "… all of their kind in other pictures.")
    example = fill(Image.fromarray(scene.example), LARGE)
    mask = fill(Image.fromarray(scene.mask), LARGE)
    return Act(example, np.asarray(mask, bool), queries, sentences)


def tint(image: Image.Image, mask: Array) -> Image.Image:
    """Return the image with a mask in the color of the brush."""
    pixels = np.array(image.convert("RGB"))
    pixels[mask] = (pixels[mask] * 0.4 + COLOR * 0.6).astype(np.uint8)
    return Image.fromarray(pixels)


def brush_strokes(mask: Array) -> Iterator[tuple[Array, tuple[int, int], int]]:
    """Yield what a brush that goes to and fro over a mask has painted, its place and radius."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    top, bottom, left, right = rows[0], rows[-1], columns[0], columns[-1]
    radius = max(10, int(bottom - top) // 6)
    turns = np.arange(top + radius // 2, bottom + radius, radius)
    corners = [np.array((y, x), float) for i, y in enumerate(turns)
               for x in ((left, right) if i % 2 == 0 else (right, left))]  # fmt: skip
    path = [start + (end - start) * step / 40
            for start, end in pairwise(corners) for step in range(40)]  # fmt: skip
    painted = np.zeros_like(mask)
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]]
    for number, (row, column) in enumerate(path):
        painted |= (y - row) ** 2 + (x - column) ** 2 <= radius**2
        if number % (len(path) // BRUSH_FRAMES) == 0:
            yield painted & mask, (int(column), int(row)), radius
    yield mask, (0, 0), 0


def page(sentence: str, tiles: Sequence[tuple[Image.Image, tuple[int, int]]]) -> Image.Image:
    """Put a sentence above pictures at their places."""
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(20)
    pen.text((GAP, BAR / 2), sentence, "black", font, anchor="lm")
    for tile, place in tiles:
        image.paste(tile, place)
    return image


def act_frames(act: Act, predictor: Predictor) -> Iterator[Frame]:
    """Yield the frames of an act: painting, then one result after the other."""
    prompt = predictor.prompt(Example(act.example, act.mask))
    overlays = [result.overlay() for result in predictor.predict(list(act.queries), prompt)]
    places = [(LARGE[0] + 2 * GAP + i % 2 * (SMALL[0] + GAP), BAR + i // 2 * (SMALL[1] + GAP))
              for i in range(len(overlays))]  # fmt: skip
    scale = act.example.width / LARGE[0]

    def frame(painted: Image.Image, count: int) -> Image.Image:
        shown = [*overlays[:count], *act.queries[count:]]
        tiles = [(fill(tile, SMALL), place) for tile, place in zip(shown, places, strict=True)]
        return page(act.sentences[count > 0], [(painted, (GAP, BAR)), *tiles])

    yield frame(fill(act.example, LARGE), 0), SLOW * 2
    for painted, place, radius in brush_strokes(act.mask):
        tile = fill(tint(act.example, painted), LARGE)
        if radius:
            x, y, r = (round(value / scale) for value in (*place, radius))
            ImageDraw.Draw(tile).ellipse((x - r, y - r, x + r, y + r), outline="white", width=2)
        yield frame(tile, 0), QUICK
    final = fill(tint(act.example, act.mask), LARGE)
    for count in range(1, len(overlays) + 1):
        yield frame(final, count), HOLD if count == len(overlays) else SLOW


def cat_clip() -> tuple[list[Image.Image], Array]:
    """Move a camera over the cat: frames, and the labels of the first (eyes 1, nose 2)."""
    photo = Image.fromarray(data.chelsea())
    labels = Image.new("L", photo.size)
    pen = ImageDraw.Draw(labels)
    for box in ((134, 84, 210, 150), (296, 108, 341, 166)):  # as in `eyes`
        pen.ellipse(box, fill=1)
    pen.polygon([(243, 226), (262, 222), (285, 229), (289, 243), (272, 262), (255, 262)], fill=2)
    size, frames, first_labels = (420, 280), [], np.zeros((0, 0))
    for number in range(CLIP_FRAMES):
        phase = 2 * np.pi * number / CLIP_FRAMES
        zoom = 0.82 - 0.16 * np.sin(phase) ** 2
        w, h = 420 * zoom, 280 * zoom
        x, y = 232 + 32 * np.sin(phase), 168 + 18 * np.sin(2 * phase)
        box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        frames.append(photo.resize(size, Image.Resampling.BICUBIC, box))
        if number == 0:
            first_labels = np.asarray(labels.resize(size, Image.Resampling.NEAREST, box))
    return frames, first_labels


def clip_frames(video: VideoPredictor) -> Iterator[Frame]:
    """Yield the frames of the last act: one labelled frame at the left, the clip at the right."""
    frames, labels = cat_clip()
    results = [result for _, result in video.track(frames, labels)]
    height = HEIGHT - BAR - GAP
    size = (round(height * frames[0].width / frames[0].height), height)
    rest = WIDTH - size[0] - 3 * GAP
    key = fill(results[0].overlay(), (rest, round(rest * 2 / 3)))
    sentence = "In a video, paint one frame; the others follow."
    for number, result in enumerate(results):
        tiles = [(key, (GAP, BAR)), (fill(result.overlay(), size), (rest + 2 * GAP, BAR))]
        yield page(sentence, tiles), SLOW * 3 if number == 0 else QUICK + 20


def main(path: Path) -> None:
    """Write the animation; its name says whether as WebP or as GIF."""
    predictor = Predictor.from_pretrained()
    frames = [*act_frames(cat_act(), predictor), *act_frames(sky_act(), predictor)]
    frames += clip_frames(VideoPredictor.from_pretrained())
    images, durations = zip(*frames, strict=True)
    images[0].save(
        path, save_all=True, append_images=images[1:], duration=durations, loop=0,
        **({"quality": 72, "method": 6} if path.suffix == ".webp" else {}),
    )  # fmt: skip
    seconds, size = sum(durations) / 1000, path.stat().st_size / 1e6
    print(f"{path}: {len(images)} frames, {seconds:.1f} s, {size:.2f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("out/demo.webp"))
