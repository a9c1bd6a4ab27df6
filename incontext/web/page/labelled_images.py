"""Labelled images: what tuning and the doctor take; long jobs in the background."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from incontext import Example, InputError, LabelledSet
from incontext.web.limits import MAX_IMAGES, open_image, open_mask
from incontext.web.page import sample_data
from incontext.web.page.painting import parse_names
from incontext.web.page.panels import PICTURE_FILES
from incontext.web.page.session import SIDE, Session
from incontext.web.reporting import raise_if_stopped, report_errors

OnProgress = Callable[[str, int, int], None]  # stage, done, total


def read_labelled_set(
    session: Session, pictures: Sequence[str] | None, masks: Sequence[str] | None,
    include_examples: bool, size: int, names: str = "",
) -> LabelledSet:  # fmt: skip
    """Read uploaded pairs, matched by name.

    Args:
        include_examples: add the examples of the tab "Images".
        size: of the model, in pixels.
        names: of the ids, in order, with commas.

    Raises:
        InputError: no pairs, too many, an image without its mask, or a damaged one.
    """
    pairs = pair_up([Path(p) for p in pictures or []], [Path(m) for m in masks or []])
    drafts = session.examples if include_examples else []
    count = len(drafts) + len(pairs)
    if count > MAX_IMAGES:
        raise InputError(f"{count} pictures; accepted here: {MAX_IMAGES}")
    sources = [f"example {n}" for n in range(1, len(drafts) + 1)] + [p.name for p, _ in pairs]
    examples = [draft.example() for draft in drafts]
    examples += read_examples([p for p, _ in pairs], [m for _, m in pairs])
    if not examples:
        raise InputError("No labelled pictures yet: add pictures and their masks.")
    ids = sorted({i for example in examples for i in example.labels.present})
    return LabelledSet.from_examples(
        examples, size, sources=sources, names=parse_names(names, [int(i) for i in ids])
    )


def read_examples(pictures: Sequence[str | Path], masks: Sequence[str | Path]) -> list[Example]:
    """Read images with their masks, in pairs. Ids stay as they are; if one mask holds 255 among
    other ids, 255 means unknown in all of them.

    Raises:
        InputError: see `read_example`; a color picture as a mask.
    """
    ignore = 255 if any(_has_void(mask) for mask in masks) else None
    examples = []
    for picture, mask in zip(pictures, masks, strict=True):
        example = read_example(picture, mask, ignore)
        if example.labels.discovered:
            raise InputError(
                f"{Path(mask).name}: a color picture; save ids as the numbers of a palette or gray "
                "PNG, so that they are the same in all masks"
            )
        examples.append(shrink(example))
    return examples


def _has_void(mask: str | Path) -> bool:
    """Return whether a mask holds 255 among other ids than 0."""
    stored = open_mask(mask)
    if stored.mode not in ("L", "P"):
        return False
    try:
        example = Example(Image.new("L", stored.size), stored, ignore="none")
    except InputError:  # reported when it is read
        return False
    return 255 in example.labels.present and len(example.labels.present) > 1


def read_example(
    picture: str | Path | Image.Image, mask: str | Path, ignore: int | None = None
) -> Example:
    """Read an image and its mask file.

    Raises:
        InputError: a file cannot be read, or the sizes differ; the mask is named.
    """
    image = picture if isinstance(picture, Image.Image) else open_image(picture)
    ignore = 255 if ignore is None and _has_void(mask) else ignore
    try:
        return Example(image, open_mask(mask), ignore=ignore)
    except InputError as error:
        raise InputError(f"{Path(mask).name}: {error}") from None


def shrink(example: Example) -> Example:
    """Return an example at most `SIDE` pixels wide and high: models see less, and many have to
    fit into memory.

    Raises:
        InputError: nothing would be left of an id.
    """
    scale = SIDE / max(example.image.size)
    if scale >= 1:
        return example
    width, height = (max(1, round(v * scale)) for v in example.image.size)
    size = (width, height)
    ids = Image.fromarray(example.labels.ids).resize(size, Image.Resampling.NEAREST)
    labels = replace(example.labels, ids=np.asarray(ids, np.int32))
    lost_ids = sorted(set(example.labels.present) - set(labels.present))
    if lost_ids:
        raise InputError(
            f"id {lost_ids[0]} is too small: at {width}×{height}, which is what examples are kept "
            "at here, nothing is left of it; cut the picture around it"
        )
    return Example.from_labels(example.image.resize(size, Image.Resampling.BICUBIC), labels)


def pair_up(pictures: Sequence[Path], masks: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Pair each image with the mask of the same name, whatever its suffix, or NAME_mask, NAME.mask.

    Raises:
        InputError: a file without a partner, or two masks of one name.
    """
    by_name: dict[str, Path] = {}
    for mask in masks:
        stem = mask.stem.removesuffix("_mask").removesuffix("-mask").removesuffix(".mask")
        if by_name.setdefault(stem, mask) is not mask:
            raise InputError(f"two masks for {stem}: {by_name[stem].name}, {mask.name}")
    pairs = []
    for picture in pictures:
        if picture.stem not in by_name:
            stem = picture.stem
            raise InputError(f"{picture.name} has no mask; expected {stem}.png or {stem}_mask.png")
        pairs.append((picture, by_name.pop(picture.stem)))
    if by_name:
        raise InputError(f"{next(iter(by_name.values())).name} belongs to no picture")
    return pairs


def run_in_background(work: Callable[[OnProgress], Any], stop: threading.Event) -> Iterator[Any]:
    """Run `work(on_progress)` in a thread; yields its progress (stage, done, total), then its
    result.

    Raises:
        JobStopped: `stop` was set.
    """
    events: queue.Queue[tuple[str, Any]] = queue.Queue()

    def on_progress(stage: str, done: int, total: int) -> None:
        raise_if_stopped(stop)
        events.put(("progress", (stage, done, total)))

    def run() -> None:
        try:
            events.put(("result", work(on_progress)))
        except BaseException as error:
            events.put(("error", error))

    threading.Thread(target=run, daemon=True).start()
    last: Any = ("beginning", 0, 1)
    try:
        while True:
            event = "progress"
            with suppress(queue.Empty):
                event, last = events.get(timeout=0.5)
            while event == "progress" and not events.empty():  # the latest only
                event, last = events.get()
            if event == "error":
                raise last
            yield last
            if event == "result":
                return
    finally:
        stop.set()  # where the page was left, the thread ends at its next step


class Inputs:
    """The part of a tab where labelled images are uploaded."""

    def __init__(self, key: str) -> None:
        gr.Markdown("### 1. Labelled pictures")
        self.sample = gr.Button("Try: drawn cells, one mask of them wrong", size="sm")
        self.pictures = gr.File(
            label="Pictures", file_count="multiple", file_types=PICTURE_FILES, height=140,
            elem_id=f"{key}-pictures",
        )  # fmt: skip
        self.masks = gr.File(
            label="Their masks, of the same names",
            file_count="multiple", file_types=PICTURE_FILES, height=140, elem_id=f"{key}-masks",
        )  # fmt: skip
        self.include_examples = gr.Checkbox(label="Take the examples of the tab “Images” too")
        self.sample.click(sample_cells, None, [self.pictures, self.masks], api_visibility="private")

    @property
    def components(self) -> list[gr.components.Component]:
        """The inputs of `read_labelled_set`."""
        return [self.pictures, self.masks, self.include_examples]


@report_errors
def sample_cells() -> tuple[list[str], list[str]]:
    """Return the paths of the drawn images and of their masks."""
    pictures, masks = sample_data.cells()
    return [str(p) for p in pictures], [str(m) for m in masks]


def percent(done: int, total: int) -> str:
    """Return how far something is, "0%" … "100%"."""
    return f"{np.clip(done / max(1, total), 0, 1):.0%}"
