"""`python -m eval matters`: does the prompt decide what is painted?"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from eval.core.metrics import FewShotIoU
from eval.studies.common import ImageSet, binary_ids, still_sets
from incontext import Example, Predictor, Prompt
from incontext.data.pictures import IGNORE_INDEX
from incontext.labels.encodings import Labels


def emptied(predictor: Predictor, prompt: Prompt, example: Example) -> Prompt:
    """The prompt of one example with its mask erased: the target is all background."""
    [part] = prompt.passes
    blank = Labels(np.zeros_like(example.labels.ids))
    encoded = predictor.encode([Example.of(example.image, blank)], part.coloring, kind=prompt.kind)
    return replace(prompt, passes=(replace(part, encoded=encoded),))


def run(folder: Path, checkpoint: str, sets: Sequence[str], episodes: int) -> None:
    """Prints two tables.

    The first: mean area painted with the example's mask and with that mask erased. The second,
    for pictures that hold two classes: mean IoU of what is painted with the class that the example
    shows, and with the other one.
    """
    predictor = Predictor.from_pretrained(checkpoint)
    data = [ImageSet.read(path) for path in still_sets(folder, sets)]
    print("| set | area, mask shown | area, mask erased |\n|---|---|---|")
    totals = []
    for labelled in data:
        totals.append(_areas(predictor, labelled, episodes))
        print(f"| {labelled.name} | " + " | ".join(f"{x:.1f} %" for x in totals[-1]) + " |")
    print("| **mean** | " + " | ".join(f"{x:.1f} %" for x in np.mean(totals, 0)) + " |\n")
    print("| set | IoU with the class shown | IoU with the other class |\n|---|---|---|")
    for labelled in data:
        scores = _swaps(predictor, labelled, episodes)
        if scores:
            print(f"| {labelled.name} | " + " | ".join(f"{x:.1f}" for x in scores) + " |")


def _areas(predictor: Predictor, data: ImageSet, episodes: int) -> tuple[float, float]:
    """Mean area in percent with and without the mask."""
    rng = np.random.default_rng(0)
    areas = []
    classes = [c for c, held in data.holders.items() if len(held) > 1]
    for _ in range(episodes):
        index = int(rng.choice(classes))
        shown, query = rng.choice(data.holders[index], 2, replace=False)
        ids = binary_ids(data.labels[shown], index)
        if not (ids == 1).any():
            continue
        example = Example(data.images[shown], ids, ignore=-1)
        prompt = predictor.prompt(example, kind="semantic")
        areas.append([
            100 * predictor.predict(data.images[query], p).mask(1).mean()
            for p in (prompt, emptied(predictor, prompt, example))
        ])  # fmt: skip
    both = np.mean(areas, 0)
    return float(both[0]), float(both[1])


def _swaps(predictor: Predictor, data: ImageSet, episodes: int) -> tuple[float, ...]:
    """mIoU with the class shown and with the other; nothing where no two pictures share two."""
    rng = np.random.default_rng(0)
    pairs = [(a, b) for a in data.holders for b in data.holders if a != b]
    shared = {p: sorted(set(data.holders[p[0]]) & set(data.holders[p[1]])) for p in pairs}
    shared = {p: held for p, held in shared.items() if len(held) >= 4}
    if not shared:
        return ()
    asked, other = FewShotIoU(), FewShotIoU()
    for number in range(episodes):
        pair = list(shared)[number % len(shared)]
        shown, query = rng.choice(shared[pair], 2, replace=False)
        ids = binary_ids(data.labels[shown], pair[0])
        if not (ids == 1).any():
            continue
        prompt = predictor.prompt(Example(data.images[shown], ids, ignore=-1), kind="semantic")
        mask: Any = predictor.predict(data.images[query], prompt).mask(1)
        truth = data.labels[query]
        for meter, index in ((asked, pair[0]), (other, pair[1])):
            meter.add(index, mask, truth == index, truth == IGNORE_INDEX)
    return asked.miou(), other.miou()
