"""Limits: what a visitor may send, what is decoded, where files lie and for how long."""

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
from incontext.web.file_names import keep_client_names
from incontext.web.reporting import user_error

MAX_UPLOAD = "40mb"  # of one file
MAX_PIXELS = 40_000_000  # of an image
FORMATS = ("BMP", "GIF", "JPEG", "MPO", "PNG", "PPM", "TIFF", "WEBP")  # the only ones decoded
MAX_IMAGES = 64  # at once
MAX_FRAMES = 600  # of a clip
MAX_FRAME_PIXELS = 2_100_000
MAX_PAINTINGS = 4096  # of an image: each tile is painted once for every four ids
MAX_JOBS = 16  # at once, those that wait among them
MAX_LAYERS = 8  # of an editor
TILES = (16, 8192)  # pixels a side
MAX_AGE = 3600  # seconds after which files are removed


def harden(pixels: int = MAX_PIXELS) -> None:
    """Restrict this process: decode `FORMATS` only, no image over the limit, fetch nothing.

    Gradio opens what was painted before any code of ours does, and keeps it until it is asked for.
    """
    Image.MAX_IMAGE_PIXELS = pixels // 2  # Pillow refuses from twice that on
    Image.init()
    for name in set(Image.ID) - set(FORMATS):
        Image.ID.remove(name)
    editor: Any = gr.ImageEditor
    editor.preprocess, editor.accept_blobs = (
        _explain_failures(editor.preprocess),
        _limit_layers(editor),
    )
    file: Any = gr.File
    file.preprocess = keep_client_names(file.preprocess)
    processing_utils.async_ssrf_protected_download = _refuse_download  # type: ignore[assignment]


async def _refuse_download(url: str, *_: Any) -> str:
    raise user_error("Upload the file: this server fetches nothing from elsewhere.")


def _explain_failures(read: Callable[..., Any]) -> Callable[..., Any]:
    """Report what an editor cannot read in a sentence."""

    @wraps(read)
    def preprocess(self: Any, payload: Any) -> Any:
        try:
            return read(self, payload)
        except gr.Error:
            raise
        except Image.DecompressionBombError:
            raise user_error(f"More than {_megapixels()}; make it smaller.") from None
        except Exception:
            raise user_error(
                "This file is not a picture, or a damaged one; accepted: PNG, JPEG, WebP, BMP, "
                "GIF, TIFF"
            ) from None

    return preprocess


def _limit_layers(editor: Any) -> Callable[..., Any]:
    """Drop painted layers that nobody asked for, so that they do not pile up."""
    accept = editor.accept_blobs

    @wraps(accept)
    def accept_blobs(self: Any, data: Any) -> Any:
        if str(data.data.get("index") or 0) not in map(str, (None, "null", *range(MAX_LAYERS))):
            raise user_error(f"{MAX_LAYERS} layers are enough")
        while len(self.blob_storage) >= MAX_JOBS:
            self.blob_storage.pop(next(iter(self.blob_storage)))
        return accept(self, data)

    return accept_blobs


def open_image(path: str | Path) -> Image.Image:
    """Open an uploaded image, upright, as RGB.

    Raises:
        InputError: no image, damaged, or too large; the file is named without its folder.
    """
    return read_image(_open(path))


def open_mask(path: str | Path) -> Image.Image:
    """Open an uploaded mask, not decoded yet: `Example` asks its file how it stores numbers.

    Raises:
        InputError: see `open_image`; damaged pixels are found later.
    """
    return _open(path, decode=False)


def _open(path: str | Path, decode: bool = True) -> Image.Image:
    name = Path(path).name
    try:
        image = Image.open(path)
        if decode:
            image.load()
    except FileNotFoundError:
        raise InputError(f"{name}: removed after an hour; upload it again") from None
    except Image.DecompressionBombError:
        raise InputError(f"{name}: more than {_megapixels()}; make it smaller first") from None
    except UnidentifiedImageError:
        formats = ", ".join(f for f in FORMATS if f != "MPO")
        raise InputError(f"{name}: not a picture; accepted: {formats}") from None
    except Exception:  # decoders raise nearly anything
        raise InputError(f"{name}: a damaged picture") from None
    return image


def _megapixels() -> str:
    return f"{2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:g} megapixels"


def check_count(files: list[str] | None, subject: str) -> list[str]:
    """Return the files, if there are some and not too many.

    Raises:
        InputError: none, or more than `MAX_IMAGES`.
    """
    if not files:
        raise InputError(f"No {subject} yet: add some first.")
    if len(files) > MAX_IMAGES:
        raise InputError(f"{len(files)} {subject}; accepted: {MAX_IMAGES} at once")
    return files


def parse_integer(name: str, value: Any, low: int, high: int) -> int:
    """Return the whole number of a form field.

    Raises:
        InputError: no whole number, or one outside `low` … `high`.
    """
    if not isinstance(value, (int, float)) or not math.isfinite(value) or value % 1:
        raise InputError(f"{name} {value!r}; accepted: whole numbers {low} … {high}")
    if not low <= value <= high:
        raise InputError(f"{name} {value:g}; accepted: {low} … {high}")
    return int(value)


def parse_tile(value: Any) -> int | None:
    """Return the tile size of a form field; None or 0: each image whole.

    Raises:
        InputError: smaller than 16, or no number.
    """
    return parse_integer("tile", value, *TILES) if value not in (None, 0, 0.0) else None


def check_paintings(
    name: str, size: tuple[int, int], prompt: Prompt, tile: int | None, limit: int = MAX_PAINTINGS
) -> None:
    """Raise InputError if an image of (width, height) takes too many paintings: an image cannot be
    stopped before all of them are made."""
    count, passes = prompt.paintings(*size, tile), len(prompt.passes)
    if count > limit:
        raise InputError(
            f"{name}: {size[0]} × {size[1]} pixels are {count // passes} tiles of {tile}, each "
            f"painted {passes} times for {len(prompt.ids)} ids: {count} paintings; accepted: "
            f"{limit} of a picture; make the tiles larger"
        )


def new_folder(prefix: str) -> Path:
    """Create a folder that `sweep` removes."""
    return Path(tempfile.mkdtemp(prefix=prefix, dir=root()))


def root() -> Path:
    """Return the folder of all files of this process; it exists inside `temporary_root` only."""
    if _root is None:
        raise RuntimeError("outside temporary_root()")
    return _root


def sweep(folder: Path, interval: float = 600) -> None:
    """Start a thread that removes sessions untouched for an hour, looking every `interval` s."""

    def run() -> None:
        while folder.is_dir():
            for path in folder.glob("session-*"):
                try:
                    if time.time() - path.stat().st_mtime > MAX_AGE:
                        shutil.rmtree(path, ignore_errors=True)
                except OSError:  # removed meanwhile
                    continue
            time.sleep(interval)

    threading.Thread(target=run, daemon=True).start()


_root: Path | None = None


@contextmanager
def temporary_root() -> Iterator[Path]:
    """Keep all files of this process in a folder that is removed at the end."""
    global _root  # noqa: PLW0603 - one a process, as GRADIO_TEMP_DIR is
    with tempfile.TemporaryDirectory(prefix="incontext-demo.", ignore_cleanup_errors=True) as name:
        outer, _root = _root, Path(name)
        try:
            yield _root
        finally:
            _root = outer


@contextmanager
def working_folder(pixels: int = MAX_PIXELS) -> Iterator[Path]:
    """Restrict this process, and keep all files, Gradio's too, in a folder that is swept."""
    harden(pixels)
    with temporary_root() as folder:
        os.environ["GRADIO_TEMP_DIR"] = str(folder / "gradio")
        sweep(folder)
        yield folder
