"""Panels: the components of the tab of images, without their handlers."""

from typing import Any

import gradio as gr

from incontext.web.page.painting import NAMES
from incontext.web.page.panels import PICTURE_FILES, new_editor
from incontext.web.page.session import VIEWS

TOOLS = ("Brush", "Click", "Box")
HELP = {
    "Brush": "Upload a picture, choose a color, paint over what you mean. One color an object. "
    "For another picture, empty the editor with its bin first.",
    "Click": "Click on what you mean; the region around it is taken. Click again for more. "
    "Upload the picture with the brush tool.",
    "Box": "Click two opposite corners of a box around what you mean. Upload the picture with the "
    "brush tool.",
}
ORDERS = ["as given", "worst first"]
ARROW = """<svg class="flow-arrow" viewBox="0 0 48 48" role="img" aria-label="gives">
<path d="M4 18h22V8l18 16-18 16V30H4z"/></svg>"""

# What handlers fill, in the order of their outputs: see `updates`.
RESULT_FIELDS = (
    "session", "examples", "listed", "gallery", "status", "files", "detail", "slider", "why",
    "evidence", "position", "verdict", "pairs", "drop_kept", "code", "python", "shell",
)  # fmt: skip
ALL_FIELDS = (
    *RESULT_FIELDS, "editor", "tool", "names", "targets", "tile", "prompt_file", "start_over",
)  # fmt: skip


def updates(fields: tuple[str, ...], **values: Any) -> tuple[Any, ...]:
    """Return the outputs of a handler; fields without a value stay as they are."""
    unknown = set(values) - set(fields)
    assert not unknown, unknown
    return tuple(values.get(name, gr.skip()) for name in fields)


NO_DETAIL: dict[str, Any] = {
    "detail": gr.update(visible=False), "slider": (None, None), "why": None,
    "evidence": gr.update(visible=False), "position": "",
}  # fmt: skip
NO_RESULTS: dict[str, Any] = {
    **NO_DETAIL, "gallery": [], "status": "", "files": gr.update(value=None, visible=False),
    "verdict": gr.update(value="", visible=False), "pairs": gr.update(value=[], visible=False),
    "drop_kept": gr.update(visible=False), "code": gr.update(visible=False),
}  # fmt: skip


class ExamplePanel:
    """The panel where an example is painted or picked."""

    def __init__(self) -> None:
        with gr.Column(min_width=320):
            gr.Markdown("### 1. Show what you mean")
            self.editor = new_editor("Example", "example-editor")
            self.picker = gr.Image(
                label="Click here", type="pil", interactive=False, visible=False, height=420,
                elem_id="picker", buttons=["fullscreen"], alt_text="The example, to be clicked on",
            )  # fmt: skip
            self.tool = gr.Radio(list(TOOLS), value="Brush", label="Tool", elem_id="tool")
            self.hint = gr.Markdown(HELP["Brush"])
            with gr.Row(visible=False) as self.picks:
                self.color = gr.Dropdown(
                    list(NAMES.values()), value="red", label="Object", min_width=120
                )
                self.back = gr.Button("Undo pick", size="sm", min_width=100)
            self.tolerance = gr.Slider(2, 60, 16, step=1, label="Tolerance", visible=False)
            with gr.Row():
                self.mask = gr.UploadButton(
                    "Upload its mask", file_types=PICTURE_FILES, size="sm", min_width=120
                )
                self.add = gr.Button("Add as example", size="sm", min_width=120, elem_id="add")
            self.names = gr.Textbox(
                label="Names, in the order of the colors: red, blue, green … (optional)",
                placeholder="cell, nucleus",
            )
            with gr.Column(visible=False) as self.listed:
                self.examples = gr.Gallery(
                    label="Examples", columns=4, height=150, elem_id="examples",
                    interactive=False, object_fit="contain", fit_columns=False,
                )  # fmt: skip
                with gr.Row():
                    self.drop = gr.Button("Remove the chosen one", size="sm", min_width=120)
                    self.clear = gr.Button("Remove all examples", size="sm", min_width=120)


class ResultPanel:
    """The panel where images are dropped and results looked at."""

    def __init__(self) -> None:
        with gr.Column(min_width=320):
            gr.Markdown("### 2. Get it everywhere")
            self.targets = gr.File(
                label="Pictures to segment", file_count="multiple", file_types=PICTURE_FILES,
                elem_id="targets", height=120,
            )  # fmt: skip
            with gr.Row():
                self.go = gr.Button("Segment", variant="primary", elem_id="segment")
                self.halt = gr.Button(
                    "Stop", variant="stop", min_width=80, scale=0, elem_id="stop-images"
                )
            self.note = gr.Markdown(visible=False, elem_id="prompt-note")
            self.status = gr.Markdown(elem_id="segment-status")
            self.gallery = gr.Gallery(
                label="Results", columns=3, fit_columns=False, elem_id="results",
                object_fit="contain", interactive=False, allow_preview=False,
            )  # fmt: skip
            with gr.Row():
                self.view = gr.Radio(
                    list(VIEWS),
                    value="overlay",
                    label="Show",
                    elem_id="view",
                    min_width=150,
                    scale=5,
                )
                self.order = gr.Radio(
                    ORDERS,
                    value=ORDERS[0],
                    label="Order",
                    elem_id="order",
                    min_width=150,
                    scale=4,
                )
            self._options()
            with gr.Column(visible=False) as self.detail:
                self._detail()
                self._comparison()
            self.files = gr.File(
                label="Download: masks, COCO, prompt, examples", file_count="multiple",
                interactive=False, elem_id="downloads", visible=False,
            )  # fmt: skip
            self._code()

    def _options(self) -> None:
        with gr.Accordion("Options", open=False):
            self.kind = gr.Radio(
                [("all of its class", "semantic"), ("the very object", "instance")],
                value="semantic", label="What to look for",
            )  # fmt: skip
            self.tile = gr.Slider(
                0, 1024, 0, step=16, label="Tile size in pixels (0: each picture whole)",
                info="For many small things in a large picture.",
            )  # fmt: skip
            self.presence = gr.Slider(
                0, 1, 0.5, step=0.05, label="Leave a mask empty below this presence",
                info="How sure it must be that the object is in the picture at all.",
                elem_id="presence",
            )  # fmt: skip
            self.partly = gr.Checkbox(label="I painted only a part: what is blank is unknown")
            self.prompt_file = gr.File(
                label="Prompt file instead of examples", file_types=[".safetensors"],
                elem_id="prompt-file", height=100,
            )  # fmt: skip

    def _detail(self) -> None:
        """Lay out what is about one of the results."""
        with gr.Row(elem_id="steps-row"):
            self.previous = gr.Button(
                "‹ Previous", size="sm", min_width=90, scale=0, elem_id="previous"
            )
            self.position = gr.Markdown(elem_id="position")
            self.next = gr.Button("Next ›", size="sm", min_width=90, scale=0, elem_id="next")
        self.slider = gr.ImageSlider(
            label="With and without", type="pil", max_height=420, elem_id="compare",
            buttons=["fullscreen"], interactive=False, slider_position=8,
        )  # fmt: skip
        self.mend = gr.Button("Correct this one, use it as an example", size="sm", elem_id="mend")
        self.why = gr.Image(
            label="Why? Click on what was segmented", type="pil", interactive=False,
            elem_id="why", height=260, buttons=[],
        )  # fmt: skip
        self.evidence = gr.Gallery(
            label="The places that voted for it, red", columns=2, height=320,
            fit_columns=False, object_fit="contain", elem_id="evidence", interactive=False,
            visible=False, allow_preview=False,
        )  # fmt: skip

    def _comparison(self) -> None:
        """Lay out two prompts side by side."""
        with gr.Row():
            self.keep = gr.Button(
                "Keep as A, try other examples", size="sm", min_width=120, elem_id="keep"
            )
            self.drop_kept = gr.Button(
                "Forget A", size="sm", min_width=90, scale=0, visible=False, elem_id="forget"
            )
        self.verdict = gr.Markdown(visible=False, elem_id="comparison")
        self.pairs = gr.Gallery(
            label="A | B", columns=2, fit_columns=False, object_fit="contain",
            elem_id="pairs", interactive=False, visible=False, allow_preview=False,
        )  # fmt: skip

    def _code(self) -> None:
        """Lay out what was done as code."""
        with gr.Accordion("The same as code", open=False, visible=False, elem_id="code") as code:
            self.code = code
            gr.Markdown(
                "Runs in a folder with the pictures and what is in the download `examples.zip`."
            )
            # gr.Code would load an editor of 400 kB with the page, also while it is hidden.
            self.python = gr.Markdown(elem_id="python", latex_delimiters=[])
            self.shell = gr.Markdown(elem_id="shell", latex_delimiters=[])
