"""The tab of tuning: labelled pictures in, a prompt file and an honest verdict out."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gradio as gr
import pandas as pd

from incontext import Settings, tune
from incontext.web.jobs import Jobs
from incontext.web.models import Models
from incontext.web.page.labelled_images import Inputs, pool_of, share, watched
from incontext.web.page.session import Desk
from incontext.web.reporting import told_in

COLUMNS = ["step", "percent", "what"]


class Tuning:
    """Handlers of the tab."""

    def __init__(self, models: Models, jobs: Jobs) -> None:
        self.models, self.jobs = models, jobs

    @told_in(status=1, outputs=6)
    def run(
        self, pictures: list[str] | None, masks: list[str] | None, own: bool, names: str,
        steps: float, checkpoint: str, desk: Desk | None, request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:  # fmt: skip
        """Tune, telling how far it is."""
        desk, skip = Desk.of(desk), gr.skip()
        with self.jobs.one(request, "long") as stop:
            predictor = self.models.get(checkpoint)
            pool = pool_of(desk, pictures, masks, own, predictor.size, names)
            settings = replace(Settings(), steps=int(steps))
            said = watched(lambda tell: tune(predictor, pool, settings=settings, tell=tell), stop)
            for outcome in said:
                if isinstance(outcome, tuple):
                    what, done, total = outcome
                    yield desk, f"{what} ({share(done, total)})", skip, skip, skip, skip
            kind = "tuned" if outcome.verdict.helps else "untuned"
            path = outcome.prompt.save(desk.new_run() / f"{kind}.safetensors")
            text = "\n".join(outcome.verdict.lines()[:-1])
            yield (
                desk, verdict(outcome), gr.update(value=curve(outcome), visible=True),
                gr.update(value=text, visible=True), gr.update(value=str(path), visible=True),
                gr.update(visible=True),
            )  # fmt: skip


def verdict(outcome: Any) -> str:
    """The last line of the verdict, large, and what the file holds."""
    best = outcome.verdict.best
    holds = "the tuned prompt" if outcome.verdict.helps else f"the best untuned prompt ({best})"
    return f"### {outcome.verdict.lines()[-1]}\n\nThe file holds {holds}."


def curve(outcome: Any) -> pd.DataFrame:
    """mIoU on held-out pictures over the steps, beside the best untuned prompt's."""
    several = len({fold for fold, *_ in outcome.curve}) > 1
    rows = [
        (step, score, f"tuned, fold {fold + 1}" if several else "tuned")
        for fold, step, _, score in outcome.curve
    ]
    best = outcome.verdict.untuned[outcome.verdict.best].value
    last = max(step for _, step, *_ in outcome.curve)
    rows += [(step, best, f"untuned: {outcome.verdict.best}") for step in (0, last)]
    return pd.DataFrame(rows, columns=COLUMNS)


def build(
    models: Models, jobs: Jobs, desk: gr.State, checkpoint: gr.Dropdown, users: list[gr.File]
) -> None:
    """Lay out the tab and connect it. `users`: where a prompt file can be used."""
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
                halt = gr.Button("Stop", variant="stop", min_width=80, scale=0)
        with gr.Column(min_width=320):
            gr.Markdown("### 2. Is the learned prompt better than the pictures as they are?")
            status = gr.Markdown(elem_id="tune-status")
            plot = gr.LinePlot(
                x="step", y="percent", color="what", height=340,
                label="mIoU on pictures held out", y_title="mIoU, percent", elem_id="curve",
                visible=False,
            )  # fmt: skip
            text = gr.Textbox(
                label="Verdict", lines=8, interactive=False, elem_id="verdict", visible=False
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
            used = gr.Markdown()
    private: dict[str, Any] = {"api_visibility": "private"}
    go.click(
        on.run, [*inputs.all, names, steps, checkpoint, desk],
        [desk, status, plot, text, file, use],
        concurrency_limit=None, show_progress_on=status, **private,
    )  # fmt: skip
    halt.click(jobs.stop, queue=False, **private)
    use.click(
        lambda path: [*[path] * len(users), "It is in both tabs now, under Options." if path
                      else "Nothing is tuned yet."],
        file, [*users, used], **private,
    )  # fmt: skip
