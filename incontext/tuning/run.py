"""A run of tuning: folds, baselines, tuners, and what comes of them; resumable."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from incontext.errors import InputError, first_line, former_attributes
from incontext.evaluation.comparison import Comparison, best_index, compare
from incontext.evaluation.confusion import Counts, miou
from incontext.evaluation.episodes import covering_subset, evaluate
from incontext.evaluation.labelled_set import LabelledSet
from incontext.files import atomic, check_same_settings
from incontext.inference.predictor import Predictor
from incontext.inference.prompt import THUMBNAIL_EXAMPLES, Prompt, Thumbnail, draw_thumbnail
from incontext.labels.color_mask import Rgb, check_colors
from incontext.labels.coloring import Coloring
from incontext.tuning.baselines import (
    ALL_EXAMPLES,
    BEST_FEW,
    NEAREST_FEW,
    baseline_prompt,
    baseline_subsets,
    capped_examples,
)
from incontext.tuning.settings import Settings
from incontext.tuning.tuner import Tuner, steps_for

MIN_TO_SPLIT = 10  # images; fewer are cross-validated
FOLDS = 3  # of cross-validation
VAL_SHARE, MAX_VAL_IMAGES = 0.25, 32
STATE = "state.pt"

Progress = Callable[[str, int, int], None]  # stage, how much of it is done, of how much


@dataclass(frozen=True, repr=False)
class TuningResult:
    """What came of tuning.

    Attributes:
        prompt: the one to use: the tuned one if the comparison says that it improves, else the
            best baseline.
        tuned_prompt: the tuned one in any case.
        curve: (fold, step, loss, held-out mIoU).
        dataset: the images used.
        baseline_examples: indices in `dataset`, by baseline.
        tuner: of the tuned prompt.
    """

    prompt: Prompt
    tuned_prompt: Prompt
    comparison: Comparison
    curve: list[tuple[int, int, float, float]]
    dataset: LabelledSet
    baseline_examples: dict[str, list[int]]
    tuner: Tuner

    if not TYPE_CHECKING:
        __getattr__ = former_attributes(
            tuned="tuned_prompt", verdict="comparison", pool="dataset", shown="baseline_examples",
            recolored="recolor",
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"TuningResult({self.comparison.lines()[-1]})"

    def recolor(self, colors: Mapping[int, Rgb]) -> Prompt:
        """Return the tuned prompt under other colors, {id: (r, g, b)}.

        Raises:
            InputError: an id without a color, or two colors that are too close.
        """
        missing = [i for i in self.tuned_prompt.ids if i not in colors]
        if missing:
            raise InputError(f"coloring lacks a color for id {missing[0]}")
        table = check_colors(dict(colors))
        colorings = [Coloring(c.ids, tuple(table[i] for i in c.ids)) for c in self.tuner.colorings]
        return self.tuner.prompt(colorings=colorings)


def split(dataset: LabelledSet, seed: int) -> list[tuple[list[int], list[int]]]:
    """Split a set into folds of (training images, validation images).

    Every id that can be is in the training images; images with and without an object are divided
    alike.
    """
    order = np.random.default_rng((seed, 5)).permutation(len(dataset)).tolist()
    objects = set(dataset.indices_with_objects())
    usable, empty = [i for i in order if i in objects], [i for i in order if i not in objects]
    if len(usable) >= MIN_TO_SPLIT:
        required = set(covering_subset(dataset, usable))
        free = [i for i in usable if i not in required]
        count = min(MAX_VAL_IMAGES, max(2, round(VAL_SHARE * len(usable))), len(free))
        if count >= 2:
            val = free[:count] + empty[: min(MAX_VAL_IMAGES, round(VAL_SHARE * len(empty)))]
            return [([i for i in order if i not in val], val)]
    ranked, folds = usable + empty, min(FOLDS, len(usable))
    return [
        ([i for i in order if i not in ranked[f::folds]], ranked[f::folds]) for f in range(folds)
    ]


class TuningRun:
    """The stages of `tune`; the state keeps each one that is finished.

    Args:
        folder: of the state; None keeps none.
        on_progress: see `tune`.
    """

    def __init__(
        self,
        predictor: Predictor,
        dataset: LabelledSet,
        kind: str,
        settings: Settings,
        folder: str | Path | None,
        on_progress: Progress,
    ) -> None:
        self.predictor, self.dataset, self.kind = predictor, dataset, kind
        self.on_progress = on_progress
        self.folds = split(dataset, settings.seed)
        # Cross-validation is four runs of half the length instead of two.
        steps = max(1, settings.steps // 2) if len(self.folds) > 1 else settings.steps
        self.settings = replace(settings, steps=steps)
        self.path = Path(folder) / STATE if folder else None
        self.state: dict[str, Any] = {}
        if self.path and self.path.is_file():
            self.state = self._read(self.path)
        self.state["about"] = self._identity()

    def _identity(self) -> dict[str, Any]:
        """Return what must stay the same when a run is resumed."""
        images_hash = sha256(self.dataset.images.numpy().data)
        images_hash.update(self.dataset.labels.numpy().data)
        return {
            "checkpoint": self.predictor.checkpoint, "pictures": images_hash.hexdigest()[:16],
            "ids": list(self.dataset.ids), "kind": self.kind, **asdict(self.settings),
        }  # fmt: skip

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
            before = state["about"]
        except Exception as error:  # pickle, zip and torch have errors of their own
            raise InputError(
                f"{path}: a damaged state ({first_line(error)}); pass another folder"
            ) from None
        remedy = "pass another folder (--run), or delete it"
        check_same_settings(before, self._identity(), path.parent, remedy)
        return state

    def _save(self, **stages: Any) -> None:
        self.state |= stages
        if self.path:
            with atomic(self.path) as draft:
                torch.save(self.state, draft)

    def result(self, thumbnail: bool) -> TuningResult:
        """Run all stages, or read those that are finished from the state."""
        comparison, curve, tuner = self._compare()
        examples = self._baseline_examples()
        tuned_prompt = tuner.prompt()
        prompt, best = tuned_prompt, comparison.best
        if not comparison.improves:
            prompt = baseline_prompt(self.predictor, self.dataset, best, examples[best], self.kind)
        image = self._thumbnail() if thumbnail else None
        prompt, tuned_prompt = (
            replace(p, provenance=self._metadata(comparison, is_tuned), thumbnail=image)
            for p, is_tuned in ((prompt, comparison.improves), (tuned_prompt, True))
        )
        return TuningResult(prompt, tuned_prompt, comparison, curve, self.dataset, examples, tuner)

    def _compare(self) -> tuple[Comparison, list[tuple[int, int, float, float]], Tuner]:
        """Evaluate baselines and tuners on all folds; return also the curve and the last tuner."""
        baselines: dict[str, list[Counts]] = {}
        tuned: list[list[Counts]] = []
        curve = []
        for number, (train, val) in enumerate(self.folds):
            for name, counts in self._baseline_counts(number, train, val).items():
                baselines.setdefault(name, []).append(counts)
            tuner = self._run_tuner(f"fold {number}", number, train, val)
            tuned.append([counts for _, _, counts in tuner.history])
            curve += [(number, step, loss, _percent(c)) for step, loss, c in tuner.history]
        # A fold that stopped early has fewer states.
        states = [np.concatenate(state) for state in zip(*tuned, strict=False)]
        comparison = compare({n: np.concatenate(c) for n, c in baselines.items()}, states)
        if len(self.folds) > 1:
            # Again from all images, for as long as did best: a few are too few to hold some out.
            all_images = list(range(len(self.dataset)))
            stop = tuner.stops[best_index(states)]
            tuner = self._run_tuner("all", 0, all_images, [], stop)
        return comparison, curve, tuner

    def _metadata(self, comparison: Comparison, tuned: bool) -> dict[str, Any]:
        """Return what a prompt file tells about its making."""
        scores = {name: str(value) for name, value in comparison.baselines.items()}
        return {
            "by": "tune", "pictures": len(self.dataset), "held_out": comparison.held_out,
            "used": "tuned" if tuned else comparison.best,
            "miou": {**scores, "tuned": str(comparison.tuned)}, "gain": str(comparison.gain),
            "settings": asdict(self.settings),
        }  # fmt: skip

    def _baseline_counts(self, number: int, train: list[int], val: list[int]) -> dict[str, Counts]:
        """Evaluate the baselines of a fold on its validation images."""
        stage = f"untuned {number}"
        if stage not in self.state:
            train_set, val_set = self.dataset.subset(train), self.dataset.subset(val)
            self.on_progress("choosing the best few examples", 0, 1)
            rng = np.random.default_rng((self.settings.seed, 6, number))
            subsets = baseline_subsets(self.predictor, train_set, self.kind, rng)
            counts = {}
            for place, (name, examples) in enumerate(subsets.items()):
                self.on_progress("judging examples as they are", place, len(subsets))
                prompt = baseline_prompt(self.predictor, train_set, name, examples, self.kind)
                counts[name] = torch.from_numpy(evaluate(self.predictor, prompt, val_set))
            self._save(**{stage: counts, f"sets {number}": subsets})
        return {name: counts.numpy() for name, counts in self.state[stage].items()}

    def _thumbnail(self) -> Thumbnail:
        indices = self.dataset.indices_with_objects()[:THUMBNAIL_EXAMPLES]
        return draw_thumbnail([self.dataset.example(i) for i in indices], self.dataset.colors)

    def _baseline_examples(self) -> dict[str, list[int]]:
        """Return the examples of the baselines, by index in the whole set."""
        train = self.folds[0][0]
        subsets = {name: [train[i] for i in s] for name, s in self.state["sets 0"].items()}
        examples = capped_examples(self.dataset, np.random.default_rng((self.settings.seed, 6)))
        return {**subsets, ALL_EXAMPLES: examples, NEAREST_FEW: examples}

    def _run_tuner(
        self, stage: str, number: int, train: list[int], val: list[int], until: int | None = None
    ) -> Tuner:
        """Run a tuner, resumed where it stopped.

        It starts from the best few examples of fold `number`, or from some of all, whichever does
        better on the fold's validation images.
        """
        fold_train = self.folds[number][0]
        counts = {n: self.state[f"untuned {number}"][n].numpy() for n in (BEST_FEW, ALL_EXAMPLES)}
        better = list(counts)[best_index(list(counts.values()))]
        start = [train.index(fold_train[i]) for i in self.state[f"sets {number}"][better]]
        tuner = Tuner(
            self.predictor, self.dataset.subset(train), self.dataset.subset(val), self.kind,
            self.settings, start, steps_for(self.dataset, self.settings),
        )  # fmt: skip
        if stage in self.state:
            tuner.resume(self.state[stage])
        end = tuner.steps if until is None else until

        def report(loss: float) -> None:
            text = f"tuning ({stage}): loss {loss:.3f}"
            if tuner.history:
                text += f", held-out mIoU {_percent(tuner.history[-1][2]):.1f}"
            self.on_progress(text, tuner.step, end)

        tuner.run(end, report, lambda: self._save(**{stage: tuner.state()}))
        self._save(**{stage: tuner.state()})
        return tuner


def _percent(counts: Counts) -> float:
    return float(np.nan_to_num(miou(counts)))
