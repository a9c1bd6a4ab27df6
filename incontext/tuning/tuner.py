"""Tuner: one run that learns a prompt from some images and is evaluated on others.

Letters: B queries of a step, K ids of a pass, S the model's size.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from incontext.data.views import color_jitter, random_crop, render
from incontext.evaluation.confusion import Counts, miou
from incontext.evaluation.episodes import evaluate
from incontext.evaluation.labelled_set import LabelledSet, occurrence
from incontext.images.normalizer import Normalizer
from incontext.inference.id_table import CLASSES_PER_PASS, assign_colorings
from incontext.inference.predictor import Predictor
from incontext.inference.prompt import Pass, Prompt
from incontext.labels.coloring import Coloring
from incontext.labels.encodings import IGNORE_INDEX
from incontext.model import SegGPT, VotingModel
from incontext.training.objective import compute_prompt_loss
from incontext.tuning.parameters import SPACES, PromptParameters
from incontext.tuning.settings import Settings

MIN_AREA = 0.8  # share of an image that a query shows
JITTER_SCALE = np.float32(0.3)  # of the color jitter in training
TOKEN_BUDGETS = {SegGPT: 2.0, VotingModel: 1.25}  # defaults of `Settings.token_budget`
NEUTRAL_JITTER = np.array([1, 1, 1, 0, 0, 0], np.float32)  # see `views.JITTER_VALUES`


class Tuner:
    """One run: learns from some images, is evaluated on others, can be stopped and resumed.

    Args:
        train_set: images to learn from.
        val_set: images to evaluate on; if empty, the last values count as the best.
        start: examples to start from, indices of `train_set`; None: some that show every id.
        steps: of the run; None: what the settings say for so many paintings.
    """

    def __init__(
        self,
        predictor: Predictor,
        train_set: LabelledSet,
        val_set: LabelledSet,
        kind: str,
        settings: Settings,
        start: Sequence[int] | None = None,
        steps: int | None = None,
    ) -> None:
        self.predictor, self.train_set, self.val_set = predictor, train_set, val_set
        self.kind, self.settings = kind, settings
        self.start = list(range(len(train_set))) if start is None else list(start)
        config = predictor.model.config
        self.normalizer = Normalizer(config.mean, config.std, predictor.device)
        self.colorings = default_colorings(train_set)
        self.steps = steps or steps_for(train_set, settings)
        marks = np.arange(1, settings.evaluations + 1) / settings.evaluations
        self.stops = sorted({0, *(max(1, round(self.steps * mark)) for mark in marks.tolist())})
        occurs = occurrence(train_set)
        columns = [[train_set.ids.index(i) for i in c.ids] for c in self.colorings]
        self.images_by_pass = [np.flatnonzero(occurs[:, c].any(1)) for c in columns]
        self.passes = [self._make_pass(number, c) for number, c in enumerate(self.colorings)]
        self.parameters = [p for part in self.passes for p in part.parameters()]
        self.optimizer = torch.optim.Adam(
            self.parameters, settings.learning_rate, betas=(0.9, 0.98)
        )
        self.average = [p.detach().clone() for p in self.parameters]
        self.step, self.best_score = 0, -1.0
        self.best_values = [p.clone() for p in self.average]
        self.history: list[tuple[int, float, Counts]] = []  # step, mean loss since, counts
        self.losses: list[float] = []

    def _make_pass(self, number: int, coloring: Coloring) -> PromptParameters:
        """Make the parameters of one pass of its start examples."""
        examples = self.start_examples(coloring)
        model = self.predictor.model
        budget = self.settings.token_budget or TOKEN_BUDGETS[type(model)]
        independent = model.config.example_attention == "independent"
        keep_ratio = min(1.0, budget / len(examples)) if independent else 1.0
        return SPACES[self.settings.space](
            self.predictor, self.train_set.subset(examples), coloring, self.kind, keep_ratio,
            self.settings.seed * 1000 + number,
        )  # fmt: skip

    def start_examples(self, coloring: Coloring) -> list[int]:
        """Draw the examples that a pass starts from, for each of its ids in turn."""
        limit = self.settings.examples
        if self.predictor.model.config.example_attention == "joint":
            limit = min(limit, 2)  # each goes along with every query
        occurs = occurrence(self.train_set)
        order = np.random.default_rng((self.settings.seed, 2)).permutation(self.start)
        columns = [self.train_set.ids.index(i) for i in coloring.ids]
        # An id that no start example shows takes others.
        queues = [
            [int(i) for i in order if occurs[i, column]]
            or np.flatnonzero(occurs[:, column]).tolist()
            for column in columns
        ]
        examples: list[int] = []
        while any(queues) and len(examples) < limit:
            for queue in queues:
                while queue and queue[0] in examples:
                    queue.pop(0)
                if queue and len(examples) < limit:
                    examples.append(queue.pop(0))
        return examples

    def train_step(self) -> float:
        """Take one step on one of the passes; return its loss."""
        rng = np.random.default_rng((self.settings.seed, 3, self.step))
        number = self.step % len(self.passes)
        parameters = self.passes[number]
        coloring = parameters.draw_coloring(rng)
        images, labels = self._draw_queries(rng, coloring, number)
        colors = torch.tensor([(0, 0, 0), *coloring.colors], device=images.device) / 255
        for group_options in self.optimizer.param_groups:
            group_options["lr"] = self._learning_rate()
        with torch.enable_grad():
            loss = compute_prompt_loss(
                self.predictor.model, parameters.encode(coloring), self.normalizer(images), labels,
                self.normalizer.colors(colors),
            )  # fmt: skip
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
        self.optimizer.step()
        self.step += 1
        decay = min(self.settings.ema, self.step / (10 + self.step))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)
        return float(loss.detach())

    def _learning_rate(self) -> float:
        """Linear warm-up over ten steps, then a cosine to a twentieth."""
        warmup = min(1.0, (self.step + 1) / 10)
        cosine = (1 + np.cos(np.pi * self.step / self.steps)) / 2
        return float(self.settings.learning_rate * warmup * (0.05 + 0.95 * cosine))

    def _draw_queries(
        self, rng: np.random.Generator, coloring: Coloring, number: int
    ) -> tuple[Tensor, Tensor]:
        """Draw images to learn from, (B, 3, S, S) in 0–1, and labels (B, S, S), slightly changed.

        Nearly whole and little jittered, as later queries will be. Crops of all scales cost moles
        5 points instead of bringing 2.
        """
        dataset, count = self.train_set, self.settings.queries
        table = np.zeros(256, np.uint8)
        table[IGNORE_INDEX] = IGNORE_INDEX
        for row, index in enumerate(coloring.ids, 1):
            table[1 + dataset.ids.index(index)] = row
        images_of_pass = self.images_by_pass[number]
        # Half are any images: what shows none of the pass's ids must stay unpainted.
        rows = [
            int(rng.integers(len(dataset)) if rng.random() < 0.5 else rng.choice(images_of_pass))
            for _ in range(count)
        ]
        ids = table[dataset.labels[rows].numpy()]
        affines = torch.from_numpy(np.stack([random_crop(rng, m, MIN_AREA) for m in ids]))
        jitter = NEUTRAL_JITTER + JITTER_SCALE * (color_jitter(rng, count) - NEUTRAL_JITTER)
        images, labels = render(
            dataset.images[rows].float() / 255, torch.from_numpy(ids), affines,
            torch.from_numpy(jitter), dataset.size,
        )  # fmt: skip
        return images.to(self.predictor.device), labels.to(self.predictor.device)

    @torch.no_grad()
    def prompt(
        self,
        values: Sequence[Tensor] | None = None,
        colorings: Sequence[Coloring] | None = None,
    ) -> Prompt:
        """Return the prompt in float16.

        Args:
            values: of the parameters; None: those that did best.
            colorings: of the passes' ids in their order; None: the default ones.
        """
        before = [p.detach().clone() for p in self.parameters]
        self.set_values(self.best_values if values is None else values)
        passes = []
        for coloring, parameters in zip(colorings or self.colorings, self.passes, strict=True):
            passes.append(Pass(coloring, parameters.encode(coloring).to(torch.float16)))
        self.set_values(before)
        ids = sorted({i for c in self.colorings for i in c.ids})
        colors = {i: self.train_set.colors[i] for i in ids}
        names = {i: self.train_set.names[i] for i in ids}
        return Prompt(
            tuple(ids), colors, names, self.kind, passes[0].encoded_prompt.count, tuple(passes),
            self.predictor.checkpoint, model_name=self.predictor.name,
        )  # fmt: skip

    def run(
        self,
        until: int | None = None,
        on_step: Callable[[float], None] = lambda loss: None,
        save: Callable[[], None] = lambda: None,
    ) -> None:
        """Learn up to step `until`, by default the last one.

        Args:
            on_step: called with the loss of every step, after an evaluation if there is one.
            save: called after every evaluation.
        """
        last = self.steps if until is None else min(until, self.steps)
        if not self.step and not self.history:  # the score that learning has to beat
            self._evaluate()
        while self.step < last and not self.should_stop:
            loss = self.train_step()
            self.losses.append(loss)
            stop = self.step in self.stops or self.step == last
            if stop:
                self._evaluate()
            on_step(loss)
            if stop:
                save()

    @property
    def should_stop(self) -> bool:
        """True if the last `patience` evaluations brought nothing (early stopping)."""
        scores = [float(np.nan_to_num(miou(counts))) for _, _, counts in self.history]
        return len(scores) - 1 - int(np.argmax(scores or [0])) >= self.settings.patience

    def _evaluate(self) -> None:
        """Evaluate the averaged values on the held-out images; keep them if they are the best."""
        loss, self.losses = float(np.mean(self.losses or [np.nan])), []
        if not len(self.val_set):
            self.best_values = [p.clone() for p in self.average]
            return
        counts = evaluate(self.predictor, self.prompt(self.average), self.val_set)
        self.history.append((self.step, loss, counts))
        score = float(np.nan_to_num(miou(counts)))
        if score > self.best_score:
            self.best_score, self.best_values = score, [p.clone() for p in self.average]

    def state(self) -> dict[str, Any]:
        """Return all that a run needs to be resumed."""
        return {
            "parameters": [p.detach() for p in self.parameters], "average": self.average,
            "kept": self.best_values, "optimizer": self.optimizer.state_dict(), "step": self.step,
            "best": self.best_score,
            "history": [(s, loss, torch.from_numpy(c)) for s, loss, c in self.history],
        }  # fmt: skip

    def resume(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.set_values(state["parameters"])
        self.average, self.best_values = (
            [x.to(p.device) for x, p in zip(state[name], self.parameters, strict=True)]
            for name in ("average", "kept")
        )
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.best_score = state["step"], state["best"]
        self.history = [(s, loss, c.numpy()) for s, loss, c in state["history"]]

    @torch.no_grad()
    def set_values(self, values: Sequence[Tensor]) -> None:
        """Copy values into the parameters."""
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)


def steps_for(dataset: LabelledSet, settings: Settings) -> int:
    """Return the steps of a run with as many paintings as a set's ids take."""
    return settings.steps * len(default_colorings(dataset))


def default_colorings(dataset: LabelledSet) -> list[Coloring]:
    """Return the default colorings of the ids that a set shows."""
    values = set(torch.unique(dataset.labels).tolist())
    ids = [i for row, i in enumerate(dataset.ids, 1) if row in values]
    return assign_colorings(ids, CLASSES_PER_PASS, None)
