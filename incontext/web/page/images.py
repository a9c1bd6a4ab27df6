"""The tab of images: show what is meant, get it in the others, correct, go on."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from incontext import InputError
from incontext.web.jobs import Jobs
from incontext.web.limits import open_image, parse_tile
from incontext.web.models import Models
from incontext.web.page import sample_data
from incontext.web.page.labelled_images import read_example
from incontext.web.page.painting import NAMES, overlay, paintable, read_editor, write_editor
from incontext.web.page.panels import HELP, ORDERS, ExamplePanel, ResultPanel
from incontext.web.page.picking import Sam, grow_box, grow_click
from incontext.web.page.segmenting import SegmentRequest, downloads, explain, segment
from incontext.web.page.session import DraftExample, ImageResult, Session
from incontext.web.reporting import report_errors, report_errors_in


class Images:
    """Handlers of the tab."""

    def __init__(self, models: Models, jobs: Jobs, sam: str | None) -> None:
        self.models, self.jobs, self.sam = models, jobs, sam

    def current(self, session: Session, tool: str, value: Any, partly: bool) -> DraftExample | None:
        """Return what is painted or picked at the moment, or None."""
        draft = read_editor(value) if tool == "Brush" else session.draft
        if draft is None or not draft[1].any():
            return None
        return DraftExample.shrink(*draft, partly)

    @report_errors
    def switch(self, tool: str, value: Any, session: Session | None) -> tuple[Any, ...]:
        """Take what is painted from one tool to another."""
        session = Session.resume(session)
        session.corner = None
        picking = tool != "Brush"
        if picking:
            session.draft, session.undo = read_editor(value) or session.draft, []
        preview = overlay(*session.draft) if picking and session.draft else None
        editor = gr.update(visible=not picking, value=None)
        return (
            session, editor, gr.update(visible=picking, value=preview), gr.update(visible=picking),
            gr.update(visible=tool == "Click"), HELP[tool],
        )  # fmt: skip

    @report_errors
    def lay_out(self, tool: str, session: Session | None) -> Any:
        """Put the draft into the editor, which was emptied just before: an editor that still holds
        an image puts layers of another size in the wrong place."""
        if tool != "Brush" or session is None or session.draft is None:
            return gr.skip()
        return write_editor(*session.draft)

    @report_errors
    def pick(
        self, event: gr.SelectData, tool: str, color: str, tolerance: float, session: Session | None
    ) -> tuple[Any, ...]:
        """Take the region at a click, or in the box that two clicks span."""
        session = Session.resume(session)
        if session.draft is None:
            raise InputError("Upload a picture with the brush tool first, then pick.")
        picture, ids = session.draft
        at = (int(event.index[0]), int(event.index[1]))
        if tool == "Box" and session.corner is None:
            session.corner = at
            preview = overlay(picture, ids).copy()
            size = max(2, max(picture.size) // 150)
            preview.paste("white", (at[0] - size, at[1] - size, at[0] + size, at[1] + size))
            return session, preview
        session.undo = [*session.undo[-9:], ids]
        inside = self._region(session, tool, at, tolerance)
        ids = np.where(inside, list(NAMES.values()).index(color) + 1, ids).astype(np.uint8)
        session.draft, session.corner = (picture, ids), None
        return session, overlay(picture, ids)

    def _region(self, session: Session, tool: str, at: tuple[int, int], tolerance: float) -> Any:
        assert session.draft is not None
        picture, box = session.draft[0], None
        if session.corner is not None:
            (x0, x1), (y0, y1) = (sorted(pair) for pair in zip(session.corner, at, strict=True))
            box = (x0, y0, x1 + 1, y1 + 1)
        sam = Sam.cached(self.sam) if self.sam else None
        if sam:
            return sam.pick(picture, None if box else at, box)
        return grow_box(picture, box) if box else grow_click(picture, at, tolerance)

    @report_errors
    def undo(self, session: Session | None) -> tuple[Any, ...]:
        """Take the last pick back."""
        session = Session.resume(session)
        session.corner = None
        if session.draft and session.undo:
            session.draft = (session.draft[0], session.undo.pop())
        return session, overlay(*session.draft) if session.draft else None

    @report_errors
    def upload_mask(
        self, path: str, tool: str, value: Any, session: Session | None
    ) -> tuple[Any, ...]:
        """Read a mask file onto the image in the editor."""
        session = Session.resume(session)
        draft = read_editor(value) if tool == "Brush" else session.draft
        if draft is None:
            raise InputError("Upload the picture first, then its mask.")
        ids = paintable(read_example(draft[0], path).labels.ids)
        session.draft = (draft[0], ids)
        return session, None, overlay(*session.draft)

    @report_errors
    def add(
        self, tool: str, value: Any, partly: bool, prompt: str | None, session: Session | None
    ) -> tuple[Any, ...]:
        """Add what is painted as an example; examples take the place of a prompt file."""
        session = Session.resume(session)
        draft = self.current(session, tool, value, partly)
        if draft is None:
            raise InputError("Nothing is painted yet: upload a picture and paint what you mean.")
        is_new, session.ready_made = session.add(draft), False
        count = len(session.examples)
        gr.Info(f"Added: {count} examples now." if is_new else "It is among the examples already.")
        if prompt:
            gr.Info("The prompt file was taken out: the examples are used.")
        return session, _example_gallery(session), None

    @report_errors
    def choose_example(self, event: gr.SelectData, session: Session | None) -> Session:
        """Remember which example `remove` removes."""
        session = Session.resume(session)
        session.example_index = int(event.index)
        return session

    @report_errors
    def remove(
        self, tool: str, value: Any, partly: bool, session: Session | None, remove_all: bool
    ) -> tuple[Any, ...]:
        """Remove the chosen example, or all; what is in the editor does not come back by itself."""
        session = Session.resume(session)
        if remove_all:
            session.examples = []
        elif session.example_index is None or session.example_index >= len(session.examples):
            raise InputError("Click on the example to remove first.")
        else:
            index = session.example_index
            session.examples = [*session.examples[:index], *session.examples[index + 1 :]]
        session.example_index = None
        session.dismissed = self.current(session, tool, value, partly)
        return session, _example_gallery(session)

    @report_errors
    def load_sample(
        self, tool: str, value: Any, session: Session | None, name: str
    ) -> tuple[Any, ...]:
        """Lay out a ready-made example and its query, unless that would discard work."""
        session, scene = Session.resume(session), sample_data.scene(name)
        if session.examples and not session.ready_made:
            raise InputError("You have examples of your own: remove them first, or reload.")
        draft = self.current(session, tool, value, False)
        if draft and not session.ready_made:
            raise InputError("You painted something: clear the editor (its bin) first.")
        session.ready_made = True
        picture = Image.fromarray(scene.example).convert("RGB")
        session.examples, session.draft = [], (picture, scene.mask.astype(np.uint8))
        return (
            session, gr.update(value=None, visible=True), "Brush",
            [str(sample_data.target(name))], [], scene.tile or 0, "", "", None,
        )  # fmt: skip

    @report_errors_in(status=3, outputs=8)
    def segment(
        self, session: Session | None, tool: str, value: Any, partly: bool,
        targets: list[str] | None, names: str, kind: str, tile: float, prompt: str | None,
        checkpoint: str, view: str, order: str, request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:  # fmt: skip
        """Segment all images, showing each result as it comes."""
        session = Session.resume(session)
        with self.jobs.run(request, "quick") as stop:
            draft = None if prompt else self.current(session, tool, value, partly)
            if draft and not (session.dismissed and draft.equals(session.dismissed)):
                session.add(draft)
            options = SegmentRequest(
                checkpoint, kind, parse_tile(tile), session.names(names), prompt
            )
            examples = [draft.example() for draft in session.examples]
            skip, hidden = gr.skip(), gr.update(visible=False)
            status, failed = "Encoding the examples …", list[str]()
            yield session, _example_gallery(session), skip, status, skip, skip, skip, hidden
            for done, total, failed in segment(
                self.models, session, examples, targets or [], options, stop
            ):
                status = f"{done - len(failed)} of {total} pictures segmented"
                yield session, skip, _result_gallery(session, view), status, *[skip] * 4
            status += ", stopped" if stop.is_set() else ", done"
            status += f" with {Path(prompt).name}" if prompt else ""
            status += "".join(f"\n\n⚠ {text}" for text in failed)
            _sort(session, order)
            session.result_index = 0
            pair = _pair(session.results[0]) if session.results else (None, None)
            files = gr.update(value=downloads(session), visible=True)
            gallery = _result_gallery(session, view)
            yield session, skip, gallery, status, files, pair, pair[1], hidden

    @report_errors
    def choose(self, event: gr.SelectData, session: Session | None) -> tuple[Any, ...]:
        """Show one of the results, with and without its overlay."""
        session = Session.resume(session)
        session.result_index = int(event.index)
        pair = _pair(_current_result(session))
        return session, pair, pair[1], gr.update(visible=False)

    @report_errors
    def show(self, view: str, order: str, session: Session | None) -> tuple[Any, ...]:
        """Show all results in another view or order."""
        session = Session.resume(session)
        _sort(session, order)
        return session, _result_gallery(session, view)

    @report_errors
    def explain(self, event: gr.SelectData, session: Session | None, request: gr.Request) -> Any:
        """Show which places of the examples voted for what was clicked."""
        session = Session.resume(session)
        at = (int(event.index[0]), int(event.index[1]))
        with self.jobs.run(request, "quick"):
            images = explain(self.models, session, _current_result(session), at)
        return gr.update(value=images, visible=True)

    @report_errors
    def correct(self, session: Session | None) -> tuple[Any, ...]:
        """Move a result to the brush, to be corrected and added as an example."""
        session = Session.resume(session)
        result = _current_result(session)
        ids = result.ids()
        if ids.max(initial=0) > len(NAMES):
            raise InputError(f"ids over {len(NAMES)} cannot be painted here")
        session.draft = (open_image(result.source), ids.astype(np.uint8))
        editor = gr.update(value=None, visible=True)
        return session, editor, "Brush", f"Mend {result.name}, then press “Add as example”."


def _current_result(session: Session) -> ImageResult:
    if session.result_index >= len(session.results):
        raise InputError("No result yet: segment first, then choose one in the gallery.")
    return session.results[session.result_index]


def _example_gallery(session: Session) -> list[tuple[Any, str]]:
    return [(overlay(e.picture, e.ids), str(n)) for n, e in enumerate(session.examples, 1)]


def _result_gallery(session: Session, view: str) -> list[tuple[str, str]]:
    return [(str(result.file(view)), result.caption) for result in session.results]


def _sort(session: Session, order: str) -> None:
    """Sort the results by one of `ORDERS`; the current one stays the same."""
    current = session.results[session.result_index :][:1]  # none while a run begins
    worst = order == ORDERS[1]
    session.results.sort(key=lambda r: (r.score if worst else 0, r.number))
    session.result_index = session.results.index(current[0]) if current else 0


def _pair(result: ImageResult) -> tuple[Any, Any]:
    return open_image(result.source), open_image(result.file("overlay"))


def build(
    models: Models, jobs: Jobs, session: gr.State, checkpoint: gr.Dropdown, sam: str | None
) -> gr.File:
    """Lay out the tab and connect it; returns its field for a prompt file."""
    on = Images(models, jobs, sam)
    with gr.Row():
        samples = [
            gr.Button(f"Try: {name}", size="sm", scale=0, min_width=140)
            for name in sample_data.SCENES
        ]
    with gr.Row(equal_height=False):
        example, results = ExamplePanel(), ResultPanel()
    drawing = [example.tool, example.editor]
    private: dict[str, Any] = {"api_visibility": "private"}
    # An editor that was painted on keeps showing progress after it was filled again.
    quiet: dict[str, Any] = {**private, "show_progress": "hidden"}
    lay_out: dict[str, Any] = {
        "fn": on.lay_out, "inputs": [example.tool, session], "outputs": example.editor, **quiet,
    }  # fmt: skip
    example.tool.change(
        on.switch, [*drawing, session],
        [session, example.editor, example.picker, example.picks, example.tolerance, example.hint],
        **quiet,
    ).then(**lay_out)  # fmt: skip
    example.picker.select(
        on.pick, [example.tool, example.color, example.tolerance, session],
        [session, example.picker], **private,
    )  # fmt: skip
    example.back.click(on.undo, session, [session, example.picker], **private)
    example.mask.upload(
        on.upload_mask, [example.mask, *drawing, session],
        [session, example.editor, example.picker], **quiet,
    ).then(**lay_out)  # fmt: skip
    example.add.click(
        on.add, [*drawing, results.partly, results.prompt_file, session],
        [session, example.examples, results.prompt_file], **private,
    )  # fmt: skip
    example.examples.select(on.choose_example, session, session, **private)
    for button, remove_all in ((example.drop, False), (example.clear, True)):
        button.click(
            partial(on.remove, remove_all=remove_all), [*drawing, results.partly, session],
            [session, example.examples], **private,
        )  # fmt: skip
    for name, button in zip(sample_data.SCENES, samples, strict=True):
        button.click(
            partial(on.load_sample, name=name), [*drawing, session],
            [session, example.editor, example.tool, results.targets, example.examples,
             results.tile, results.status, example.names, results.prompt_file],
            **quiet,
        ).then(**lay_out)  # fmt: skip
    _connect_results(on, example, results, session, checkpoint, private, lay_out)
    return results.prompt_file


def _connect_results(
    on: Images, example: ExamplePanel, results: ResultPanel, session: gr.State,
    checkpoint: gr.Dropdown, private: dict[str, Any], lay_out: dict[str, Any],
) -> None:  # fmt: skip
    """Connect the panel of results."""
    jobs, quiet = on.jobs, {**private, "show_progress": "hidden"}
    results.prompt_file.change(
        lambda path: gr.update(
            value=f"Uses **{Path(path).name}** instead of examples (see Options)." if path else "",
            visible=bool(path),
        ),
        results.prompt_file, results.note, **quiet,
    )  # fmt: skip
    results.go.click(
        on.segment,
        [session, example.tool, example.editor, results.partly, results.targets, example.names,
         results.kind, results.tile, results.prompt_file, checkpoint, results.view, results.order],
        [session, example.examples, results.gallery, results.status, results.files, results.slider,
         results.why, results.evidence],
        concurrency_limit=None, show_progress_on=results.status, **private,
    )  # fmt: skip
    results.halt.click(jobs.stop, queue=False, **private)
    results.gallery.select(
        on.choose, session, [session, results.slider, results.why, results.evidence], **private
    )
    for choice in (results.view, results.order):
        choice.change(
            on.show, [results.view, results.order, session], [session, results.gallery], **private
        )
    results.why.select(on.explain, session, results.evidence, **private)
    to_editor = "() => document.querySelector('#example-editor').scrollIntoView({block: 'center'})"
    results.mend.click(
        on.correct, session, [session, example.editor, example.tool, results.status], **quiet
    ).then(**lay_out).then(fn=None, js=to_editor, **private)
