"""`python -m eval DATASET`: few-shot mIoU, FB-IoU and Dice by the dataset's protocol."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eval.core.metrics import FewShotIoU
from eval.core.processes import Processes
from eval.core.protocol import Episode, FewShot, Item
from eval.core.report import Row, write_report
from eval.core.setting import Setting, class_and_ignore_masks
from eval.core.shared_work import Task, run_tasks
from incontext.errors import InputError
from incontext.evaluation.confusion import interval_around

Segment = Callable[[Sequence[Item], Image.Image], Any]  # examples, query → mask (H, W) bool


def run(
    protocol: FewShot, folder: Path, setting: Setting, folds: Sequence[int], shots: Sequence[int],
    max_episodes: int | None = None, out: Path | None = None,
) -> list[Row]:  # fmt: skip
    """Evaluate on folds with each number of examples; print and write a table.

    Args:
        max_episodes: of a fold; None: all of the protocol's.
        out: folder for the journal (a run that was killed goes on there), NAME.json and NAME.md.

    Raises:
        InputError: no such fold, data that cannot be read, another run in `out`.
    """
    wrong = [fold for fold in folds if not 0 <= fold < protocol.folds]
    if wrong or min(shots, default=0) < 1:
        raise InputError(
            f"folds {list(folds)}, examples {list(shots)}; accepted: folds 0 … "
            f"{protocol.folds - 1}, examples from 1 on"
        )
    processes = Processes.from_environment()
    predictor = setting.load_predictor(processes)
    run_settings = {
        "dataset": protocol.name, "data": str(folder.resolve()), **setting.run_settings(predictor)
    }  # fmt: skip
    segment = partial(setting.segment, predictor)
    tasks = [
        episode_task(
            _key(fold, count), protocol.episodes(folder, fold, count)[:max_episodes], segment
        )
        for count in shots
        for fold in folds
    ]
    results = run_tasks(tasks, protocol.name, run_settings, out, processes)
    rows = [
        _row(protocol, setting, folds, count, [
            FewShotIoU(results[_key(fold, count)]) for fold in folds
        ]) for count in shots
    ]  # fmt: skip
    if processes.first:
        write_report(protocol.title, run_settings, rows, protocol.published, out, protocol.name)
    return rows


def _key(fold: int, count: int) -> str:
    return f"fold {fold}, {count}"


def episode_task(key: str, episodes: Sequence[Episode], segment: Segment) -> Task:
    """Return a task of one row of `FewShotIoU` an episode."""

    def row(number: int) -> list[int]:
        episode = episodes[number]
        image, ids = episode.query.read()
        truth, ignore_mask = class_and_ignore_masks(ids)
        meter = FewShotIoU()
        meter.add(episode.index, segment(episode.examples, image), truth, ignore_mask)
        return meter.rows[0]

    return Task(key, [episode.name for episode in episodes], lambda: row)


def _row(
    protocol: FewShot, setting: Setting, folds: Sequence[int], count: int,
    meters: Sequence[FewShotIoU],
) -> Row:  # fmt: skip
    """Average over folds; the interval resamples the episodes of each fold."""

    def mean(metric: Callable[[FewShotIoU], float]) -> float:
        return float(np.mean([metric(meter) for meter in meters]))

    samples = np.mean([meter.bootstrap(seed) for seed, meter in enumerate(meters)], 0)
    episodes = sum(len(meter.rows) for meter in meters)
    figures: dict[str, Any] = {
        "mIoU": interval_around(mean(FewShotIoU.miou), samples, episodes),
        "FB-IoU": mean(FewShotIoU.fb_iou),
        "Dice": mean(FewShotIoU.dice),
    }
    detail = {
        f"fold {fold}": {
            "mIoU": meter.miou(), "FB-IoU": meter.fb_iou(), "episodes": len(meter.rows),
            "classes": meter.per_class(),
        }
        for fold, meter in zip(folds, meters, strict=True)
    }  # fmt: skip
    title = f"{count} example{'s' if count > 1 else ''}, {setting.ensemble} ensemble"
    prefix = f"{len(folds)} of {protocol.folds} folds, " if protocol.folds > 1 else ""
    data = f"{prefix}{episodes} episodes"
    return Row(title, figures, setting.domain(protocol.image_source), data, detail)
