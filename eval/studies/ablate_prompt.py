"""`python -m eval matters`: does the prompt decide what is painted?"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from eval.core.metrics import FewShotIoU
from eval.studies.common import ImageSet, set_paths
from incontext import Example, Predictor, Prompt
from incontext.labels.encodings import Labels


def erase_mask(predictor: Predictor, prompt: Prompt, example: Example) -> Prompt:
    """Return the prompt of one example with its mask erased: the target is all background."""
    [part] = prompt.passes
    blank = Labels(np.zeros_like(example.labels.ids))
    blank_example = Example.from_labels(example.image, blank)
    encoded_prompt = predictor.encode([blank_example], part.coloring, kind=prompt.kind)
    return replace(prompt, passes=(replace(part, encoded_prompt=encoded_prompt),))


def run(folder: Path, checkpoint: str, sets: Sequence[str], episodes: int) -> None:
    """Print two tables.

    The first: mean area painted with the example's mask and with that mask erased. The second,
    for images that hold two classes: mean IoU of the painting with the class of the example, and
    with the other one.
    """
    predictor = Predictor.from_pretrained(checkpoint)
    data = [ImageSet.read(path) for path in set_paths(folder, sets)]
    print("| set | area, mask shown | area, mask erased |\n|---|---|---|")
    totals = []
    for image_set in data:
        totals.append(_areas(predictor, image_set, episodes))
        print(f"| {image_set.name} | " + " | ".join(f"{x:.1f} %" for x in totals[-1]) + " |")
    print("| **mean** | " + " | ".join(f"{x:.1f} %" for x in np.mean(totals, 0)) + " |\n")
    print("| set | IoU with the class shown | IoU with the other class |\n|---|---|---|")
    for image_set in data:
        scores = _class_scores(predictor, image_set, episodes)
        if scores:
            print(f"| {image_set.name} | " + " | ".join(f"{x:.1f}" for x in scores) + " |")


def _areas(predictor: Predictor, data: ImageSet, episodes: int) -> tuple[float, float]:
    """Return the mean area in percent with and without the mask."""
    rng = np.random.default_rng(0)
    areas = []
    classes = [c for c, numbers in data.images_by_class.items() if len(numbers) > 1]
    for _ in range(episodes):
        index = int(rng.choice(classes))
        number, query = rng.choice(data.images_by_class[index], 2, replace=False)
        example = data.example(number, index)
        if not example.labels.present:
            continue
        prompt = predictor.prompt(example, kind="semantic")
        areas.append([
            100 * predictor.predict(data.images[query], p).mask(1).mean()
            for p in (prompt, erase_mask(predictor, prompt, example))
        ])  # fmt: skip
    means = np.mean(areas, 0)
    return float(means[0]), float(means[1])


def _class_scores(predictor: Predictor, data: ImageSet, episodes: int) -> tuple[float, ...]:
    """Return mIoU with the example's class and with the other class of the pair.

    Empty if no pair of classes is together on four images.
    """
    rng = np.random.default_rng(0)
    by_class = data.images_by_class
    pairs = [(a, b) for a in by_class for b in by_class if a != b]
    common = {pair: sorted(set(by_class[pair[0]]) & set(by_class[pair[1]])) for pair in pairs}
    common = {pair: numbers for pair, numbers in common.items() if len(numbers) >= 4}
    if not common:
        return ()
    example_meter, other_meter = FewShotIoU(), FewShotIoU()
    for number in range(episodes):
        pair = list(common)[number % len(common)]
        example_number, query = rng.choice(common[pair], 2, replace=False)
        example = data.example(example_number, pair[0])
        if not example.labels.present:
            continue
        prompt = predictor.prompt(example, kind="semantic")
        mask: Any = predictor.predict(data.images[query], prompt).mask(1)
        for meter, index in ((example_meter, pair[0]), (other_meter, pair[1])):
            meter.add(index, mask, *data.truth(query, index))
    return example_meter.miou(), other_meter.miou()
