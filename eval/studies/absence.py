"""`python -m eval absent`: what is painted when the query does not show the object."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eval.studies.common import ImageSet, binary_ids
from incontext import Example, Predictor


def run(folder: Path, checkpoint: str, sets: Sequence[str], episodes: int) -> None:
    """Pairs of queries, one with the class and one without; the same examples for both.

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
            index = int(rng.choice([c for c, held in data.holders.items() if len(held) > 1]))
            shown, query = rng.choice(data.holders[index], 2, replace=False)
            others = [i for i in range(len(data.images)) if i not in data.holders[index]]
            if not others:
                continue
            ids = binary_ids(data.labels[shown], index)
            prompt = predictor.prompt(Example(data.images[shown], ids, ignore=-1), kind="semantic")
            pair = [data.images[query], data.images[int(rng.choice(others))]]
            for present, result in enumerate(predictor.predict(pair, prompt)):
                rows.append((1 - present, result.mask(1).mean(), result.presence[1]))
        table = np.array(rows, float)
        there, absent = table[table[:, 0] == 1], table[table[:, 0] == 0]
        ranks = there[:, None, 2] - absent[None, :, 2]
        auc = np.mean((ranks > 0) + 0.5 * (ranks == 0))
        cells = [f"{100 * np.mean(part[:, 1] == 0):.0f} %" for part in (there, absent)]
        cells += [f"{100 * part[:, 1].mean():.1f} %" for part in (there, absent)]
        print(f"| {name} | {' | '.join(cells)} | {auc:.2f} |", flush=True)
