"""The log of a training run: two CSV files and two images."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from incontext.data.pictures import IGNORE_INDEX
from incontext.errors import InputError
from incontext.files import read_text
from incontext.training.validation import ValidationSample

OBJECT, UNKNOWN = (255, 196, 0), (90, 90, 90)


class RunLog:
    """Writes into the folder of a run.

    `log.csv` has the loss, its parts and the speed; `validation.csv` mean IoU by set and number of
    examples; `curves.png` both over the steps; `paintings.png` what the model paints now.

    Args:
        active: False writes nothing (all processes of a run but one).
    """

    def __init__(self, folder: Path, active: bool = True) -> None:
        self.folder, self.active = folder, active

    def add(self, row: Mapping[str, float]) -> None:
        """Append a line to `log.csv`."""
        self._append("log.csv", row)

    def add_validation(self, step: int, examples: int, scores: Mapping[str, float]) -> None:
        """Write scores by set, and their mean, as lines of `validation.csv`.

        They replace lines of the same step and number of examples.
        """
        rows = read_rows(self.folder / "validation.csv")
        key = (str(step), str(examples))
        self._rewrite(
            "validation.csv", rows, [r for r in rows if (r["step"], r["examples"]) != key]
        )
        mean = {"mean": float(np.mean(list(scores.values())))} if scores else {}
        for name, score in {**scores, **mean}.items():
            self._append(
                "validation.csv", {"step": step, "examples": examples, "set": name, "mIoU": score}
            )

    def forget_after(self, step: int) -> None:
        """Delete the lines of later steps: a run resumed at `step` writes them again."""
        for name in ("log.csv", "validation.csv"):
            rows = read_rows(self.folder / name)
            self._rewrite(name, rows, [row for row in rows if int(row["step"]) <= step])

    def _rewrite(self, name: str, before: list[dict[str, str]], rows: list[dict[str, str]]) -> None:
        """Keep only some rows of a file."""
        if self.active and len(rows) < len(before):
            (self.folder / name).unlink()
            for row in rows:
                self._append(name, row)

    def _append(self, name: str, row: Mapping[str, float | str]) -> None:
        if not self.active:
            return
        path = self.folder / name
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})

    def draw(self, samples: Sequence[ValidationSample] = ()) -> None:
        """Draw `curves.png`, and `paintings.png` if there are samples."""
        if not self.active:
            return
        self._draw_curves()
        if samples:
            sheet(samples).save(self.folder / "paintings.png")

    def _draw_curves(self) -> None:
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise InputError(
                "the run's curves need matplotlib: pip install 'incontext-seg[train]'"
            ) from None
        rows = read_rows(self.folder / "log.csv")
        scores = [r for r in read_rows(self.folder / "validation.csv") if r["set"] == "mean"]
        figure = Figure(figsize=(8, 4), layout="constrained")
        loss_axes, score_axes = figure.subplots(1, 2)
        for name in ("loss", "painted", "overlap", "copied"):
            points = [(int(r["step"]), float(r[name])) for r in rows if r.get(name)]
            if points:
                loss_axes.plot(*zip(*points, strict=True), label=name)
        for count in sorted({int(r["examples"]) for r in scores}):
            points = [
                (int(r["step"]), float(r["mIoU"])) for r in scores if int(r["examples"]) == count
            ]
            score_axes.plot(*zip(*points, strict=True), marker=".", label=f"examples: {count}")
        loss_axes.set(title="training loss", xlabel="step")
        score_axes.set(title="validation, mean IoU in percent", xlabel="step")
        for axes in (loss_axes, score_axes):
            if axes.lines:
                axes.legend()
        figure.savefig(self.folder / "curves.png", dpi=100)


class Meter:
    """Means since the last line of the log."""

    def __init__(self) -> None:
        self.sums: dict[str, Any] = {}
        self.steps = self.episodes = 0
        self.wait_seconds = self.seconds = 0.0

    def add(
        self, parts: dict[str, Tensor], episodes: int, wait_seconds: float, seconds: float
    ) -> None:
        """Add one step: its losses, how long it waited for its plan, and how long it took."""
        for name, value in parts.items():
            self.sums[name] = self.sums.get(name, 0) + value
        self.steps += 1
        self.episodes += episodes
        self.wait_seconds += wait_seconds
        self.seconds += seconds

    def means(self) -> dict[str, float]:
        """Return losses, episodes a second, and the share of time spent waiting for plans."""
        losses = {name: float(value) / self.steps for name, value in self.sums.items()}
        speed = {"episodes_per_s": self.episodes / self.seconds}
        return losses | speed | {"waiting": self.wait_seconds / self.seconds}


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV file; none if there is no such file."""
    if not path.is_file():
        return []
    return list(csv.DictReader(io.StringIO(read_text(path), newline="")))


def sheet(samples: Sequence[ValidationSample]) -> Image.Image:
    """Draw a row for each sample: first example, its label, query, truth, painting."""
    rows = []
    for sample in samples:
        example, query = (
            (sample.images[i].permute(1, 2, 0).numpy() * 255).astype(np.uint8) for i in (0, -1)
        )
        painting = (sample.painting.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        masks = []
        for i in (0, -1):
            ids = sample.labels[i].numpy()
            mask = np.zeros((*ids.shape, 3), np.uint8)
            mask[ids == 1], mask[ids == IGNORE_INDEX] = OBJECT, UNKNOWN
            masks.append(mask)
        rows.append(np.concatenate([example, masks[0], query, masks[1], painting], 1))
    return Image.fromarray(np.concatenate(rows, 0))
