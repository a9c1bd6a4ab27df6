"""`python -m eval passes`: how many classes one painting separates well."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eval.core.metrics import FewShotIoU
from eval.studies.common import ImageSet
from incontext import Example, Predictor
from incontext.data.pictures import IGNORE_INDEX


def run(
    path: Path, checkpoint: str, limits: Sequence[int], episodes: int, examples: int = 4
) -> dict[int, float]:
    """Return the mIoU over all classes at once for each limit of classes in one pass.

    The same seeded episodes for every limit: `examples` images with all their classes and one
    query, of a set with many classes in each image.
    """
    data = ImageSet.read(path)
    predictor = Predictor.from_pretrained(checkpoint)
    meters = {limit: FewShotIoU() for limit in limits}
    rng = np.random.default_rng(0)
    for _ in range(episodes):
        *numbers, query = rng.choice(len(data.images), examples + 1, replace=False)
        pairs = [
            Example(data.images[i], data.labels[i].astype(int), ignore=IGNORE_INDEX)
            for i in numbers
        ]
        for limit, meter in meters.items():
            prompt = predictor.prompt(pairs, kind="semantic", classes_per_pass=limit)
            result = predictor.predict(data.images[query], prompt)
            for index in prompt.ids:
                meter.add(index, result.mask(index), *data.truth(query, index))
    print("| classes in a pass | mIoU |\n|---|---|")
    for limit, meter in meters.items():
        print(f"| {limit} | {meter.miou():.1f} |")
    return {limit: meter.miou() for limit, meter in meters.items()}
