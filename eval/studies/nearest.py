"""`python -m eval nearest`: does choosing the examples for each query pay?

For every class of every set: a pool of examples, and queries outside it. A query sees k examples of
the pool, the nearest ones or as many drawn at random, or the whole pool; in each case as many
tokens as four whole examples have.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from eval.core.metrics import FewShotIoU
from eval.studies.common import ImageSet, set_paths
from incontext import Predictor
from incontext.errors import InputError
from incontext.inference.retrieval import ExampleIndex


class RandomExamples(ExampleIndex):
    """As many examples as the nearest, but at random; the same ones for every batch."""

    def search(self, queries: torch.Tensor) -> list[torch.Tensor]:
        """See `ExampleIndex.search`."""
        rng = torch.Generator().manual_seed(0)
        count = len(self.features)
        rows = [torch.randperm(count, generator=rng)[: self.nearest].sort().values for _ in queries]
        return [torch.stack(rows)] * len(self.shows)


METHODS = ("random", "nearest", "all")


def run(
    folder: Path, checkpoint: str, sets: Sequence[str], k: int, pool_size: int, query_count: int
) -> dict[str, list[float]]:
    """Print a row a set: mIoU with k at random, the k nearest, and the whole pool."""
    predictor = Predictor.from_pretrained(checkpoint)
    print("| set | pools | " + " | ".join(f"{k} {m}" if m != "all" else m for m in METHODS) + " |")
    print("|---|---|---|---|---|")
    scores: dict[str, list[float]] = {}
    for path in set_paths(folder, sets):
        data = ImageSet.read(path)
        meters = {name: FewShotIoU() for name in METHODS}
        sizes = [
            _score(predictor, data, index, k, pool_size, query_count, meters)
            for index in data.images_by_class
        ]
        sizes = [size for size in sizes if size]
        if not sizes:
            continue
        scores[data.name] = [meters[name].miou() for name in METHODS]
        pools = f"{min(sizes)}–{max(sizes)}" if len(set(sizes)) > 1 else str(sizes[0])
        row = " | ".join(f"{s:.1f}" for s in scores[data.name])
        print(f"| {data.name} | {pools} | {row} |", flush=True)
    if not scores:
        raise InputError(f"no class has {2 * k} examples beside its queries; take a smaller --k")
    means = " | ".join(f"{m:.1f}" for m in np.mean(list(scores.values()), 0))
    print(f"| **mean** | | {means} |")
    return scores


def _score(
    predictor: Predictor, data: ImageSet, index: int, k: int, pool_size: int, query_count: int,
    meters: dict[str, FewShotIoU],
) -> int:  # fmt: skip
    """Add one class's results; return the size of its pool, 0 if there are too few images."""
    rng = np.random.default_rng(index)
    order = rng.permutation(data.images_by_class[index])
    queries = order[:query_count]
    examples = data.examples(order[query_count : query_count + pool_size].tolist(), index)
    if len(examples) < 2 * k:
        return 0
    nearest = predictor.prompt(examples, nearest=k)
    assert nearest.example_index
    random = replace(nearest, example_index=RandomExamples(**vars(nearest.example_index)))
    prompts = (random, nearest, predictor.prompt(examples))
    for name, prompt in zip(METHODS, prompts, strict=True):
        results = predictor.predict([data.images[i] for i in queries], prompt)
        for query, result in zip(queries, results, strict=True):
            meters[name].add(index, result.mask(1), *data.truth(query, index))
    return len(examples)
