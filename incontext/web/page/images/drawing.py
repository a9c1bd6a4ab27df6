"""Drawing: handlers of the editor and of the picture to click on."""

from typing import Any

import gradio as gr
import numpy as np

from incontext import InputError
from incontext.web.page.images.panels import HELP
from incontext.web.page.images.picking import Sam, grow_box, grow_click
from incontext.web.page.labelled_images import read_example
from incontext.web.page.painting import NAMES, overlay, paintable, read_editor, write_editor
from incontext.web.page.session import DraftExample, Session
from incontext.web.reporting import report_errors


def current_draft(session: Session, tool: str, value: Any, partly: bool) -> DraftExample | None:
    """Return what is painted or picked at the moment, or None."""
    draft = read_editor(value) if tool == "Brush" else session.draft
    if draft is None or not draft[1].any():
        return None
    return DraftExample.shrink(*draft, partly)


class Drawing:
    """Handlers of the tools.

    Args:
        sam: a SAM checkpoint for clicks and boxes; None: regions are grown by color.
    """

    def __init__(self, sam: str | None) -> None:
        self.sam = sam

    @report_errors
    def switch(self, tool: str, value: Any, session: Session | None) -> tuple[Any, ...]:
        """Take what is painted from one tool to another."""
        session = Session.resume(session)
        session.corner = None
        picking = tool != "Brush"
        if picking:
            session.draft, session.undo = read_editor(value) or session.draft, []
        preview = overlay(*session.draft) if picking and session.draft else None
        editor = gr.update(visible=not picking, value=None)
        return (
            session, editor, gr.update(visible=picking, value=preview), gr.update(visible=picking),
            gr.update(visible=tool == "Click"), HELP[tool],
        )  # fmt: skip

    @report_errors
    def lay_out(self, tool: str, session: Session | None) -> Any:
        """Put the draft into the editor, which was emptied just before: an editor that still holds
        an image puts layers of another size in the wrong place."""
        if tool != "Brush" or session is None or session.draft is None:
            return gr.skip()
        return write_editor(*session.draft)

    @report_errors
    def pick(
        self, event: gr.SelectData, tool: str, color: str, tolerance: float, session: Session | None
    ) -> tuple[Any, ...]:
        """Take the region at a click, or in the box that two clicks span."""
        session = Session.resume(session)
        if session.draft is None:
            raise InputError("Upload a picture with the brush tool first, then pick.")
        picture, ids = session.draft
        at = (int(event.index[0]), int(event.index[1]))
        if tool == "Box" and session.corner is None:
            session.corner = at
            preview = overlay(picture, ids).copy()
            size = max(2, max(picture.size) // 150)
            preview.paste("white", (at[0] - size, at[1] - size, at[0] + size, at[1] + size))
            return session, preview
        session.undo = [*session.undo[-9:], ids]
        inside = self._region(session, tool, at, tolerance)
        ids = np.where(inside, list(NAMES.values()).index(color) + 1, ids).astype(np.uint8)
        session.draft, session.corner = (picture, ids), None
        return session, overlay(picture, ids)

    def _region(self, session: Session, tool: str, at: tuple[int, int], tolerance: float) -> Any:
        assert session.draft is not None
        picture, box = session.draft[0], None
        if session.corner is not None:
            (x0, x1), (y0, y1) = (sorted(pair) for pair in zip(session.corner, at, strict=True))
            box = (x0, y0, x1 + 1, y1 + 1)
        sam = Sam.cached(self.sam) if self.sam else None
        if sam:
            return sam.pick(picture, None if box else at, box)
        return grow_box(picture, box) if box else grow_click(picture, at, tolerance)

    @report_errors
    def undo(self, session: Session | None) -> tuple[Any, ...]:
        """Take the last pick back."""
        session = Session.resume(session)
        session.corner = None
        if session.draft and session.undo:
            session.draft = (session.draft[0], session.undo.pop())
        return session, overlay(*session.draft) if session.draft else None

    @report_errors
    def upload_mask(
        self, path: str, tool: str, value: Any, session: Session | None
    ) -> tuple[Any, ...]:
        """Read a mask file onto the image in the editor."""
        session = Session.resume(session)
        draft = read_editor(value) if tool == "Brush" else session.draft
        if draft is None:
            raise InputError("Upload the picture first, then its mask.")
        ids = paintable(read_example(draft[0], path).labels.ids)
        session.draft = (draft[0], ids)
        return session, None, overlay(*session.draft)
