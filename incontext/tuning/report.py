"""Files of a tuning run other than the prompt: curve.csv, curve.png, verdict.txt."""

import csv
from pathlib import Path

from incontext.errors import InputError
from incontext.tuning.run import TuningResult


def check_drawing() -> None:
    """Raise InputError if the learning curve cannot be drawn; to be called before the work."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise InputError(
            "the learning curve needs matplotlib: pip install 'incontext-seg[tune]'"
        ) from None


def summary(result: TuningResult) -> list[str]:
    """Describe the result, a line each."""
    dataset, comparison = result.dataset, result.comparison
    lines = [f"learned from {len(dataset)} pictures"]
    missing = [str(i) for i in dataset.ids if i not in result.tuned_prompt.ids]
    if missing:
        lines.append(
            f"ids {', '.join(missing)} are left out: at {dataset.size} × {dataset.size} pixels "
            "nothing is left of them"
        )
    content = "the tuned prompt"
    if not comparison.improves:
        sources = [dataset.sources[i] for i in result.baseline_examples[comparison.best]]
        names = ", ".join(sources[:8]) + (" …" if len(sources) > 8 else "")
        content = f"untuned, {comparison.best}: {names}"
    return [*lines, *comparison.lines(), f"the file holds {content}"]


def write(result: TuningResult, folder: Path) -> None:
    """Write the three files."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "curve.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["fold", "step", "loss", "mIoU"])
        writer.writerows((f, s, f"{loss:.6g}", f"{v:.4g}") for f, s, loss, v in result.curve)
    text = "\n".join(result.comparison.lines()) + "\n"
    (folder / "verdict.txt").write_text(text, encoding="utf-8")
    draw(result, folder / "curve.png")


def draw(result: TuningResult, path: Path) -> None:
    """Draw loss and held-out mIoU over the steps, with the best baseline's mIoU as a line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    loss_axes, score_axes = figure.subplots(1, 2)
    folds = sorted({fold for fold, *_ in result.curve})
    for fold in folds:
        rows = [(step, loss, score) for f, step, loss, score in result.curve if f == fold]
        label = f"fold {fold + 1}" if len(folds) > 1 else None
        loss_axes.plot([r[0] for r in rows], [r[1] for r in rows], marker=".", label=label)
        score_axes.plot([r[0] for r in rows], [r[2] for r in rows], marker=".", label=label)
    best = result.comparison.best
    value = result.comparison.baselines[best].value
    score_axes.axhline(value, color="gray", linestyle="--", label=f"untuned: {best}")
    loss_axes.set(title="loss", xlabel="step")
    score_axes.set(title="mIoU on held-out pictures, percent", xlabel="step")
    score_axes.legend()
    figure.savefig(path, dpi=100)
