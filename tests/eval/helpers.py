"""Drawn datasets of two pictures a class, whose figures are worked out by hand.

Each class has two pictures, 12 × 12: rows 0–3 are labelled in one, rows 2–5 in the other. Answered
with the example's mask, each episode has IoU 2 rows / 6 rows = 1/3, background 6 rows / 10 rows.
"""

import pickle
from pathlib import Path

import numpy as np
from PIL import Image

from eval.core.metrics import FewShotIoU
from eval.core.processes import Processes
from eval.core.shared_work import run_tasks
from eval.datasets import FEW_SHOT
from eval.runs.fewshot import episode_task

SIDE = 12
THIRD, SIXTY = 100 / 3, 60.0


def rows(top: int, bottom: int, value: int = 1, void: int | None = None) -> np.ndarray:
    ids = np.zeros((SIDE, SIDE), np.uint8)
    ids[top:bottom] = value
    if void is not None:
        ids[void] = 255
    return ids


def two_masks(value: int = 1, void: int | None = None) -> list[np.ndarray]:
    return [rows(0, 4, value, void), rows(2, 6, value, void)]


def write_image(path: Path, ids: np.ndarray | None = None, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if ids is None:
        Image.new("RGB", (SIDE, SIDE), (90, 120, 60)).save(path)
        return
    picture = Image.fromarray(ids)
    if palette:
        picture.putpalette(np.random.default_rng(0).bytes(768))
    picture.save(path)


def write_text(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def write_pickle(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value))


def copy_example(examples, picture):
    return examples[0].read()[1] == 1


def measure(
    name: str, folder: Path, tmp_path: Path, fold: int = 0, max_episodes: int = 8
) -> FewShotIoU:
    episodes = FEW_SHOT[name].episodes(folder, fold, 1)
    task = episode_task("it", episodes[:max_episodes], copy_example)
    return FewShotIoU(run_tasks([task], name, {}, tmp_path / "out", Processes())["it"])


def figures(meter: FewShotIoU) -> tuple[float, float]:
    return round(meter.miou(), 9), round(meter.fb_iou(), 9)


def by_hand(background: float = SIXTY) -> tuple[float, float]:
    return round(THIRD, 9), round((THIRD + background) / 2, 9)


def two_objects(ids: np.ndarray) -> list[np.ndarray]:
    """The left and the right half of a mask, as two objects."""
    left = np.arange(SIDE) < SIDE // 2
    return [(ids > 0) & left, (ids > 0) & ~left]


def write_folder(root: Path) -> Path:
    for i, ids in enumerate(two_masks(void=11)):
        write_image(root / f"images/{i}.png")
        write_image(root / f"masks/{i}.png", ids)
    return root
