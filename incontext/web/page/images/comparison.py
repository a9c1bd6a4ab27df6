"""Comparison: two prompts side by side. A is kept, B is what was segmented last."""

from typing import Any

import gradio as gr

from incontext.web.page.session import ImageResult, KeptResults, Session

Pair = tuple[ImageResult, ImageResult]  # the same picture in A and B
EQUAL = 0.005  # qualities this close look the same in two decimals


def comparison(session: Session, view: str) -> dict[str, Any]:
    """Return what to show of A and B, by the names of the panel's fields."""
    kept = session.kept
    pairs = match(kept, session.results) if kept else []
    return {
        "verdict": gr.update(value=verdict(session, pairs), visible=kept is not None),
        "pairs": gr.update(value=gallery(pairs, view), visible=bool(pairs)),
        "drop_kept": gr.update(visible=kept is not None),
    }


def match(kept: KeptResults, results: list[ImageResult]) -> list[Pair]:
    """Pair the results of the same pictures, in the order of the later ones; none with itself."""
    first = {result.digest: result for result in kept.results}
    pairs = [(first[b.digest], b) for b in results if b.digest in first]
    return [(a, b) for a, b in pairs if a.stem != b.stem]


def gallery(pairs: list[Pair], view: str) -> list[tuple[str, str]]:
    """Return the value of a gallery of two columns, A and B."""
    return [
        (str(result.file(view)), f"{letter}: {result.label}")
        for pair in pairs
        for letter, result in zip("AB", pair, strict=True)
    ]


def verdict(session: Session, pairs: list[Pair]) -> str:
    """Return which of both is likely to be better, in a line."""
    kept = session.kept
    if kept is None:
        return ""
    if not pairs:
        if kept.folder == session.folder_of_results():
            return (
                f"**A** is kept: {kept.caption}. Change the examples, then press Segment: both "
                "appear side by side."
            )
        return "None of these pictures is among those of **A**: segment the same ones to compare."
    a_mean, b_mean = (sum(pair[k].score for pair in pairs) / len(pairs) for k in (0, 1))
    wins = [sum(b.score - a.score > EQUAL for a, b in pairs)]
    wins.append(sum(a.score - b.score > EQUAL for a, b in pairs))
    return (
        f"**A** ({kept.caption}): {a_mean:.2f} · **B** ({session.prompt_caption}): {b_mean:.2f}. "
        f"Of {len(pairs)} pictures B is likely to be better in {wins[0]}, A in {wins[1]}."
    )
