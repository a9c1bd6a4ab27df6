"""`python -m eval bench`: mIoU on the validation sets, with baselines.

A second table has the same images for all methods: examples, a tuned prompt, a trained U-Net.
"""

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
from eval.studies.common import ImageSet, set_paths
from incontext import Predictor
from incontext.batch.inputs import file_hash
from incontext.checkpoints.location import CONFIG, locate
from incontext.errors import InputError
from incontext.evaluation.confusion import Interval, interval_around
from incontext.images.image import resize_nearest
from incontext.inference.example_views import VIEWS
from incontext.inference.predictor import ThinTo, Views
from incontext.inference.segmentation import write_text
from incontext.training.validation import BinaryEpisode, binary_episodes

# Sets of new images whose domain or classes were in the training data.
TRAINED_DOMAINS = ("horses", "nuclei", "steel", "wounds")
BASELINE_SIZE = 64  # pixels, as for the figures that came with the data
ONE_VIEW = "one-view"  # the checkpoint without close-ups and mirrored examples; only if asked for
DTYPES = ("float32", "bfloat16", "float16", "int8")
Method = Callable[[ImageSet, BinaryEpisode], np.ndarray[Any, np.dtype[np.bool_]]]


def with_model(predictor: Predictor, thin_to: ThinTo, views: Views = "auto") -> Method:
    """Return a method that segments the query by the episode's examples.

    Args:
        thin_to, views: see `Predictor.prompt`.
    """

    def method(data: ImageSet, episode: BinaryEpisode) -> Any:
        *numbers, query = episode.images
        examples = [data.example(i, episode.index) for i in numbers]
        if not any(e.labels.present for e in examples):  # the class is unknown on all of them
            return np.zeros(data.labels[query].shape, bool)
        prompt = predictor.prompt(examples, thin_to=thin_to, views=views, thumbnail=False)
        return predictor.predict(data.images[query], prompt).mask(1)

    return method


def with_baseline(baseline: Callable[..., Any]) -> Method:
    """Return a method that applies a baseline at `BASELINE_SIZE` and scales its mask back."""

    def method(data: ImageSet, episode: BinaryEpisode) -> Any:
        size = (BASELINE_SIZE, BASELINE_SIZE)

        def small(i: int) -> tuple[Any, Any]:
            image = np.asarray(data.images[i].resize(size, Image.Resampling.BICUBIC))
            return image, resize_nearest(data.labels[i] == episode.index, size)

        *numbers, query = episode.images
        mask = baseline(small(query)[0], [small(i) for i in numbers])
        return resize_nearest(mask, data.labels[query].shape)

    return method


def score(
    data: ImageSet, method: Method, examples: int, episodes: int, draw_count: int = 0
) -> list[list[int]]:
    """Return a method's rows of `FewShotIoU` on one set, one an episode.

    Args:
        draw_count: draw this number of examples, `examples` or more, and use the first of them.
            The queries depend on what is drawn, and some are harder than others; with the same
            `draw_count` they are the same for every number of examples. 0: as many as are used.
    """
    meter = FewShotIoU()
    for plan in binary_episodes(data.images_by_class, draw_count or examples, episodes):
        episode = BinaryEpisode(plan.index, [*plan.images[:examples], plan.images[-1]])
        truth, ignore_mask = data.truth(episode.images[-1], episode.index)
        meter.add(episode.index, method(data, episode), truth, ignore_mask)
    return meter.rows


class Results:
    """Rows by table, set, method and number of examples; `bench.json` keeps them for a later run.

    Args:
        run_settings: what identifies the run.

    Raises:
        InputError: the file holds a run with other settings.
    """

    def __init__(self, out: Path | None, run_settings: dict[str, Any]) -> None:
        self.path = out / "bench.json" if out else None
        self.run_settings = run_settings
        self.tables: dict[str, Any] = {"episodes": {}, "same": {}}
        if self.path and self.path.is_file():
            before = json.loads(self.path.read_text())
            # Baselines do not depend on the weights, but are quickly computed again.
            if before["about"] != run_settings:
                raise InputError(f"{self.path} holds {before['about']}; pass another --out")
            self.tables = before["tables"]

    def score(
        self, table: str, data: ImageSet, method: str, count: int, rows: Callable[[], Any]
    ) -> None:
        """Compute the rows and save them, unless the file has them."""
        row = self.tables[table].setdefault(data.name, {}).setdefault(method, {})
        if str(count) in row:
            return
        row[str(count)] = rows()
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps({"about": self.run_settings, "tables": self.tables})
            write_text(self.path, text)

    def markdown(self, table: str, columns: Sequence[tuple[str, int]]) -> str:
        """Format mIoU ± half of its 90 % interval: a row a set, then means over groups of sets."""
        lines = [
            "| set | " + " | ".join(f"{m}, {n}" for m, n in columns) + " |",
            "|---|" + "---|" * len(columns),
        ]
        meters = {
            name: [FewShotIoU(row.get(m, {}).get(str(n), [])) for m, n in columns]
            for name, row in self.tables[table].items()
        }
        lines += [
            _row(name, [_miou_cell(meter) for meter in row]) for name, row in sorted(meters.items())
        ]
        trained = [row for name, row in meters.items() if name in TRAINED_DOMAINS]
        novel = [row for name, row in meters.items() if name not in TRAINED_DOMAINS]
        groups = {"seen": trained, "novel": novel, "all": trained + novel}
        for title, rows in groups.items():
            if rows:
                cells = [_mean_cell(column) for column in zip(*rows, strict=True)]
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
    thin_to: ThinTo = "auto",
    same_queries: bool = False,
) -> Results:
    """Score the checkpoint and the baselines on every set of images in a folder.

    Args:
        same_queries: segment the same queries for every number of examples.

    Raises:
        InputError: no set there, an unknown method or dtype, results of another run in `out`.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r}; accepted: {', '.join(DTYPES)}")
    paths = set_paths(folder, only)
    predictor = Predictor.from_pretrained(checkpoint, dtype=getattr(torch, dtype))
    episode_methods: dict[str, Method] = {
        checkpoint: with_model(predictor, thin_to),
        "copy": with_baseline(copy_mask),
        "nearest": with_baseline(nearest_neighbor),
        ONE_VIEW: with_model(predictor, thin_to, views=False),
    }
    accepted = [*episode_methods, *same_images.METHODS]
    methods = list(methods) or [name for name in accepted if name != ONE_VIEW]
    if set(methods) - set(accepted):
        raise InputError(f"methods {', '.join(methods)}; accepted: {', '.join(accepted)}")
    if thin_to == "auto":
        thin_to = predictor.model.default_thin_to
    run_settings = _run_settings(checkpoint, dtype, thin_to, episodes, counts)
    if same_queries:
        run_settings["paired"] = True
    results = Results(out, {**run_settings, "data": str(folder.resolve())})
    for path in tqdm(paths, unit="set", disable=None):
        data = ImageSet.read(path)
        for name, count in ((n, c) for n in methods for c in counts):
            if name in episode_methods:
                draw_count = max(counts) if same_queries else count
                rows = partial(score, data, episode_methods[name], count, episodes, draw_count)
                results.score("episodes", data, name, count, rows)
            elif name != "tuned" or count == max(counts):
                rows = partial(same_images.score, predictor, data, name, count, max(counts))
                results.score("same", data, name, count, rows)
    text = "\n\n".join(_tables(results, methods, counts))
    print(text)
    if out:
        write_text(out / "bench.md", text + "\n")
    return results


def _run_settings(
    checkpoint: str, dtype: str, thin_to: ThinTo, episodes: int, counts: Sequence[int]
) -> dict[str, Any]:
    """Return what identifies the results of a run."""
    weights = locate(checkpoint)
    config = weights.with_name(CONFIG)
    # The config counts too: the same weights at another image size score otherwise.
    hashes = [file_hash(p) for p in (weights, config) if p.is_file()]
    return {
        "checkpoint": checkpoint, "weights": "-".join([*hashes, dtype, str(thin_to)]),
        "episodes": episodes, "most examples": max(counts), "views": VIEWS,
    }  # fmt: skip


def _tables(results: Results, methods: Sequence[str], counts: Sequence[int]) -> Iterator[str]:
    columns = [(m, n) for n in counts for m in methods if m not in same_images.METHODS]
    if columns:
        yield results.markdown("episodes", columns)
    # Tuning takes minutes, so it gets the largest number of examples only.
    columns = [
        (m, n) for n in counts for m in methods
        if m in same_images.METHODS and (m != "tuned" or n == max(counts))
    ]  # fmt: skip
    if columns:
        yield results.markdown("same", columns)


def _row(title: str, cells: Sequence[str]) -> str:
    return f"| {title} | " + " | ".join(cells) + " |"


def _cell(interval: Interval) -> str:
    return f"{interval.value:.1f} ±{(interval.high - interval.low) / 2:.1f}"


def _miou_cell(meter: FewShotIoU) -> str:
    return _cell(meter.interval()) if meter.rows else "–"


def _mean_cell(meters: Sequence[FewShotIoU]) -> str:
    """Format the mean over sets, each resampled by itself; sets without rows are left out."""
    meters = [m for m in meters if m.rows]
    if not meters:
        return "–"
    samples = np.mean([m.bootstrap(seed) for seed, m in enumerate(meters)], 0)
    mean = float(np.mean([m.miou() for m in meters]))
    return _cell(interval_around(mean, samples, sum(len(m.rows) for m in meters)))
