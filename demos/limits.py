"""Limits: what a visitor may send, and how much of the machine one of them may take."""

import logging
import math
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
from gradio import processing_utils
from PIL import Image, UnidentifiedImageError

from incontext import InputError, read_image

UPLOAD = "40mb"  # a file
PIXELS = 40_000_000  # of a picture
FORMATS = ("BMP", "GIF", "JPEG", "MPO", "PNG", "PPM", "TIFF", "WEBP")  # no others are decoded
PICTURES = 64  # at once
FRAMES = 600  # of a clip
FRAME_PIXELS = 2_100_000  # of each of them
QUEUE = 16  # jobs, those that wait among them
LAYERS = 8  # of a painting
AGE = 3600  # seconds after which files are removed

Function = TypeVar("Function", bound=Callable[..., Any])
log = logging.getLogger("incontext.demo")


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """The visitor stopped a job."""


class Jobs:
    """One job a visitor, who can stop it; of all visitors one quick and one long one at once."""

    def __init__(self) -> None:
        self._running: dict[str, threading.Event] = {}
        self._lock = threading.Lock()
        self._slots = {"quick": threading.Semaphore(1), "long": threading.Semaphore(1)}

    @contextmanager
    def one(self, request: gr.Request | None, kind: str) -> Iterator[threading.Event]:
        """Hold the visitor's only place, and wait for a slot; yields what is set when the job
        should stop. `kind`: "quick" or "long".

        Raises:
            gr.Error: another job of the same visitor is there, or too many visitors wait.
            Stopped: while waiting.
        """
        visitor, stop = _visitor(request), threading.Event()
        with self._lock:
            if visitor in self._running:
                raise refusal("One job at a time: wait for yours to end, or stop it.")
            if len(self._running) >= QUEUE:
                raise refusal(f"{QUEUE} jobs are waiting already; try again in a minute.")
            self._running[visitor] = stop
        try:
            while not self._slots[kind].acquire(timeout=0.5):
                if stop.is_set():
                    raise Stopped
            try:
                yield stop
            finally:
                self._slots[kind].release()
        finally:
            with self._lock:
                self._running.pop(visitor, None)

    def stop(self, request: gr.Request | None = None) -> None:
        """End the visitor's job at the next step; what is finished stays."""
        with self._lock:
            running = self._running.get(_visitor(request))
        if running:
            running.set()


def _visitor(request: gr.Request | None) -> str:
    return str(getattr(request, "session_hash", None) or "")


def harden() -> None:
    """This process decodes the formats above only, no picture over the limit, fetches nothing.

    Gradio opens what was painted before any code of ours does, and keeps it until it is asked for.
    """
    Image.MAX_IMAGE_PIXELS = PIXELS // 2  # Pillow refuses from twice that on
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
            raise refusal(f"More than {PIXELS // 10**6} megapixels; make it smaller.") from None
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
        raise InputError(
            f"{name}: more than {PIXELS // 10**6} megapixels; make it smaller first"
        ) from None
    except UnidentifiedImageError:
        shown = ", ".join(f for f in FORMATS if f != "MPO")
        raise InputError(f"{name}: not a picture; accepted: {shown}") from None
    except Exception:  # decoders raise nearly anything
        raise InputError(f"{name}: a damaged picture") from None
    return image


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


def going_on(stop: threading.Event) -> None:
    """Raise Stopped where the visitor stopped the job."""
    if stop.is_set():
        raise Stopped


def refusal(text: str) -> gr.Error:
    """What a visitor is told; the server's terminal need not hear of it."""
    return gr.Error(text, print_exception=False)


@contextmanager
def _telling() -> Iterator[None]:
    """Whatever goes wrong in here becomes a sentence, without paths of the server."""
    try:
        yield
    except gr.Error:
        raise
    except Stopped:
        raise refusal("Stopped.") from None
    except (InputError, OSError) as error:
        raise refusal(without_paths(str(error))) from None
    except Exception:
        log.exception("a job failed")
        raise refusal("Something went wrong here; the server's log has it.") from None


def told(function: Function) -> Function:
    """What goes wrong in an event is told in one sentence."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with _telling():
            return function(*args, **kwargs)

    return call  # type: ignore[return-value]


def told_in(status: int, outputs: int) -> Callable[[Function], Function]:
    """The same for events that yield: the sentence takes the place of the status as well, which is
    number `status` of so many outputs; the others stay as they are."""

    def around(function: Function) -> Function:
        @wraps(function)
        def generate(*args: Any, **kwargs: Any) -> Iterator[Any]:
            try:
                with _telling():
                    yield from function(*args, **kwargs)
            except gr.Error as error:
                yield tuple(f"⚠ {error.message}" if i == status else gr.skip()
                            for i in range(outputs))  # fmt: skip
                raise

        return generate  # type: ignore[return-value]

    return around


def without_paths(text: str) -> str:
    """A text in which files are called by their names."""
    return re.sub(r"(?<![\w.])/(?:[^/\s:'\"]+/)+", "", text)


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
