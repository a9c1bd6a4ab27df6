"""Labelled pictures: what tuning and the doctor take, and how long jobs are watched."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from demos import ready
from demos.desk import Desk
from demos.limits import PICTURES, Stopped, open_mask, open_picture, told
from demos.painting import ids_of_mask, label_picture, read_names
from demos.panels import PICTURE_FILES
from incontext import Example, InputError, Pool

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
    examples = [(f"example {n}", shown.example()) for n, shown in enumerate(desk.examples, 1)]
    found = examples if own else []
    for picture, mask in pairs:
        image = open_picture(picture)
        try:
            drawn = ids_of_mask(open_mask(mask), image.size)
        except ValueError as error:
            raise InputError(f"{mask.name}: {error}") from None
        found.append((picture.name, Example(image, label_picture(drawn))))
    if not found:
        raise InputError("No labelled pictures yet: add pictures and their masks.")
    if len(found) > PICTURES:
        raise InputError(f"{len(found)} pictures; accepted here: {PICTURES}")
    ids = sorted({i for _, example in found for i in example.labels.present})
    return Pool.of(
        (example for _, example in found), size, sources=[name for name, _ in found],
        names=read_names(names, [int(i) for i in ids]),
    )  # fmt: skip


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
            raise InputError(f"{picture.name} has no mask; expected one named {picture.stem}.png")
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

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while True:
            kind, value = said.get()
            while kind == "told" and not said.empty():  # the latest only
                kind, value = said.get()
            if kind == "failed":
                raise value
            yield value
            if kind == "done":
                return
    finally:
        stop.set()  # the page was left: the thread ends at its next step
        thread.join()


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
    pictures, masks = ready.cells()
    return [str(p) for p in pictures], [str(m) for m in masks]


def share(done: int, total: int) -> str:
    """How far something is."""
    return f"{np.clip(done / max(1, total), 0, 1):.0%}"
