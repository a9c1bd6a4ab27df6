"""The demo in a real browser: paint, get masks, follow, tune, examine, download."""

import io
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.web.helpers import CHROMIUM, clip, iou, labelled, scene, served

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright (dev extra)")
pytest.importorskip("gradio", reason="needs gradio (demo extra)")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium: apt install chromium"),
    pytest.mark.browser,
    pytest.mark.server,
]
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
LONG = 180_000  # milliseconds


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address():
    with served() as address:
        yield address


@pytest.fixture
def page(browser, address):
    """A page that must ask for nothing outside this machine, and break nowhere."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    page = context.new_page()
    outside, broken = [], []
    page.on("request", lambda r: outside.append(r.url) if not _own(r.url) else None)
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.goto(address)
    page.get_by_role("tab", name="Images").wait_for()
    page.locator("#example-editor canvas").first.wait_for()
    page.wait_for_timeout(1500)  # no one paints sooner, and the canvas is not ready sooner
    yield page
    context.close()
    assert not outside
    assert not broken


def _own(url: str) -> bool:
    return url.startswith(("http://127.0.0.1", "data:", "blob:"))


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


def test_painted_picture_gives_aligned_masks(page, tmp_path):
    (one, other), _ = labelled(tmp_path, 2)
    page.locator("#example-editor input[type=file]").set_input_files(one)
    page.wait_for_timeout(2500)
    paint(page, "#example-editor", scene(0)[1])
    before, _ = on_screen(page, "#example-editor canvas >> nth=0")
    for name in ("Video", "Doctor", "Images"):
        page.get_by_role("tab", name=name).click()
        page.wait_for_timeout(700)
    after, _ = on_screen(page, "#example-editor canvas >> nth=0")
    assert red(before).sum() > 1000
    assert iou(red(before), red(after)) > 0.98, "the painting did not outlast a change of tabs"
    page.locator("#targets input[type=file]").set_input_files([one, other])
    page.get_by_label("Names, in the order").first.fill("egg")
    page.locator("#segment").click()
    page.locator("#segment-status", has_text="done").wait_for(timeout=LONG)
    page.locator("#downloads a").first.wait_for()
    found = masks_in(download(page, "#downloads", "masks.zip"), "masks/")
    assert iou(found["scene0.png"] == 1, scene(0)[1]) > 0.85
    assert iou(found["scene1.png"] == 1, scene(1)[1]) > 0.75
    assert b'"egg"' in download(page, "#downloads", "coco.json")
    # Why? A click on the object shows the example's object in red.
    page.locator("#order").get_by_label("worst first").check()
    page.locator("#order").get_by_label("as given").check()
    page.wait_for_timeout(1000)
    click_at(page, "#why img", scene(0)[1])
    page.locator("#evidence img").first.wait_for(timeout=LONG)
    page.get_by_text("example 1: 100% of its votes").first.wait_for()
    page.wait_for_timeout(1000)
    pixels, _ = on_screen(page, "#evidence img >> nth=0")
    heat = (pixels[..., 0] - pixels[..., 1:].max(2) - 30).clip(0).sum(0)
    where = np.average(np.arange(len(heat)), weights=heat) / len(heat)
    assert where == pytest.approx(np.nonzero(scene(0)[1])[1].mean() / 480, abs=0.08)
    # A result is corrected: it lies in the editor, and can be erased there.
    page.get_by_role("button", name="Correct this one").click()
    page.get_by_text("Mend scene0").wait_for()
    page.wait_for_timeout(2500)
    pixels, _ = on_screen(page, "#example-editor canvas >> nth=0")
    assert red(pixels).sum() > 1000
    page.get_by_label("Erase").first.click()
    paint(page, "#example-editor", scene(0)[1])
    pixels, _ = on_screen(page, "#example-editor canvas >> nth=0")
    assert red(pixels).sum() < 300


def test_one_click_takes_a_region(page, tmp_path):
    (one, other), _ = labelled(tmp_path, 2)
    page.locator("#example-editor input[type=file]").set_input_files(one)
    page.wait_for_timeout(2500)
    page.get_by_label("Click", exact=True).check()
    click_at(page, "#picker img", scene(0)[1])
    page.wait_for_timeout(1500)
    page.locator("#targets input[type=file]").set_input_files([one, other])
    page.locator("#segment").click()
    page.locator("#segment-status", has_text="done").wait_for(timeout=LONG)
    found = masks_in(download(page, "#downloads", "masks.zip"), "masks/")
    assert iou(found["scene0.png"] == 1, scene(0)[1]) > 0.85


def test_video_is_followed_and_corrected(page, tmp_path):
    truth = clip(tmp_path / "moving.mp4")
    page.get_by_role("tab", name="Video").click()
    page.locator("#clip input[type=file]").set_input_files(tmp_path / "moving.mp4")
    page.get_by_text("6 frames.").wait_for(timeout=LONG)
    page.wait_for_timeout(2500)
    paint(page, "#frame-editor", truth[0])
    page.locator("#propagate").click()
    page.get_by_text("6 of 6 frames answered").wait_for(timeout=LONG)
    found = masks_in(download(page, "#video-downloads", "masks.zip"), "Annotations/")
    assert sorted(found) == [f"{i:05d}.png" for i in range(6)]
    assert min(iou(found[f"{i:05d}.png"] == 1, truth[i]) for i in range(6)) > 0.75
    movie = tmp_path / "overlay.mp4"
    movie.write_bytes(download(page, "#video-downloads", "overlay.mp4"))
    import av

    with av.open(str(movie)) as container:
        assert len(list(container.decode(video=0))) == 6
    # Another frame shows what was found there.
    page.locator("#frame input[type=number]").fill("5")
    page.locator("#frame input[type=number]").press("Enter")
    page.wait_for_timeout(4000)
    pixels, _ = on_screen(page, "#frame-editor canvas >> nth=0")
    columns = np.nonzero(red(pixels))[1]
    ground = np.nonzero(green(pixels))[1]
    share = (columns.mean() - ground.min()) / (ground.max() - ground.min())
    assert share == pytest.approx(np.nonzero(truth[5])[1].mean() / 480, abs=0.03)


def test_tuned_prompt_is_used_in_the_other_tabs(page, tmp_path):
    pictures, masks = labelled(tmp_path, 2)
    page.get_by_role("tab", name="Tune").click()
    page.locator("#tune-pictures input[type=file]").set_input_files(pictures)
    page.locator("#tune-masks input[type=file]").set_input_files(masks)
    page.locator("#steps input[type=number]").fill("2")
    page.locator("#steps input[type=number]").press("Enter")
    page.wait_for_timeout(500)
    page.locator("#tune").click()
    page.locator("#tuned-prompt a").first.wait_for(timeout=LONG)
    assert "held-out pictures" in page.locator("#verdict textarea").input_value()
    content = download(page, "#tuned-prompt", "tuned.safetensors")
    from incontext import Prompt

    path = tmp_path / "tuned.safetensors"
    path.write_bytes(content)
    assert Prompt.load(path).ids == (1,)
    page.locator("#use-prompt").click()
    page.get_by_text("It is in both tabs now").wait_for()
    page.get_by_role("tab", name="Images").click()
    page.locator("#targets input[type=file]").set_input_files([pictures[0]])
    page.wait_for_timeout(700)
    page.locator("#segment").click()
    page.locator("#segment-status", has_text="done").wait_for(timeout=LONG)
    found = masks_in(download(page, "#downloads", "masks.zip"), "masks/")
    assert iou(found["scene0.png"] == 1, scene(0)[1]) > 0.75


def test_doctor_reports(page, tmp_path):
    pictures, masks = labelled(tmp_path, 3)
    page.get_by_role("tab", name="Doctor").click()
    page.locator("#doctor-pictures input[type=file]").set_input_files(pictures)
    page.locator("#doctor-masks input[type=file]").set_input_files(masks)
    page.wait_for_timeout(500)
    page.locator("#examine").click()
    page.locator("#report a").first.wait_for(timeout=LONG)
    assert b"Example report" in download(page, "#report", "report.html")
    frame = page.frame_locator("#report-page iframe")
    assert "Predicted mIoU" in frame.locator("h2").first.inner_text()


def test_an_empty_page(page):
    """The keyboard reaches the main job; errors are told; nothing is wider than the screen."""
    reached = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.innerText"))
    assert "segment" in reached
    assert any("Add as example" in text for text in reached)
    page.locator("#segment").click()
    page.locator("#segment-status", has_text="No pictures to segment yet").wait_for()
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        for name in ("Images", "Video", "Tune", "Doctor"):
            page.get_by_role("tab", name=name).click()
            page.wait_for_timeout(600)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (name, width)
            missing = page.evaluate("[...document.images].filter(i => !i.alt).map(i => i.src)")
            assert not missing, "pictures without a text"
