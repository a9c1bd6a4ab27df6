"""`python -m eval absent`: what is painted when the query does not show the object."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from eval.studies.common import ImageSet, set_paths
from incontext import Predictor
from incontext.data.pictures import read_metadata
from incontext.training.presence import PRIOR

SORTS = ("present", "same set", "other domain")  # of queries, by what they show
BINS = 10  # of presence, for its calibration error
THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)  # of presence


class Row(NamedTuple):
    """One query."""

    sort: int  # index in `SORTS`
    area: float  # painted share of the image
    presence: float


def run(
    folder: Path, checkpoint: str, names: Sequence[str], episodes: int, examples: int = 1
) -> dict[str, list[Row]]:
    """Segment queries with and without the object by the same examples, and print what is painted.

    Each episode has a query that shows the class; one of the same set that lacks it, where there
    is any; and one of a set of another domain, where there is any. The table says for each set
    which share of the queries with the object is lost (an empty mask), which of those without it
    stays empty, and how often presence ranks a query with the class above one without (AUC, 0.5 is
    chance). A second table says what other thresholds of presence would do, as a mean over sets.
    """
    predictor = Predictor.from_pretrained(checkpoint)
    all_paths = set_paths(folder)
    domains = {p.stem: read_metadata(p).get("domain", p.stem) for p in all_paths}
    data = {p.stem: ImageSet.read(p) for p in all_paths}
    rows: dict[str, list[Row]] = {}
    for name in tqdm([n for n in data if not names or n in names], unit="set", disable=None):
        others = [data[n] for n, domain in domains.items() if domain != domains[name]]
        rows[name] = score(predictor, data[name], others, episodes, examples)
    print(format_table(rows))
    print(f"\n{format_thresholds(rows)}")
    every_row = [row for some in rows.values() for row in some]
    print(f"\nCalibration error of presence, {PRIOR:.0%} of the queries with the object: "
          f"{calibration_error(every_row):.3f}")  # fmt: skip
    return rows


def score(
    predictor: Predictor, data: ImageSet, others: Sequence[ImageSet], episodes: int, examples: int
) -> list[Row]:
    """Return the rows of one set."""
    rng = np.random.default_rng(0)
    classes = [c for c, numbers in data.images_by_class.items() if len(numbers) > examples]
    rows = []
    for _ in range(episodes):
        index = int(rng.choice(classes))
        *numbers, query = rng.choice(data.images_by_class[index], examples + 1, replace=False)
        prompt = predictor.prompt([data.example(i, index) for i in numbers], thumbnail=False)
        queries = {0: data.images[query]}
        lacking = [i for i in range(len(data.images)) if i not in data.images_by_class[index]]
        if lacking:
            queries[1] = data.images[int(rng.choice(lacking))]
        if others:
            other = others[int(rng.integers(len(others)))]
            queries[2] = other.images[int(rng.integers(len(other.images)))]
        results = predictor.predict(list(queries.values()), prompt)
        rows += [
            Row(sort, float(result.mask(1).mean()), result.presence[1])
            for sort, result in zip(queries, results, strict=True)
        ]
    return rows


def format_table(rows: dict[str, list[Row]]) -> str:
    """Format a row for each set, then the means over sets."""
    lines = [
        "| set | present: lost | absent, same set: empty | other domain: empty | AUC, same set | "
        "AUC, other domain |",
        "|---|---|---|---|---|---|",
    ]
    table = []
    for name, some in rows.items():
        empty = [[row.area == 0 for row in some if row.sort == sort] for sort in range(3)]
        cells = [100 * float(np.mean(x)) if x else float("nan") for x in empty]
        cells += [rank(some, 1), rank(some, 2)]
        table.append(cells)
        lines.append(f"| {name} | {_cells(cells)} |")
    return "\n".join([*lines, f"| **mean** | {_cells(np.nanmean(table, 0).tolist())} |"])


def format_thresholds(rows: dict[str, list[Row]]) -> str:
    """Format what becomes of queries at each of `THRESHOLDS`: means over sets, in percent."""
    lines = ["| presence below | present: lost | absent, same set: empty | other domain: empty |",
             "|---|---|---|---|"]  # fmt: skip
    for threshold in THRESHOLDS:
        below = [
            [float(np.mean(part)) if part else np.nan for part in _below(some, threshold)]
            for some in rows.values()
        ]
        means = [float(np.nanmean(x)) if any(x >= 0) else np.nan for x in np.array(below).T]
        lines.append(f"| {threshold} | {_cells([100 * x for x in means])} |")
    return "\n".join(lines)


def _below(rows: Sequence[Row], threshold: float) -> list[list[bool]]:
    """Return of each sort of queries whether their presence is below a threshold."""
    return [[row.presence < threshold for row in rows if row.sort == s] for s in range(len(SORTS))]


def _cells(cells: Sequence[float]) -> str:
    texts = [f"{x:.0f} %" for x in cells[:3]] + [f"{x:.2f}" for x in cells[3:]]
    return " | ".join("–" if "nan" in text else text for text in texts)


def rank(rows: Sequence[Row], sort: int) -> float:
    """Return how often presence is higher in a query with the object than in one of a sort."""
    present, absent = (np.array([r.presence for r in rows if r.sort == s]) for s in (0, sort))
    if not len(absent):
        return float("nan")
    difference = present[:, None] - absent[None]
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def calibration_error(rows: Sequence[Row]) -> float:
    """Return the expected calibration error of presence: |presence − share present|, in bins.

    Queries with the object count as `PRIOR` of all.
    """
    present = np.array([row.sort == 0 for row in rows])
    presence = np.array([row.presence for row in rows])
    weight = np.where(present, PRIOR / present.sum(), (1 - PRIOR) / (~present).sum())
    bins = np.minimum((presence * BINS).astype(int), BINS - 1)
    error = 0.0
    for number in np.unique(bins):
        inside = bins == number
        gap = np.sum(weight[inside] * (presence[inside] - present[inside]))
        error += abs(float(gap))
    return error
