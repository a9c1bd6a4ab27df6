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
from eval.core.report import Row, write
from eval.core.setting import Setting, known
from eval.core.shared_work import Part, complete
from incontext.errors import InputError
from incontext.evaluation.confusion import interval_around

Answer = Callable[[Sequence[Item], Image.Image], Any]  # → mask (H, W) bool


def run(
    protocol: FewShot, folder: Path, setting: Setting, folds: Sequence[int], shots: Sequence[int],
    most: int | None = None, out: Path | None = None,
) -> list[Row]:  # fmt: skip
    """Evaluate on folds with each number of examples; print and write a table.

    Args:
        most: episodes of a fold, at most; None: all of the protocol's.
        out: folder for what is done (a run that was killed goes on there), NAME.json and NAME.md.

    Raises:
        InputError: a fold that is not there, data that cannot be read, another run in `out`.
    """
    wrong = [fold for fold in folds if not 0 <= fold < protocol.folds]
    if wrong or min(shots, default=0) < 1:
        raise InputError(
            f"folds {list(folds)}, examples {list(shots)}; accepted: folds 0 … "
            f"{protocol.folds - 1}, examples from 1 on"
        )
    processes = Processes.here()
    predictor = setting.open(processes)
    about = {"dataset": protocol.name, "data": str(folder.resolve()), **setting.about(predictor)}
    answer = partial(setting.answer, predictor)
    parts = [
        part(f"fold {fold}, {count}", protocol.episodes(folder, fold, count)[:most], answer)
        for count in shots
        for fold in folds
    ]
    done = complete(parts, protocol.name, about, out, processes)
    rows = [
        _row(protocol, setting, folds, count, [
            FewShotIoU(done[f"fold {fold}, {count}"]) for fold in folds
        ]) for count in shots
    ]  # fmt: skip
    if processes.first:
        write(protocol.title, about, rows, protocol.published, out, protocol.name)
    return rows


def part(key: str, episodes: Sequence[Episode], answer: Answer) -> Part:
    """Episodes as work; a row of `FewShotIoU` each."""

    def row(number: int) -> list[int]:
        episode = episodes[number]
        picture, ids = episode.query.read()
        truth, ignored = known(ids)
        meter = FewShotIoU()
        meter.add(episode.index, answer(episode.examples, picture), truth, ignored)
        return meter.rows[0]

    return Part(key, [episode.name for episode in episodes], lambda: row)


def _row(
    protocol: FewShot, setting: Setting, folds: Sequence[int], count: int,
    meters: Sequence[FewShotIoU],
) -> Row:  # fmt: skip
    """Means over folds; the interval resamples the episodes of each."""

    def mean(of: Callable[[FewShotIoU], float]) -> float:
        return float(np.mean([of(meter) for meter in meters]))

    drawn = np.mean([meter.drawn(seed) for seed, meter in enumerate(meters)], 0)
    episodes = sum(len(meter.rows) for meter in meters)
    figures: dict[str, Any] = {
        "mIoU": interval_around(mean(FewShotIoU.miou), drawn, episodes),
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
    said = f"{count} example{'s' if count > 1 else ''}, {setting.ensemble} ensemble"
    part = f"{len(folds)} of {protocol.folds} folds, " if protocol.folds > 1 else ""
    done = f"{part}{episodes} episodes"
    return Row(said, figures, setting.domain(protocol.pictures), done, detail)
