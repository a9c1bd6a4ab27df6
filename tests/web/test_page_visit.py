"""A visit to the page: what it opens with, keys, touch, two prompts, the same as code, themes."""

import io
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.web.browser import (
    BROWSER_MARKS,
    LONG,
    contrast,
    download,
    green,
    masks_in,
    on_screen,
    record,
    recorded,
    red,
    stroke_by_touch,
)
from tests.web.helpers import labelled

pytest.importorskip("playwright.sync_api", reason="needs playwright (dev extra)")
pytest.importorskip("gradio", reason="needs gradio (demo extra)")
pytestmark = BROWSER_MARKS
ROOT = Path(__file__).parents[2]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
# Texts and marks of our own, with the contrast that WCAG asks for.
INKS = {
    "#help-button": 4.5, ".flow-arrow path": 3, "#position p": 4.5, "#start-over": 3,
    "#results .caption-label": 4.5, "#example-editor label": 3,
}  # fmt: skip


def wait_for_results(page, count: int = 3) -> None:
    page.locator("#results img").nth(count - 1).wait_for(timeout=LONG)
    page.locator("#position", has_text=f"1 of {count}").wait_for()


def qualities(page, selector: str = "#results") -> list[float]:
    """What the captions of a gallery say, in its order."""
    texts = page.locator(f"{selector} .caption-label").all_inner_texts()
    return [float(re.search(r"\d\.\d\d", text)[0]) for text in texts]


def position(page, text: str) -> None:
    page.locator("#position", has_text=text).wait_for()


def test_it_opens_with_a_painted_example_and_its_results(visit):
    page = visit(color_scheme="light")
    wait_for_results(page)
    page.wait_for_timeout(1500)
    pixels, _ = on_screen(page, "#example-editor canvas >> nth=0")
    assert red(pixels).sum() > 1000
    assert min(qualities(page)) > 0.7
    # Painted picture, arrow, results: from left to right, in sight without scrolling.
    page.evaluate("scrollTo(0, 0)")
    editor, arrow, results = (
        page.locator(name).bounding_box() for name in ("#example-editor", ".flow-arrow", "#results")
    )
    assert editor["x"] + editor["width"] <= arrow["x"]
    assert arrow["x"] + arrow["width"] <= results["x"]
    assert max(box["y"] + box["height"] for box in (editor, arrow, results)) < 1000
    for selector, least in INKS.items():
        assert contrast(page, selector) >= least, selector
    # One click, and it is empty.
    page.locator("#start-over", has_text="Try your own").click()
    page.get_by_text("Drop a picture here").wait_for()
    page.locator("#position").wait_for(state="hidden")
    assert not page.locator("#results img, #targets a, #examples img").count()
    # From then on it asks first: no, then yes.
    answers = iter([False, True])
    page.on("dialog", lambda box: box.accept() if next(answers) else box.dismiss())
    page.get_by_role("button", name="Try: Coins").click()
    page.locator("#start-over", has_text="Try your own").wait_for()
    page.locator("#targets a").first.wait_for()
    page.wait_for_timeout(1500)
    page.get_by_role("button", name="Add as example").click()
    page.locator("#start-over", has_text="Start over").wait_for()
    page.locator("#examples img").first.wait_for()
    page.locator("#start-over").click()
    page.wait_for_timeout(500)
    assert page.locator("#examples img").count()
    page.locator("#start-over").click()
    page.locator("#examples").wait_for(state="hidden")


def test_keys(visit):
    page = visit(color_scheme="dark")
    wait_for_results(page)
    for selector, least in INKS.items():
        assert contrast(page, selector) >= least, selector
    assert page.locator("#segment").get_attribute("title").endswith("(S)")
    # The results, one after the other, and the worst first.
    page.keyboard.press("n")
    position(page, "2 of 3")
    for text in ("1 of 3", "3 of 3"):
        page.keyboard.press("p")
        position(page, text)
    given = qualities(page)
    assert given != sorted(given)
    page.keyboard.press("o")
    page.locator("#order input:checked[value='worst first']").wait_for()
    position(page, "1 of 3")  # the same picture: it is the worst
    page.wait_for_timeout(700)
    assert qualities(page) == sorted(given)
    page.keyboard.press("v")
    page.locator("#view input:checked[value='mask']").wait_for()
    # Who types is not disturbed.
    page.get_by_label("Names, in the order").first.click()
    page.keyboard.type("no")
    assert "no" in page.get_by_label("Names, in the order").first.input_value()
    page.locator("h1").click()
    # The list of keys, where they can be turned off.
    page.keyboard.press("?")
    page.locator("#help[open]").wait_for()
    assert "Next result" in page.locator("#help").inner_text()
    for selector in ("#help td", "#help kbd", "#help label", "#help-close"):
        assert contrast(page, selector) >= 4.5, selector
    page.locator("#single-keys").uncheck()
    page.keyboard.press("Escape")
    page.locator("#help").wait_for(state="hidden")
    page.keyboard.press("n")
    page.wait_for_timeout(700)
    position(page, "1 of 3")
    # Without a pointer: to the empty page, whose main job says what is missing.
    page.evaluate("localStorage.clear()")
    page.keyboard.press("x")
    page.locator("#start-over", has_text="Start over").wait_for()
    page.keyboard.press("Control+Enter")
    page.locator("#segment-status", has_text="No pictures to segment yet").wait_for()


def test_two_prompts_side_by_side_and_the_same_as_code(visit, tmp_path):
    page = visit()
    wait_for_results(page)
    record(page, "#segment-status")
    page.keyboard.press("k")
    page.locator("#comparison", has_text="A is kept: 1 example").wait_for()
    # B: one of the results, as it is, is a second example.
    page.keyboard.press("c")
    page.get_by_text("Mend other").wait_for()
    for _ in range(40):  # until the result lies in the editor
        page.wait_for_timeout(1500)
        page.keyboard.press("a")
        page.wait_for_timeout(1500)
        if page.locator("#examples img").count() == 2:
            break
    page.keyboard.press("s")
    page.locator("#comparison", has_text="B (2 examples)").wait_for(timeout=LONG)
    assert any(re.search(r"[12] of 3 · about \d+ s left", text) for text in recorded(page))
    captions = page.locator("#pairs .caption-label").all_inner_texts()
    assert [text[0] for text in captions] == ["A", "B"] * 3
    boxes = [page.locator("#pairs img").nth(k).bounding_box() for k in (0, 1)]
    assert boxes[0]["x"] < boxes[1]["x"]
    assert abs(boxes[0]["y"] - boxes[1]["y"]) < 40
    assert qualities(page, "#pairs")[1::2] == qualities(page)
    page.locator("#forget").click()
    page.locator("#pairs").wait_for(state="hidden")
    # The same as code, with the files that the page gives and those that it was given.
    found = masks_in(download(page, "#downloads", "masks.zip"), "masks/")
    zipfile.ZipFile(io.BytesIO(download(page, "#downloads", "examples.zip"))).extractall(tmp_path)
    for link in page.locator("#targets a").all():
        with page.expect_download() as file:
            link.click()
        file.value.save_as(tmp_path / file.value.suggested_filename)
    page.locator("#code button").first.click()
    code, command = (page.locator(f"#{name} code") for name in ("python", "shell"))
    code.wait_for()
    assert "--example example2.png example2_mask.png" in command.inner_text()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#python button").first.click()
    page.wait_for_timeout(500)
    text = page.evaluate("navigator.clipboard.readText()")
    assert text.strip() == code.inner_text().strip()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-c", text], cwd=tmp_path, env=environment, check=True, timeout=120
    )
    assert sorted(found) == ["dusk.png", "other.png", "tilted.png"]
    for name, mask in found.items():
        again = np.asarray(Image.open(tmp_path / "masks" / name))
        assert np.mean(again == mask) > 0.999, name


def test_a_phone(visit, tmp_path):
    (one,), _ = labelled(tmp_path, 1)
    page = visit("?__theme=dark", **PHONE, color_scheme="light")
    wait_for_results(page)
    assert contrast(page, "#position p") >= 4.5  # the address counts more than the system
    assert page.evaluate("document.querySelector('.dark') !== null")
    cut_off = page.evaluate(
        """[...document.querySelectorAll("button, input, img, canvas, label, p, h1, h3, svg")]
        .filter((e) => e.checkVisibility() && e.getBoundingClientRect().width > 1)
        .filter((e) => !e.closest(".tab-container, [role=tablist], .grid-wrap"))
        .filter((e) => { const box = e.getBoundingClientRect();
                         return box.right > innerWidth + 1 || box.left < -1; })
        .map((e) => e.outerHTML.slice(0, 120))"""
    )
    assert not cut_off
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert not page.locator("#help-button").is_visible()
    page.locator("#start-over").tap()
    page.locator("#start-over", has_text="Start over").wait_for()
    page.wait_for_timeout(1500)
    page.locator("#example-editor input[type=file]").set_input_files(one)
    page.wait_for_timeout(2500)
    pixels, corner = on_screen(page, "#example-editor canvas >> nth=0")
    rows, columns = np.nonzero(green(pixels))
    middle = np.array((columns.mean(), rows.mean())) + corner
    before = page.evaluate("scrollY")
    stroke_by_touch(page, [tuple(middle + np.array((8, 3)) * k) for k in range(-4, 5)])
    pixels, _ = on_screen(page, "#example-editor canvas >> nth=0")
    assert red(pixels).sum() > 500
    assert page.evaluate("scrollY") == before  # the page stays where it is while one paints


def test_screenshots(browser, demo, tmp_path):
    from demos.screenshots import WINDOWS, take

    paths = [take(browser, demo, tmp_path / folder, "page-phone") for folder in "ab"]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].stat().st_size < 150_000
    for name in WINDOWS:
        kept = ROOT / "docs" / f"{name}.jpg"
        assert kept.stat().st_size < 150_000
        assert Image.open(kept).size[0] == WINDOWS[name]["viewport"]["width"]


def test_nothing_is_segmented_before_someone_comes(demo, browser):
    """The page as it is sent holds no picture: the first paint does not wait for a model."""
    page = browser.new_page()
    config = page.request.get(f"{demo}/config").json()
    values = {
        part["props"].get("elem_id"): part["props"].get("value") for part in config["components"]
    }
    page.close()
    assert not values["results"]
    assert not values["targets"]
    assert len(json.dumps(config)) < 400_000
