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
    """What one setting reached: figures by name in percent, whether it is a fair test, on what."""

    setting: str
    figures: dict[str, Any]
    domain: str
    done: str
    detail: dict[str, Any] = field(default_factory=dict)

    def cells(self) -> list[str]:
        """Figures as text."""
        return [str(v) if isinstance(v, Interval) else f"{v:.1f}" for v in self.figures.values()]


def markdown(
    title: str, about: dict[str, Any], rows: Sequence[Row], published: Sequence[tuple[str, str]]
) -> str:
    """Our rows, then a table of what others published."""
    names = list(rows[0].figures)
    lines = [
        f"# {title}: {about['checkpoint']}", "",
        f"kind {about['kind']}, {about['dtype']}, seen at {about['size']} px; intervals are 90 %.",
        "", "| ours | " + " | ".join(names) + " | training | on |", "|---|" + "---|" * len(names)
        + "---|---|",
    ]  # fmt: skip
    lines += [
        f"| {row.setting} | " + " | ".join(row.cells()) + f" | {row.domain} | {row.done} |"
        for row in rows
    ]
    if not published:
        lines += ["", "No published figures are listed for it."]
    else:
        lines += ["", f"| published | {names[0]} |", "|---|---|"]
        lines += [f"| {who} | {figure} |" for who, figure in published]
        lines += ["", NOTE]
    return "\n".join(lines) + "\n"


def _plain(value: Any) -> Any:
    """For JSON, which knows no NaN."""
    if isinstance(value, Interval):
        return {name: _plain(number) for name, number in vars(value).items()}
    return None if math.isnan(value) else value


def write(
    title: str, about: dict[str, Any], rows: Sequence[Row], published: Sequence[tuple[str, str]],
    out: Path | None, name: str,
) -> None:  # fmt: skip
    """Print the table; NAME.md and NAME.json go to `out` where there is one."""
    text = markdown(title, about, rows, published)
    print(text)
    if not out:
        return
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / f"{name}.md", text)
    found = [
        {
            "setting": row.setting, "training": row.domain, "on": row.done,
            "figures": {n: _plain(v) for n, v in row.figures.items()},
            **row.detail,
        }
        for row in rows
    ]  # fmt: skip
    data = {"about": about, "rows": found, "published": dict(published)}
    write_text(out / f"{name}.json", json.dumps(data, indent=1) + "\n")
