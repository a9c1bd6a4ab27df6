"""The tab of images: its layout, and which handler answers which event."""

from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from incontext.web.jobs import Jobs
from incontext.web.models import Models
from incontext.web.page import sample_data
from incontext.web.page.images.drawing import Drawing
from incontext.web.page.images.examples import OWN, Examples
from incontext.web.page.images.panels import (
    ALL_FIELDS,
    ARROW,
    RESULT_FIELDS,
    ExamplePanel,
    ResultPanel,
)
from incontext.web.page.images.results import Results

PRIVATE: dict[str, Any] = {"api_visibility": "private"}
# An editor that was painted on keeps showing progress after it was filled again.
QUIET: dict[str, Any] = {**PRIVATE, "show_progress": "hidden"}

TO_EDITOR = "() => document.querySelector('#example-editor').scrollIntoView({block: 'center'})"
# In one column the results lie above the button.
TO_RESULTS = """() => { if (innerWidth <= 800)
document.querySelector('#results').scrollIntoView({block: 'center'}); }"""


def build(
    app: gr.Blocks, models: Models, jobs: Jobs, session: gr.State, checkpoint: gr.Dropdown,
    sam: str | None,
) -> gr.File:  # fmt: skip
    """Lay out the tab and connect it; returns its field for a prompt file."""
    with gr.Row(elem_id="samples"):
        start_over = gr.Button(
            OWN, size="sm", scale=0, min_width=140, variant="primary", elem_id="start-over"
        )
        samples = [
            gr.Button(f"Try: {name}", size="sm", scale=0, min_width=120)
            for name in sample_data.SCENES
        ]
    with gr.Row(equal_height=False, elem_id="flow"):
        example = ExamplePanel()
        with gr.Column(scale=0, min_width=48, elem_id="arrow"):
            gr.HTML(ARROW)
        results = ResultPanel()
    fields: dict[str, Any] = {
        **vars(results), **vars(example), "session": session, "start_over": start_over,
    }  # fmt: skip
    lay_out: dict[str, Any] = {
        "fn": Drawing(sam).lay_out, "inputs": [example.tool, session], "outputs": example.editor,
        **QUIET,
    }  # fmt: skip
    _connect_drawing(Drawing(sam), example, session, lay_out)
    _connect_examples(fields, samples, lay_out)
    on = Results(models, jobs)
    _connect_results(on, fields, checkpoint, lay_out)
    app.load(
        on.open, None, [fields[name] for name in ALL_FIELDS], concurrency_limit=None, **QUIET
    ).then(
        on.show_sample, [session, results.view, results.order],
        [fields[name] for name in RESULT_FIELDS], **QUIET,  # few wait in threads of their own
    )  # fmt: skip
    return results.prompt_file


def _connect_drawing(
    on: Drawing, example: ExamplePanel, session: gr.State, lay_out: dict[str, Any]
) -> None:
    """Connect the tools."""
    drawing = [example.tool, example.editor]
    example.tool.change(
        on.switch, [*drawing, session],
        [session, example.editor, example.picker, example.picks, example.tolerance, example.hint],
        **QUIET,
    ).then(**lay_out)  # fmt: skip
    example.picker.select(
        on.pick, [example.tool, example.color, example.tolerance, session],
        [session, example.picker], **PRIVATE,
    )  # fmt: skip
    example.back.click(on.undo, session, [session, example.picker], **PRIVATE)
    example.mask.upload(
        on.upload_mask, [example.mask, *drawing, session],
        [session, example.editor, example.picker], **QUIET,
    ).then(**lay_out)  # fmt: skip


def _connect_examples(
    fields: dict[str, Any], samples: list[gr.Button], lay_out: dict[str, Any]
) -> None:
    """Connect the gallery of examples, and what lays out or clears the tab."""
    on, outputs = Examples(), [fields[name] for name in ALL_FIELDS]

    def get(*names: str) -> list[Any]:
        return [fields[name] for name in names]

    fields["add"].click(
        on.add, get("tool", "editor", "partly", "prompt_file", "session"),
        get("session", "examples", "listed", "prompt_file", "start_over"), **PRIVATE,
    )  # fmt: skip
    fields["examples"].select(on.choose, fields["session"], fields["session"], **PRIVATE)
    for name, remove_all in (("drop", False), ("clear", True)):
        fields[name].click(
            partial(on.remove, remove_all=remove_all), get("tool", "editor", "partly", "session"),
            get("session", "examples", "listed"), **PRIVATE,
        )  # fmt: skip
    for name, button in zip(sample_data.SCENES, samples, strict=True):
        button.click(
            partial(on.load_sample, name=name), get("tool", "editor", "session"), outputs, **QUIET
        ).then(**lay_out)
    fields["start_over"].click(on.start_over, fields["session"], outputs, **QUIET).then(
        lambda: gr.update(visible=True, value=None), None, fields["editor"], **QUIET
    )


def _connect_results(
    on: Results, fields: dict[str, Any], checkpoint: gr.Dropdown, lay_out: dict[str, Any]
) -> None:
    """Connect the panel of results."""
    outputs, session = [fields[name] for name in RESULT_FIELDS], fields["session"]

    def get(*names: str) -> list[Any]:
        return [fields[name] for name in names]

    fields["prompt_file"].change(
        lambda path: gr.update(
            value=f"Uses **{Path(path).name}** instead of examples (see Options)." if path else "",
            visible=bool(path),
        ),
        fields["prompt_file"], fields["note"], **QUIET,
    )  # fmt: skip
    fields["go"].click(
        on.segment,
        [*get("session", "tool", "editor", "partly", "targets", "names", "kind", "tile",
              "presence", "prompt_file"), checkpoint, *get("view", "order")],
        outputs, concurrency_limit=None, show_progress_on=fields["status"], **PRIVATE,
    )  # fmt: skip
    fields["go"].click(fn=None, js=TO_RESULTS, **PRIVATE)
    fields["halt"].click(on.jobs.stop, queue=False, **PRIVATE)
    fields["gallery"].select(on.choose, session, outputs, **QUIET)
    for name, by in (("previous", -1), ("next", 1)):
        fields[name].click(partial(on.step, by=by), session, outputs, **QUIET)
    for name in ("view", "order"):
        fields[name].change(on.show, get("view", "order", "session"), outputs, **QUIET)
    fields["keep"].click(on.keep, get("view", "session"), outputs, **QUIET)
    fields["drop_kept"].click(on.forget, get("view", "session"), outputs, **QUIET)
    fields["why"].select(on.explain, session, fields["evidence"], **PRIVATE)
    fields["mend"].click(
        on.correct, session, get("session", "editor", "tool", "status"), **QUIET
    ).then(**lay_out).then(fn=None, js=TO_EDITOR, **PRIVATE)
