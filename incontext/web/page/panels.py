"""Panels: the editor, and the components of the tab of videos, without their handlers."""

import gradio as gr

from incontext.web.limits import MAX_FRAMES, MAX_UPLOAD
from incontext.web.page.painting import BRUSHES, OPACITY

PICTURE_FILES = [".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"]


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
                self.halt = gr.Button(
                    "Stop", variant="stop", min_width=80, scale=0, elem_id="stop-video"
                )
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
