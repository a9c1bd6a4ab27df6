"""Episodes on a labelled set: some images as examples, another as the query, its pixels counted.

Letters: E episodes, M images of the set, K ids, C = K + 1 with the background first.
"""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np
import torch

from incontext.evaluation.comparison import best_index
from incontext.evaluation.confusion import Counts, confusion_counts
from incontext.evaluation.labelled_set import LabelledSet, occurrence
from incontext.inference.decoding import Answer
from incontext.inference.example_views import keep_ratio
from incontext.inference.id_table import CLASSES_PER_PASS, assign_colorings
from incontext.inference.predictor import Predictor
from incontext.inference.prompt import Pass, Prompt
from incontext.labels.encodings import IGNORE_INDEX

BATCH = 8  # queries in one pass through the model
SINGLES = 15  # single examples that each query of `plan_leave_one_out` is tried with
RANDOM_SUBSETS = 2  # of each size, for each query there
SUBSETS_PER_SIZE = 4  # random subsets that `candidate_subsets` draws
QUERIES_PER_SUBSET = 12  # images that a subset is tried on
Progress = Callable[[int], None]  # called with how many episodes were just evaluated


class Episode(NamedTuple):
    """A query and its examples, by index in a labelled set."""

    query: int
    examples: tuple[int, ...]


class EpisodeRunner:
    """Evaluates episodes on a labelled set whose images are encoded once, not in every episode.

    Args:
        predictor: its model is evaluated.
        dataset: examples and queries.
        kind: see `Predictor.prompt`.
    """

    def __init__(self, predictor: Predictor, dataset: LabelledSet, kind: str = "semantic") -> None:
        self.predictor, self.dataset, self.kind = predictor, dataset, kind
        # By number of examples that share the tokens, and whether they are seen in several views.
        self._prompts: dict[tuple[int, bool], Prompt] = {}

    def run(
        self, episodes: Sequence[Episode], on_progress: Progress = lambda count: None
    ) -> Counts:
        """Return the confusion counts of each episode, (E, C, C)."""
        classes = len(self.dataset.ids) + 1
        counts = np.zeros((len(episodes), classes, classes), np.int64)
        by_size: dict[int, list[int]] = {}
        for number, episode in enumerate(episodes):
            by_size.setdefault(len(episode.examples), []).append(number)
        for size, numbers in by_size.items():
            for start in range(0, len(numbers), BATCH):
                batch = numbers[start : start + BATCH]
                counts[batch] = self._run_batch([episodes[n] for n in batch], size)
                on_progress(len(batch))
        return counts

    def _run_batch(self, episodes: Sequence[Episode], example_count: int) -> Counts:
        images = [self.dataset.image(episode.query) for episode in episodes]
        examples = torch.tensor([episode.examples for episode in episodes])
        prompt = self._prompt(example_count)
        answers = self.predictor.answer(images, prompt, example_indices=examples)
        return np.stack([
            image_counts(self.dataset, episode.query, prompt, answer)
            for episode, answer in zip(episodes, answers, strict=True)
        ])  # fmt: skip

    def _prompt(self, example_count: int) -> Prompt:
        """Return all images as one prompt, with as many tokens of each as an episode of
        `example_count` examples uses.

        The count is rounded up to 4, 8, 16 … (from the model's `default_thin_to` on), since images
        are encoded again for each.
        """
        thin_to = rounded = self.predictor.model.default_thin_to
        while rounded < min(example_count, len(self.dataset)):
            rounded *= 2
        if self.predictor.model.config.example_attention == "joint":
            rounded = thin_to  # joint attention never drops tokens
        views = self.predictor.resolve_views("auto", example_count)
        key = (example_count if views else rounded, views)
        if key not in self._prompts:
            self._prompts[key] = self._encode(keep_ratio(thin_to, *key), views)
        return self._prompts[key]

    def _encode(self, keep_ratio: float, views: bool) -> Prompt:
        """Encode all images in float16, without what depends on all of them: episodes select."""
        dataset = self.dataset
        ids = [dataset.ids[column] for column in np.flatnonzero(occurrence(dataset).any(0))]
        examples = [dataset.example(i) for i in range(len(dataset))]
        passes = []
        for coloring in assign_colorings(ids, CLASSES_PER_PASS, None):
            encoded_prompt = self.predictor.encode(
                examples, coloring, kind=self.kind, keep_ratio=keep_ratio, precompute_targets=False,
                views=views,
            )  # fmt: skip
            passes.append(Pass(coloring, encoded_prompt.to(torch.float16)))
        return Prompt(
            tuple(ids), {i: dataset.colors[i] for i in ids}, {i: dataset.names[i] for i in ids},
            self.kind, len(dataset), tuple(passes), self.predictor.checkpoint,
        )  # fmt: skip


def plan_leave_one_out(
    count: int, usable: list[int], rng: np.random.Generator, separated: set[tuple[int, int]]
) -> tuple[list[Episode], dict[int, int]]:
    """Plan each image as a query with single others, random sets of 2, 4, 8 …, and all others.

    Args:
        count: number of images.
        usable: images with an object; only these are examples.
        separated: pairs of near-duplicates, which are never in one episode: they would flatter.

    Returns:
        The episodes, and for each query the number of its episode with all others.
    """
    episodes: list[Episode] = []
    full: dict[int, int] = {}
    for query in range(count):
        near = {a + b - query for a, b in separated if query in (a, b)}
        others = np.array([i for i in usable if i != query and i not in near])
        for example in rng.permutation(others)[:SINGLES]:
            episodes.append(Episode(query, (int(example),)))
        size = 2
        while size < len(others):
            for _ in range(RANDOM_SUBSETS):
                examples = rng.choice(others, size, replace=False)
                episodes.append(Episode(query, tuple(sorted(examples.tolist()))))
            size *= 2
        if len(others):
            full[query] = len(episodes)
            episodes.append(Episode(query, tuple(others.tolist())))
    return episodes, full


def evaluate(predictor: Predictor, prompt: Prompt, dataset: LabelledSet) -> Counts:
    """Return the confusion counts of every image of a set with one prompt, (M, C, C)."""
    counts = []
    for start in range(0, len(dataset), BATCH):
        batch = range(start, min(start + BATCH, len(dataset)))
        answers = predictor.answer([dataset.image(i) for i in batch], prompt)
        counts += [
            image_counts(dataset, i, prompt, answer)
            for i, answer in zip(batch, answers, strict=True)
        ]
    return np.stack(counts)


def image_counts(dataset: LabelledSet, index: int, prompt: Prompt, answer: Answer) -> Counts:
    """Return the confusion counts of one image of a set at the model's size, (C, C)."""
    # Ids that no example shows are in the set, but not in the prompt.
    table = np.array([0, *(1 + dataset.ids.index(i) for i in prompt.ids)])
    prediction = table[answer.index_map().numpy()]
    truth = dataset.labels[index].numpy()
    return confusion_counts(truth, prediction, len(dataset.ids), truth == IGNORE_INDEX)


def covering_subset(dataset: LabelledSet, order: Sequence[int], times: int = 1) -> list[int]:
    """Take images in an order until together they show every id `times` times, where possible."""
    occurs = occurrence(dataset)
    required = np.minimum(times, occurs.sum(0))
    subset: list[int] = []
    covered = np.zeros(len(dataset.ids), int)
    for index in order:
        if (occurs[index] & (covered < required)).any():
            subset.append(index)
            covered += occurs[index]
    return subset


def candidate_subsets(dataset: LabelledSet, rng: np.random.Generator) -> list[list[int]]:
    """Draw subsets that show every id once, and four times; none has all images with objects."""
    subsets = []
    for times in (1, 4):
        for _ in range(SUBSETS_PER_SIZE):
            order = rng.permutation(len(dataset)).tolist()
            subset = sorted(covering_subset(dataset, order, times))
            if subset not in subsets and len(subset) < len(dataset.indices_with_objects()):
                subsets.append(subset)
    return subsets


def best_subset(
    runner: EpisodeRunner,
    subsets: Sequence[Sequence[int]],
    rng: np.random.Generator,
    on_progress: Progress = lambda count: None,
    suspects: Collection[int] = (),
) -> tuple[list[int], list[Episode], Counts]:
    """Find the subset that does best as examples for the other images.

    All subsets are tried on the same queries, except for their own images. Images with a suspect
    mask are never used as queries; otherwise subsets that contain one would be judged without it.

    Returns:
        The subset, and the episodes it was tried in with their counts.
    """
    order = [i for i in rng.permutation(len(runner.dataset)).tolist() if i not in suspects]
    plan = [
        [Episode(q, tuple(s)) for q in [i for i in order if i not in s][:QUERIES_PER_SUBSET]]
        for s in subsets
    ]
    counts = runner.run([episode for episodes in plan for episode in episodes], on_progress)
    ends = np.cumsum([len(episodes) for episodes in plan])[:-1]
    parts: list[Counts] = np.split(counts, ends)
    best = best_index(parts)
    return list(subsets[best]), plan[best], parts[best]
