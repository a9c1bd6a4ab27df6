"""Tuning: from a pool of labelled pictures to a prompt, and a verdict on whether it pays."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from incontext.errors import InputError, first_line
from incontext.evaluation.comparison import Verdict, best_of, decide
from incontext.evaluation.confusion import Counts, miou
from incontext.evaluation.episodes import judge
from incontext.evaluation.labelled_set import Pool
from incontext.evaluation.subsets import cover
from incontext.files import atomic, check_same_settings, exclusive
from incontext.inference.example import Example
from incontext.inference.predictor import Predictor
from incontext.inference.prompt import KINDS, Prompt
from incontext.inference.thumbnail import MOST, Thumbnail
from incontext.inference.thumbnail import thumbnail as picture_of
from incontext.labels.color_mask import Rgb, check_colors
from incontext.labels.coloring import Coloring
from incontext.model.int8 import Int8Linear
from incontext.tuning.baselines import ALL, FEW, NEAR, most_shown, prompt_of, ways
from incontext.tuning.tuner import Settings, Tuner, steps_for

SPLIT_FROM = 10  # pictures; fewer are judged by cross-validation
FOLDS = 3  # of cross-validation
HELD_SHARE, MOST_HELD = 0.25, 32  # of the pictures, to judge by
STATE = "state.pt"

DEFAULTS = Settings()
Tell = Callable[[str, int, int], None]  # what is being done, how far, of how much


@dataclass(frozen=True, repr=False)
class Outcome:
    """What tuning came to.

    `prompt` is what to use: the tuned one if the verdict is that it helps, else the best untuned
    one; `tuned` is the tuned one in any case. `shown` are the examples of the untuned ones, by
    number in `pool`, the pictures used; `curve` has (fold, step, loss, held-out mIoU).
    """

    prompt: Prompt
    tuned: Prompt
    verdict: Verdict
    curve: list[tuple[int, int, float, float]]
    pool: Pool
    shown: dict[str, list[int]]
    tuner: Tuner

    def __repr__(self) -> str:
        return f"Outcome({self.verdict.lines()[-1]})"

    def recolored(self, colors: Mapping[int, Rgb]) -> Prompt:
        """The tuned prompt under other colors, {id: (r, g, b)}: what was learned goes with any.

        Raises:
            InputError: an id without a color, or two colors that are too close.
        """
        missing = [i for i in self.tuned.ids if i not in colors]
        if missing:
            raise InputError(f"coloring lacks a color for id {missing[0]}")
        table = check_colors(dict(colors))
        several = [Coloring(c.ids, tuple(table[i] for i in c.ids)) for c in self.tuner.colorings]
        return self.tuner.prompt(colorings=several)


def tune(
    predictor: Predictor,
    examples: Iterable[Example] | Pool,
    folder: str | Path | None = None,
    *,
    names: Mapping[int, str] | None = None,
    kind: str = "semantic",
    settings: Settings = DEFAULTS,
    thumbnail: bool = True,
    tell: Tell = lambda what, done, total: None,
) -> Outcome:
    """Learn a prompt from labelled pictures, the model frozen, and judge it on held-out ones.

    With ten pictures or more a quarter is held out; fewer are judged by cross-validation, and the
    prompt is then learned from all of them, for as many steps as did best. It starts from the best
    few examples, or from 16 of all.

    Args:
        examples: two or more; or a `Pool` of the model's size.
        folder: where the state is kept, so that a run that was killed goes on to the same result.
        names: of ids.
        kind, thumbnail: see `Predictor.prompt`.
        tell: hears what is being done.

    Raises:
        InputError: too few examples, a model that cannot be tuned, a folder with another run.
    """
    if kind not in KINDS:
        raise InputError(f"kind {kind!r}; accepted: {', '.join(KINDS)}")
    int8 = any(isinstance(m, Int8Linear) for m in predictor.model.modules())
    if predictor.dtype != torch.float32 or int8:
        raise InputError("tuning computes in float32; load the checkpoint with that dtype")
    pool = Pool.gather(examples, predictor.size, names)
    pool = pool.subset(_usable(pool))
    with frozen(predictor), exclusive(folder):
        return _Run(predictor, pool, kind, settings, folder, tell).outcome(thumbnail)


def _usable(pool: Pool) -> list[int]:
    """Pictures with anything known on them.

    Raises:
        InputError: fewer than two of them show an object.
    """
    showing = pool.showing()
    if len(showing) < 2:
        raise InputError(
            f"{len(showing)} of {len(pool)} pictures show an object of a pixel or more at "
            f"{pool.size} × {pool.size}; tuning needs two or more"
        )
    return pool.known()


@contextmanager
def frozen(predictor: Predictor) -> Iterator[None]:
    """No parameter of the model wants gradients in here."""
    wanted = [p.requires_grad for p in predictor.model.parameters()]
    try:
        predictor.model.requires_grad_(False)
        yield
    finally:
        for parameter, want in zip(predictor.model.parameters(), wanted, strict=True):
            parameter.requires_grad_(want)


def split(pool: Pool, seed: int) -> list[tuple[list[int], list[int]]]:
    """(to learn from, to judge by) of each fold.

    Every id is learned that can be; pictures with and without an object are shared out alike.
    """
    order = np.random.default_rng((seed, 5)).permutation(len(pool)).tolist()
    there = set(pool.showing())
    shows, empty = ([i for i in order if (i in there) == wanted] for wanted in (True, False))
    if len(shows) >= SPLIT_FROM:
        kept = set(cover(pool, shows))
        free = [i for i in shows if i not in kept]
        count = min(MOST_HELD, max(2, round(HELD_SHARE * len(shows))), len(free))
        if count >= 2:
            held = free[:count] + empty[: min(MOST_HELD, round(HELD_SHARE * len(empty)))]
            return [([i for i in order if i not in held], held)]
    ranked, folds = shows + empty, min(FOLDS, len(shows))
    return [
        ([i for i in order if i not in ranked[f::folds]], ranked[f::folds]) for f in range(folds)
    ]


class _Run:
    """The stages of `tune`, each kept in the state once it is done."""

    def __init__(
        self, predictor: Predictor, pool: Pool, kind: str, settings: Settings,
        folder: str | Path | None, tell: Tell,
    ) -> None:  # fmt: skip
        self.predictor, self.pool, self.kind, self.tell = predictor, pool, kind, tell
        self.folds = split(pool, settings.seed)
        few = len(self.folds) > 1
        # Four runs of half the length instead of two.
        steps = max(1, settings.steps // 2) if few else settings.steps
        self.settings = replace(settings, steps=steps)
        self.path = Path(folder) / STATE if folder else None
        self.done: dict[str, Any] = {}
        if self.path and self.path.is_file():
            self.done = self._read(self.path)
        self.done["about"] = self._about()

    def _about(self) -> dict[str, Any]:
        """What tells this run from another."""
        hashed = sha256(self.pool.images.numpy().data)
        hashed.update(self.pool.labels.numpy().data)
        return {
            "checkpoint": self.predictor.checkpoint, "pictures": hashed.hexdigest()[:16],
            "ids": list(self.pool.ids), "kind": self.kind, **asdict(self.settings),
        }  # fmt: skip

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            done: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
            before = done["about"]
        except Exception as error:  # pickle, zip and torch have errors of their own
            raise InputError(
                f"{path}: a damaged state ({first_line(error)}); pass another folder"
            ) from None
        remedy = "pass another folder (--run), or delete it"
        check_same_settings(before, self._about(), path.parent, remedy)
        return done

    def _save(self, **stages: Any) -> None:
        self.done |= stages
        if not self.path:
            return
        with atomic(self.path) as draft:
            torch.save(self.done, draft)

    def outcome(self, thumbnail: bool) -> Outcome:
        """All stages, those that are done already from the state."""
        untuned: dict[str, list[Counts]] = {}
        tuned: list[list[Counts]] = []
        curve = []
        for number, (learn, held) in enumerate(self.folds):
            for name, counts in self._untuned(number, learn, held).items():
                untuned.setdefault(name, []).append(counts)
            tuner = self._tune(f"fold {number}", number, learn, held)
            tuned.append([counts for _, _, counts in tuner.history])
            curve += [
                (number, step, loss, _percent(counts)) for step, loss, counts in tuner.history
            ]
        # A fold that stopped early has fewer states.
        states = [np.concatenate(state) for state in zip(*tuned, strict=False)]
        verdict = decide({n: np.concatenate(c) for n, c in untuned.items()}, states)
        if len(self.folds) > 1:
            # Once more from all pictures, for as long as did best: few are too few to leave out.
            every = list(range(len(self.pool)))
            tuner = self._tune("all", 0, every, [], tuner.stops[best_of(states)])
        shown = self._shown()
        prompt = tuner.prompt()
        if not verdict.helps:
            best = verdict.best
            prompt = prompt_of(self.predictor, self.pool, best, shown[best], self.kind)
        small = self._thumbnail() if thumbnail else None
        used, tuned_one = (
            replace(one, made=self._made(verdict, is_tuned), thumbnail=small)
            for one, is_tuned in ((prompt, verdict.helps), (tuner.prompt(), True))
        )
        return Outcome(used, tuned_one, verdict, curve, self.pool, shown, tuner)

    def _made(self, verdict: Verdict, tuned: bool) -> dict[str, Any]:
        """What a prompt file says of its making."""
        said = {name: str(value) for name, value in verdict.untuned.items()}
        return {
            "by": "tune", "pictures": len(self.pool), "held_out": verdict.held_out,
            "used": "tuned" if tuned else verdict.best,
            "miou": {**said, "tuned": str(verdict.tuned)}, "gain": str(verdict.gain),
            "settings": asdict(self.settings),
        }  # fmt: skip

    def _untuned(self, number: int, learn: list[int], held: list[int]) -> dict[str, Counts]:
        """Counts on held-out pictures with examples as they are, by what is shown."""
        stage = f"untuned {number}"
        if stage not in self.done:
            shown, judged = self.pool.subset(learn), self.pool.subset(held)
            self.tell("choosing the best few examples", 0, 1)
            rng = np.random.default_rng((self.settings.seed, 6, number))
            sets = ways(self.predictor, shown, self.kind, rng)
            found = {}
            for at, (name, chosen) in enumerate(sets.items()):
                self.tell("judging examples as they are", at, len(sets))
                prompt = prompt_of(self.predictor, shown, name, chosen, self.kind)
                found[name] = torch.from_numpy(judge(self.predictor, prompt, judged))
            self._save(**{stage: found, f"sets {number}": sets})
        return {name: counts.numpy() for name, counts in self.done[stage].items()}

    def _thumbnail(self) -> Thumbnail:
        shown = self.pool.showing()[:MOST]
        return picture_of([self.pool.example(i) for i in shown], self.pool.colors)

    def _shown(self) -> dict[str, list[int]]:
        """Examples of the untuned prompts, by number in the pool."""
        learn = self.folds[0][0]
        sets = {name: [learn[i] for i in s] for name, s in self.done["sets 0"].items()}
        some = most_shown(self.pool, np.random.default_rng((self.settings.seed, 6)))
        return {**sets, ALL: some, NEAR: some}

    def _tune(
        self, stage: str, number: int, learn: list[int], held: list[int], until: int | None = None
    ) -> Tuner:
        """One run of tuning, resumed where it stopped. It starts from the best few examples of a
        fold, or from some of all, whichever does better on its held-out pictures."""
        first = self.folds[number][0]
        untuned = {n: self.done[f"untuned {number}"][n].numpy() for n in (FEW, ALL)}
        better = list(untuned)[best_of(list(untuned.values()))]
        start = [learn.index(first[i]) for i in self.done[f"sets {number}"][better]]
        tuner = Tuner(
            self.predictor, self.pool.subset(learn), self.pool.subset(held), self.kind,
            self.settings, start, steps_for(self.pool, self.settings),
        )  # fmt: skip
        if stage in self.done:
            tuner.resume(self.done[stage])
        end = tuner.steps if until is None else until

        def heard(loss: float, score: float | None) -> None:
            said = f"tuning ({stage}): loss {loss:.3f}"
            if tuner.history:
                said += f", held-out mIoU {_percent(tuner.history[-1][2]):.1f}"
            self.tell(said, tuner.step, end)

        tuner.run(end, heard, lambda: self._save(**{stage: tuner.state()}))
        self._save(**{stage: tuner.state()})
        return tuner


def _percent(counts: Counts) -> float:
    return float(np.nan_to_num(miou(counts)))
