"""Tuner: one run that learns a prompt from some pictures and is judged on others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from incontext.data.views import crop, render, tones
from incontext.errors import InputError
from incontext.evaluation.confusion import Counts, miou
from incontext.evaluation.episodes import judge
from incontext.evaluation.labelled_set import IGNORE, Pool, shown_by
from incontext.inference.predictor import CLASSES_PER_PASS, Predictor
from incontext.inference.prompt import Pass, Prompt, group
from incontext.labels.coloring import Coloring
from incontext.model import SegGPT, VotingModel
from incontext.training.objective import judge_prompt
from incontext.tuning.parameters import SPACES, Learned

AREA = 0.8  # of a picture that a query shows, or more
JITTER = np.float32(0.3)  # of the recoloring in training
WORTH = {SegGPT: 2.0, VotingModel: 1.25}  # see `Settings`
PLAIN = np.array([1, 1, 1, 0, 0, 0], np.float32)  # no recoloring, see `views.TONES`


@dataclass(frozen=True)
class Settings:
    """How a prompt is tuned; what the defaults bring: `prompts/README.md`."""

    space: str = "tokens"  # or "pixels", see `incontext.tuning.parameters`
    steps: int = 100  # for each painting that a query takes
    rate: float = 0.02  # learning rate, in units of a token's or a picture's spread
    examples: int = 16  # real ones that a prompt starts from
    # Examples' worth of tokens in a painting; None: 2, of a model that votes 1.25 (does as well).
    worth: float | None = None
    queries: int = 2  # a step
    judged: int = 5  # times on the way that held-out pictures are judged
    patience: int = 3  # of these in a row that bring nothing end a run
    average: float = 0.98  # of the learned values over steps
    seed: int = 0

    def __post_init__(self) -> None:
        if self.space not in SPACES:
            raise InputError(f"space {self.space!r}; accepted: {', '.join(SPACES)}")
        for name in ("steps", "examples", "queries", "judged", "patience"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; accepted: 1 or more")
        if not (self.rate > 0 and (self.worth is None or self.worth > 0)):
            raise InputError("rate and worth are positive numbers")


class Tuner:
    """One run: learns from some pictures, is judged on others, can be stopped and resumed.

    Args:
        learn: pictures to learn from.
        held: pictures to judge by; empty: none.
        start: examples to start from, by number in `learn`; None: some that show every id.
        steps: of the run; None: what the settings say for so many paintings.
    """

    def __init__(
        self, predictor: Predictor, learn: Pool, held: Pool, kind: str, settings: Settings,
        start: Sequence[int] | None = None, steps: int | None = None,
    ) -> None:  # fmt: skip
        self.predictor, self.learn, self.held = predictor, learn, held
        self.kind, self.settings = kind, settings
        self.given = list(range(len(learn))) if start is None else list(start)
        self.colorings = colorings_of(learn)
        self.steps = steps or steps_for(learn, settings)
        marks = np.arange(1, settings.judged + 1) / settings.judged
        self.stops = sorted({0, *(max(1, round(self.steps * mark)) for mark in marks.tolist())})
        shows = shown_by(learn)
        rows = [[learn.ids.index(i) for i in c.ids] for c in self.colorings]
        self.holders = [np.flatnonzero(shows[:, some].any(1)) for some in rows]
        self.passes = [self._pass(number, c) for number, c in enumerate(self.colorings)]
        self.parameters = [p for one in self.passes for p in one.parameters()]
        self.optimizer = torch.optim.Adam(self.parameters, settings.rate, betas=(0.9, 0.98))
        self.average = [p.detach().clone() for p in self.parameters]
        self.step, self.best = 0, -1.0
        self.kept = [p.clone() for p in self.average]
        self.history: list[tuple[int, float, Counts]] = []  # step, mean loss since, counts
        self.losses: list[float] = []

    def _pass(self, number: int, coloring: Coloring) -> Learned:
        chosen = self.start(coloring)
        model = self.predictor.model
        worth = self.settings.worth or WORTH[type(model)]
        share = worth / len(chosen) if model.config.example_attention == "independent" else 1.0
        make = SPACES[self.settings.space]
        seed = self.settings.seed * 1000 + number
        learn = self.learn.subset(chosen)
        return make(self.predictor, learn, coloring, self.kind, min(1.0, share), seed)

    def start(self, coloring: Coloring) -> list[int]:
        """Pictures that a pass starts from: its ids in turn, at random."""
        most = self.settings.examples
        if self.predictor.model.config.example_attention == "joint":
            most = min(most, 2)  # each goes along with every query
        shows = shown_by(self.learn)
        order = np.random.default_rng((self.settings.seed, 2)).permutation(self.given)
        columns = [self.learn.ids.index(i) for i in coloring.ids]
        # An id that none of the given examples shows takes others.
        queues = [
            [int(i) for i in order if shows[i, column]] or np.flatnonzero(shows[:, column]).tolist()
            for column in columns
        ]
        chosen: list[int] = []
        while any(queues) and len(chosen) < most:
            for queue in queues:
                while queue and queue[0] in chosen:
                    queue.pop(0)
                if queue and len(chosen) < most:
                    chosen.append(queue.pop(0))
        return chosen

    def train_step(self) -> float:
        """One step on one of the passes; its loss."""
        rng = np.random.default_rng((self.settings.seed, 3, self.step))
        number = self.step % len(self.passes)
        learned = self.passes[number]
        coloring = learned.draw(rng)
        pictures, labels = self._queries(rng, coloring, number)
        model, config = self.predictor.model, self.predictor.model.config
        mean, std = (
            torch.tensor(x, device=pictures.device).view(3, 1, 1) for x in (config.mean, config.std)
        )
        colors = torch.tensor([(0, 0, 0), *coloring.colors], device=pictures.device) / 255
        for param in self.optimizer.param_groups:
            param["lr"] = self._rate()
        with torch.enable_grad():
            loss = judge_prompt(
                model, learned.encode(coloring), (pictures - mean) / std, labels,
                (colors - mean.view(3)) / std.view(3),
            )  # fmt: skip
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
        self.optimizer.step()
        self.step += 1
        keep = min(self.settings.average, self.step / (10 + self.step))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - keep)
        return float(loss.detach())

    def _rate(self) -> float:
        """Linear warm-up over ten steps, then a cosine to a twentieth."""
        warm = min(1.0, (self.step + 1) / 10)
        cosine = (1 + np.cos(np.pi * self.step / self.steps)) / 2
        return float(self.settings.rate * warm * (0.05 + 0.95 * cosine))

    def _queries(
        self, rng: np.random.Generator, coloring: Coloring, number: int
    ) -> tuple[Tensor, Tensor]:
        """Pictures to learn from, (B, 3, S, S) in 0–1 and (B, S, S) labels, slightly changed.

        As they will be asked for: nearly whole, little recolored. Crops at full scale cost moles 5
        points instead of bringing 2.
        """
        size, count = self.learn.size, self.settings.queries
        table = np.zeros(256, np.uint8)
        table[IGNORE] = IGNORE
        for row, index in enumerate(coloring.ids, 1):
            table[1 + self.learn.ids.index(index)] = row
        holders = self.holders[number]
        # Half of them any pictures: what shows none of the pass's ids is to stay unpainted.
        some = [
            int(rng.integers(len(self.learn)) if rng.random() < 0.5 else rng.choice(holders))
            for _ in range(count)
        ]
        ids = table[self.learn.labels[some].numpy()]
        places = torch.from_numpy(np.stack([crop(rng, one, AREA) for one in ids]))
        tone = torch.from_numpy(PLAIN + JITTER * (tones(rng, count) - PLAIN))
        pictures = self.learn.images[some].float() / 255
        seen, where = render(pictures, torch.from_numpy(ids), places, tone, size)
        return seen.to(self.predictor.device), where.to(self.predictor.device)

    @torch.no_grad()
    def prompt(
        self,
        values: Sequence[Tensor] | None = None,
        colorings: Sequence[Coloring] | None = None,
    ) -> Prompt:
        """The prompt with these learned values in float16, None: those that judged best.

        `colorings`: of the passes' ids in their order, None: the default ones.
        """
        before = [p.detach().clone() for p in self.parameters]
        self._put(self.kept if values is None else values)
        passes = []
        for coloring, learned in zip(colorings or self.colorings, self.passes, strict=True):
            passes.append(Pass(coloring, learned.encode(coloring).to(torch.float16)))
        self._put(before)
        ids = sorted({i for c in self.colorings for i in c.ids})
        colors = {i: self.learn.colors[i] for i in ids}
        names = {i: self.learn.names[i] for i in ids}
        return Prompt(
            tuple(ids), colors, names, self.kind, passes[0].encoded.count, tuple(passes),
            self.predictor.checkpoint, model_name=self.predictor.name,
        )  # fmt: skip

    def run(
        self,
        until: int | None = None,
        tell: Callable[[float, float | None], None] = lambda loss, score: None,
        save: Callable[[], None] = lambda: None,
    ) -> None:
        """Learn up to step `until`, the last one without it.

        `tell` hears the loss of every step, and mIoU where pictures were judged; `save` is called
        then.
        """
        last = self.steps if until is None else min(until, self.steps)
        if not self.step and not self.history:  # what learning has to beat
            self._judge()
        while self.step < last and not self.tired:
            loss = self.train_step()
            self.losses.append(loss)
            stop = self.step in self.stops or self.step == last
            tell(loss, self._judge() if stop else None)
            if stop:
                save()

    @property
    def tired(self) -> bool:
        """Whether the last `patience` judgments brought nothing (early stopping)."""
        scores = [float(np.nan_to_num(miou(counts))) for _, _, counts in self.history]
        return len(scores) - 1 - int(np.argmax(scores or [0])) >= self.settings.patience

    def _judge(self) -> float | None:
        """Judge the averaged values on the held-out pictures; keep them if they are the best."""
        loss, self.losses = float(np.mean(self.losses or [np.nan])), []
        if not len(self.held):
            self.kept = [p.clone() for p in self.average]
            return None
        counts = judge(self.predictor, self.prompt(self.average), self.held)
        self.history.append((self.step, loss, counts))
        score = float(np.nan_to_num(miou(counts)))
        if score > self.best:
            self.best, self.kept = score, [p.clone() for p in self.average]
        return score

    def state(self) -> dict[str, Any]:
        """All that a run needs to go on."""
        return {
            "parameters": [p.detach() for p in self.parameters], "average": self.average,
            "kept": self.kept, "optimizer": self.optimizer.state_dict(), "step": self.step,
            "best": self.best,
            "history": [(s, loss, torch.from_numpy(c)) for s, loss, c in self.history],
        }  # fmt: skip

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from what `state` answered."""
        self._put(state["parameters"])
        self.average, self.kept = (
            [x.to(p.device) for x, p in zip(state[name], self.parameters, strict=True)]
            for name in ("average", "kept")
        )
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.best = state["step"], state["best"]
        self.history = [(s, loss, c.numpy()) for s, loss, c in state["history"]]

    @torch.no_grad()
    def _put(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)


def steps_for(pool: Pool, settings: Settings) -> int:
    """Steps with as many paintings as a pool's ids take."""
    return settings.steps * len(colorings_of(pool))


def colorings_of(pool: Pool) -> list[Coloring]:
    """The default colorings of the ids that a pool shows."""
    there = set(torch.unique(pool.labels).tolist())
    ids = [i for row, i in enumerate(pool.ids, 1) if row in there]
    return group(ids, CLASSES_PER_PASS, None)
