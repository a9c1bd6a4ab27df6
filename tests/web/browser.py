"""The page in Chromium: what its tests see, paint, click on and download."""

import io
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.web.helpers import CHROMIUM

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
LONG = 180_000  # milliseconds
# `pytestmark` of files whose tests drive the page.
BROWSER_MARKS = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium: apt install chromium"),
    pytest.mark.browser,
    pytest.mark.server,
]


def on_screen(page, selector: str) -> tuple[np.ndarray, tuple[float, float]]:
    """Pixels of an element, (H, W, 3), and where its corner is on the page."""
    element = page.locator(selector)
    element.scroll_into_view_if_needed()
    page.wait_for_timeout(400)
    box = element.bounding_box()
    image = Image.open(io.BytesIO(element.screenshot())).convert("RGB")
    return np.asarray(image).astype(int), (box["x"], box["y"])


def green(pixels: np.ndarray) -> np.ndarray:
    """Where the ground of a scene is."""
    return (pixels[..., 1] > pixels[..., 0] + 60) & (pixels[..., 1] > pixels[..., 2] + 25)


def red(pixels: np.ndarray) -> np.ndarray:
    """Where the first brush was."""
    return (pixels[..., 0] > 120) & (pixels[..., 1] < 130) & (pixels[..., 0] > pixels[..., 2] + 40)


def paint(page, selector: str, inside: np.ndarray) -> None:
    """Paint an ellipse with the mouse: a ring as far inside as the brush is thick, and its middle.

    The brush covers 20 pixels around the mouse; each of its moves costs a software renderer long.
    """
    pixels, corner = on_screen(page, f"{selector} canvas >> nth=0")
    rows, columns = np.nonzero(green(pixels))
    first = np.array((columns.min(), rows.min())) + corner
    size = np.array((columns.max() - columns.min() + 1, rows.max() - rows.min() + 1))
    rows, columns = np.nonzero(inside)
    middle = np.array((columns.mean(), rows.mean())) + 0.5
    turns = np.linspace(0, 2 * np.pi, 9)
    path = [middle, *(middle + np.stack((26 * np.cos(turns), 16 * np.sin(turns)), 1))]
    for number, point in enumerate(path):
        page.mouse.move(*(first + point * size / inside.shape[::-1]))
        if not number:
            page.mouse.down()
    page.mouse.up()
    page.wait_for_timeout(800)


def click_at(page, selector: str, inside: np.ndarray) -> None:
    """Click into the middle of a mask (200, 480) on an image of its size."""
    picture = page.locator(selector)
    picture.wait_for()
    page.wait_for_timeout(500)
    rows, columns = np.nonzero(inside)
    box = picture.bounding_box()
    scale = min(box["width"] / 480, box["height"] / 200)  # the picture lies within its box
    x = box["width"] / 2 + (columns.mean() - 240) * scale
    y = box["height"] / 2 + (rows.mean() - 100) * scale
    picture.click(position={"x": x, "y": y})


def download(page, selector: str, name: str) -> bytes:
    """A file that a tab offers."""
    link = page.locator(f"{selector} a", has_text=re.compile(r"B\b")).locator(
        f"xpath=//a[contains(@download, '{name}')]"
    )
    target = link.first if link.count() else page.locator(f"{selector} a[download*='{name}']").first
    with page.expect_download() as got:
        target.click()
    return Path(got.value.path()).read_bytes()


def masks_in(content: bytes, folder: str) -> dict[str, np.ndarray]:
    """Pictures of a folder in a zip."""
    archive = zipfile.ZipFile(io.BytesIO(content))
    return {
        Path(name).name: np.asarray(Image.open(io.BytesIO(archive.read(name))))
        for name in archive.namelist()
        if name.startswith(folder)
    }


def stroke_by_touch(page, points: list[tuple[float, float]]) -> None:
    """Move a finger along points of the window."""
    finger = page.context.new_cdp_session(page)
    for kind, (x, y) in zip(["touchStart"] + ["touchMove"] * len(points), points, strict=False):
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.wait_for_timeout(800)


def record(page, selector: str) -> None:
    """Keep every text that an element has from now on, for `recorded`."""
    page.evaluate(
        """(selector) => {
            const texts = window.recordedTexts = [];
            const look = () => texts.push(document.querySelector(selector).innerText);
            new MutationObserver(look).observe(document.querySelector(selector),
                {childList: true, subtree: true, characterData: true});
        }""",
        selector,
    )


def recorded(page) -> list[str]:
    """The texts since `record`."""
    return page.evaluate("window.recordedTexts")


CONTRAST = """(selector) => {
    const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const paint = (color) => {
        canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
        .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const element = [...document.querySelectorAll(selector)].find((e) => e.getClientRects().length);
    const style = getComputedStyle(element);
    const ink = paint(element instanceof SVGElement ? style.fill : style.color);
    let ground = element;
    while (ground && paint(getComputedStyle(ground).backgroundColor)[3] < 250)
        ground = ground.parentElement;
    const below = ground ? paint(getComputedStyle(ground).backgroundColor) : [255, 255, 255];
    const [low, high] = [light(ink), light(below)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
}"""


def contrast(page, selector: str) -> float:
    """WCAG contrast, 1 … 21, of an element's text or fill on what lies below it."""
    return page.evaluate(CONTRAST, selector)
