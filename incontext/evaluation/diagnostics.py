"""Diagnostics: what episodes and images tell about single examples and ids.

Letters: E episodes, M images, K ids, C = K + 1 with the background first,
R bootstrap resamples.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.nn.functional as F

from incontext.evaluation.confusion import Counts, Interval, interval_around, miou, resamples
from incontext.evaluation.episodes import Episode
from incontext.evaluation.labelled_set import LabelledSet, occurrence

OUTLIER = 4.0  # robust deviations: twice as an example, once as a query
HARMFUL_LOSS = 2.0  # points of mIoU; an example that costs less is not named
CONFUSED_SHARE = 0.15  # of an id's pixels, painted as another
DUPLICATE_DIFFERENCE = 6.0  # mean over two small gray images, 0–255, below which they are alike
THUMBNAIL_SIZE = 24  # pixels
SAME_LABELS_SHARE = 0.8  # of labelled pixels that two masks of one image agree on


@dataclass(frozen=True)
class ExampleEffect:
    """What one example does to other images, and how well they agree with its mask.

    Attributes:
        gain: points of mIoU that others gain or lose by it, against the median example.
        agreement: mIoU of its own labels with what the others paint on it.
        usual: the median of that over all examples.
        why: "mask" or "unlike" if the example is harmful.
    """

    source: str
    gain: float
    agreement: float
    usual: float
    why: str = ""


def discount_missing_ids(dataset: LabelledSet, episodes: list[Episode], counts: Counts) -> Counts:
    """Count ids that no example of an episode shows as background.

    An example cannot be blamed for what it does not show.
    """
    occurs, counts = occurrence(dataset), counts.copy()
    for number, episode in enumerate(episodes):
        missing = 1 + np.flatnonzero(~occurs[list(episode.examples)].any(0))
        counts[number, 0] += counts[number, missing].sum(0)
        counts[number, missing] = 0
    return counts


def example_effects(
    dataset: LabelledSet, episodes: list[Episode], counts: Counts
) -> tuple[list[ExampleEffect], list[int]]:
    """Estimate what each example does; return the effects, worst first, and their indices.

    The mIoU of an episode is modelled as the query's own level plus the mean effect of its
    examples (least squares, lightly damped). A bad mask shows twice: queries with it as an example
    come out worse, and its own labels disagree with what all the others paint.
    """
    values = miou(counts[:, None])
    usable = [n for n, value in enumerate(values) if not np.isnan(value)]
    level, effect = _fit(len(dataset), [episodes[n] for n in usable], values[usable])
    examples = dataset.indices_with_objects()
    effect = effect - np.median(effect[examples])
    scores_by_query: list[list[float]] = [[] for _ in range(len(dataset))]
    for n in usable:
        scores_by_query[episodes[n].query].append(values[n])
    agreement = np.array([np.mean(scores) if scores else np.nan for scores in scores_by_query])
    as_example = _robust_deviation(effect, effect[examples])
    as_query = _robust_deviation(level, level[examples])
    oddness = np.minimum(as_example, 0) * 2 + np.minimum(as_query, 0)
    harmful = (effect < -HARMFUL_LOSS) & (oddness < -OUTLIER)
    # Harmful examples come first; images without an object are queries only.
    rank = np.where(harmful, oddness - 1e6, effect)
    order = [i for i in np.argsort(rank, kind="stable").tolist() if i in set(examples)]
    agreements = [agreement[i] for i in examples if scores_by_query[i]]
    usual = float(np.median(agreements)) if agreements else float("nan")
    effects = []
    for i in order:
        why = ("mask" if as_query[i] < -1 else "unlike") if harmful[i] else ""
        effects.append(
            ExampleEffect(dataset.sources[i], float(effect[i]), float(agreement[i]), usual, why)
        )
    return effects, order


def _fit(size: int, episodes: list[Episode], values: Any) -> tuple[Any, Any]:
    """Fit levels of queries and effects of examples to the mIoU of episodes, (M,) each."""
    rows = np.zeros((len(episodes), 2 * size))
    for row, episode in zip(rows, episodes, strict=True):
        row[episode.query] = 1
        row[[size + i for i in episode.examples]] = 1 / len(episode.examples)
    damping = np.diag([1e-3] * size + [0.5] * size)
    solution = np.linalg.solve(rows.T @ rows + damping, rows.T @ values)
    return solution[:size], solution[size:]


def _robust_deviation(values: Any, sample: Any) -> Any:
    """Return how far values are from a sample's median, in its robust deviations (at least 3)."""
    middle = np.median(sample)
    spread = 1.4826 * np.median(np.abs(sample - middle))  # of a normal distribution: its σ
    return (values - middle) / max(3.0, float(spread))


def predicted_curve(
    episodes: list[Episode], full: dict[int, int], counts: Counts, images: int, examples: int
) -> dict[int, Interval]:
    """Predict the mIoU on new images by the number of examples, with intervals.

    A bootstrap over the images, which are both queries and examples: an episode weighs as often as
    its query was drawn, times how often its examples were drawn on average. Episodes with all
    other images stand for all examples.

    Args:
        full: see `plan_leave_one_out`.
        images, examples: number of images, and of those that are examples.
    """
    weights = resamples(images)
    by_size: dict[int, list[int]] = {}
    for number, episode in enumerate(episodes):
        if full.get(episode.query) != number:
            by_size.setdefault(len(episode.examples), []).append(number)
    by_size[examples] = list(full.values())
    curve = {}
    for size, numbers in sorted(by_size.items()):
        queries = weights[:, [episodes[n].query for n in numbers]]
        examples_drawn = np.stack(
            [weights[:, list(episodes[n].examples)].mean(1) for n in numbers], 1
        )
        sums = np.einsum("re,eab->rab", queries * examples_drawn, counts[numbers].astype(float))
        value = float(miou(counts[numbers]))
        curve[size] = interval_around(value, miou(sums[:, None]), examples)
    return curve


def near_duplicates(dataset: LabelledSet) -> list[tuple[int, int, bool]]:
    """Return pairs of nearly equal images, by index, and whether their labels agree too."""
    gray = dataset.images.float().mean(1, keepdim=True)
    thumbnails = F.adaptive_avg_pool2d(gray, THUMBNAIL_SIZE).flatten(1).numpy()
    pairs = []
    for i in range(len(dataset)):
        differences = np.abs(thumbnails[i + 1 :] - thumbnails[i]).mean(1)
        for j in (i + 1 + np.flatnonzero(differences < DUPLICATE_DIFFERENCE)).tolist():
            first, second = dataset.labels[i], dataset.labels[j]
            objects = (first > 0) | (second > 0)
            same = float((first == second)[objects].float().mean()) if objects.any() else 1.0
            pairs.append((i, j, same > SAME_LABELS_SHARE))
    return pairs


def confusions(dataset: LabelledSet, total: Any) -> list[tuple[int, int, float]]:
    """Return ids whose pixels are often painted as another: (id, the other, share), worst first.

    Args:
        total: (C, C) counts over all queries.
    """
    shares = total / np.maximum(total.sum(1, keepdims=True), 1)
    pairs = [
        (dataset.ids[a - 1], dataset.ids[b - 1], float(shares[a, b]))
        for a in range(1, len(total))
        for b in range(1, len(total))
        if a != b and shares[a, b] > CONFUSED_SHARE
    ]
    return sorted(pairs, key=lambda pair: -pair[2])


def small_ids(dataset: LabelledSet, patch_pixels: int) -> list[tuple[int, float, float]]:
    """Return ids whose objects are usually smaller than a patch at the model's size.

    Returns:
        (id, median pixels at the model's size, median pixels in the image itself, which a tile of
        the model's size would show).
    """
    result = []
    image_pixels = np.array([width * height for width, height in dataset.sizes])
    for column, index in enumerate(dataset.ids):
        present = dataset.areas[:, column] > 0
        full_area = dataset.areas[present, column]
        area = full_area * dataset.size**2 / image_pixels[present]
        if np.median(area) < patch_pixels:
            result.append((index, float(np.median(area)), float(np.median(full_area))))
    return result
