"""Results: handlers that segment, show, compare, explain and correct."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from incontext import InputError
from incontext.web.jobs import Jobs
from incontext.web.limits import open_image, parse_tile
from incontext.web.models import Models
from incontext.web.page.images import examples, snippet
from incontext.web.page.images.comparison import comparison
from incontext.web.page.images.drawing import current_draft
from incontext.web.page.images.panels import (
    ALL_FIELDS,
    NO_DETAIL,
    ORDERS,
    RESULT_FIELDS,
    updates,
)
from incontext.web.page.images.showcase import Showcase
from incontext.web.page.painting import NAMES, write_editor
from incontext.web.page.segmenting import SegmentRequest, downloads, explain, segment
from incontext.web.page.session import DraftExample, ImageResult, Session
from incontext.web.progress import Progress
from incontext.web.reporting import report_errors, report_errors_in


class Results:
    """Handlers of the results."""

    def __init__(self, models: Models, jobs: Jobs) -> None:
        self.models, self.jobs = models, jobs
        self.showcase = Showcase(models, jobs)

    @report_errors
    def open(self) -> tuple[Any, ...]:
        """Lay out the example that the page opens with."""
        session = Session.create()
        session.draft, session.ready_made = self.showcase.draft(), True
        return updates(
            ALL_FIELDS, session=session, editor=write_editor(*session.draft),
            targets=[str(path) for path in self.showcase.targets()], names=self.showcase.name,
        )  # fmt: skip

    @report_errors
    def show_sample(self, session: Session | None, view: str, order: str) -> tuple[Any, ...]:
        """Show the results of the page's own example, unless the visitor was quicker."""
        results = self.showcase.results()
        if session is None or not session.ready_made or session.runs or not results:
            return updates(RESULT_FIELDS)
        session.results, session.asked = list(results), self.showcase.asked()
        session.add(DraftExample.shrink(*self.showcase.draft()))
        session.prompt_caption = "1 example"
        _sort(session, order)
        gallery = _gallery(session, view)
        return updates(
            RESULT_FIELDS, session=session, gallery=gallery, **_detail(session),
            **examples.show(session),
        )  # fmt: skip

    @report_errors_in(status=RESULT_FIELDS.index("status"), outputs=len(RESULT_FIELDS))
    def segment(
        self, session: Session | None, tool: str, value: Any, partly: bool,
        targets: list[str] | None, names: str, kind: str, tile: float, presence: float,
        prompt: str | None, checkpoint: str, view: str, order: str, request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:  # fmt: skip
        """Segment all images, showing each result as it comes."""
        session = Session.resume(session)
        with self.jobs.run(request, "quick") as stop:
            draft = None if prompt else current_draft(session, tool, value, partly)
            if draft and not (session.dismissed and draft.equals(session.dismissed)):
                session.add(draft)
            options = SegmentRequest(
                checkpoint, kind, parse_tile(tile), session.names(names), prompt, presence
            )
            drafts = [] if prompt else list(session.examples)
            status, failed = "Encoding the examples …", list[str]()
            yield updates(
                RESULT_FIELDS, session=session, status=status, **examples.show(session),
                evidence=gr.update(visible=False), code=gr.update(visible=False),
            )  # fmt: skip
            progress = Progress(len(targets or []))
            for _, _, failed in segment(  # noqa: B007
                self.models, session, [d.example() for d in session.examples], targets or [],
                options, stop,
            ):  # fmt: skip
                status, gallery = progress.step(), _gallery(session, view)
                yield updates(RESULT_FIELDS, session=session, gallery=gallery, status=status)
            done = progress.done - len(failed)
            status = f"{done} of {progress.total} pictures segmented"
            status += ", stopped" if stop.is_set() else ", done"
            status += f" with {Path(prompt).name}" if prompt else ""
            status += "".join(f"\n\n⚠ {text}" for text in failed)
            session.prompt_caption = _caption(drafts, prompt)
            _sort(session, order)
            session.result_index = 0
            code = snippet.write(session, drafts, targets or [], options, self.models.names[0])
            yield updates(
                RESULT_FIELDS, session=session, gallery=_gallery(session, view), status=status,
                files=gr.update(value=downloads(session), visible=True), **_detail(session),
                **comparison(session, view), code=gr.update(visible=True),
                python=snippet.code_block(code["python"], "python"),
                shell=snippet.code_block(code["shell"], "bash"),
            )  # fmt: skip

    @report_errors
    def choose(self, event: gr.SelectData, session: Session | None) -> tuple[Any, ...]:
        """Show one of the results, with and without its overlay."""
        session = Session.resume(session)
        session.result_index = int(event.index)
        _current(session)
        return updates(RESULT_FIELDS, session=session, **_detail(session))

    @report_errors
    def step(self, session: Session | None, by: int) -> tuple[Any, ...]:
        """Show the result after the current one, or before it; the last is followed by the first.

        Args:
            by: 1 or -1.
        """
        session = Session.resume(session)
        _current(session)
        session.result_index = (session.result_index + by) % len(session.results)
        gallery = gr.update(selected_index=session.result_index)
        return updates(RESULT_FIELDS, session=session, gallery=gallery, **_detail(session))

    @report_errors
    def show(self, view: str, order: str, session: Session | None) -> tuple[Any, ...]:
        """Show all results in another view or order."""
        session = Session.resume(session)
        _sort(session, order)
        return updates(
            RESULT_FIELDS, session=session, gallery=_gallery(session, view),
            position=_position(session), **comparison(session, view),
        )  # fmt: skip

    @report_errors
    def keep(self, view: str, session: Session | None) -> tuple[Any, ...]:
        """Keep the results as those of prompt A."""
        session = Session.resume(session)
        session.keep()
        return updates(RESULT_FIELDS, session=session, **comparison(session, view))

    @report_errors
    def forget(self, view: str, session: Session | None) -> tuple[Any, ...]:
        """Drop what is kept."""
        session = Session.resume(session)
        session.forget()
        return updates(RESULT_FIELDS, session=session, **comparison(session, view))

    @report_errors
    def explain(self, event: gr.SelectData, session: Session | None, request: gr.Request) -> Any:
        """Show which places of the examples voted for what was clicked."""
        session = Session.resume(session)
        at = (int(event.index[0]), int(event.index[1]))
        with self.jobs.run(request, "quick"):
            images = explain(self.models, session, _current(session), at)
        return gr.update(value=images, visible=True)

    @report_errors
    def correct(self, session: Session | None) -> tuple[Any, ...]:
        """Move a result to the brush, to be corrected and added as an example."""
        session = Session.resume(session)
        result = _current(session)
        ids = result.ids()
        if ids.max(initial=0) > len(NAMES):
            raise InputError(f"ids over {len(NAMES)} cannot be painted here")
        session.draft = (open_image(result.source), ids.astype(np.uint8))
        editor = gr.update(value=None, visible=True)
        return session, editor, "Brush", f"Mend {result.name}, then press “Add as example”."


def _current(session: Session) -> ImageResult:
    if session.result_index >= len(session.results):
        raise InputError("No result yet: segment first, then choose one in the gallery.")
    return session.results[session.result_index]


def _gallery(session: Session, view: str) -> list[tuple[str, str]]:
    return [(str(result.file(view)), result.label) for result in session.results]


def _sort(session: Session, order: str) -> None:
    """Sort the results by one of `ORDERS`; the current one stays the same."""
    current = session.results[session.result_index :][:1]  # none while a run begins
    worst = order == ORDERS[1]
    session.results.sort(key=lambda r: (r.score if worst else 0, r.number))
    session.result_index = session.results.index(current[0]) if current else 0


def _detail(session: Session) -> dict[str, Any]:
    """Return what to show of the current result, by the names of the panel's fields."""
    if not session.results:
        return NO_DETAIL
    result = _current(session)
    pair = open_image(result.source), open_image(result.file("overlay"))
    return {
        "detail": gr.update(visible=True), "slider": pair, "why": pair[1],
        "evidence": gr.update(visible=False), "position": _position(session),
    }  # fmt: skip


def _position(session: Session) -> str:
    if not session.results:
        return ""
    result, count = _current(session), len(session.results)
    return f"{session.result_index + 1} of {count} · {result.caption}"


def _caption(drafts: list[Any], prompt: str | None) -> str:
    """Return what a prompt was made of."""
    if prompt:
        return Path(prompt).name
    return "1 example" if len(drafts) == 1 else f"{len(drafts)} examples"
