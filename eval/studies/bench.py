"""`python -m eval bench`: mIoU on the validation sets beside baselines, and the same pictures for
a tuned prompt and a trained U-Net."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from eval.core.metrics import FewShotIoU
from eval.studies import same_images
from eval.studies.baselines import copy_mask, nearest_neighbor
from eval.studies.common import ImageSet, binary_ids, still_sets
from incontext import Example, Predictor
from incontext.batch.inputs import file_hash
from incontext.checkpoints.checkpoint import CONFIG, locate
from incontext.errors import InputError
from incontext.evaluation.confusion import Interval, interval_around
from incontext.images.image import resize_nearest
from incontext.inference.predictor import THIN_TO
from incontext.inference.segmentation import write_text
from incontext.training.validation import BinaryEpisode, binary_episodes

# New pictures of domains or classes that training has seen.
SEEN = ("horses", "nuclei", "steel", "wounds")
BASELINE_SIZE = 64  # pixels; the setting in which the data's own orientation figures stand
Method = Callable[[ImageSet, BinaryEpisode], np.ndarray[Any, np.dtype[np.bool_]]]


def with_model(predictor: Predictor, thin_to: int | None) -> Method:
    """Segment the query by the episode's examples, see `Predictor.prompt` for `thin_to`."""

    def method(data: ImageSet, episode: BinaryEpisode) -> Any:
        *shown, query = episode.images
        examples = [
            Example(data.images[i], binary_ids(data.labels[i], episode.index), ignore=-1)
            for i in shown
        ]
        if not any(e.labels.present for e in examples):  # the class is all ignored there
            return np.zeros(data.labels[query].shape, bool)
        prompt = predictor.prompt(examples, kind="semantic", thin_to=thin_to, thumbnail=False)
        return predictor.predict(data.images[query], prompt).mask(1)

    return method


def with_baseline(rule: Callable[..., Any]) -> Method:
    """Apply a baseline at `BASELINE_SIZE`, its answer scaled to the query."""

    def method(data: ImageSet, episode: BinaryEpisode) -> Any:
        size = (BASELINE_SIZE, BASELINE_SIZE)

        def small(i: int) -> tuple[Any, Any]:
            picture = np.asarray(data.images[i].resize(size, Image.Resampling.BICUBIC))
            return picture, resize_nearest(data.labels[i] == episode.index, size)

        *shown, query = episode.images
        answer = rule(small(query)[0], [small(i) for i in shown])
        return resize_nearest(answer, data.labels[query].shape)

    return method


def score(data: ImageSet, method: Method, examples: int, episodes: int) -> list[list[int]]:
    """Rows of `FewShotIoU`, one an episode, of a method on one set."""
    meter = FewShotIoU()
    for episode in binary_episodes(data.holders, examples, episodes):
        truth = data.labels[episode.images[-1]]
        meter.add(episode.index, method(data, episode), truth == episode.index, truth == 255)
    return meter.rows


class Results:
    """Rows by table, set, method and number of examples, kept in `bench.json`: a run can go on."""

    def __init__(self, out: Path | None, about: dict[str, Any]) -> None:
        self.path = out / "bench.json" if out else None
        self.about = about
        self.tables: dict[str, Any] = {"episodes": {}, "same": {}}
        if self.path and self.path.is_file():
            before = json.loads(self.path.read_text())
            if before["about"] != about:  # baselines do not depend on the weights, but are quick
                raise InputError(f"{self.path} holds {before['about']}; pass another --out")
            self.tables = before["tables"]

    def score(
        self, table: str, data: ImageSet, method: str, count: int, rows: Callable[[], Any]
    ) -> None:
        """Ask for rows unless that was done before, and save."""
        row = self.tables[table].setdefault(data.name, {}).setdefault(method, {})
        if str(count) in row:
            return
        row[str(count)] = rows()
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps({"about": self.about, "tables": self.tables})
            write_text(self.path, text)

    def markdown(self, table: str, columns: Sequence[tuple[str, int]]) -> str:
        """mIoU ± half of its 90 % interval: a row a set, then means over groups of sets."""
        lines = [
            "| set | " + " | ".join(f"{m}, {n}" for m, n in columns) + " |",
            "|---|" + "---|" * len(columns),
        ]
        meters = {
            name: [FewShotIoU(row.get(m, {}).get(str(n), [])) for m, n in columns]
            for name, row in self.tables[table].items()
        }
        lines += [_row(name, [_one(m) for m in row]) for name, row in sorted(meters.items())]
        seen = [row for name, row in meters.items() if name in SEEN]
        novel = [row for name, row in meters.items() if name not in SEEN]
        groups = {"seen": seen, "novel": novel, "all": seen + novel}
        for title, rows in groups.items():
            if rows:
                cells = [_mean(column) for column in zip(*rows, strict=True)]
                lines.append(_row(f"**mean, {title}**", cells))
        return "\n".join(lines)


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
) -> Results:
    """Score the checkpoint and the baselines on every still-picture set of a folder.

    Raises:
        InputError: no set there, an unknown method or dtype, results of another run in `out`.
    """
    if dtype not in ("float32", "bfloat16", "float16", "int8"):
        raise InputError(f"dtype {dtype!r}; accepted: float32, bfloat16, float16, int8")
    paths = still_sets(folder, only)
    predictor = Predictor.from_pretrained(checkpoint, dtype=getattr(torch, dtype))
    known: dict[str, Method] = {
        checkpoint: with_model(predictor, thin_to),
        "copy": with_baseline(copy_mask),
        "nearest": with_baseline(nearest_neighbor),
    }
    wanted = list(methods) or [*known, *same_images.METHODS]
    if set(wanted) - known.keys() - same_images.METHODS.keys():
        raise InputError(
            f"methods {', '.join(wanted)}; accepted: {', '.join([*known, *same_images.METHODS])}"
        )
    about = _about(checkpoint, dtype, thin_to, episodes, counts)
    results = Results(out, {**about, "data": str(folder.resolve())})
    for path in tqdm(paths, unit="set", disable=None):
        data = ImageSet.read(path)
        for name, count in ((n, c) for n in wanted for c in counts):
            if name in known:
                rows = partial(score, data, known[name], count, episodes)
                results.score("episodes", data, name, count, rows)
            elif name != "tuned" or count == max(counts):
                rows = partial(same_images.score, predictor, data, name, count, max(counts))
                results.score("same", data, name, count, rows)
    text = "\n\n".join(_tables(results, wanted, counts))
    print(text)
    if out:
        write_text(out / "bench.md", text + "\n")
    return results


def _about(
    checkpoint: str, dtype: str, thin_to: int | None, episodes: int, counts: Sequence[int]
) -> dict[str, Any]:
    """What tells results of one run from another's."""
    weights = locate(checkpoint)
    config = weights.with_name(CONFIG)
    # The same weights at another size of the pictures score otherwise.
    hashes = [file_hash(p) for p in (weights, config) if p.is_file()]
    return {
        "checkpoint": checkpoint, "weights": "-".join([*hashes, dtype, str(thin_to)]),
        "episodes": episodes, "most examples": max(counts),
    }  # fmt: skip


def _tables(results: Results, wanted: Sequence[str], counts: Sequence[int]) -> Iterator[str]:
    here = [m for m in wanted if m not in same_images.METHODS]
    if here:
        yield results.markdown("episodes", [(m, n) for n in counts for m in here])
    here = [m for m in wanted if m in same_images.METHODS]
    if here:
        columns = [(m, n) for n in counts for m in here if m != "tuned" or n == max(counts)]
        yield results.markdown("same", columns)


def _row(title: str, cells: Sequence[str]) -> str:
    return f"| {title} | " + " | ".join(cells) + " |"


def _cell(interval: Interval) -> str:
    return f"{interval.value:.1f} ±{(interval.high - interval.low) / 2:.1f}"


def _one(meter: FewShotIoU) -> str:
    return _cell(meter.interval()) if meter.rows else "–"


def _mean(meters: Sequence[FewShotIoU]) -> str:
    """Mean over sets, each resampled by itself."""
    full = [m for m in meters if m.rows]
    if not full:
        return "–"
    drawn = np.mean([m.drawn(seed) for seed, m in enumerate(full)], 0)
    mean = float(np.mean([m.miou() for m in full]))
    return _cell(interval_around(mean, drawn, sum(len(m.rows) for m in full)))
