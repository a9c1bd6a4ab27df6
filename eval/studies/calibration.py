"""`python -m eval calibration`: do confidence and quality mean what they say?"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torchmetrics.functional import mean_absolute_error, spearman_corrcoef
from tqdm import tqdm

from eval.studies.common import ImageSet, set_paths
from incontext import Predictor
from incontext.data.pictures import IGNORE_INDEX
from incontext.inference.predictor import Views

BINS = 10  # of confidence
BAD = 0.3  # IoU below which a result is a bad one


@dataclass
class Answers:
    """What was said of queries that show the object, and what is true."""

    quality: list[float] = field(default_factory=list)
    iou: list[float] = field(default_factory=list)
    # Of pixels, for each bin of confidence: their number, the sum of their confidence, how many
    # have the right label.
    pixels: np.ndarray = field(default_factory=lambda: np.zeros((3, BINS)))

    def add(
        self, labels: np.ndarray, confidence: np.ndarray, quality: float, truth: np.ndarray
    ) -> None:
        """Add a query: (H, W) each, `truth` with `IGNORE_INDEX` where it is unknown."""
        valid = truth != IGNORE_INDEX
        labels, confidence, truth = labels[valid], confidence[valid], truth[valid]
        union = ((labels == 1) | (truth == 1)).sum()
        self.quality.append(quality)
        self.iou.append(float(((labels == 1) & (truth == 1)).sum() / max(1, union)))
        bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
        for row, weight in enumerate((None, confidence, labels == truth)):
            self.pixels[row] += np.bincount(bins, weight, BINS)

    def join(self, other: "Answers") -> None:
        """Add all of another."""
        self.quality += other.quality
        self.iou += other.iou
        self.pixels = self.pixels + other.pixels

    def pixel_error(self) -> float:
        """Return the expected calibration error of confidence: |mean − share right|, in bins."""
        count, confidence, right = self.pixels
        return float(np.abs(confidence - right).sum() / max(1.0, count.sum()))

    def quality_cells(self) -> list[float]:
        """Return rank correlation and mean absolute error of quality, and `bad_in_worst_third`."""
        quality, iou = torch.tensor(self.quality), torch.tensor(self.iou)
        return [
            float(spearman_corrcoef(quality, iou)), float(mean_absolute_error(quality, iou)),
            bad_in_worst_third(self.quality, self.iou),
        ]  # fmt: skip


def bad_in_worst_third(quality: Sequence[float], iou: Sequence[float]) -> float:
    """Return the share of bad results that are in the third of least quality; NaN without any."""
    order = np.argsort(quality, kind="stable")
    bad = np.asarray(iou)[order] < BAD
    return float(bad[: len(bad) // 3].sum() / bad.sum()) if bad.any() else float("nan")


def run(
    folder: Path,
    checkpoint: str,
    names: Sequence[str],
    episodes: int,
    examples: int = 1,
    views: Views = "auto",
) -> dict[str, Answers]:
    """Segment queries that show the object; print a table, and the reliability of pixels."""
    predictor = Predictor.from_pretrained(checkpoint)
    answers = {}
    for path in tqdm(set_paths(folder, names), unit="set", disable=None):
        answers[path.stem] = score(predictor, ImageSet.read(path), episodes, examples, views)
    print(format_table(answers))
    return answers


def score(
    predictor: Predictor, data: ImageSet, episodes: int, examples: int, views: Views
) -> Answers:
    """Return the answers of one set; `views`: see `Predictor.prompt`."""
    rng = np.random.default_rng(0)
    classes = [c for c, numbers in data.images_by_class.items() if len(numbers) > examples]
    answers = Answers()
    for _ in range(episodes):
        index = int(rng.choice(classes))
        *numbers, query = rng.choice(data.images_by_class[index], examples + 1, replace=False)
        shots = [data.example(i, index) for i in numbers]
        prompt = predictor.prompt(shots, views=views, thumbnail=False)
        result = predictor.predict(data.images[query], prompt)
        truth = data.binary_ids(int(query), index)
        truth = np.where(truth < 0, IGNORE_INDEX, truth)
        answers.add(result.labels, result.confidence, result.quality[1], truth)
    return answers


def format_table(answers: dict[str, Answers]) -> str:
    """Format a row for each set, a last one of all results, and the reliability of pixels."""
    lines = [
        "| set | mean IoU | mean quality | rank correlation | mean error | bad in worst third | "
        "calibration error of confidence |",
        "|---|---|---|---|---|---|---|",
    ]
    every = Answers()
    for name, some in answers.items():
        every.join(some)
        lines.append(_row(name, some, some.pixel_error()))
    mean = float(np.mean([some.pixel_error() for some in answers.values()]))
    lines += [_row("**all**", every, mean), "", "| confidence | pixels | right |", "|---|---|---|"]
    shares = [some.pixels / some.pixels[0].sum() for some in answers.values()]
    count, _, right = np.mean(shares, 0)  # every set counts alike
    for number in range(BINS):
        if count[number]:
            span = f"{number / BINS:.1f}–{(number + 1) / BINS:.1f}"
            lines.append(f"| {span} | {count[number]:.1%} | {right[number] / count[number]:.0%} |")
    return "\n".join(lines)


def _row(name: str, answers: Answers, error: float) -> str:
    rank, gap, bad = answers.quality_cells()
    cells = [np.mean(answers.iou), np.mean(answers.quality), rank, gap]
    texts = [f"{cell:.2f}" for cell in cells] + [f"{bad:.0%}", f"{error:.3f}"]
    return f"| {name} | " + " | ".join("–" if "nan" in t else t for t in texts) + " |"
