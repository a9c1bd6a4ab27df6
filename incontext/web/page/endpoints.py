"""Endpoints: the four jobs for programs, each one call from files to files."""

from collections.abc import Callable
from typing import Any

import gradio as gr

from incontext import InputError, Settings, examine, report_lines, report_page, tune
from incontext.web.jobs import Jobs
from incontext.web.limits import FRAMES, tile_of, whole
from incontext.web.models import Models
from incontext.web.page.labelled_images import pool_of, read_example, read_examples
from incontext.web.page.painting import names_in_order, paintable
from incontext.web.page.segmenting import Wish, masks_of, segment
from incontext.web.page.session import Desk, pack
from incontext.web.page.tracking import Clip
from incontext.web.reporting import going_on, told

SNIPPET = """
```python
from gradio_client import Client, handle_file

client = Client("http://127.0.0.1:7860")
masks, said = client.predict(
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
    """One method an endpoint. Each works on a desk of its own, which holds the results."""

    def __init__(self, models: Models, jobs: Jobs) -> None:
        self.models, self.jobs = models, jobs

    @told
    def segment(
        self, examples: list[str] | None = None, masks: list[str] | None = None,
        pictures: list[str] | None = None, names: str = "", kind: str = "semantic",
        tile: float = 0, prompt: str | None = None, checkpoint: str = "",
        request: gr.Request | None = None,
    ) -> tuple[str, dict[str, Any]]:  # fmt: skip
        """Segment pictures by example. Examples and masks go in pairs, in order; a prompt file may
        take their place. Answers a zip of masks, and what each picture holds."""
        with self.jobs.one(request, "quick") as stop:
            desk, given, drawn = Desk.of(None), examples or [], masks or []
            if len(given) != len(drawn):
                raise InputError(f"{len(given)} examples and {len(drawn)} masks; accepted: pairs")
            found = read_examples(given, drawn)
            ids = sorted({int(i) for example in found for i in example.labels.present})
            named = names_in_order(names, ids) if found else {}
            wish = Wish(checkpoint or None, kind, tile_of(tile), named, prompt)
            failed: list[str] = []
            for _, _, failed in segment(  # noqa: B007
                self.models, desk, found, pictures or [], wish, stop
            ):
                pass
            coco = desk.folder / f"run{desk.runs}" / "coco.json"
            path = pack(desk.folder / "segmented.zip", [*masks_of(desk.answers), (coco, coco.name)])
            said = {one.name: one.said.removeprefix(f"{one.name}: ") for one in desk.answers}
            return str(path), {"pictures": said, "failed": failed}

    @told
    def track(
        self, clip: str | None = None, mask: str | None = None, frame: float = 0,
        kind: str = "instance", checkpoint: str = "", request: gr.Request | None = None,
    ) -> tuple[str, str, dict[str, Any]]:  # fmt: skip
        """Follow the objects of one frame's mask through a video. Answers an MP4 with the masks
        drawn, a zip of masks in DAVIS layout, and the frames worth a look."""
        with self.jobs.one(request, "long") as stop:
            desk, number = Desk.of(None), whole("frame", frame, 0, FRAMES - 1)
            if not clip or not mask:
                raise InputError("pass a clip, and a mask of one of its frames")
            found = Clip.open(clip, desk.new_clip())
            picture, _ = found.look(number)
            found.paint(number, paintable(read_example(picture, mask).labels.ids))
            for _ in found.follow(self.models.get(checkpoint or None), stop, kind=kind):
                pass
            movie, masks = found.write()
            look = {str(i): why for i, why in found.worth_a_look().items()}
            return str(movie), str(masks), {"frames": len(found.answered), "worth_a_look": look}

    @told
    def tune(
        self, pictures: list[str] | None = None, masks: list[str] | None = None, names: str = "",
        steps: float = 60, checkpoint: str = "", request: gr.Request | None = None,
    ) -> tuple[str, dict[str, Any]]:  # fmt: skip
        """Learn a prompt from labelled pictures; pictures and masks of the same names. Answers the
        prompt file, and the verdict on pictures held out."""
        with self.jobs.one(request, "long") as stop:
            desk = Desk.of(None)
            predictor = self.models.get(checkpoint or None)
            pool = pool_of(desk, pictures, masks, False, predictor.size, names)
            settings = Settings(steps=whole("steps", steps, 1, 200))
            outcome = tune(predictor, pool, settings=settings, tell=lambda *_: going_on(stop))
            path = outcome.prompt.save(desk.folder / "tuned.safetensors")
            said = outcome.verdict.lines()
            return str(path), {"helps": outcome.verdict.helps, "verdict": said}

    @told
    def doctor(
        self, pictures: list[str] | None = None, masks: list[str] | None = None, names: str = "",
        checkpoint: str = "", request: gr.Request | None = None,
    ) -> tuple[str, dict[str, Any]]:  # fmt: skip
        """Say what examples are worth; pictures and masks of the same names. Answers a page, and
        the same in words."""
        with self.jobs.one(request, "long") as stop:
            desk = Desk.of(None)
            predictor = self.models.get(checkpoint or None)
            pool = pool_of(desk, pictures, masks, False, predictor.size, names)
            found = examine(predictor, pool, tell=lambda *_: going_on(stop))
            path = report_page(found, desk.folder / "report.html")
            return str(path), {
                "report": report_lines(found), "hurt": [e.source for e in found.bad],
            }  # fmt: skip


def _files(label: str) -> gr.File:
    return gr.File(label=label, file_count="multiple", visible=False)


def build(models: Models, jobs: Jobs) -> None:
    """Endpoints stand on components that nobody sees: Gradio checks what comes in for those."""
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
    file, other = gr.File(label="file", visible=False), gr.File(label="masks", visible=False)
    said = gr.JSON(label="said", visible=False)

    def endpoint(call: Callable[..., Any], name: str, takes: list[Any], gives: list[Any]) -> None:
        trigger = gr.Button(visible=False)
        trigger.click(call, takes, gives, api_name=name, concurrency_limit=None)

    endpoint(
        on.segment, "segment",
        [examples, masks, pictures, names, kind, tile, prompt, checkpoint], [file, said],
    )  # fmt: skip
    endpoint(on.track, "track", [clip, mask, frame, instance, checkpoint], [file, other, said])
    endpoint(on.tune, "tune", [pictures, masks, names, steps, checkpoint], [file, said])
    endpoint(on.doctor, "doctor", [pictures, masks, names, checkpoint], [file, said])
