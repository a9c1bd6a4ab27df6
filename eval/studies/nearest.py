"""`python -m eval nearest`: does choosing the examples for each query pay?

For every class of every still-picture set: a pool of examples and queries outside it. A query sees
k examples of the pool, those nearest to it or as many drawn at random, or the whole pool; in each
case as many tokens as four whole examples have.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from eval.core.metrics import FewShotIoU
from eval.studies.common import ImageSet, binary_ids, still_sets
from incontext import Example, Predictor
from incontext.data.pictures import IGNORE_INDEX
from incontext.errors import InputError
from incontext.inference.retrieval import Gallery


class Drawn(Gallery):
    """As many examples as the nearest, but drawn at random; the same draws for every batch."""

    def choose(self, asked: torch.Tensor) -> list[torch.Tensor]:
        """See `Gallery.choose`."""
        rng = torch.Generator().manual_seed(0)
        count = len(self.features)
        rows = [torch.randperm(count, generator=rng)[: self.nearest].sort().values for _ in asked]
        return [torch.stack(rows)] * len(self.shows)


METHODS = ("random", "nearest", "all")


def run(
    folder: Path, checkpoint: str, sets: Sequence[str], k: int, pool: int, queries: int
) -> dict[str, list[float]]:
    """Print a row a set: mIoU with k at random, the k nearest, and the whole pool."""
    predictor = Predictor.from_pretrained(checkpoint)
    print("| set | pools | " + " | ".join(f"{k} {m}" if m != "all" else m for m in METHODS) + " |")
    print("|---|---|---|---|---|")
    scores: dict[str, list[float]] = {}
    for path in still_sets(folder, sets):
        data = ImageSet.read(path)
        meters = {name: FewShotIoU() for name in METHODS}
        sizes = [_score(predictor, data, c, k, pool, queries, meters) for c in data.holders]
        used = [size for size in sizes if size]
        if not used:
            continue
        scores[data.name] = [meters[name].miou() for name in METHODS]
        pools = f"{min(used)}–{max(used)}" if len(set(used)) > 1 else str(used[0])
        row = " | ".join(f"{s:.1f}" for s in scores[data.name])
        print(f"| {data.name} | {pools} | {row} |", flush=True)
    if not scores:
        raise InputError(f"no class has {2 * k} examples beside its queries; take a smaller --k")
    means = " | ".join(f"{m:.1f}" for m in np.mean(list(scores.values()), 0))
    print(f"| **mean** | | {means} |")
    return scores


def _score(
    predictor: Predictor, data: ImageSet, index: int, k: int, pool: int, queries: int,
    meters: dict[str, FewShotIoU],
) -> int:  # fmt: skip
    """Add one class's results; the size of its pool, 0 where there are too few pictures."""
    rng = np.random.default_rng(index)
    order = rng.permutation(data.holders[index])
    asked = order[:queries]
    shown = order[queries : queries + pool]
    examples = [
        Example(data.images[i], binary_ids(data.labels[i], index), ignore=-1) for i in shown
    ]
    examples = [e for e in examples if e.labels.present]
    if len(examples) < 2 * k:
        return 0
    chosen = predictor.prompt(examples, nearest=k)
    assert chosen.gallery
    drawn = replace(chosen, gallery=Drawn(**vars(chosen.gallery)))
    prompts = (drawn, chosen, predictor.prompt(examples))
    for name, prompt in zip(METHODS, prompts, strict=True):
        for query, result in zip(
            asked, predictor.predict([data.images[i] for i in asked], prompt), strict=True
        ):
            truth = data.labels[query]
            meters[name].add(index, result.mask(1), truth == index, truth == IGNORE_INDEX)
    return len(examples)
