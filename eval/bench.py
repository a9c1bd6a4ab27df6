"""`python -m eval bench`: mIoU on the validation sets beside two baselines without a model."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from eval.baselines import copy_mask, nearest_neighbor
from eval.common import LabelledSet, binary_ids, still_sets
from eval.metrics import FewShotIoU
from incontext import Example, Predictor
from incontext.checkpoint import CONFIG, locate
from incontext.errors import InputError
from incontext.image import resize_nearest
from incontext.predictor import THIN_TO
from incontext.targets import file_hash
from incontext.validation import BinaryEpisode, binary_episodes

# New pictures of domains or classes that training has seen.
SEEN = ("horses", "nuclei", "steel", "wounds")
BASELINE_SIZE = 64  # pixels; the setting in which the data's own orientation figures stand
Method = Callable[[LabelledSet, BinaryEpisode], np.ndarray[Any, np.dtype[np.bool_]]]


def with_model(predictor: Predictor, thin_to: int | None) -> Method:
    """Segment the query by the episode's examples, see `Predictor.prompt` for `thin_to`."""

    def method(data: LabelledSet, episode: BinaryEpisode) -> Any:
        *shown, query = episode.pictures
        examples = [
            Example(data.images[i], binary_ids(data.labels[i], episode.index), ignore=-1)
            for i in shown
        ]
        if not any(e.labels.present for e in examples):  # the class is all ignored there
            return np.zeros(data.labels[query].shape, bool)
        prompt = predictor.prompt(examples, kind="semantic", thin_to=thin_to)
        return predictor.predict(data.images[query], prompt).mask(1)

    return method


def with_baseline(rule: Callable[..., Any]) -> Method:
    """Apply a baseline at `BASELINE_SIZE`, its answer scaled to the query."""

    def method(data: LabelledSet, episode: BinaryEpisode) -> Any:
        size = (BASELINE_SIZE, BASELINE_SIZE)

        def small(i: int) -> tuple[Any, Any]:
            picture = np.asarray(data.images[i].resize(size, Image.Resampling.BICUBIC))
            return picture, resize_nearest(data.labels[i] == episode.index, size)

        *shown, query = episode.pictures
        answer = rule(small(query)[0], [small(i) for i in shown])
        return resize_nearest(answer, data.labels[query].shape)

    return method


def score(data: LabelledSet, method: Method, examples: int, episodes: int) -> dict[str, Any]:
    """mIoU and FB-IoU of a method on one set."""
    meter = FewShotIoU()
    for episode in binary_episodes(data.holders, examples, episodes):
        truth = data.labels[episode.pictures[-1]]
        meter.add(episode.index, method(data, episode), truth == episode.index, truth == 255)
    return {"mIoU": meter.miou(), "FB-IoU": meter.fb_iou(), "classes": meter.per_class()}


class Results:
    """Scores by set, method and number of examples; kept in `bench.json`, so a run can go on."""

    def __init__(self, out: Path | None, about: dict[str, Any]) -> None:
        self.path = out / "bench.json" if out else None
        self.about = about
        self.sets: dict[str, Any] = {}
        if self.path and self.path.is_file():
            before = json.loads(self.path.read_text())
            if before["episodes"] == about["episodes"]:
                self.sets = before["sets"]
            if before["weights"] != about["weights"]:  # another model of the same name
                for row in self.sets.values():
                    row.pop(about["checkpoint"], None)

    def score(self, data: LabelledSet, name: str, method: Method, examples: int) -> None:
        """Score a method unless that was done before, and save."""
        row = self.sets.setdefault(data.name, {}).setdefault(name, {})
        if str(examples) not in row:
            row[str(examples)] = score(data, method, examples, self.about["episodes"])
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps({**self.about, "sets": self.sets}, indent=1))


def run(
    folder: Path,
    checkpoint: str,
    counts: Sequence[int],
    episodes: int,
    out: Path | None = None,
    only: Sequence[str] = (),
    methods: Sequence[str] = (),
    dtype: str = "float32",
    thin_to: int | None = THIN_TO,
) -> dict[str, Any]:
    """Score the checkpoint and the baselines on every still-picture set of a folder.

    Raises:
        InputError: no set there, an unknown method or dtype.
    """
    if dtype not in ("float32", "bfloat16", "float16", "int8"):
        raise InputError(f"dtype {dtype!r}; accepted: float32, bfloat16, float16, int8")
    paths = still_sets(folder, only)
    predictor = Predictor.from_pretrained(checkpoint, dtype=getattr(torch, dtype))
    known: dict[str, Method] = {
        "copy": with_baseline(copy_mask),
        "nearest": with_baseline(nearest_neighbor),
        checkpoint: with_model(predictor, thin_to),
    }
    wanted = list(methods) or list(known)
    if set(wanted) - known.keys():
        raise InputError(f"methods {', '.join(wanted)}; accepted: {', '.join(known)}")
    weights = locate(checkpoint)
    config = weights.with_name(CONFIG)
    # The same weights at another size of the pictures score otherwise.
    hashes = [file_hash(p) for p in (weights, config) if p.is_file()]
    about = {
        "checkpoint": checkpoint,
        "weights": "-".join([*hashes, dtype, str(thin_to)]),
        "episodes": episodes,
    }
    results = Results(out, about)
    for path in tqdm(paths, unit="set", disable=None):
        data = LabelledSet.read(path)
        for name in wanted:
            for count in counts:
                results.score(data, name, known[name], count)
    text = markdown(results.sets, wanted, counts)
    print(text)
    if out:
        (out / "bench.md").write_text(text + "\n")
    return results.sets


def markdown(table: dict[str, Any], methods: Sequence[str], counts: Sequence[int]) -> str:
    """mIoU as a table: a row a set, then means over seen, novel and all sets."""
    columns = [(m, n) for n in counts for m in methods]
    lines = [
        "| set | " + " | ".join(f"{m}, {n}" for m, n in columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    values = {name: [row[m][str(n)]["mIoU"] for m, n in columns] for name, row in table.items()}
    lines += [f"| {name} | " + " | ".join(_cells(row)) + " |" for name, row in values.items()]
    groups = {
        "mean, seen": [v for name, v in values.items() if name in SEEN],
        "mean, novel": [v for name, v in values.items() if name not in SEEN],
        "mean, all": list(values.values()),
    }
    for title, rows in groups.items():
        if rows:
            means = _cells([float(np.nanmean(c)) for c in zip(*rows, strict=True)])
            lines.append(f"| **{title}** | " + " | ".join(means) + " |")
    return "\n".join(lines)


def _cells(values: Sequence[float]) -> list[str]:
    return ["–" if np.isnan(v) else f"{v:.1f}" for v in values]
