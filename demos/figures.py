"""The pictures of the documentation: `python -m demos.figures docs`.

Results of the bundled checkpoint on photographs that may be published anywhere (see `FREE_SCENES`)
and on a drawn volume; reports are photographed in Chromium. No network. Names choose some of them:
`python -m demos.figures docs video tune`.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from skimage import color, data, filters

from demos.animation import cat_clip, tint
from incontext import Example, Predictor, VideoPredictor
from incontext.web.photographs import absent, eyes, galaxies

Array = np.ndarray[Any, Any]
GAP, BAR = 6, 26  # pixels; the bar holds what a tile shows
TILE = 240  # height of a tile


def strip(*tiles: tuple[str, Image.Image], height: int = TILE) -> Image.Image:
    """Put pictures of one height side by side, with a title above each."""
    sizes = [(round(image.width * height / image.height), height) for _, image in tiles]
    images = [tile[1].convert("RGB").resize(s) for tile, s in zip(tiles, sizes, strict=True)]
    width = sum(image.width + GAP for image in images) - GAP
    page, x = Image.new("RGB", (width, height + BAR), "white"), 0
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(15)
    for (title, _), image in zip(tiles, images, strict=True):
        page.paste(image, (x, BAR))
        pen.text((x, BAR / 2), title, "black", font, anchor="lm")
        x += image.width + GAP
    return page


def stack(*strips: Image.Image) -> Image.Image:
    """Put strips below each other."""
    size = max(s.width for s in strips), sum(s.height + GAP for s in strips) - GAP
    page, y = Image.new("RGB", size, "white"), 0
    for image in strips:
        page.paste(image, (0, y))
        y += image.height + GAP
    return page


def run_command(folder: Path, line: str, *, codes: Sequence[int] = (0,)) -> None:
    """Run a command of incontext in a folder; it must end with one of the exit codes."""
    command = [sys.executable, "-m", "incontext", *line.split()]
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if process.returncode not in codes:
        raise SystemExit(process.stdout + process.stderr)


def photograph(report: Path, size: tuple[int, int]) -> Image.Image:
    """Return what Chromium shows of a page."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": size[0], "height": size[1]})
        tab.goto(report.resolve().as_uri())
        tab.screenshot(path=Path(folder) / "page.png")
        browser.close()
        return Image.open(Path(folder) / "page.png").convert("RGB")


def sky_set(folder: Path, count: int, *, wrong: int | None = None) -> Path:
    """Write pieces of the sky with masks of their galaxies; one mask may be wrong on purpose."""
    sky = data.hubble_deep_field()
    mask = filters.gaussian(color.rgb2gray(sky), 3) > 0.2
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for number in range(count):
        y, x = 216 * (number // 4), 216 * (number % 4)
        square = np.s_[y : y + 216, x : x + 216]
        labels = mask[square]
        if number == wrong:
            labels = np.roll(labels, 90, 0)
        Image.fromarray(sky[square]).save(folder / f"images/sky{number}.png")
        Image.fromarray(labels.astype(np.uint8)).save(folder / f"labels/sky{number}.png")
    return folder


def segment(predictor: Predictor) -> Image.Image:
    """Show the files that `incontext segment` writes for a picture."""
    scene = eyes()
    result = predictor.predict(scene.query, predictor.prompt(Example(scene.example, scene.mask)))
    with tempfile.TemporaryDirectory() as folder:
        paths = result.save(folder, "b")
        files = [(paths[part].name, Image.open(paths[part]).convert("RGB"))
                 for part in ("labels", "confidence", "overlay")]  # fmt: skip
    example = Image.fromarray(scene.example)
    mask = Image.fromarray(scene.mask)
    return strip(("photo.jpg", example), ("mask.png", mask), ("b.jpg", result.image), *files)


def large_image(predictor: Predictor) -> Image.Image:
    """Show small objects in a large image, seen whole and in tiles."""
    scene, sky = galaxies(), data.hubble_deep_field()[:654, 346:]
    example = Example(scene.example, scene.mask)
    prompt = predictor.prompt(example)
    whole, tiled = (predictor.predict(sky, prompt, tile=tile) for tile in (None, 218))
    images = {
        "query (a part)": whole.image, "whole": whole.overlay(), "--tile 218": tiled.overlay()
    }  # fmt: skip
    parts = [(title, image.crop((0, 0, 436, 436))) for title, image in images.items()]
    return strip(("example", tint(example.image, scene.mask)), *parts)


def presence(predictor: Predictor) -> Image.Image:
    """Show a picture that lacks the object: its mask is empty."""
    scene = absent()
    result = predictor.predict(scene.query, predictor.prompt(Example(scene.example, scene.mask)))
    painted = tint(Image.fromarray(scene.example), scene.mask)
    title = f"result: presence {result.presence[1]:.2f}"
    return strip(("example", painted), ("query", result.image), (title, result.overlay()))


def scribbles(predictor: Predictor) -> Image.Image:
    """Show a few strokes in place of a complete mask, and the result."""
    scene = eyes()
    drawn = Image.new("L", scene.mask.shape[::-1])
    pen = ImageDraw.Draw(drawn)
    pen.ellipse((146, 90, 202, 144), outline=1, width=8)
    pen.ellipse((164, 106, 182, 134), fill=1)
    pen.ellipse((120, 66, 228, 172), outline=9, width=5)
    pen.line([(30, 60), (110, 30), (200, 20)], fill=9, width=7)
    pen.line([(40, 250), (120, 230), (210, 262)], fill=9, width=7)
    ids = np.asarray(drawn)
    example = Example(scene.example, ids, unlabelled="unknown", negative=9)
    result = predictor.predict(scene.query, predictor.prompt(example))
    pixels = np.array(scene.example)
    pixels[ids == 1], pixels[ids == 9] = (30, 136, 229), (230, 60, 50)
    title = "blue: object, red: not it"
    return strip((title, Image.fromarray(pixels)), ("result", result.overlay()), height=300)


def evidence(predictor: Predictor) -> Image.Image:
    """Show which places of an example voted for a mask."""
    scene = eyes()
    example = Example(scene.example, scene.mask)
    result = predictor.predict(scene.query, predictor.prompt(example))
    votes = predictor.evidence(result, example, 1)
    return strip(
        ("example", tint(example.image, scene.mask)), ("result", result.overlay()),
        ("places that voted for it", votes.overlay(0)),
    )  # fmt: skip


def video(predictor: Predictor) -> Image.Image:
    """Show every sixth frame of a clip."""
    frames, labels = cat_clip()
    track = VideoPredictor(predictor).track(frames, labels)
    overlays = [result.overlay() for _, result in track]
    titles = ["frame 0: your labels", *(f"frame {number}" for number in range(5, 26, 5))]
    tiles = list(zip(titles, overlays[::5], strict=False))
    return stack(strip(*tiles[:3], height=150), strip(*tiles[3:], height=150))


def doctor(_: Predictor) -> Image.Image:
    """Show the report on examples of which one has a wrong mask."""
    with tempfile.TemporaryDirectory() as folder:
        sky_set(Path(folder) / "my-set", 7, wrong=3)
        run_command(Path(folder), "doctor my-set/ --out report.html --threads 1", codes=(0, 4))
        return photograph(Path(folder) / "report.html", (980, 900))


def review(predictor: Predictor) -> Image.Image:
    """Show the page of results that are most worth a look."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        sky_set(root / "my-set", 12)
        shutil.copy(root / "my-set/images/sky0.png", root / "photo.png")
        shutil.copy(root / "my-set/labels/sky0.png", root / "mask.png")
        line = "segment --example photo.png mask.png --out results --review 9 my-set/images"
        run_command(root, line)
        return photograph(root / "results/review.html", (980, 700))


def tune(_: Predictor) -> Image.Image:
    """Show the learning curve of a tuned prompt."""
    with tempfile.TemporaryDirectory() as folder:
        sky_set(Path(folder) / "my-set", 12)
        line = "tune my-set/ --out scene.safetensors --steps 30 --threads 1"
        run_command(Path(folder), line, codes=(0, 3))
        [curve] = (Path(folder) / "scene.run").glob("*.png")
        return Image.open(curve).convert("RGB")


def volume(predictor: Predictor) -> Image.Image:
    """Show slices of a drawn volume, of which one is labelled."""
    rng = np.random.default_rng(3)
    z, y, x = np.mgrid[:9, :160, :160]
    body = ((x - 80) / 70) ** 2 + ((y - 80) / 60) ** 2 < 1
    organ = ((x - 62 - 2 * z) / 22) ** 2 + ((y - 84) / 30) ** 2 + ((z - 4) / 6) ** 2 < 1
    noise = filters.gaussian(rng.normal(size=z.shape), (0.5, 1.5, 1.5)) * 60
    scan = np.clip(20 + 70 * body + 80 * organ + noise, 0, 255).astype(np.uint8)
    prompt = predictor.prompt(Example(scan[4], organ[4]))
    results = [(f"slice {k}", predictor.predict(scan[k], prompt).overlay()) for k in (0, 2, 6, 8)]
    example = tint(Image.fromarray(scan[4]), organ[4])
    return strip(("slice 4: your labels", example), *results, height=160)


FIGURES: dict[str, Callable[[Predictor], Image.Image]] = {
    function.__name__: function
    for function in (
        segment, large_image, presence, scribbles, evidence, video, doctor, review, tune, volume,
    )
}  # fmt: skip


def main(out: Path, names: Sequence[str]) -> None:
    """Draw the figures of the names, all by default."""
    predictor = Predictor.from_pretrained()
    for name in names or FIGURES:
        path = out / f"{name}.webp"
        FIGURES[name](predictor).save(path, quality=80, method=6)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
