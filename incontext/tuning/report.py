"""What a run of tuning leaves beside the prompt: curve.csv, curve.png, verdict.txt."""

import csv
from pathlib import Path

from incontext.errors import InputError
from incontext.tuning.tune import Outcome


def check_drawing() -> None:
    """Raise InputError where the learning curve cannot be drawn: better said before the work."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise InputError(
            "the learning curve needs matplotlib: pip install 'incontext-seg[tune]'"
        ) from None


def summary(outcome: Outcome) -> list[str]:
    """What came of it, in words."""
    pool, said = outcome.pool, [f"learned from {len(outcome.pool)} pictures"]
    lost = [str(i) for i in pool.ids if i not in outcome.tuned.ids]
    if lost:
        said.append(
            f"ids {', '.join(lost)} are left out: at {pool.size} × {pool.size} pixels nothing is "
            "left of them"
        )
    what = "the tuned prompt"
    if not outcome.verdict.helps:
        shown = [pool.sources[i] for i in outcome.shown[outcome.verdict.best]]
        names = ", ".join(shown[:8]) + (" …" if len(shown) > 8 else "")
        what = f"untuned, {outcome.verdict.best}: {names}"
    return [*said, *outcome.verdict.lines(), f"the file holds {what}"]


def write(outcome: Outcome, folder: Path) -> None:
    """Write the three files."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "curve.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["fold", "step", "loss", "mIoU"])
        writer.writerows((f, s, f"{loss:.6g}", f"{v:.4g}") for f, s, loss, v in outcome.curve)
    (folder / "verdict.txt").write_text("\n".join(outcome.verdict.lines()) + "\n", encoding="utf-8")
    draw(outcome, folder / "curve.png")


def draw(outcome: Outcome, path: Path) -> None:
    """Loss, and mIoU on the held-out pictures beside the best untuned prompt's, over the steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    folds = sorted({fold for fold, *_ in outcome.curve})
    for fold in folds:
        rows = [(step, loss, score) for f, step, loss, score in outcome.curve if f == fold]
        label = f"fold {fold + 1}" if len(folds) > 1 else None
        left.plot([r[0] for r in rows], [r[1] for r in rows], marker=".", label=label)
        right.plot([r[0] for r in rows], [r[2] for r in rows], marker=".", label=label)
    best = outcome.verdict.untuned[outcome.verdict.best]
    right.axhline(
        best.value, color="gray", linestyle="--", label=f"untuned: {outcome.verdict.best}"
    )
    left.set(title="loss", xlabel="step")
    right.set(title="mIoU on held-out pictures, percent", xlabel="step")
    right.legend()
    figure.savefig(path, dpi=100)
