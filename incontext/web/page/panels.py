"""Panels: the components of the tabs, without their handlers."""

import gradio as gr

from incontext.web.limits import MAX_FRAMES, MAX_UPLOAD
from incontext.web.page.painting import BRUSHES, NAMES, OPACITY
from incontext.web.page.session import VIEWS

TOOLS = ("Brush", "Click", "Box")
PICTURE_FILES = [".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"]
HELP = {
    "Brush": "Upload a picture, choose a color, paint over what you mean. One color an object. "
    "For another picture, empty the editor with its bin first.",
    "Click": "Click on what you mean; the region around it is taken. Click again for more. "
    "Upload the picture with the brush tool.",
    "Box": "Click two opposite corners of a box around what you mean. Upload the picture with the "
    "brush tool.",
}


def new_editor(label: str, elem_id: str, empty: str = "") -> gr.ImageEditor:
    """Return an editor: the image below, one layer of brushes above."""
    brushes = [(color, OPACITY) for color in BRUSHES]
    return gr.ImageEditor(
        label=label, type="pil", image_mode="RGBA", format="png", sources=("upload", "clipboard"),
        brush=gr.Brush(colors=list(brushes), default_color=brushes[0], color_mode="fixed"),
        eraser=gr.Eraser(), transforms=(), height=420, canvas_size=(1, 1),
        layers=gr.LayerOptions(allow_additional_layers=False), elem_id=elem_id,
        buttons=["fullscreen"],
        placeholder=empty or "# Drop a picture here\nor click to choose one, then paint",
    )  # fmt: skip


class ExamplePanel:
    """The panel where an example is painted or picked."""

    def __init__(self) -> None:
        with gr.Column(min_width=320):
            gr.Markdown("### 1. Show what you mean")
            self.tool = gr.Radio(list(TOOLS), value="Brush", label="Tool", elem_id="tool")
            self.hint = gr.Markdown(HELP["Brush"])
            self.editor = new_editor("Example", "example-editor")
            self.picker = gr.Image(
                label="Click here", type="pil", interactive=False, visible=False, height=420,
                elem_id="picker", buttons=["fullscreen"], alt_text="The example, to be clicked on",
            )  # fmt: skip
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
                self.add = gr.Button("Add as example", size="sm", min_width=120)
            self.names = gr.Textbox(
                label="Names, in the order of the colors: red, blue, green … (optional)",
                placeholder="cell, nucleus",
            )
            self.examples = gr.Gallery(
                label="Examples",
                columns=4,
                height=150,
                elem_id="examples",
                interactive=False,
                object_fit="contain",
                fit_columns=False,
            )
            with gr.Row():
                self.drop = gr.Button("Remove the chosen one", size="sm", min_width=120)
                self.clear = gr.Button("Remove all examples", size="sm", min_width=120)


ORDERS = ["as given", "worst first"]


class ResultPanel:
    """The panel where images are dropped and results looked at."""

    def __init__(self) -> None:
        with gr.Column(min_width=320):
            gr.Markdown("### 2. Get it everywhere")
            self.targets = gr.File(
                label="Pictures to segment", file_count="multiple", file_types=PICTURE_FILES,
                elem_id="targets", height=140,
            )  # fmt: skip
            self._options()
            self.note = gr.Markdown(visible=False, elem_id="prompt-note")
            with gr.Row():
                self.go = gr.Button("Segment", variant="primary", elem_id="segment")
                self.halt = gr.Button("Stop", variant="stop", min_width=80, scale=0)
            self.status = gr.Markdown(elem_id="segment-status")
            with gr.Row():
                self.view = gr.Radio(list(VIEWS), value="overlay", label="Show", elem_id="view")
                self.order = gr.Radio(ORDERS, value=ORDERS[0], label="Order", elem_id="order")
            self.gallery = gr.Gallery(
                label="Results", columns=2, height=320, fit_columns=False, elem_id="results",
                object_fit="contain", interactive=False, allow_preview=False,
            )  # fmt: skip
            self.slider = gr.ImageSlider(
                label="With and without", type="pil", max_height=420, elem_id="compare",
                buttons=["fullscreen"], interactive=False, slider_position=8,
            )  # fmt: skip
            self.mend = gr.Button("Correct this one, use it as an example", size="sm")
            self.why = gr.Image(
                label="Why? Click on what was segmented", type="pil", interactive=False,
                elem_id="why", height=260, buttons=[],
            )  # fmt: skip
            self.evidence = gr.Gallery(
                label="The places that voted for it, red", columns=2, height=320,
                fit_columns=False, object_fit="contain", elem_id="evidence", interactive=False,
                visible=False, allow_preview=False,
            )  # fmt: skip
            self.files = gr.File(
                label="Download: masks, COCO, prompt", file_count="multiple", interactive=False,
                elem_id="downloads", visible=False,
            )  # fmt: skip

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
            self.partly = gr.Checkbox(label="I painted only a part: what is blank is unknown")
            self.prompt_file = gr.File(
                label="Prompt file instead of examples", file_types=[".safetensors"],
                elem_id="prompt-file", height=100,
            )  # fmt: skip


class ClipPanel:
    """The panel where a clip is uploaded, scrubbed through and painted on."""

    def __init__(self) -> None:
        with gr.Column(min_width=320):
            gr.Markdown(f"### 1. A clip, up to {MAX_FRAMES} frames and {MAX_UPLOAD.upper()}")
            self.clip = gr.Video(
                label="Clip", sources=["upload"], height=240, elem_id="clip", include_audio=True
            )
            gr.Markdown("### 2. Paint the objects on a frame, one color each")
            self.index = gr.Slider(0, 1, 0, step=1, label="Frame", elem_id="frame")
            self.editor = new_editor("Paint here", "frame-editor", "# The frame comes here")
            with gr.Accordion("Options", open=False):
                self.names = gr.Textbox(
                    label="Names, in the order of the colors (optional)", placeholder="left, right"
                )
                self.kind = gr.Radio(
                    [("the very objects", "instance"), ("all of their class", "semantic")],
                    value="instance", label="What to follow",
                )  # fmt: skip
                self.prompt_file = gr.File(
                    label="Prompt file, beside or instead of painting",
                    file_types=[".safetensors"], height=100, elem_id="video-prompt-file",
                )  # fmt: skip


class MoviePanel:
    """The panel where frames appear as they are segmented, then the whole video."""

    def __init__(self) -> None:
        with gr.Column(min_width=320):
            gr.Markdown("### 3. Follow them")
            with gr.Row():
                self.go = gr.Button("Propagate", variant="primary", elem_id="propagate")
                self.halt = gr.Button("Stop", variant="stop", min_width=80, scale=0)
            self.status = gr.Markdown(elem_id="video-status")
            self.live = gr.Image(
                label="Now", interactive=False, height=300, elem_id="live", buttons=[],
                format="jpeg", alt_text="The frame answered last, with its masks",
            )  # fmt: skip
            self.doubtful = gr.Dropdown([], label="Worth a look", elem_id="doubtful", visible=False)
            self.movie = gr.Video(
                label="Result", interactive=False, height=300, elem_id="movie", visible=False
            )
            self.files = gr.File(
                label="Download: MP4 and masks", file_count="multiple", interactive=False,
                elem_id="video-downloads", visible=False,
            )  # fmt: skip
