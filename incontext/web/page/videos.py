"""The tab of videos: scrub, paint, propagate, see where it drifts, correct, continue."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from incontext import InputError
from incontext.web.jobs import Jobs
from incontext.web.models import Models
from incontext.web.page import sample_data
from incontext.web.page.painting import read_editor, write_editor
from incontext.web.page.panels import ClipPanel, MoviePanel
from incontext.web.page.session import Desk
from incontext.web.page.tracking import Clip
from incontext.web.reporting import told, told_in


class Videos:
    """Handlers of the tab."""

    def __init__(self, models: Models, jobs: Jobs) -> None:
        self.models, self.jobs = models, jobs

    @told
    def open(self, path: str | None, desk: Desk | None) -> tuple[Any, ...]:
        """Look at a clip, show its first frame."""
        desk = Desk.of(desk)
        desk.clip = None
        if path is None:
            return desk, -1, gr.update(maximum=1, value=0), None, "", *_nothing()
        desk.clip = Clip.open(path, desk.new_clip())
        said = f"{desk.clip.count} frames. Paint the objects on one of them, then propagate."
        return (
            desk, -1, gr.update(maximum=max(1, desk.clip.count - 1), value=0),
            None, said, *_nothing(),
        )  # fmt: skip

    @told
    def ready(self, desk: Desk | None) -> tuple[Any, ...]:
        """The ready-made clip with labels on its first frame."""
        desk = Desk.of(desk)
        path = sample_data.clip()
        desk.clip = Clip.open(path, desk.new_clip())
        desk.clip.given[0] = sample_data.clip_ids(0)
        return (
            desk, str(path), -1, gr.update(maximum=desk.clip.count - 1, value=0),
            None, "A red disc and a blue square, painted "
            "already. Press Propagate.", *_nothing(),
        )  # fmt: skip

    @told
    def scrub(self, index: float, value: Any, shown: float, desk: Desk | None) -> tuple[Any, ...]:
        """Another frame; what was painted on the one before is kept."""
        desk = Desk.of(desk)
        clip, index = _clip(desk), int(index)
        if index == int(shown):
            return desk, gr.skip(), gr.skip()
        self._keep(clip, int(shown), value)
        return desk, None, -1

    @told
    def lay_out(self, index: float, desk: Desk | None) -> tuple[Any, ...]:
        """A frame into the editor, see `Images.lay_out`, and its number beside it: what the page
        sends back later belongs to that one."""
        clip = desk.clip if desk else None
        if not isinstance(clip, Clip):
            return gr.skip(), gr.skip()
        return write_editor(*clip.look(int(index))), int(index)

    @staticmethod
    def _keep(clip: Clip, index: int, value: Any) -> None:
        """Take over what is painted on a frame; -1: none lies in the editor yet."""
        read = read_editor(value) if index >= 0 else None
        if read is not None:
            clip.paint(index, read[1])

    @told_in(status=2, outputs=6)
    def propagate(
        self, value: Any, shown: float, kind: str, names: str, prompt: str | None, checkpoint: str,
        desk: Desk | None, request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:  # fmt: skip
        """Answer the frames, showing each as it comes."""
        desk = Desk.of(desk)
        clip, skip = _clip(desk), gr.skip()
        with self.jobs.one(request, "long") as stop:
            self._keep(clip, int(shown), value)
            predictor, said = self.models.get(checkpoint), ""
            yield desk, skip, "Looking at what is painted …", skip, skip, skip
            follow = clip.follow(predictor, stop, kind=kind, names=names, prompt=prompt)
            for done, (index, result) in enumerate(follow, 1):
                said = f"frame {index}, {done} done, {clip.count - len(clip.answered)} to go"
                yield desk, result.overlay(), said, skip, skip, skip
            yield desk, skip, f"{said}; writing the video …", skip, skip, skip
            movie, masks = clip.write()
            look = clip.worth_a_look()
            said = f"{len(clip.answered)} of {clip.count} frames answered. {_warnings(look)}"
            if stop.is_set():
                said = f"Stopped. {said}"
            choices = [(f"frame {i}: {why}", i) for i, why in look.items()]
            yield (
                desk, skip, said, gr.update(value=str(movie), visible=True),
                gr.update(value=[str(movie), str(masks)], visible=True),
                gr.update(choices=choices, value=None, visible=bool(choices)),
            )  # fmt: skip


def _nothing() -> tuple[Any, ...]:
    """Movie, files and doubtful frames of a clip that was not followed yet."""
    hidden = gr.update(value=None, visible=False)
    return hidden, hidden, gr.update(choices=[], value=None, visible=False)


def _warnings(look: dict[int, str]) -> str:
    if not look:
        return "No frame looks doubtful."
    one = "1 frame is" if len(look) == 1 else f"{len(look)} frames are"
    return (
        f"{one} worth a look: choose one below, mend what is painted there, and propagate again; "
        "frames before it stay."
    )


def _clip(desk: Desk) -> Clip:
    if not isinstance(desk.clip, Clip):
        raise InputError("No clip yet: upload one, or try the ready-made one.")
    return desk.clip


def build(models: Models, jobs: Jobs, desk: gr.State, checkpoint: gr.Dropdown) -> gr.File:
    """Lay out the tab and connect it; where a prompt file can be put."""
    on = Videos(models, jobs)
    shown = gr.Number(-1, visible=False, precision=0)  # the frame in the editor
    with gr.Row():
        start = gr.Button("Try: a disc and a square", size="sm", scale=0, min_width=220)
    with gr.Row(equal_height=False):
        one, all_ = ClipPanel(), MoviePanel()
    private: dict[str, Any] = {"api_visibility": "private"}
    # An editor that was painted on keeps showing progress after it was filled anew.
    quiet: dict[str, Any] = {**private, "show_progress": "hidden"}
    fresh = [one.index, one.editor, all_.status, all_.movie, all_.files, all_.doubtful]
    lay_out: dict[str, Any] = {
        "fn": on.lay_out, "inputs": [one.index, desk], "outputs": [one.editor, shown], **quiet,
    }  # fmt: skip
    for event in (one.clip.upload, one.clip.clear):
        event(on.open, [one.clip, desk], [desk, shown, *fresh], **quiet).then(**lay_out)
    start.click(on.ready, desk, [desk, one.clip, shown, *fresh], **quiet).then(**lay_out)
    one.index.change(
        on.scrub, [one.index, one.editor, shown, desk], [desk, one.editor, shown],
        trigger_mode="always_last", **quiet,
    ).then(**lay_out)  # fmt: skip
    all_.doubtful.input(lambda i: i, all_.doubtful, one.index, **private)
    all_.go.click(
        on.propagate,
        [one.editor, shown, one.kind, one.names, one.prompt_file, checkpoint, desk],
        [desk, all_.live, all_.status, all_.movie, all_.files, all_.doubtful],
        concurrency_limit=None, show_progress_on=all_.status, **private,
    )  # fmt: skip
    all_.halt.click(jobs.stop, queue=False, **private)
    return one.prompt_file
