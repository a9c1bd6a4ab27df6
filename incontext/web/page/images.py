"""The tab of pictures: show what is meant, get it in the others, correct, go on."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from incontext import InputError
from incontext.web.jobs import Jobs
from incontext.web.limits import open_picture, tile_of
from incontext.web.models import Models
from incontext.web.page import sample_data
from incontext.web.page.labelled_images import read_example
from incontext.web.page.painting import NAMES, overlay, paintable, read_editor, write_editor
from incontext.web.page.panels import HELP, ExamplePanel, ResultPanel
from incontext.web.page.picking import Sam, grow_box, grow_click
from incontext.web.page.segmenting import Wish, downloads, segment
from incontext.web.page.session import Answer, Desk, Shown
from incontext.web.reporting import told, told_in


class Images:
    """Handlers of the tab."""

    def __init__(self, models: Models, jobs: Jobs, sam: str | None) -> None:
        self.models, self.jobs, self.sam = models, jobs, sam

    def current(self, desk: Desk, tool: str, value: Any, partly: bool) -> Shown | None:
        """What is painted or picked at the moment; None where nothing is."""
        draft = read_editor(value) if tool == "Brush" else desk.draft
        if draft is None or not draft[1].any():
            return None
        return Shown.of(*draft, partly)

    @told
    def switch(self, tool: str, value: Any, desk: Desk | None) -> tuple[Any, ...]:
        """Take what is painted from one tool to another."""
        desk = Desk.of(desk)
        desk.corner = None
        picking = tool != "Brush"
        if picking:
            desk.draft, desk.undo = read_editor(value) or desk.draft, []
        shown = overlay(*desk.draft) if picking and desk.draft else None
        editor = gr.update(visible=not picking, value=None)
        return (
            desk, editor, gr.update(visible=picking, value=shown), gr.update(visible=picking),
            gr.update(visible=tool == "Click"), HELP[tool],
        )  # fmt: skip

    @told
    def lay_out(self, tool: str, desk: Desk | None) -> Any:
        """What lies on the desk goes into the editor, which was emptied just before: one that
        holds a picture still puts layers of another size in the wrong place."""
        if tool != "Brush" or desk is None or desk.draft is None:
            return gr.skip()
        return write_editor(*desk.draft)

    @told
    def pick(
        self, event: gr.SelectData, tool: str, color: str, tolerance: float, desk: Desk | None
    ) -> tuple[Any, ...]:
        """A click on the picture."""
        desk = Desk.of(desk)
        if desk.draft is None:
            raise InputError("Upload a picture with the brush tool first, then pick.")
        picture, ids = desk.draft
        at = (int(event.index[0]), int(event.index[1]))
        if tool == "Box" and desk.corner is None:
            desk.corner = at
            marked = overlay(picture, ids).copy()
            size = max(2, max(picture.size) // 150)
            marked.paste("white", (at[0] - size, at[1] - size, at[0] + size, at[1] + size))
            return desk, marked
        desk.undo = [*desk.undo[-9:], ids]
        inside = self._region(desk, tool, at, tolerance)
        ids = np.where(inside, list(NAMES.values()).index(color) + 1, ids).astype(np.uint8)
        desk.draft, desk.corner = (picture, ids), None
        return desk, overlay(picture, ids)

    def _region(self, desk: Desk, tool: str, at: tuple[int, int], tolerance: float) -> Any:
        assert desk.draft is not None
        picture, box = desk.draft[0], None
        if desk.corner is not None:
            (x0, x1), (y0, y1) = (sorted(pair) for pair in zip(desk.corner, at, strict=True))
            box = (x0, y0, x1 + 1, y1 + 1)
        sam = Sam.cached(self.sam) if self.sam else None
        if sam:
            return sam.pick(picture, None if box else at, box)
        return grow_box(picture, box) if box else grow_click(picture, at, tolerance)

    @told
    def undo(self, desk: Desk | None) -> tuple[Any, ...]:
        """Take the last pick back."""
        desk = Desk.of(desk)
        desk.corner = None
        if desk.draft and desk.undo:
            desk.draft = (desk.draft[0], desk.undo.pop())
        return desk, overlay(*desk.draft) if desk.draft else None

    @told
    def upload_mask(self, path: str, tool: str, value: Any, desk: Desk | None) -> tuple[Any, ...]:
        """A mask file, onto the picture that lies there."""
        desk = Desk.of(desk)
        draft = read_editor(value) if tool == "Brush" else desk.draft
        if draft is None:
            raise InputError("Upload the picture first, then its mask.")
        ids = paintable(read_example(draft[0], path).labels.ids)
        desk.draft = (draft[0], ids)
        return desk, None, overlay(*desk.draft)

    @told
    def add(
        self, tool: str, value: Any, partly: bool, prompt: str | None, desk: Desk | None
    ) -> tuple[Any, ...]:
        """What is painted becomes an example; examples take the place of a prompt file."""
        desk = Desk.of(desk)
        shown = self.current(desk, tool, value, partly)
        if shown is None:
            raise InputError("Nothing is painted yet: upload a picture and paint what you mean.")
        news, desk.ready = desk.add(shown), False
        count = len(desk.examples)
        gr.Info(f"Added: {count} examples now." if news else "It is among the examples already.")
        if prompt:
            gr.Info("The prompt file was taken out: the examples are used.")
        return desk, _shown(desk), None

    @told
    def choose_example(self, event: gr.SelectData, desk: Desk | None) -> Desk:
        """The one that can be removed."""
        desk = Desk.of(desk)
        desk.chosen_example = int(event.index)
        return desk

    @told
    def remove(
        self, tool: str, value: Any, partly: bool, desk: Desk | None, every: bool
    ) -> tuple[Any, ...]:
        """Remove the chosen example, or all; what is in the editor does not come back by itself."""
        desk = Desk.of(desk)
        if not every and (desk.chosen_example or 0) >= len(desk.examples):
            raise InputError("Click on the example to remove first.")
        if not every and desk.chosen_example is None:
            raise InputError("Click on the example to remove first.")
        gone = desk.examples if every else [desk.examples[desk.chosen_example or 0]]
        desk.examples = [one for one in desk.examples if not any(one is g for g in gone)]
        desk.chosen_example = None
        desk.put_away = self.current(desk, tool, value, partly)
        return desk, _shown(desk)

    @told
    def ready(self, tool: str, value: Any, desk: Desk | None, name: str) -> tuple[Any, ...]:
        """Lay a ready-made example and its picture out, where that costs nobody's work."""
        desk, scene = Desk.of(desk), sample_data.scene(name)
        if desk.examples and not desk.ready:
            raise InputError("You have examples of your own: remove them first, or reload.")
        mine = self.current(desk, tool, value, False)
        if mine and not desk.ready:
            raise InputError("You painted something: clear the editor (its bin) first.")
        desk.ready = True
        picture = Image.fromarray(scene.example).convert("RGB")
        desk.examples, desk.draft = [], (picture, scene.mask.astype(np.uint8))
        return (
            desk, gr.update(value=None, visible=True), "Brush",
            [str(sample_data.target(name))], [], scene.tile or 0, "", "", None,
        )  # fmt: skip

    @told_in(status=3, outputs=6)
    def segment(
        self, desk: Desk | None, tool: str, value: Any, partly: bool, targets: list[str] | None,
        names: str, kind: str, tile: float, prompt: str | None, checkpoint: str, view: str,
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:  # fmt: skip
        """Answer all pictures, showing each as it comes."""
        desk = Desk.of(desk)
        with self.jobs.one(request, "quick") as stop:
            shown = None if prompt else self.current(desk, tool, value, partly)
            if shown and not (desk.put_away and shown.same(desk.put_away)):
                desk.add(shown)
            wish = Wish(checkpoint, kind, tile_of(tile), desk.names(names), prompt)
            examples = [one.example() for one in desk.examples]
            yield desk, _shown(desk), gr.skip(), "Encoding the examples …", gr.skip(), gr.skip()
            said, failed = "", list[str]()
            for done, total, failed in segment(
                self.models, desk, examples, targets or [], wish, stop
            ):
                said = f"{done - len(failed)} of {total} pictures segmented"
                yield desk, gr.skip(), _gallery(desk, view), said, gr.skip(), gr.skip()
            said += ", stopped" if stop.is_set() else ", done"
            said += f" with {Path(prompt).name}" if prompt else ""
            said += "".join(f"\n\n⚠ {text}" for text in failed)
            desk.chosen = 0
            pair = _pair(desk.answers[0]) if desk.answers else None
            files = gr.update(value=downloads(desk), visible=True)
            yield desk, gr.skip(), _gallery(desk, view), said, files, pair

    @told
    def choose(self, event: gr.SelectData, desk: Desk | None) -> tuple[Any, ...]:
        """One of the answers, with and without its overlay."""
        desk = Desk.of(desk)
        desk.chosen = int(event.index)
        return desk, _pair(_chosen(desk))

    @told
    def show(self, view: str, desk: Desk | None) -> Any:
        """Another view of all answers."""
        return _gallery(Desk.of(desk), view)

    @told
    def correct(self, desk: Desk | None) -> tuple[Any, ...]:
        """An answer goes to the brush, to be mended and added as an example."""
        desk = Desk.of(desk)
        one = _chosen(desk)
        ids = one.ids()
        if ids.max(initial=0) > len(NAMES):
            raise InputError(f"ids over {len(NAMES)} cannot be painted here")
        desk.draft = (open_picture(one.source), ids.astype(np.uint8))
        editor = gr.update(value=None, visible=True)
        return desk, editor, "Brush", f"Mend {one.name}, then press “Add as example”."


def _chosen(desk: Desk) -> Answer:
    if desk.chosen >= len(desk.answers):
        raise InputError("No result yet: segment first, then choose one in the gallery.")
    return desk.answers[desk.chosen]


def _shown(desk: Desk) -> list[tuple[Any, str]]:
    return [(overlay(one.picture, one.ids), str(n)) for n, one in enumerate(desk.examples, 1)]


def _gallery(desk: Desk, view: str) -> list[tuple[str, str]]:
    return [(str(one.file(view)), one.said) for one in desk.answers]


def _pair(one: Answer) -> tuple[Any, Any]:
    return open_picture(one.source), open_picture(one.file("overlay"))


def build(
    models: Models, jobs: Jobs, desk: gr.State, checkpoint: gr.Dropdown, sam: str | None
) -> gr.File:
    """Lay out the tab and connect it; where a prompt file can be put."""
    on = Images(models, jobs, sam)
    with gr.Row():
        starts = [
            gr.Button(f"Try: {name}", size="sm", scale=0, min_width=140)
            for name in sample_data.SCENES
        ]
    with gr.Row(equal_height=False):
        one, all_ = ExamplePanel(), ResultPanel()
    private: dict[str, Any] = {"api_visibility": "private"}
    # An editor that was painted on keeps showing progress after it was filled anew.
    quiet: dict[str, Any] = {**private, "show_progress": "hidden"}
    lay_out: dict[str, Any] = {
        "fn": on.lay_out, "inputs": [one.tool, desk], "outputs": one.editor, **quiet,
    }  # fmt: skip
    one.tool.change(
        on.switch, [one.tool, one.editor, desk],
        [desk, one.editor, one.picker, one.picks, one.tolerance, one.hint], **quiet,
    ).then(**lay_out)  # fmt: skip
    one.picker.select(
        on.pick, [one.tool, one.color, one.tolerance, desk], [desk, one.picker], **private
    )
    one.back.click(on.undo, desk, [desk, one.picker], **private)
    one.mask.upload(
        on.upload_mask, [one.mask, one.tool, one.editor, desk], [desk, one.editor, one.picker],
        **quiet,
    ).then(**lay_out)  # fmt: skip
    one.add.click(
        on.add, [one.tool, one.editor, all_.partly, all_.prompt_file, desk],
        [desk, one.examples, all_.prompt_file], **private,
    )  # fmt: skip
    one.examples.select(on.choose_example, desk, desk, **private)
    for button, every in ((one.drop, False), (one.clear, True)):
        button.click(
            partial(on.remove, every=every), [one.tool, one.editor, all_.partly, desk],
            [desk, one.examples], **private,
        )  # fmt: skip
    for name, button in zip(sample_data.SCENES, starts, strict=True):
        button.click(
            partial(on.ready, name=name), [one.tool, one.editor, desk],
            [desk, one.editor, one.tool, all_.targets, one.examples, all_.tile, all_.status,
             one.names, all_.prompt_file],
            **quiet,
        ).then(**lay_out)  # fmt: skip
    _connect_results(on, one, all_, desk, checkpoint, private, lay_out)
    return all_.prompt_file


def _connect_results(
    on: Images, one: ExamplePanel, all_: ResultPanel, desk: gr.State, checkpoint: gr.Dropdown,
    private: dict[str, Any], lay_out: dict[str, Any],
) -> None:  # fmt: skip
    """What happens in the panel of results."""
    jobs, quiet = on.jobs, {**private, "show_progress": "hidden"}
    all_.prompt_file.change(
        lambda path: gr.update(
            value=f"Uses **{Path(path).name}** instead of examples (see Options)." if path else "",
            visible=bool(path),
        ),
        all_.prompt_file, all_.note, **quiet,
    )  # fmt: skip
    all_.go.click(
        on.segment,
        [desk, one.tool, one.editor, all_.partly, all_.targets, one.names, all_.kind, all_.tile,
         all_.prompt_file, checkpoint, all_.view],
        [desk, one.examples, all_.gallery, all_.status, all_.files, all_.slider],
        concurrency_limit=None, show_progress_on=all_.status, **private,
    )  # fmt: skip
    all_.halt.click(jobs.stop, queue=False, **private)
    all_.gallery.select(on.choose, desk, [desk, all_.slider], **private)
    all_.view.change(on.show, [all_.view, desk], all_.gallery, **private)
    to_editor = "() => document.querySelector('#example-editor').scrollIntoView({block: 'center'})"
    all_.mend.click(on.correct, desk, [desk, one.editor, one.tool, all_.status], **quiet).then(
        **lay_out
    ).then(fn=None, js=to_editor, **private)
