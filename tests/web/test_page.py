"""The demo in a real browser: paint, get masks, follow, tune, examine, download."""

import re

import numpy as np
import pytest

from tests.web.browser import (
    BROWSER_MARKS,
    LONG,
    click_at,
    download,
    green,
    masks_in,
    on_screen,
    paint,
    record,
    recorded,
    red,
)
from tests.web.helpers import clip, iou, labelled, scene

pytest.importorskip("playwright.sync_api", reason="needs playwright (dev extra)")
pytest.importorskip("gradio", reason="needs gradio (demo extra)")
pytestmark = BROWSER_MARKS


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
    record(page, "#video-status")
    page.locator("#propagate").click()
    page.get_by_text("6 of 6 frames answered").wait_for(timeout=LONG)
    assert any(re.search(r"[1-5] of 6 · about \d+ s left", text) for text in recorded(page))
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
