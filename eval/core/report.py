"""Tables of an evaluation, ours beside published figures, as Markdown and JSON."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from incontext.evaluation.confusion import Interval
from incontext.inference.segmentation import write_text

NOTE = (
    "Published figures as their papers state them, not measured here; two figures: 1 example / "
    "the paper's few-shot number; \"in\": the test's classes were trained on."
)


@dataclass(frozen=True)
class Row:
    """Result of one setting.

    Attributes:
        figures: metrics by name, in percent; a float or an `Interval`.
        domain: whether it is a fair test, see `eval.core.domains`.
        data: on how many folds, episodes or images.
        detail: further values for the JSON file.
    """

    setting: str
    figures: dict[str, Any]
    domain: str
    data: str
    detail: dict[str, Any] = field(default_factory=dict)

    def cells(self) -> list[str]:
        """Format the figures."""
        return [str(v) if isinstance(v, Interval) else f"{v:.1f}" for v in self.figures.values()]

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON can hold it."""
        return {
            "setting": self.setting, "training": self.domain, "on": self.data,
            "figures": {name: _to_json(value) for name, value in self.figures.items()},
            **self.detail,
        }  # fmt: skip


def markdown(
    title: str, run_settings: dict[str, Any], rows: Sequence[Row],
    published: Sequence[tuple[str, str]],
) -> str:  # fmt: skip
    """Format our rows, and a second table of published figures."""
    names = list(rows[0].figures)
    lines = [
        f"# {title}: {run_settings['checkpoint']}", "",
        f"kind {run_settings['kind']}, {run_settings['dtype']}, seen at {run_settings['size']} px; "
        "intervals are 90 %.",
        "", "| ours | " + " | ".join(names) + " | training | on |", "|---|" + "---|" * len(names)
        + "---|---|",
    ]  # fmt: skip
    lines += [
        f"| {row.setting} | " + " | ".join(row.cells()) + f" | {row.domain} | {row.data} |"
        for row in rows
    ]
    if not published:
        lines += ["", "No published figures are listed for it."]
    else:
        lines += ["", f"| published | {names[0]} |", "|---|---|"]
        lines += [f"| {method} | {figure} |" for method, figure in published]
        lines += ["", NOTE]
    return "\n".join(lines) + "\n"


def _to_json(value: Any) -> Any:
    """Convert an interval to a dict and NaN, which JSON lacks, to None."""
    if isinstance(value, Interval):
        return {name: _to_json(number) for name, number in vars(value).items()}
    return None if math.isnan(value) else value


def write_report(
    title: str, run_settings: dict[str, Any], rows: Sequence[Row],
    published: Sequence[tuple[str, str]], out: Path | None, name: str,
) -> None:  # fmt: skip
    """Print the table; write NAME.md and NAME.json if there is an `out`."""
    text = markdown(title, run_settings, rows, published)
    print(text)
    if not out:
        return
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / f"{name}.md", text)
    data = {
        "about": run_settings, "rows": [row.to_json() for row in rows],
        "published": dict(published),
    }  # fmt: skip
    write_text(out / f"{name}.json", json.dumps(data, indent=1) + "\n")
