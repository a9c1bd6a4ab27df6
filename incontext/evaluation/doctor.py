"""Doctor: what a user's own examples are worth, before ten thousand images are segmented.

Every example is segmented with the others (leave one out). From these episodes: how well new
images will come out with 1, 2, 4 … examples; which examples are harmful; which ids are confused.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from incontext.errors import InputError, former_attributes, former_parameters
from incontext.evaluation.confusion import Counts, Interval, interval, iou
from incontext.evaluation.diagnostics import (
    ExampleEffect,
    confusions,
    discount_missing_ids,
    example_effects,
    near_duplicates,
    predicted_curve,
    small_ids,
)
from incontext.evaluation.episodes import (
    QUERIES_PER_SUBSET,
    SUBSETS_PER_SIZE,
    Episode,
    EpisodeRunner,
    Progress,
    best_subset,
    candidate_subsets,
    covering_subset,
    plan_leave_one_out,
)
from incontext.evaluation.labelled_set import LabelledSet
from incontext.inference.example import Example
from incontext.inference.predictor import Predictor

MIN_EXAMPLES = 3
MAX_EXAMPLES = 64  # more are sampled


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """What `examine` found out; figures are mIoU in percent at the model's size.

    Attributes:
        dataset: the examples that were examined.
        given_count: number of examples before sampling.
        curve: number of examples → predicted mIoU on new images.
        classes: id → IoU with all other images as examples.
        effects: of each example, worst first.
        order: their indices in `dataset`.
        alike: True if most of the images are nearly the same.
        duplicates: names of two nearly equal images, and whether their labels agree.
        confusions: id, the id that it is painted as, share of its pixels.
        small_ids: id, its median pixels at the model's size, and in a tile.
        without_harmful: predicted mIoU without the harmful examples; None if there are none.
        best, best_gain: the subset proposed, and its gain over all examples.
    """

    dataset: LabelledSet = field(repr=False)
    given_count: int
    curve: dict[int, Interval]
    classes: dict[int, float]
    effects: list[ExampleEffect]
    order: tuple[int, ...]
    alike: bool
    duplicates: list[tuple[str, str, bool]]
    confusions: list[tuple[int, int, float]]
    small_ids: list[tuple[int, float, float]]
    without_harmful: Interval | None
    best: tuple[str, ...]
    best_gain: Interval

    if not TYPE_CHECKING:
        __getattr__ = former_attributes(
            pool="dataset", looked_at="examined_count", given="given_count", twins="duplicates",
            confused="confusions", small="small_ids", without="without_harmful", bad="harmful",
        )  # fmt: skip

    def __repr__(self) -> str:
        count = max(self.curve)
        return (
            f"Diagnosis({self.examined_count} examples, {len(self.harmful)} of them hurt, "
            f"predicted mIoU with {count}: {self.curve[count]})"
        )

    @property
    def examined_count(self) -> int:
        """Number of examples examined."""
        return len(self.dataset)

    @property
    def harmful(self) -> list[ExampleEffect]:
        """Examples that hurt, worst first."""
        return [effect for effect in self.effects if effect.why]


@former_parameters(tell="on_progress")
def examine(
    predictor: Predictor,
    examples: Iterable[Example] | LabelledSet,
    *,
    names: Mapping[int, str] | None = None,
    kind: str = "semantic",
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Diagnosis:
    """Segment every example with the others, and report what follows about each of them.

    Args:
        examples: three or more; or a `LabelledSet` of the model's size.
        names: of ids.
        kind: see `Predictor.prompt`.
        on_progress: called with the number of episodes evaluated and of all episodes.

    Raises:
        InputError: fewer than three examples that show an object.
    """
    dataset, rng = LabelledSet.coerce(examples, predictor.size, names), np.random.default_rng(seed)
    given_count, dataset = len(dataset), _sample(dataset, rng)
    pairs = near_duplicates(dataset)
    # If most are alike, as from a fixed camera, new images will be too: nothing is flattered.
    alike = len(pairs) > len(dataset) * (len(dataset) - 1) / 4
    separated = set() if alike else {(a, b) for a, b, _ in pairs}
    usable = dataset.indices_with_objects()
    episodes, full = plan_leave_one_out(len(dataset), usable, rng, separated)
    runner = EpisodeRunner(predictor, dataset, kind=kind)
    advance = _counter(len(episodes) + 2 * SUBSETS_PER_SIZE * QUERIES_PER_SUBSET, on_progress)

    counts = discount_missing_ids(dataset, episodes, runner.run(episodes, advance))
    effects, order = example_effects(dataset, episodes, counts)
    full_counts = {query: counts[number] for query, number in full.items()}
    ranked = list(zip(order, effects, strict=True))
    suspects = {i for i, effect in ranked if effect.why == "mask"}
    best, gain = propose_subset(runner, full_counts, order, suspects, rng, advance)
    total = sum(full_counts.values(), np.zeros_like(counts[0]))
    return Diagnosis(
        dataset=dataset,
        given_count=given_count,
        curve=predicted_curve(episodes, full, counts, len(dataset), len(usable)),
        classes={
            i: float(value)
            for i, value in zip(dataset.ids, iou(total), strict=True)
            if not np.isnan(value)
        },
        effects=effects,
        order=tuple(order),
        alike=alike,
        duplicates=[(dataset.sources[a], dataset.sources[b], same) for a, b, same in pairs],
        confusions=confusions(dataset, total),
        small_ids=small_ids(dataset, predictor.model.config.patch_size**2),
        without_harmful=miou_without(runner, {i for i, effect in ranked if effect.why}, advance),
        best=tuple(dataset.sources[i] for i in best),
        best_gain=gain,
    )


def _counter(total: int, on_progress: Callable[[int, int], None]) -> Progress:
    """Return a function that adds up counts and reports the sum, at most `total`."""
    progress = 0

    def advance(count: int) -> None:
        nonlocal progress
        progress += count
        on_progress(min(progress, total), total)

    return advance


def _sample(dataset: LabelledSet, rng: np.random.Generator) -> LabelledSet:
    """Draw at most 64 examples, and half as many labelled images without an object.

    Whatever is painted on the latter is wrong.

    Raises:
        InputError: see `examine`.
    """
    usable = dataset.indices_with_objects()
    if len(usable) < MIN_EXAMPLES:
        raise InputError(
            f"{len(usable)} examples show an object of a pixel or more at {dataset.size} × "
            f"{dataset.size}; the doctor needs {MIN_EXAMPLES} or more"
        )
    empty = [i for i in dataset.indices_with_labels() if i not in set(usable)]
    usable = rng.permutation(usable)[:MAX_EXAMPLES].tolist()
    return dataset.subset(sorted(usable + rng.permutation(empty)[: len(usable) // 2].tolist()))


def miou_without(
    runner: EpisodeRunner, harmful: set[int], on_progress: Progress
) -> Interval | None:
    """Predict the mIoU with all examples that are not harmful, each segmented with the others.

    None if no example is harmful, or too few are left.
    """
    dataset = runner.dataset
    good = [i for i in dataset.indices_with_objects() if i not in harmful]
    if not harmful or len(good) < MIN_EXAMPLES:
        return None
    episodes = [Episode(query, tuple(i for i in good if i != query)) for query in good]
    return interval(discount_missing_ids(dataset, episodes, runner.run(episodes, on_progress)))


def propose_subset(
    runner: EpisodeRunner,
    full_counts: dict[int, Counts],
    order: list[int],
    suspects: set[int],
    rng: np.random.Generator,
    on_progress: Progress,
) -> tuple[list[int], Interval]:
    """Find a small subset that serves the others best; return it and its gain over all examples.

    Tried are random subsets and the examples with the best effects, none of them with a mask that
    looks wrong. Without a smaller subset the result is all examples.

    Args:
        full_counts: of each query with all other images as examples.
        order: examples, worst first.
        suspects: images with a mask that looks wrong.
    """
    dataset = runner.dataset
    examples = dataset.indices_with_objects()
    subsets = candidate_subsets(dataset, rng)
    for times in (1, 2, 4):
        best_first = [i for i in order[::-1] if i not in suspects]
        subset = sorted(covering_subset(dataset, best_first, times))
        if subset not in subsets and len(subset) < len(examples):
            subsets.append(subset)
    subsets = [subset for subset in subsets if not suspects.intersection(subset)]
    if not subsets:
        return examples, Interval(0.0, 0.0, 0.0)
    best, episodes, counts = best_subset(runner, subsets, rng, on_progress, suspects)
    comparable = [n for n, episode in enumerate(episodes) if episode.query in full_counts]
    if not comparable:
        return examples, Interval(0.0, 0.0, 0.0)
    episodes = [episodes[n] for n in comparable]
    counts = discount_missing_ids(dataset, episodes, counts[comparable])
    return best, interval(counts, np.stack([full_counts[e.query] for e in episodes]))
