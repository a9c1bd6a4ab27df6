"""The doctor's report: lines for the terminal, and a page with images."""

import base64
import io
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from incontext.evaluation.diagnostics import ExampleEffect
from incontext.evaluation.doctor import Diagnosis
from incontext.evaluation.labelled_set import LabelledSet
from incontext.inference.prompt import draw_thumbnail
from incontext.inference.segmentation import write_text

MAX_ROWS = 12  # of a list on the terminal
REASONS = {
    "mask": "its mask looks wrong or inconsistent: the others paint something else on it",
    "unlike": "it is unlike the others: pictures segmented with it come out worse",
}


def report_lines(diagnosis: Diagnosis) -> list[str]:
    """Return the report in plain text."""
    lines = [_size(diagnosis), "Predicted mIoU on new pictures like these, with 90 % intervals:"]
    lines += [f"  {_examples(n):<13} {value}" for n, value in diagnosis.curve.items()]
    if diagnosis.without_harmful:
        lines.append(f"  without those that hurt {diagnosis.without_harmful}")
    if len(diagnosis.classes) > 1:
        lines.append("IoU of each id with all examples:")
        for index, value in diagnosis.classes.items():
            lines.append(f"  {_id(diagnosis.dataset, index)}: {value:.1f}")
    return lines + _problems(diagnosis) + [_proposal(diagnosis)]


def _problems(diagnosis: Diagnosis) -> list[str]:
    """Describe what is wrong, a line each."""
    dataset = diagnosis.dataset
    lines = [f"{e.source} hurts: {_reason(e)}" for e in diagnosis.harmful[:MAX_ROWS]]
    if not lines:
        lines.append("No example hurts.")
    if diagnosis.alike:
        lines.append("Most of the pictures are nearly the same, as from a fixed camera.")
    for first, second, same in [] if diagnosis.alike else diagnosis.duplicates[:MAX_ROWS]:
        labels = "" if same else ", but their masks differ"
        lines.append(f"{first} and {second} are nearly the same picture{labels}.")
    for index, painted_as, share in diagnosis.confusions[:MAX_ROWS]:
        lines.append(f"{share:.0%} of {_id(dataset, index)} is painted as "
                     f"{_id(dataset, painted_as)}.")  # fmt: skip
    for index, area, tile_area in diagnosis.small_ids[:MAX_ROWS]:
        size = dataset.size
        advice = f"--tile {size} would show {tile_area:.0f}"
        if tile_area <= 2 * area:
            advice = "tiles would not help much"
        lines.append(
            f"{_id(dataset, index)} usually has {area:.0f} pixels at {size} × {size}, less than "
            f"a token sees; {advice}."
        )
    return lines


def _size(diagnosis: Diagnosis) -> str:
    examined, total = diagnosis.examined_count, diagnosis.given_count
    if examined == total:
        return f"{total} examples, ids {', '.join(map(str, diagnosis.dataset.ids[:20]))}"
    return f"{examined} of {total} examples that show an object were examined"


def _examples(count: int) -> str:
    return f"{count} example{'s' * (count > 1)}"


def _id(dataset: LabelledSet, index: int) -> str:
    name = dataset.names[index]
    return f"id {index}" if name == str(index) else f"id {index} ({name})"


def _reason(effect: ExampleEffect) -> str:
    return (
        f"{REASONS[effect.why]} (others {effect.gain:+.1f} points with it, its own mask "
        f"{effect.agreement:.1f}, usual {effect.usual:.1f})"
    )


def _proposal(diagnosis: Diagnosis) -> str:
    gain, names = diagnosis.best_gain, ", ".join(diagnosis.best)
    if gain.high - gain.low > 100:
        return f"Best small subset: {names} (too few pictures to say how good)."
    return (
        f"Best small subset: {names} ({gain.value:+.1f} [{gain.low:+.1f}, {gain.high:+.1f}] "
        "points against all examples; it was chosen by these very episodes)."
    )


def report_page(diagnosis: Diagnosis, path: str | Path) -> Path:
    """Write the report as one self-contained HTML file: curve, problems, every example."""
    path = Path(path)
    curve = "".join(
        f"<tr><td>{_examples(n)}</td><td>{value.value:.1f}</td>"
        f"<td>{value.low:.1f} – {value.high:.1f}</td>"
        f'<td><svg width="204" height="14" role="img" aria-label="{value}">'
        f'<rect x="2" y="5" width="200" height="4" class="rail"/>'
        f'<rect x="{2 + 2 * max(0.0, value.low):.0f}" y="4" '
        f'width="{max(1.0, 2 * (min(100.0, value.high) - max(0.0, value.low))):.0f}" height="6"/>'
        f'<circle cx="{2 + 2 * value.value:.0f}" cy="7" r="5"/></svg></td></tr>'
        for n, value in diagnosis.curve.items()
    )
    if diagnosis.without_harmful:
        without = f"<td colspan=3>{diagnosis.without_harmful}</td>"
        curve += f"<tr><td>without those that hurt</td>{without}</tr>"
    problems = "".join(f"<li>{escape(text)}</li>" for text in _problems(diagnosis))
    # Worst first, as `effects` stand.
    cards = "".join(
        _card(diagnosis.dataset, index, effect)
        for index, effect in zip(diagnosis.order, diagnosis.effects, strict=True)
    )
    text = PAGE.format(
        size=escape(_size(diagnosis)), curve=curve, problems=problems,
        proposal=escape(_proposal(diagnosis)), cards=cards,
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_text(path, text)


def _card(dataset: LabelledSet, index: int, effect: ExampleEffect) -> str:
    """Return the HTML of one example: image, labels over it, figures."""
    image = np.asarray(dataset.image(index).resize((96, 96)))
    labels = draw_thumbnail([dataset.example(index)], dataset.colors)
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate([image, labels], 1)).save(buffer, "JPEG", quality=85)
    source = base64.b64encode(buffer.getvalue()).decode()
    name = escape(effect.source)
    note = f"<p>{escape(REASONS[effect.why])}</p>" if effect.why else ""
    return (
        f'<figure class="{"bad" if effect.why else ""}"><img alt="{name} and its labels" '
        f'src="data:image/jpeg;base64,{source}"><figcaption>{name}<br>others '
        f"{effect.gain:+.1f}, own mask {effect.agreement:.1f}</figcaption>{note}</figure>"
    )


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Example report</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; }}
body {{ padding: 0 1rem; }}
td {{ padding: 0 1rem 0 0; }}
svg {{ fill: #2a78c0; }} .rail {{ fill: #8884; }}
section {{ display: flex; flex-wrap: wrap; gap: 1rem; }}
figure {{ margin: 0; width: 192px; font-size: 13px; }}
.bad {{ outline: 3px solid #c33; outline-offset: 3px; }}
</style>
<h1>Example report</h1>
<p>{size}</p>
<h2>Predicted mIoU on new pictures like these</h2>
<table>{curve}</table>
<p>In percent, with 90 % intervals; every example was segmented with the others.</p>
<h2>Findings</h2>
<ul>{problems}</ul>
<p>{proposal}</p>
<h2>Examples, worst first</h2>
<p>“others”: points of mIoU that other pictures gain or lose with this example, against the usual
one. “own mask”: mIoU of its labels with what the others paint on it.</p>
<section>{cards}</section>
</html>
"""
