"""Shortcuts: one key for each of the main actions, and the page that lists them."""

from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Shortcut:
    """A key and the elements that it clicks, of which one is in sight at a time.

    Args:
        key: a letter or the name of a key, as the browser calls it.
        selector: CSS; of a group of radio buttons the next one is chosen.
        text: what it does, for people.
    """

    key: str
    selector: str
    text: str


SHORTCUTS = (
    Shortcut("s", "#segment, #propagate, #tune, #examine", "Segment (Propagate, Tune, Examine)"),
    Shortcut("Escape", "#stop-images, #stop-video, #stop-tune, #stop-doctor", "Stop"),
    Shortcut("a", "#add", "Add what is painted as an example"),
    Shortcut("x", "#start-over", "Clear all and begin with your own pictures"),
    Shortcut("n", "#next", "Next result"),
    Shortcut("p", "#previous", "Previous result"),
    Shortcut("o", "#order", "Order: as given, worst first"),
    Shortcut("v", "#view", "Show: overlay, mask, confidence"),
    Shortcut("c", "#mend", "Correct the chosen result"),
    Shortcut("k", "#keep", "Keep the results as A, to compare"),
    Shortcut("?", "#help-button", "This list"),
)


def help_page() -> str:
    """Return the button that opens the list of shortcuts, and the list, as HTML."""
    rows = "".join(
        f"<tr><td><kbd>{escape(label(s.key))}</kbd></td><td>{escape(s.text)}</td></tr>"
        for s in SHORTCUTS
    )
    return f"""<button id="help-button" type="button" aria-haspopup="dialog">⌨ Keys</button>
<dialog id="help" aria-label="Keyboard shortcuts">
<table>{rows}
<tr><td><kbd>Ctrl</kbd> <kbd>Enter</kbd></td><td>Segment, also while you type</td></tr></table>
<label><input type="checkbox" id="single-keys" checked> Single keys are on</label>
<button id="help-close" type="button">Close</button>
</dialog>"""


def label(key: str) -> str:
    """Return what is printed on a key."""
    return {"Escape": "Esc"}.get(key, key.upper())
