"""Examples: handlers that add, remove, lay out and clear them."""

from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from incontext import InputError
from incontext.web.page import sample_data
from incontext.web.page.images.drawing import current_draft
from incontext.web.page.images.panels import ALL_FIELDS, NO_RESULTS, updates
from incontext.web.page.painting import overlay
from incontext.web.page.session import Session
from incontext.web.reporting import report_errors

OWN, OVER = (
    "✕ Try your own",
    "✕ Start over",
)  # of the button that clears the tab; see page.js


class Examples:
    """Handlers of the examples."""

    @report_errors
    def add(
        self, tool: str, value: Any, partly: bool, prompt: str | None, session: Session | None
    ) -> tuple[Any, ...]:
        """Add what is painted as an example; examples take the place of a prompt file."""
        session = Session.resume(session)
        draft = current_draft(session, tool, value, partly)
        if draft is None:
            raise InputError("Nothing is painted yet: upload a picture and paint what you mean.")
        is_new, session.ready_made = session.add(draft), False
        count = len(session.examples)
        gr.Info(f"Added: {count} examples now." if is_new else "It is among the examples already.")
        if prompt:
            gr.Info("The prompt file was taken out: the examples are used.")
        return session, *show(session).values(), None, gr.update(value=OVER, variant="secondary")

    @report_errors
    def choose(self, event: gr.SelectData, session: Session | None) -> Session:
        """Remember which example `remove` removes."""
        session = Session.resume(session)
        session.example_index = int(event.index)
        return session

    @report_errors
    def remove(
        self, tool: str, value: Any, partly: bool, session: Session | None, remove_all: bool
    ) -> tuple[Any, ...]:
        """Remove the chosen example, or all; what is in the editor does not come back by itself."""
        session = Session.resume(session)
        if remove_all:
            session.examples = []
        elif session.example_index is None or session.example_index >= len(session.examples):
            raise InputError("Click on the example to remove first.")
        else:
            index = session.example_index
            session.examples = [*session.examples[:index], *session.examples[index + 1 :]]
        session.example_index = None
        session.dismissed = current_draft(session, tool, value, partly)
        return session, *show(session).values()

    @report_errors
    def load_sample(
        self, tool: str, value: Any, session: Session | None, name: str
    ) -> tuple[Any, ...]:
        """Lay out a ready-made example and its query, unless that would discard work."""
        session, scene = Session.resume(session), sample_data.scene(name)
        if session.examples and not session.ready_made:
            raise InputError("You have examples of your own: remove them first, or reload.")
        draft = current_draft(session, tool, value, False)
        if draft and not session.ready_made:
            raise InputError("You painted something: clear the editor (its bin) first.")
        results = NO_RESULTS if session.ready_made else {}  # of another sample
        if session.ready_made:
            session.clear()
        session.ready_made = True
        picture = Image.fromarray(scene.example).convert("RGB")
        session.examples, session.draft = [], (picture, scene.mask.astype(np.uint8))
        return updates(
            ALL_FIELDS, session=session, editor=gr.update(value=None, visible=True), tool="Brush",
            targets=[str(sample_data.target(name))], tile=scene.tile or 0, names="",
            **show(session), **{"status": "", **results}, prompt_file=None,
            start_over=gr.update(value=OWN, variant="primary"),
        )  # fmt: skip

    @report_errors
    def start_over(self, session: Session | None) -> tuple[Any, ...]:
        """Clear the tab: examples, pictures and results.

        The editor is taken out: put in again, it asks for a picture; one that is only emptied does
        not.
        """
        session = Session.resume(session)
        session.clear()
        return updates(
            ALL_FIELDS, session=session, editor=gr.update(value=None, visible=False), tool="Brush",
            targets=None, tile=0, names="", prompt_file=None,
            start_over=gr.update(value=OVER, variant="secondary"), **show(session), **NO_RESULTS,
        )  # fmt: skip


def show(session: Session) -> dict[str, Any]:
    """Return the gallery of examples, which is in sight if there are any, by its fields' names."""
    pictures = [(overlay(e.picture, e.ids), str(n)) for n, e in enumerate(session.examples, 1)]
    return {"examples": pictures, "listed": gr.update(visible=bool(pictures))}
