"""One browser and one demo for all files that test the page in Chromium."""

import pytest

from tests.web.browser import FLAGS, LONG
from tests.web.helpers import CHROMIUM, served


@pytest.fixture(scope="package")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def demo():
    """Address of the page."""
    with served() as address:
        yield address


@pytest.fixture
def visit(browser, demo):
    """Open the page as a new visitor; it must ask for nothing outside, and break nowhere."""
    contexts, outside, broken = [], [], []

    def open_page(query: str = "", **options):
        viewport = {"width": 1280, "height": 1000}
        contexts.append(browser.new_context(**{"viewport": viewport, **options}))
        page = contexts[-1].new_page()
        page.set_default_timeout(LONG)
        page.on("request", lambda r: outside.append(r.url) if not _is_own(r.url) else None)
        page.on("pageerror", lambda error: broken.append(str(error)))
        page.goto(demo + query)
        page.get_by_role("tab", name="Images").wait_for()
        page.locator("#example-editor canvas").first.wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not outside
    assert not broken


@pytest.fixture
def page(visit):
    """A page that was cleared of its own example."""
    page = visit()
    page.locator("#targets a").first.wait_for()
    page.locator("#start-over", has_text="Try your own").click()
    page.locator("#start-over", has_text="Start over").wait_for()
    page.wait_for_timeout(1500)  # no one paints sooner, and the canvas is not ready sooner
    return page


def _is_own(url: str) -> bool:
    return url.startswith(("http://127.0.0.1", "data:", "blob:"))
