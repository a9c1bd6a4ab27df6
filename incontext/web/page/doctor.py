"""The tab of the doctor: what examples are worth, before a folder is segmented with them."""

from collections.abc import Iterator
from html import escape
from typing import Any

import gradio as gr

from incontext import examine, report_page
from incontext.web.jobs import Jobs
from incontext.web.models import Models
from incontext.web.page.labelled_images import (
    Inputs,
    percent,
    read_labelled_set,
    run_in_background,
)
from incontext.web.page.session import Session
from incontext.web.reporting import report_errors_in


class Doctor:
    """Handlers of the tab."""

    def __init__(self, models: Models, jobs: Jobs) -> None:
        self.models, self.jobs = models, jobs

    @report_errors_in(status=1, outputs=4)
    def run(
        self, pictures: list[str] | None, masks: list[str] | None, include_examples: bool,
        names: str, checkpoint: str, session: Session | None, request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:  # fmt: skip
        """Examine the examples, and show how far it is."""
        session = Session.resume(session)
        with self.jobs.run(request, "long") as stop:
            predictor = self.models.get(checkpoint)
            labelled_set = read_labelled_set(
                session, pictures, masks, include_examples, predictor.size, names
            )
            events = run_in_background(
                lambda tell: examine(
                    predictor,
                    labelled_set,
                    on_progress=lambda done, total: tell("asking", done, total),
                ),
                stop,
            )
            for diagnosis in events:
                if isinstance(diagnosis, tuple):
                    text = f"Asking examples for each other: {percent(*diagnosis[1:])}"
                    yield session, text, gr.skip(), gr.skip()
            path = report_page(diagnosis, session.new_run("doctor") / "report.html")
            yield (
                session,
                headline(diagnosis),
                _iframe(path.read_text(encoding="utf-8")),
                gr.update(value=str(path), visible=True),
            )


def headline(diagnosis: Any) -> str:
    """Return the report in two sentences."""
    sources = ", ".join(effect.source for effect in diagnosis.harmful[:4])
    count, summary = max(diagnosis.curve), "No example hurts"
    if sources:
        summary = f"{len(diagnosis.harmful)} of {diagnosis.examined_count} examples hurt: {sources}"
    without = (
        f" Without those that hurt: {diagnosis.without_harmful}."
        if diagnosis.without_harmful
        else ""
    )
    score = diagnosis.curve[count]
    return f"### {summary}.\n\nPredicted mIoU on new pictures, with all {count}: {score}.{without}"


def _iframe(page: str) -> str:
    """Return a page within the page; nothing in it can run or reach out."""
    return (
        '<iframe title="Example report" sandbox="" srcdoc="' + escape(page) + '" '
        'style="width:100%;height:640px;border:0;border-radius:8px;background:Canvas"></iframe>'
    )


def build(models: Models, jobs: Jobs, session: gr.State, checkpoint: gr.Dropdown) -> None:
    """Lay out the tab and connect it."""
    on = Doctor(models, jobs)
    with gr.Row(equal_height=False):
        with gr.Column(min_width=320):
            inputs = Inputs("doctor")
            names = gr.Textbox(label="Names of the ids, in order (optional)", placeholder="cell")
            with gr.Row():
                go = gr.Button("Examine", variant="primary", elem_id="examine")
                halt = gr.Button(
                    "Stop", variant="stop", min_width=80, scale=0, elem_id="stop-doctor"
                )
        with gr.Column(min_width=320):
            gr.Markdown("### 2. How well will it work, and which examples hurt?")
            status = gr.Markdown(elem_id="doctor-status")
            file = gr.File(
                label="Download the report", interactive=False, elem_id="report", visible=False
            )
    page = gr.HTML(elem_id="report-page")
    go.click(
        on.run, [*inputs.components, names, checkpoint, session], [session, status, page, file],
        concurrency_limit=None, show_progress_on=status,
        api_visibility="private",
    )  # fmt: skip
    halt.click(jobs.stop, queue=False, api_visibility="private")
