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
from incontext.web.page.session import Session
from incontext.web.page.tracking import Clip
from incontext.web.progress import Progress
from incontext.web.reporting import report_errors, report_errors_in


class Videos:
    """Handlers of the tab."""

    def __init__(self, models: Models, jobs: Jobs) -> None:
        self.models, self.jobs = models, jobs

    @report_errors
    def open(self, path: str | None, session: Session | None) -> tuple[Any, ...]:
        """Open a clip and show its first frame."""
        session = Session.resume(session)
        session.clip = None
        if path is None:
            return session, gr.update(maximum=1, value=0), None, -1, "", *_no_results()
        session.clip = Clip.open(path, session.new_clip())
        status = f"{session.clip.count} frames. Paint the objects on one of them, then propagate."
        return (
            session, gr.update(maximum=max(1, session.clip.count - 1), value=0), None, -1,
            status, *_no_results(),
        )  # fmt: skip

    @report_errors
    def load_sample(self, session: Session | None) -> tuple[Any, ...]:
        """Open the ready-made clip with labels on its first frame."""
        session = Session.resume(session)
        path = sample_data.clip()
        session.clip = Clip.open(path, session.new_clip())
        session.clip.painted[0] = sample_data.clip_ids(0)
        return (
            session, str(path), gr.update(maximum=session.clip.count - 1, value=0), None, -1,
            "A red disc and a blue square, painted already. Press Propagate.", *_no_results(),
        )  # fmt: skip

    @report_errors
    def scrub(
        self, index: float, value: Any, editor_index: float, session: Session | None
    ) -> tuple[Any, ...]:
        """Move to another frame; what was painted on the one before is kept."""
        session = Session.resume(session)
        clip, index = _clip(session), int(index)
        if index == int(editor_index):
            return session, gr.skip(), gr.skip()
        self._keep(clip, int(editor_index), value)
        return session, None, -1

    @report_errors
    def lay_out(self, index: float, session: Session | None) -> tuple[Any, ...]:
        """Put a frame into the editor, see `Images.lay_out`, and its number into `editor_index`:
        what the page sends back later belongs to that frame."""
        clip = session.clip if session else None
        if not isinstance(clip, Clip):
            return gr.skip(), gr.skip()
        return write_editor(*clip.show(int(index))), int(index)

    @staticmethod
    def _keep(clip: Clip, index: int, value: Any) -> None:
        """Keep what is painted on a frame; -1: the editor has none yet."""
        painting = read_editor(value) if index >= 0 else None
        if painting is not None:
            clip.paint(index, painting[1])

    @report_errors_in(status=2, outputs=6)
    def propagate(
        self, value: Any, editor_index: float, kind: str, names: str, prompt: str | None,
        checkpoint: str, session: Session | None, request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:  # fmt: skip
        """Segment the frames, showing each as it comes."""
        session = Session.resume(session)
        clip, skip = _clip(session), gr.skip()
        with self.jobs.run(request, "long") as stop:
            self._keep(clip, int(editor_index), value)
            predictor, status = self.models.get(checkpoint), ""
            yield session, skip, "Looking at what is painted …", skip, skip, skip
            follow = clip.follow(predictor, stop, kind=kind, names=names, prompt=prompt)
            progress = Progress(0)
            for index, result in follow:
                progress.total = progress.done + 1 + clip.count - len(clip.result_frames)
                status = f"{progress.step()} · frame {index}"
                yield session, result.overlay(), status, skip, skip, skip
            yield session, skip, f"{status}; writing the video …", skip, skip, skip
            movie, masks = clip.write()
            doubtful = clip.frames_to_review()
            status = (
                f"{len(clip.result_frames)} of {clip.count} frames answered. {_advice(doubtful)}"
            )
            if stop.is_set():
                status = f"Stopped. {status}"
            choices = [(f"frame {i}: {reason}", i) for i, reason in doubtful.items()]
            yield (
                session, skip, status, gr.update(value=str(movie), visible=True),
                gr.update(value=[str(movie), str(masks)], visible=True),
                gr.update(choices=choices, value=None, visible=bool(choices)),
            )  # fmt: skip


def _no_results() -> tuple[Any, ...]:
    """Return updates that hide the movie, the files and the doubtful frames."""
    hide = gr.update(value=None, visible=False)
    return hide, hide, gr.update(choices=[], value=None, visible=False)


def _advice(doubtful: dict[int, str]) -> str:
    if not doubtful:
        return "No frame looks doubtful."
    subject = "1 frame is" if len(doubtful) == 1 else f"{len(doubtful)} frames are"
    return (
        f"{subject} worth a look: choose one below, mend what is painted there, and propagate "
        "again; frames before it stay."
    )


def _clip(session: Session) -> Clip:
    if not isinstance(session.clip, Clip):
        raise InputError("No clip yet: upload one, or try the ready-made one.")
    return session.clip


def build(models: Models, jobs: Jobs, session: gr.State, checkpoint: gr.Dropdown) -> gr.File:
    """Lay out the tab and connect it; returns its field for a prompt file."""
    on = Videos(models, jobs)
    editor_index = gr.Number(-1, visible=False, precision=0)  # the frame in the editor
    with gr.Row():
        sample = gr.Button("Try: a disc and a square", size="sm", scale=0, min_width=220)
    with gr.Row(equal_height=False):
        clip, results = ClipPanel(), MoviePanel()
    private: dict[str, Any] = {"api_visibility": "private"}
    # An editor that was painted on keeps showing progress after it was filled again.
    quiet: dict[str, Any] = {**private, "show_progress": "hidden"}
    frame = [clip.editor, editor_index]
    outputs = [clip.index, *frame, results.status, results.movie, results.files, results.doubtful]
    lay_out: dict[str, Any] = {
        "fn": on.lay_out, "inputs": [clip.index, session], "outputs": frame, **quiet,
    }  # fmt: skip
    for event in (clip.clip.upload, clip.clip.clear):
        event(on.open, [clip.clip, session], [session, *outputs], **quiet).then(**lay_out)
    sample.click(on.load_sample, session, [session, clip.clip, *outputs], **quiet).then(**lay_out)
    clip.index.change(
        on.scrub, [clip.index, *frame, session], [session, *frame], trigger_mode="always_last",
        **quiet,
    ).then(**lay_out)  # fmt: skip
    results.doubtful.input(lambda i: i, results.doubtful, clip.index, **private)
    results.go.click(
        on.propagate,
        [*frame, clip.kind, clip.names, clip.prompt_file, checkpoint, session],
        [session, results.live, results.status, results.movie, results.files, results.doubtful],
        concurrency_limit=None, show_progress_on=results.status, **private,
    )  # fmt: skip
    results.halt.click(jobs.stop, queue=False, **private)
    return clip.prompt_file
