"""`python -m eval absent`: what is painted when the query does not show the object."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eval.studies.common import ImageSet
from incontext import Predictor


def run(folder: Path, checkpoint: str, sets: Sequence[str], episodes: int) -> None:
    """Segment pairs of queries, one with the class and one without, by the same examples.

    Prints for each set the share of empty masks and the mean area painted in each kind of query,
    and how often presence ranks a query with the class above one without (AUC, 0.5 is chance).
    """
    predictor = Predictor.from_pretrained(checkpoint)
    print("| set | empty, present | empty, absent | area, present | area, absent | AUC |")
    print("|---|---|---|---|---|---|")
    for name in sets:
        data = ImageSet.read(folder / f"{name}.tar")
        rng = np.random.default_rng(0)
        rows = []
        for _ in range(episodes):
            classes = [c for c, numbers in data.images_by_class.items() if len(numbers) > 1]
            index = int(rng.choice(classes))
            example, query = rng.choice(data.images_by_class[index], 2, replace=False)
            negatives = [i for i in range(len(data.images)) if i not in data.images_by_class[index]]
            if not negatives:
                continue
            prompt = predictor.prompt(data.example(example, index), kind="semantic")
            pair = [data.images[query], data.images[int(rng.choice(negatives))]]
            for is_absent, result in enumerate(predictor.predict(pair, prompt)):
                rows.append((is_absent, result.mask(1).mean(), result.presence[1]))
        table = np.array(rows, float)
        present, absent = table[table[:, 0] == 0], table[table[:, 0] == 1]
        ranks = present[:, None, 2] - absent[None, :, 2]
        auc = np.mean((ranks > 0) + 0.5 * (ranks == 0))
        cells = [f"{100 * np.mean(part[:, 1] == 0):.0f} %" for part in (present, absent)]
        cells += [f"{100 * part[:, 1].mean():.1f} %" for part in (present, absent)]
        print(f"| {name} | {' | '.join(cells)} | {auc:.2f} |", flush=True)
