"""Review: the results most worth a look, as a page beside them."""

import os
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from incontext.inference.segmentation import rate_ids, write_text

PAGE = "review.html"
DOUBTFUL = 0.25  # presence from which an id without a mask is mentioned
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem;background:#fafafa;color:#222}"
    "main{display:grid;grid-template-columns:repeat(auto-fill,minmax(18rem,1fr));gap:1.5rem}"
    "figure{margin:0;background:#fff;border:1px solid #ddd;border-radius:6px;overflow:hidden}"
    "img{width:100%;display:block}figcaption{padding:.6rem .8rem;overflow-wrap:anywhere}"
    "i{display:inline-block;width:.8em;height:.8em;margin-right:.4em;border-radius:2px}"
    "ul{list-style:none;margin:.3rem 0 0;padding:0}b{float:right}"
)


class Review(NamedTuple):
    """A result, and how good it is likely to be."""

    name: str
    score: float  # 0–1
    record: dict[str, Any]  # of `results.json`


def rate(record: Mapping[str, Any]) -> float:
    """Return how good the worst of a record's ids is likely to be, see `Segmentation.score`."""
    return rate_ids(
        (about["pixels"] > 0, about["presence"], about.get("quality"))
        for about in record["ids"].values()
    )


def worst_results(records: Mapping[str, dict[str, Any]], count: int) -> list[Review]:
    """Return the results most worth a look, worst first."""
    reviews = [Review(name, rate(record), record) for name, record in records.items()]
    return sorted(reviews, key=lambda review: (review.score, review.name))[:count]


def write_review(
    records: Mapping[str, dict[str, Any]], ids: Mapping[str, Any], folder: Path, count: int
) -> Path:
    """Write `PAGE` into a folder of results: overlays, with what is said of each id.

    Args:
        records, ids: of `results.json`.
        count: of results at most.
    """
    reviews = worst_results(records, count)
    title = f"{len(reviews)} of {len(records)} results, those most worth a look first"
    figures = "\n".join(_figure(review, ids) for review in reviews)
    return write_text(
        folder / PAGE,
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>Review</title>'
        f"<style>{STYLE}</style>\n<h1>{title}</h1>\n"
        "<p>A mask's quality is the overlap (IoU) with the true one to expect. Click a picture for "
        f"its full size.</p>\n<main>\n{figures}\n</main></html>\n",
    )


def _figure(review: Review, ids: Mapping[str, Any]) -> str:
    file = quote(os.fsencode(review.record["files"]["overlay"]))
    return (
        f'<figure><a href="{file}"><img src="{file}" loading="lazy" alt=""></a>'
        f"<figcaption>{_text(review.name)}<ul>{_lines(review.record['ids'], ids)}</ul>"
        "</figcaption></figure>"
    )


def _lines(record: Mapping[str, Any], ids: Mapping[str, Any]) -> str:
    lines: Iterable[str] = (
        f'<li><i style="background:rgb{tuple(ids[index]["color"])}"></i>'
        f"{_text(ids[index]['name'])} <b>{_say(about)}</b></li>"
        for index, about in record.items()
        if about["pixels"] or about["presence"] >= DOUBTFUL
    )
    return "".join(lines) or "<li>nothing of what was looked for</li>"


def _say(about: Mapping[str, Any]) -> str:
    """Say in a few words what is to be thought of an id."""
    presence = f"presence {about['presence']:.2f}"
    if not about["pixels"]:
        return f"no mask, {presence}"
    return f"quality {about['quality']:.2f}" if "quality" in about else presence


def _text(name: str) -> str:
    """Return a name as HTML; bytes that are no UTF-8 are written out."""
    return escape(os.fsencode(name).decode("utf-8", "backslashreplace"))
