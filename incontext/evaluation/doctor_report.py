"""The doctor's report: lines for the terminal, and a page with pictures."""

import base64
import io
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from incontext.evaluation.diagnostics import Effect
from incontext.evaluation.doctor import Diagnosis
from incontext.evaluation.labelled_set import Pool
from incontext.inference.segmentation import write_text
from incontext.inference.thumbnail import thumbnail

SHOWN = 12  # rows of a list on the terminal
REASONS = {
    "mask": "its mask looks wrong or inconsistent: the others paint something else on it",
    "unlike": "it is unlike the others: pictures asked with it come out worse",
}


def report_lines(found: Diagnosis) -> list[str]:
    """The report in plain text."""
    said = [_size(found), "Predicted mIoU on new pictures like these, with 90 % intervals:"]
    said += [f"  {_examples(n):<13} {value}" for n, value in found.curve.items()]
    if found.without:
        said.append(f"  without those that hurt {found.without}")
    if len(found.classes) > 1:
        said.append("IoU of each id, all examples shown:")
        said += [f"  {_id(found.pool, i)}: {value:.1f}" for i, value in found.classes.items()]
    return said + _problems(found) + [_proposal(found)]


def _problems(found: Diagnosis) -> list[str]:
    """What is wrong, a line each."""
    said = [f"{e.source} hurts: {_why(e)}" for e in found.bad[:SHOWN]]
    if not said:
        said.append("No example hurts.")
    if found.alike:
        said.append("Most of the pictures are nearly the same, as from a fixed camera.")
    for one, other, same in [] if found.alike else found.twins[:SHOWN]:
        labels = "" if same else ", but their masks differ"
        said.append(f"{one} and {other} are nearly the same picture{labels}.")
    for index, taken, share in found.confused[:SHOWN]:
        said.append(
            f"{share:.0%} of {_id(found.pool, index)} is painted as {_id(found.pool, taken)}."
        )
    for index, seen, own in found.small[:SHOWN]:
        tile = found.pool.size
        helps = (
            f"--tile {tile} would show {own:.0f}" if own > 2 * seen else "tiles would not help much"
        )
        said.append(
            f"{_id(found.pool, index)} usually has {seen:.0f} pixels at {tile} × {tile}, less than "
            f"a token sees; {helps}."
        )
    return said


def _size(found: Diagnosis) -> str:
    if found.looked_at == found.given:
        return f"{found.given} examples, ids {', '.join(map(str, found.pool.ids[:20]))}"
    return f"{found.looked_at} of {found.given} examples that show an object were looked at"


def _examples(count: int) -> str:
    return f"{count} example{'s' * (count > 1)}"


def _id(pool: Pool, index: int) -> str:
    name = pool.names[index]
    return f"id {index}" if name == str(index) else f"id {index} ({name})"


def _why(effect: Effect) -> str:
    return (
        f"{REASONS[effect.why]} (others {effect.gain:+.1f} points with it, its own mask "
        f"{effect.agreement:.1f}, usual {effect.usual:.1f})"
    )


def _proposal(found: Diagnosis) -> str:
    gain = found.best_gain
    if gain.high - gain.low > 100:
        return f"Best small subset: {', '.join(found.best)} (too few pictures to say how good)."
    return (
        f"Best small subset: {', '.join(found.best)} ({gain.value:+.1f} "
        f"[{gain.low:+.1f}, {gain.high:+.1f}] points against all examples; chosen by these very "
        "trials)."
    )


def report_page(found: Diagnosis, path: Path) -> Path:
    """Write one HTML file that needs no other: table, curve, every example with its labels."""
    curve = "".join(
        f"<tr><td>{_examples(n)}</td><td>{value.value:.1f}</td>"
        f"<td>{value.low:.1f} – {value.high:.1f}</td>"
        f'<td><svg width="204" height="14" role="img" aria-label="{value}">'
        f'<rect x="2" y="5" width="200" height="4" class="rail"/>'
        f'<rect x="{2 + 2 * max(0.0, value.low):.0f}" y="4" '
        f'width="{max(1.0, 2 * (min(100.0, value.high) - max(0.0, value.low))):.0f}" height="6"/>'
        f'<circle cx="{2 + 2 * value.value:.0f}" cy="7" r="5"/></svg></td></tr>'
        for n, value in found.curve.items()
    )
    if found.without:
        curve += f"<tr><td>without those that hurt</td><td colspan=3>{found.without}</td></tr>"
    problems = "".join(f"<li>{escape(text)}</li>" for text in _problems(found))
    # Worst first, as `effects` stand.
    cards = "".join(
        _card(found.pool, number, effect)
        for number, effect in zip(found.order, found.effects, strict=True)
    )
    text = PAGE.format(
        size=escape(_size(found)), curve=curve, problems=problems,
        proposal=escape(_proposal(found)), cards=cards,
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_text(path, text)


def _card(pool: Pool, number: int, effect: Effect) -> str:
    """One example: picture, labels over it, figures."""
    plain = np.asarray(pool.picture(number).resize((96, 96)))
    both = np.concatenate([plain, thumbnail([pool.example(number)], pool.colors)], 1)
    buffer = io.BytesIO()
    Image.fromarray(both).save(buffer, "JPEG", quality=85)
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
<p>In percent, with 90 % intervals; every example was asked for by the others.</p>
<h2>Findings</h2>
<ul>{problems}</ul>
<p>{proposal}</p>
<h2>Examples, worst first</h2>
<p>“others”: points of mIoU that other pictures gain or lose with this example, against the usual
one. “own mask”: mIoU of its labels with what the others paint on it.</p>
<section>{cards}</section>
</html>
"""
