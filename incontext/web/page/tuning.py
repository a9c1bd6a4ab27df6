"""The tab of tuning: labelled images in, a prompt file and a verdict on it out."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gradio as gr
import pandas as pd

from incontext import Settings, tune
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

COLUMNS = ["step", "percent", "prompt"]


class Tuning:
    """Handlers of the tab."""

    def __init__(self, models: Models, jobs: Jobs) -> None:
        self.models, self.jobs = models, jobs

    @report_errors_in(status=1, outputs=6)
    def run(
        self, pictures: list[str] | None, masks: list[str] | None, include_examples: bool,
        names: str, steps: float, checkpoint: str, session: Session | None, request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:  # fmt: skip
        """Tune, and show how far it is."""
        session, skip = Session.resume(session), gr.skip()
        with self.jobs.run(request, "long") as stop:
            predictor = self.models.get(checkpoint)
            labelled_set = read_labelled_set(
                session, pictures, masks, include_examples, predictor.size, names
            )
            settings = replace(Settings(), steps=int(steps))
            events = run_in_background(
                lambda tell: tune(predictor, labelled_set, settings=settings, on_progress=tell),
                stop,
            )
            for outcome in events:
                if isinstance(outcome, tuple):
                    stage, done, total = outcome
                    yield session, f"{stage} ({percent(done, total)})", skip, skip, skip, skip
            kind = "tuned" if outcome.comparison.improves else "untuned"
            path = outcome.prompt.save(session.new_run("tune") / f"{kind}.safetensors")
            text = "\n".join(outcome.comparison.lines()[:-1])
            yield (
                session, verdict(outcome), gr.update(value=curve(outcome), visible=True),
                gr.update(value=text, visible=True), gr.update(value=str(path), visible=True),
                gr.update(visible=True),
            )  # fmt: skip


def verdict(outcome: Any) -> str:
    """Return the last line of the verdict, large, and what the file holds."""
    best = outcome.comparison.best
    holds = (
        "the tuned prompt" if outcome.comparison.improves else f"the best untuned prompt ({best})"
    )
    return f"### {outcome.comparison.lines()[-1]}\n\nThe file holds {holds}."


def curve(outcome: Any) -> pd.DataFrame:
    """Return the mIoU on held-out images over the steps, and the best untuned prompt's."""
    cross_validated = len({fold for fold, *_ in outcome.curve}) > 1
    rows = [
        (step, score, f"tuned, fold {fold + 1}" if cross_validated else "tuned")
        for fold, step, _, score in outcome.curve
    ]
    best = outcome.comparison.baselines[outcome.comparison.best].value
    last = max(step for _, step, *_ in outcome.curve)
    rows += [(step, best, f"untuned: {outcome.comparison.best}") for step in (0, last)]
    return pd.DataFrame(rows, columns=COLUMNS)


def build(
    models: Models,
    jobs: Jobs,
    session: gr.State,
    checkpoint: gr.Dropdown,
    prompt_fields: list[gr.File],
) -> None:
    """Lay out the tab and connect it.

    Args:
        prompt_fields: of the other tabs, which take a prompt file.
    """
    on = Tuning(models, jobs)
    with gr.Row(equal_height=False):
        with gr.Column(min_width=320):
            inputs = Inputs("tune")
            names = gr.Textbox(label="Names of the ids, in order (optional)", placeholder="cell")
            steps = gr.Slider(
                5, 200, 60, step=5, label="Steps", elem_id="steps",
                info="More steps, more time: seconds each on a CPU.",
            )  # fmt: skip
            with gr.Row():
                go = gr.Button("Tune", variant="primary", elem_id="tune")
                halt = gr.Button("Stop", variant="stop", min_width=80, scale=0, elem_id="stop-tune")
        with gr.Column(min_width=320):
            gr.Markdown("### 2. Is the learned prompt better than the pictures as they are?")
            status = gr.Markdown(elem_id="tune-status")
            plot = gr.LinePlot(
                x="step", y="percent", color="prompt", height=340,
                label="mIoU on pictures held out", y_title="mIoU, percent", elem_id="curve",
                visible=False,
            )  # fmt: skip
            text = gr.Textbox(
                label="Comparison", lines=8, interactive=False, elem_id="verdict", visible=False
            )
            file = gr.File(
                label="Download the prompt",
                interactive=False,
                elem_id="tuned-prompt",
                visible=False,
            )
            use = gr.Button(
                "Use it in Images and Video", size="sm", elem_id="use-prompt", visible=False
            )
            note = gr.Markdown()
    private: dict[str, Any] = {"api_visibility": "private"}
    go.click(
        on.run, [*inputs.components, names, steps, checkpoint, session],
        [session, status, plot, text, file, use],
        concurrency_limit=None, show_progress_on=status, **private,
    )  # fmt: skip
    halt.click(jobs.stop, queue=False, **private)
    use.click(
        lambda path: [*[path] * len(prompt_fields), "It is in both tabs now, under Options." if path
                      else "Nothing is tuned yet."],
        file, [*prompt_fields, note], **private,
    )  # fmt: skip
