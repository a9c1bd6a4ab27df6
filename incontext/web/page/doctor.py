"""The tab of the doctor: what examples are worth, before a folder is segmented with them."""

from collections.abc import Iterator
from html import escape
from typing import Any

import gradio as gr

from incontext import examine, report_page
from incontext.web.jobs import Jobs
from incontext.web.models import Models
from incontext.web.page.labelled_images import Inputs, pool_of, share, watched
from incontext.web.page.session import Desk
from incontext.web.reporting import told_in


class Doctor:
    """Handlers of the tab."""

    def __init__(self, models: Models, jobs: Jobs) -> None:
        self.models, self.jobs = models, jobs

    @told_in(status=1, outputs=4)
    def run(
        self, pictures: list[str] | None, masks: list[str] | None, own: bool, names: str,
        checkpoint: str, desk: Desk | None, request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:  # fmt: skip
        """Examine, telling how far it is."""
        desk = Desk.of(desk)
        with self.jobs.one(request, "long") as stop:
            predictor = self.models.get(checkpoint)
            pool = pool_of(desk, pictures, masks, own, predictor.size, names)
            said = watched(
                lambda tell: examine(
                    predictor, pool, tell=lambda done, total: tell("asking", done, total)
                ),
                stop,
            )
            for found in said:
                if isinstance(found, tuple):
                    text = f"Asking examples for each other: {share(*found[1:])}"
                    yield desk, text, gr.skip(), gr.skip()
            path = report_page(found, desk.new_run() / "report.html")
            yield (
                desk,
                headline(found),
                _framed(path.read_text(encoding="utf-8")),
                gr.update(value=str(path), visible=True),
            )


def headline(found: Any) -> str:
    """The report in two sentences."""
    hurt = ", ".join(effect.source for effect in found.bad[:4])
    most = max(found.curve)
    said = (
        f"{len(found.bad)} of {found.looked_at} examples hurt: {hurt}"
        if hurt
        else ("No example hurts")
    )
    return (
        f"### {said}.\n\nPredicted mIoU on new pictures, with all {most}: {found.curve[most]}."
        + (f" Without those that hurt: {found.without}." if found.without else "")
    )


def _framed(page: str) -> str:
    """A page within the page; nothing in it can run or reach out."""
    return (
        '<iframe title="Example report" sandbox="" srcdoc="' + escape(page) + '" '
        'style="width:100%;height:640px;border:0;border-radius:8px;background:Canvas"></iframe>'
    )


def build(models: Models, jobs: Jobs, desk: gr.State, checkpoint: gr.Dropdown) -> None:
    """Lay out the tab and connect it."""
    on = Doctor(models, jobs)
    with gr.Row(equal_height=False):
        with gr.Column(min_width=320):
            inputs = Inputs("doctor")
            names = gr.Textbox(label="Names of the ids, in order (optional)", placeholder="cell")
            with gr.Row():
                go = gr.Button("Examine", variant="primary", elem_id="examine")
                halt = gr.Button("Stop", variant="stop", min_width=80, scale=0)
        with gr.Column(min_width=320):
            gr.Markdown("### 2. How well will it work, and which examples hurt?")
            status = gr.Markdown(elem_id="doctor-status")
            file = gr.File(
                label="Download the report", interactive=False, elem_id="report", visible=False
            )
    page = gr.HTML(elem_id="report-page")
    go.click(
        on.run, [*inputs.all, names, checkpoint, desk], [desk, status, page, file],
        concurrency_limit=None, show_progress_on=status,
        api_visibility="private",
    )  # fmt: skip
    halt.click(jobs.stop, queue=False, api_visibility="private")
