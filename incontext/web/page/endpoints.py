"""Endpoints: the four jobs for programs, each one call from files to files."""

from collections.abc import Callable
from typing import Any

import gradio as gr

from incontext import InputError, Settings, examine, report_lines, report_page, tune
from incontext.web.jobs import Jobs
from incontext.web.limits import MAX_FRAMES, parse_integer, parse_tile
from incontext.web.models import Models
from incontext.web.page.labelled_images import read_example, read_examples, read_labelled_set
from incontext.web.page.painting import paintable, parse_names
from incontext.web.page.segmenting import SegmentRequest, result_files, segment
from incontext.web.page.session import SEGMENT, Session, pack
from incontext.web.page.tracking import Clip
from incontext.web.reporting import raise_if_stopped, report_errors

SNIPPET = """
```python
from gradio_client import Client, handle_file

client = Client("http://127.0.0.1:7860")
masks, report = client.predict(
    examples=[handle_file("photo.jpg")],
    masks=[handle_file("mask.png")],
    pictures=[handle_file("a.jpg"), handle_file("b.jpg")],
    api_name="/segment",
)  # a zip with masks, confidence, overlays, coco.json; what is in each picture, what failed
```

Also `/track` (clip, mask, frame), `/tune` and `/doctor` (pictures, masks); every argument is
described under “Use via API” at the foot of this page. With `--mcp` the four are tools for agents
at `/gradio_api/mcp/`.
"""


class Endpoints:
    """One method per endpoint. Each call has a session of its own, which holds the results."""

    def __init__(self, models: Models, jobs: Jobs) -> None:
        self.models, self.jobs = models, jobs

    @report_errors
    def segment(
        self, examples: list[str] | None = None, masks: list[str] | None = None,
        pictures: list[str] | None = None, names: str = "", kind: str = "semantic",
        tile: float = 0, prompt: str | None = None, checkpoint: str = "",
        request: gr.Request | None = None,
    ) -> tuple[str, dict[str, Any]]:  # fmt: skip
        """Segment pictures by example. Examples and masks go in pairs, in order; a prompt file may
        take their place. Returns a zip of masks, and what each picture holds."""
        with self.jobs.run(request, "quick") as stop:
            session, paths, mask_paths = Session.create(), examples or [], masks or []
            if len(paths) != len(mask_paths):
                text = f"{len(paths)} examples and {len(mask_paths)} masks; accepted: pairs"
                raise InputError(text)
            pairs = read_examples(paths, mask_paths)
            ids = sorted({int(i) for example in pairs for i in example.labels.present})
            id_names = parse_names(names, ids) if pairs else {}
            options = SegmentRequest(checkpoint or None, kind, parse_tile(tile), id_names, prompt)
            failed: list[str] = []
            for _, _, failed in segment(  # noqa: B007
                self.models, session, pairs, pictures or [], options, stop
            ):
                pass
            coco = session.folders[SEGMENT] / "coco.json"
            files = [*result_files(session.results), (coco, coco.name)]
            path = pack(session.folder / "segmented.zip", files)
            captions = {r.name: r.quality for r in session.results}
            return str(path), {"pictures": captions, "failed": failed}

    @report_errors
    def track(
        self, clip: str | None = None, mask: str | None = None, frame: float = 0,
        kind: str = "instance", checkpoint: str = "", request: gr.Request | None = None,
    ) -> tuple[str, str, dict[str, Any]]:  # fmt: skip
        """Follow the objects of one frame's mask through a video. Returns an MP4 with the masks
        drawn, a zip of masks in DAVIS layout, and the frames worth a look."""
        with self.jobs.run(request, "long") as stop:
            session, number = Session.create(), parse_integer("frame", frame, 0, MAX_FRAMES - 1)
            if not clip or not mask:
                raise InputError("pass a clip, and a mask of one of its frames")
            video = Clip.open(clip, session.new_clip())
            picture, _ = video.show(number)
            video.paint(number, paintable(read_example(picture, mask).labels.ids))
            for _ in video.follow(self.models.get(checkpoint or None), stop, kind=kind):
                pass
            movie, masks = video.write()
            doubtful = {str(i): reason for i, reason in video.frames_to_review().items()}
            return (
                str(movie),
                str(masks),
                {"frames": len(video.result_frames), "worth_a_look": doubtful},
            )

    @report_errors
    def tune(
        self, pictures: list[str] | None = None, masks: list[str] | None = None, names: str = "",
        steps: float = 60, checkpoint: str = "", request: gr.Request | None = None,
    ) -> tuple[str, dict[str, Any]]:  # fmt: skip
        """Learn a prompt from labelled pictures; pictures and masks of the same names. Returns the
        prompt file, and the verdict on pictures held out."""
        with self.jobs.run(request, "long") as stop:
            session = Session.create()
            predictor = self.models.get(checkpoint or None)
            labelled_set = read_labelled_set(session, pictures, masks, False, predictor.size, names)
            settings = Settings(steps=parse_integer("steps", steps, 1, 200))
            outcome = tune(
                predictor,
                labelled_set,
                settings=settings,
                on_progress=lambda *_: raise_if_stopped(stop),
            )
            path = outcome.prompt.save(session.folder / "tuned.safetensors")
            comparison = outcome.comparison
            return str(path), {"helps": comparison.improves, "verdict": comparison.lines()}

    @report_errors
    def doctor(
        self, pictures: list[str] | None = None, masks: list[str] | None = None, names: str = "",
        checkpoint: str = "", request: gr.Request | None = None,
    ) -> tuple[str, dict[str, Any]]:  # fmt: skip
        """Say what examples are worth; pictures and masks of the same names. Returns a page, and
        the same in words."""
        with self.jobs.run(request, "long") as stop:
            session = Session.create()
            predictor = self.models.get(checkpoint or None)
            labelled_set = read_labelled_set(session, pictures, masks, False, predictor.size, names)
            diagnosis = examine(
                predictor, labelled_set, on_progress=lambda *_: raise_if_stopped(stop)
            )
            path = report_page(diagnosis, session.folder / "report.html")
            return str(path), {
                "report": report_lines(diagnosis), "hurt": [e.source for e in diagnosis.harmful],
            }  # fmt: skip


def _files(label: str) -> gr.File:
    return gr.File(label=label, file_count="multiple", visible=False)


def build(models: Models, jobs: Jobs) -> None:
    """Lay out invisible components for the endpoints: Gradio checks what comes in for those."""
    on = Endpoints(models, jobs)
    names = gr.Textbox("", label="names", visible=False)
    kind = gr.Radio(["semantic", "instance"], value="semantic", label="kind", visible=False)
    instance = gr.Radio(["instance", "semantic"], value="instance", label="kind", visible=False)
    tile = gr.Number(0, label="tile", visible=False)
    frame = gr.Number(0, label="frame", visible=False)
    steps = gr.Number(60, label="steps", visible=False)
    checkpoint = gr.Textbox("", label="checkpoint", visible=False)
    clip, mask, prompt = (gr.File(label=n, visible=False) for n in ("clip", "mask", "prompt"))
    examples, masks, pictures = (_files(n) for n in ("examples", "masks", "pictures"))
    file, archive = gr.File(label="file", visible=False), gr.File(label="masks", visible=False)
    summary = gr.JSON(label="said", visible=False)

    def endpoint(
        call: Callable[..., Any], name: str, inputs: list[Any], outputs: list[Any]
    ) -> None:
        trigger = gr.Button(visible=False)
        trigger.click(call, inputs, outputs, api_name=name, concurrency_limit=None)

    endpoint(
        on.segment, "segment",
        [examples, masks, pictures, names, kind, tile, prompt, checkpoint], [file, summary],
    )  # fmt: skip
    endpoint(on.track, "track", [clip, mask, frame, instance, checkpoint], [file, archive, summary])
    endpoint(on.tune, "tune", [pictures, masks, names, steps, checkpoint], [file, summary])
    endpoint(on.doctor, "doctor", [pictures, masks, names, checkpoint], [file, summary])
