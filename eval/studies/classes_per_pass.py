"""`python -m eval passes`: how many classes one painting separates well."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eval.core.metrics import FewShotIoU
from eval.studies.common import ImageSet
from incontext import Example, Predictor
from incontext.data.pictures import IGNORE_INDEX


def run(
    data: Path, checkpoint: str, limits: Sequence[int], episodes: int, examples: int = 4
) -> dict[int, float]:
    """mIoU over all classes at once, for several limits of classes in one pass.

    The same seeded episodes for every limit: `examples` pictures with all their classes and one
    query, of a set with many classes in each picture.
    """
    labelled = ImageSet.read(data)
    predictor = Predictor.from_pretrained(checkpoint)
    meters = {limit: FewShotIoU() for limit in limits}
    rng = np.random.default_rng(0)
    for _ in range(episodes):
        *shown, query = rng.choice(len(labelled.images), examples + 1, replace=False)
        pairs = [
            Example(labelled.images[i], labelled.labels[i].astype(int), ignore=IGNORE_INDEX)
            for i in shown
        ]
        truth = labelled.labels[query]
        for limit, meter in meters.items():
            prompt = predictor.prompt(pairs, kind="semantic", classes_per_pass=limit)
            result = predictor.predict(labelled.images[query], prompt)
            for index in prompt.ids:
                meter.add(index, result.mask(index), truth == index, truth == IGNORE_INDEX)
    print("| classes in a pass | mIoU |\n|---|---|")
    for limit, meter in meters.items():
        print(f"| {limit} | {meter.miou():.1f} |")
    return {limit: meter.miou() for limit, meter in meters.items()}
