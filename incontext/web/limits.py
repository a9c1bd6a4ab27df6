"""Limits: what a visitor may send, what is opened of it, and where files lie and for how long."""

import math
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
from gradio import processing_utils
from PIL import Image, UnidentifiedImageError

from incontext import InputError, Prompt, read_image
from incontext.web.reporting import refusal

UPLOAD = "40mb"  # a file
PIXELS = 40_000_000  # of a picture
FORMATS = ("BMP", "GIF", "JPEG", "MPO", "PNG", "PPM", "TIFF", "WEBP")  # no others are decoded
PICTURES = 64  # at once
FRAMES = 600  # of a clip
FRAME_PIXELS = 2_100_000  # of each of them
PAINTINGS = 4096  # of a picture: each of its tiles is painted once for every four ids
QUEUE = 16  # jobs, those that wait among them
LAYERS = 8  # of a painting
AGE = 3600  # seconds after which files are removed


def harden(pixels: int = PIXELS) -> None:
    """This process decodes the formats above only, no picture over the limit, fetches nothing.

    Gradio opens what was painted before any code of ours does, and keeps it until it is asked for.
    """
    Image.MAX_IMAGE_PIXELS = pixels // 2  # Pillow refuses from twice that on
    Image.init()
    for name in set(Image.ID) - set(FORMATS):
        Image.ID.remove(name)
    editor: Any = gr.ImageEditor
    editor.preprocess, editor.accept_blobs = _guarded(editor.preprocess), _bounded(editor)
    processing_utils.async_ssrf_protected_download = _nothing_is_fetched  # type: ignore[assignment]


async def _nothing_is_fetched(url: str, *_: Any) -> str:
    raise refusal("Upload the file: this server fetches nothing from elsewhere.")


def _guarded(read: Callable[..., Any]) -> Callable[..., Any]:
    """What an editor cannot read is told in a sentence."""

    @wraps(read)
    def preprocess(self: Any, payload: Any) -> Any:
        try:
            return read(self, payload)
        except gr.Error:
            raise
        except Image.DecompressionBombError:
            raise refusal(f"More than {_megapixels()}; make it smaller.") from None
        except Exception:
            raise refusal(
                "This file is not a picture, or a damaged one; accepted: PNG, JPEG, WebP, BMP, "
                "GIF, TIFF"
            ) from None

    return preprocess


def _bounded(editor: Any) -> Callable[..., Any]:
    """Painted layers that nobody asks for do not pile up."""
    accept = editor.accept_blobs

    @wraps(accept)
    def accept_blobs(self: Any, data: Any) -> Any:
        if str(data.data.get("index") or 0) not in map(str, (None, "null", *range(LAYERS))):
            raise refusal(f"{LAYERS} layers are enough")
        while len(self.blob_storage) >= QUEUE:
            self.blob_storage.pop(next(iter(self.blob_storage)))
        return accept(self, data)

    return accept_blobs


def open_picture(path: str | Path) -> Image.Image:
    """An uploaded picture, upright, as RGB.

    Raises:
        InputError: no picture, damaged, or too large; the file is named without its folder.
    """
    return read_image(_opened(path))


def open_mask(path: str | Path) -> Image.Image:
    """An uploaded mask as it is stored: its numbers are ids.

    Raises:
        InputError: see `open_picture`.
    """
    return _opened(path)


def _opened(path: str | Path) -> Image.Image:
    name = Path(path).name
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError:
        raise InputError(f"{name}: removed after an hour; upload it again") from None
    except Image.DecompressionBombError:
        raise InputError(f"{name}: more than {_megapixels()}; make it smaller first") from None
    except UnidentifiedImageError:
        shown = ", ".join(f for f in FORMATS if f != "MPO")
        raise InputError(f"{name}: not a picture; accepted: {shown}") from None
    except Exception:  # decoders raise nearly anything
        raise InputError(f"{name}: a damaged picture") from None
    return image


def _megapixels() -> str:
    return f"{2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:g} megapixels"


def check_count(files: list[str] | None, what: str) -> list[str]:
    """The files, if there are some and not too many.

    Raises:
        InputError: none, or more than `PICTURES`.
    """
    if not files:
        raise InputError(f"No {what} yet: add some first.")
    if len(files) > PICTURES:
        raise InputError(f"{len(files)} {what}; accepted: {PICTURES} at once")
    return files


def whole(name: str, value: Any, low: int, high: int) -> int:
    """A whole number from a form.

    Raises:
        InputError: none, or one outside `low` … `high`.
    """
    if not isinstance(value, (int, float)) or not math.isfinite(value) or value % 1:
        raise InputError(f"{name} {value!r}; accepted: whole numbers {low} … {high}")
    if not low <= value <= high:
        raise InputError(f"{name} {value:g}; accepted: {low} … {high}")
    return int(value)


def tile_of(value: Any) -> int | None:
    """Size of tiles; None or 0: each picture whole.

    Raises:
        InputError: smaller than 16, or no number.
    """
    return whole("tile", value, 16, 8192) if value not in (None, 0, 0.0) else None


def check_paintings(
    name: str, size: tuple[int, int], prompt: Prompt, tile: int | None, most: int = PAINTINGS
) -> None:
    """Raise InputError where a picture of (width, height) takes too many: none of them is stopped
    before all are made."""
    count, each = prompt.paintings(*size, tile), len(prompt.passes)
    if count > most:
        raise InputError(
            f"{name}: {size[0]} × {size[1]} pixels are {count // each} tiles of {tile}, each "
            f"painted {each} times for {len(prompt.ids)} ids: {count} paintings; accepted: {most} "
            "of a picture; make the tiles larger"
        )


def new_folder(prefix: str) -> Path:
    """A folder that `sweep` removes."""
    return Path(tempfile.mkdtemp(prefix=prefix, dir=root()))


def root() -> Path:
    """Where all files of this process lie; there is one inside `own_root` only."""
    if _root is None:
        raise RuntimeError("outside own_root()")
    return _root


def sweep(folder: Path, every: float = 600) -> None:
    """Remove, while the folder is there, desks in it that were not touched for an hour."""

    def run() -> None:
        while folder.is_dir():
            for path in folder.glob("desk-*"):
                try:
                    if time.time() - path.stat().st_mtime > AGE:
                        shutil.rmtree(path, ignore_errors=True)
                except OSError:  # removed meanwhile
                    continue
            time.sleep(every)

    threading.Thread(target=run, daemon=True).start()


_root: Path | None = None


@contextmanager
def own_root() -> Iterator[Path]:
    """All files of this process in a folder that goes when it ends."""
    global _root  # noqa: PLW0603 - one a process, as GRADIO_TEMP_DIR is
    with tempfile.TemporaryDirectory(prefix="incontext-demo.", ignore_cleanup_errors=True) as name:
        before, _root = _root, Path(name)
        try:
            yield _root
        finally:
            _root = before


@contextmanager
def workplace(pixels: int = PIXELS) -> Iterator[Path]:
    """What a server works in: limits, and a folder for all files, Gradio's too, that is swept."""
    harden(pixels)
    with own_root() as folder:
        os.environ["GRADIO_TEMP_DIR"] = str(folder / "gradio")
        sweep(folder)
        yield folder
