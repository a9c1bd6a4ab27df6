"""Labelled pictures: what tuning and the doctor take, and how long jobs are watched."""

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

from incontext import Example, InputError, Pool
from incontext.web.limits import PICTURES, open_mask, open_picture
from incontext.web.page import sample_data
from incontext.web.page.painting import names_in_order
from incontext.web.page.panels import PICTURE_FILES
from incontext.web.page.session import SIDE, Desk
from incontext.web.reporting import Stopped, told

Tell = Callable[[str, int, int], None]


def pool_of(
    desk: Desk, pictures: Sequence[str] | None, masks: Sequence[str] | None, own: bool, size: int,
    names: str = "",
) -> Pool:  # fmt: skip
    """Uploaded pairs, matched by name, and if wanted the examples of the tab of pictures.

    Raises:
        InputError: nothing there, too many, a picture without its mask, or one that is damaged.
    """
    pairs = pair_up([Path(p) for p in pictures or []], [Path(m) for m in masks or []])
    found = [(f"example {n}", shown.example()) for n, shown in enumerate(desk.examples, 1)]
    found = found if own else []
    if len(found) + len(pairs) > PICTURES:
        raise InputError(f"{len(found) + len(pairs)} pictures; accepted here: {PICTURES}")
    read = read_examples([p for p, _ in pairs], [m for _, m in pairs])
    found += [(picture.name, one) for (picture, _), one in zip(pairs, read, strict=True)]
    if not found:
        raise InputError("No labelled pictures yet: add pictures and their masks.")
    ids = sorted({i for _, example in found for i in example.labels.present})
    return Pool.of(
        (example for _, example in found), size, sources=[name for name, _ in found],
        names=names_in_order(names, [int(i) for i in ids]),
    )  # fmt: skip


def read_examples(pictures: Sequence[str | Path], masks: Sequence[str | Path]) -> list[Example]:
    """Pictures with their masks, in pairs: ids as they are; where one mask holds 255 beside other
    ids, 255 means unknown in all of them.

    Raises:
        InputError: see `read_example`; a color picture as a mask.
    """
    ignore = 255 if any(_beside_255(mask) for mask in masks) else None
    found = []
    for picture, mask in zip(pictures, masks, strict=True):
        one = read_example(picture, mask, ignore)
        if one.labels.discovered:
            raise InputError(
                f"{Path(mask).name}: a color picture; save ids as the numbers of a palette or gray "
                "PNG, so that they are the same in all masks"
            )
        found.append(small(one))
    return found


def _beside_255(mask: str | Path) -> bool:
    image = open_mask(mask)
    values = set(np.unique(np.asarray(image)).tolist()) if image.mode in ("L", "P") else set()
    return 255 in values and not values <= {0, 255}


def read_example(
    picture: str | Path | Image.Image, mask: str | Path, ignore: int | None = None
) -> Example:
    """A picture and its mask file.

    Raises:
        InputError: a file that cannot be read, another size; the mask is named.
    """
    image = picture if isinstance(picture, Image.Image) else open_picture(picture)
    ignore = 255 if ignore is None and _beside_255(mask) else ignore
    try:
        return Example(image, open_mask(mask), ignore=ignore)
    except InputError as error:
        raise InputError(f"{Path(mask).name}: {error}") from None


def small(example: Example) -> Example:
    """At most `SIDE` pixels wide and high: models see less, and many have to fit into memory."""
    scale = SIDE / max(example.image.size)
    if scale >= 1:
        return example
    width, height = (max(1, round(v * scale)) for v in example.image.size)
    size = (width, height)
    ids = Image.fromarray(example.labels.ids).resize(size, Image.Resampling.NEAREST)
    labels = replace(example.labels, ids=np.asarray(ids, np.int32))
    gone = sorted(set(example.labels.present) - set(labels.present))
    if gone:
        raise InputError(
            f"id {gone[0]} is too small: at {width}×{height}, which is what examples are kept at "
            "here, nothing is left of it; cut the picture around it"
        )
    return Example.of(example.image.resize(size, Image.Resampling.BICUBIC), labels)


def pair_up(pictures: Sequence[Path], masks: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Each picture with the mask of the same name, whatever its suffix, or NAME_mask, NAME.mask.

    Raises:
        InputError: one that has no partner, or a name that is there twice.
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


def watched(work: Callable[[Tell], Any], stop: threading.Event) -> Iterator[Any]:
    """Run something long in a thread; yields (what, done, total) as it tells, its result last.

    Raises:
        Stopped: `stop` was set.
    """
    said: queue.Queue[tuple[str, Any]] = queue.Queue()

    def tell(what: str, done: int, total: int) -> None:
        if stop.is_set():
            raise Stopped
        said.put(("told", (what, done, total)))

    def run() -> None:
        try:
            said.put(("done", work(tell)))
        except BaseException as error:
            said.put(("failed", error))

    threading.Thread(target=run, daemon=True).start()
    last: Any = ("beginning", 0, 1)
    try:
        while True:
            kind = "told"
            with suppress(queue.Empty):
                kind, last = said.get(timeout=0.5)
            while kind == "told" and not said.empty():  # the latest only
                kind, last = said.get()
            if kind == "failed":
                raise last
            yield last
            if kind == "done":
                return
    finally:
        stop.set()  # where the page was left, the thread ends at its next step


class Inputs:
    """The part of a tab where labelled pictures are given."""

    def __init__(self, key: str) -> None:
        gr.Markdown("### 1. Labelled pictures")
        self.start = gr.Button("Try: drawn cells, one mask of them wrong", size="sm")
        self.pictures = gr.File(
            label="Pictures", file_count="multiple", file_types=PICTURE_FILES, height=140,
            elem_id=f"{key}-pictures",
        )  # fmt: skip
        self.masks = gr.File(
            label="Their masks, of the same names",
            file_count="multiple", file_types=PICTURE_FILES, height=140, elem_id=f"{key}-masks",
        )  # fmt: skip
        self.own = gr.Checkbox(label="Take the examples of the tab “Images” too")
        self.start.click(ready_cells, None, [self.pictures, self.masks], api_visibility="private")

    @property
    def all(self) -> list[gr.components.Component]:
        """What `pool_of` takes."""
        return [self.pictures, self.masks, self.own]


@told
def ready_cells() -> tuple[list[str], list[str]]:
    """Paths of the drawn set."""
    pictures, masks = sample_data.cells()
    return [str(p) for p in pictures], [str(m) for m in masks]


def share(done: int, total: int) -> str:
    """How far something is."""
    return f"{np.clip(done / max(1, total), 0, 1):.0%}"
