"""Screenshots of the page for the docs, taken in Chromium.

`python -m demos.screenshots docs/` writes page.jpg, page-dark.jpg and page-phone.jpg. It needs
playwright (in the dev extra) and a Chromium on the path; nothing is fetched.
"""

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from incontext import InputError

# Options of the browser's window, by the name of the picture.
WINDOWS: dict[str, dict[str, Any]] = {
    "page": {"viewport": {"width": 1280, "height": 860}, "color_scheme": "light"},
    "page-dark": {"viewport": {"width": 1280, "height": 860}, "color_scheme": "dark"},
    "page-phone": {
        "viewport": {"width": 390, "height": 1500}, "color_scheme": "light", "has_touch": True,
        "is_mobile": True,
    },
}  # fmt: skip
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars",
         "--font-render-hinting=none", "--force-color-profile=srgb"]  # fmt: skip
WAIT = 120  # seconds for the page and for its results
QUALITY = 82


def browser_path() -> str:
    """Return the Chromium of this machine.

    Raises:
        InputError: there is none.
    """
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        raise InputError("no chromium on the path; accepted: chromium or chromium-browser")
    return path


@contextmanager
def demo() -> Iterator[str]:
    """Serve the page while the block runs; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "incontext", "demo", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        for _ in range(WAIT):
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except OSError:
                if process.poll() is not None:
                    raise InputError("`incontext demo` ended at once; run it to see why") from None
                time.sleep(1)
        yield address
    finally:
        process.terminate()
        process.wait(20)


def take(browser: Any, address: str, out: Path, name: str) -> Path:
    """Write the picture of one of `WINDOWS`, once the page shows all results.

    Args:
        browser: of playwright.
    """
    context = browser.new_context(**WINDOWS[name], reduced_motion="reduce")
    try:
        page = context.new_page()
        page.goto(address)
        page.locator("#results img").nth(2).wait_for(timeout=WAIT * 1000)
        page.locator("#example-editor canvas").first.wait_for()
        page.locator("#examples img").first.wait_for()
        page.wait_for_function(  # those below the window are not loaded
            "[...document.images].every("
            "(image) => image.complete || image.getBoundingClientRect().top > innerHeight)"
        )
        page.wait_for_timeout(2500)  # the editor fits its picture to the window
        path = out / f"{name}.jpg"
        page.screenshot(path=path, type="jpeg", quality=QUALITY, animations="disabled")
        return path
    finally:
        context.close()


def main(out: Path) -> None:
    """Write all pictures into a folder."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise InputError("screenshots need playwright: pip install playwright") from None
    executable = browser_path()
    out.mkdir(parents=True, exist_ok=True)
    with demo() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        for name in WINDOWS:
            path = take(browser, address, out, name)
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
        browser.close()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("docs"))
    except InputError as error:
        sys.exit(f"error: {error}")
