"""Trials: some examples of a pool shown, another of its pictures asked, the answer counted."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from incontext.evaluation.confusion import Counts, count
from incontext.evaluation.labelled_set import IGNORE, Pool, shown_by
from incontext.inference.decoding import index_map, merge
from incontext.inference.predictor import CLASSES_PER_PASS, THIN_TO, Predictor
from incontext.inference.prompt import Pass, Prompt, group

BATCH = 8  # queries in one pass through the model
Tell = Callable[[int], None]


class Trial(NamedTuple):
    """One query and the examples that it sees, by number."""

    query: int
    shown: tuple[int, ...]


class Trials:
    """Runs trials on a pool whose pictures are encoded once, whatever they are asked.

    Args:
        predictor: whose model is tried.
        examples: what trials may show and ask.
        kind: see `Predictor.prompt`.
    """

    def __init__(self, predictor: Predictor, examples: Pool, kind: str = "semantic") -> None:
        self.predictor, self.examples, self.kind = predictor, examples, kind
        self.prompts: dict[int, Prompt] = {}

    def encoded(self, shown: int) -> Prompt:
        """All examples, with as many tokens of each as `shown` of them at once are seen with.

        Numbers are rounded up to 4, 8, 16 …: examples are encoded anew for each.
        """
        rounded = THIN_TO
        while rounded < min(shown, len(self.examples)):
            rounded *= 2
        if self.predictor.model.config.example_attention == "joint":
            rounded = THIN_TO  # all tokens go along with the query anyway
        if rounded not in self.prompts:
            self.prompts[rounded] = self._encode(THIN_TO / rounded)
        return self.prompts[rounded]

    def _encode(self, share: float) -> Prompt:
        """All examples in float16; nothing settled, so that some of them can be chosen."""
        pool = self.examples
        ids = [pool.ids[column] for column in np.flatnonzero(shown_by(pool).any(0))]
        passes = []
        for coloring in group(ids, CLASSES_PER_PASS, None):
            encoded = self.predictor.encode(
                [pool.example(i) for i in range(len(pool))], coloring, kind=self.kind, share=share,
                settle=False,
            )  # fmt: skip
            passes.append(Pass(coloring, encoded.to(torch.float16)))
        colors, names = {i: pool.colors[i] for i in ids}, {i: pool.names[i] for i in ids}
        return Prompt(
            tuple(ids), colors, names, self.kind, len(pool), tuple(passes),
            self.predictor.checkpoint,
        )  # fmt: skip

    def run(self, trials: Sequence[Trial], tell: Tell = lambda done: None) -> Counts:
        """Confusion counts of each trial, (T, C, C); `tell` hears how many were done."""
        classes = len(self.examples.ids) + 1
        counts = np.zeros((len(trials), classes, classes), np.int64)
        by_size: dict[int, list[int]] = {}
        for number, trial in enumerate(trials):
            by_size.setdefault(len(trial.shown), []).append(number)
        for size, numbers in by_size.items():
            for at in range(0, len(numbers), BATCH):
                some = numbers[at : at + BATCH]
                counts[some] = self._batch([trials[n] for n in some], self.encoded(size))
                tell(len(some))
        return counts

    def _batch(self, trials: Sequence[Trial], prompt: Prompt) -> Counts:
        pictures = [self.examples.picture(t.query) for t in trials]
        shown = torch.tensor([t.shown for t in trials])
        paintings = self.predictor.paint(pictures, prompt, shown=shown)
        return np.stack([
            score(self.examples, trial.query, prompt, painted)
            for trial, painted in zip(trials, paintings, strict=True)
        ])  # fmt: skip


def score(pool: Pool, index: int, prompt: Prompt, painted: list[torch.Tensor]) -> Counts:
    """Confusion counts of one picture of a pool, (C, C), at the model's size."""
    # The prompt may lack ids of the pool: those that its examples do not show.
    table = np.array([0, *(1 + pool.ids.index(i) for i in prompt.ids)])
    found = table[index_map(merge(prompt, painted)).numpy()]
    truth = pool.labels[index].numpy()
    return count(truth, found, len(pool.ids), truth == IGNORE)


def judge(predictor: Predictor, prompt: Prompt, pool: Pool) -> Counts:
    """Confusion counts of every picture of a pool with one prompt, (M, C, C)."""
    counts = []
    for at in range(0, len(pool), BATCH):
        some = range(at, min(at + BATCH, len(pool)))
        paintings = predictor.paint([pool.picture(i) for i in some], prompt)
        counts += [score(pool, i, prompt, p) for i, p in zip(some, paintings, strict=True)]
    return np.stack(counts)
