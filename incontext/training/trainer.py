"""Training by in-context coloring: the loop, exact resume, several processes."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from incontext.checkpoints.checkpoint import WEIGHTS, compare, load, save
from incontext.checkpoints.pretrained import backbone_state, graft
from incontext.data.episodes import Batch, Sampler
from incontext.data.pictures import PictureSet, check_labelled, load_set
from incontext.data.plan import Plan
from incontext.errors import InputError, first_line
from incontext.files import atomic, check_same_settings
from incontext.model import Config, Model, SegGPT, VotingModel, assemble
from incontext.model.low_rank import merge
from incontext.training.objective import objective, voting_objective
from incontext.training.recipe import Recipe, Run
from incontext.training.run_log import Meter, RunLog
from incontext.training.validation import Validation


class Plans(Dataset[Plan]):
    """Step → this process's share of its plan; what the loader's workers compute."""

    def __init__(self, sampler: Sampler, recipe: Recipe, process: int, processes: int) -> None:
        self.sampler, self.recipe = sampler, recipe
        self.process, self.processes = process, processes

    def share(self, episodes: int) -> range:
        """The episodes of a step that this process computes."""
        size = episodes // self.processes
        return range(self.process * size, (self.process + 1) * size)

    def __getitem__(self, step: int) -> Plan:
        about = self.recipe.step(step, self.processes)
        return self.sampler.plan(step, self.share(about.episodes), about.examples, about.size)


class Trainer:
    """A run that can be stopped at any step and resumed to the same weights.

    Under `torchrun` (or `accelerate launch`) the episodes of a step are shared by the processes:
    the loss is that of one process with all of them.

    Args:
        model: trained in place; parameters without gradient stay as they are.
        sets: pictures to draw episodes from; all of one size.
        folder: where `state.pt` and the log are kept; a state found there is resumed.
        validation: scored now and then.
        workers: processes that plan episodes ahead; 0 plans them between the steps.
    """

    def __init__(
        self,
        model: Model,
        sets: Sequence[PictureSet],
        recipe: Recipe,
        folder: Path,
        validation: Sequence[Validation] = (),
        workers: int = 0,
    ) -> None:
        try:
            from accelerate import Accelerator
        except ImportError:
            raise InputError(
                "training needs accelerate: pip install 'incontext-seg[train]'"
            ) from None
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder} is a file; accepted: a folder for the run")
        self.recipe, self.folder, self.validation = recipe, folder, validation
        # Said outright: without an accelerator several CPU processes would not find each other.
        alone = not torch.accelerator.is_available()
        self.accelerator = Accelerator(mixed_precision=recipe.precision, cpu=alone)
        learned = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            [{"params": [p for p in learned if p.dim() >= 2], "weight_decay": recipe.weight_decay},
             {"params": [p for p in learned if p.dim() < 2], "weight_decay": 0.0}],
            lr=recipe.learning_rate, betas=(0.9, 0.98),
        )  # fmt: skip
        self.raw = model
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.ema = {k: v.detach().clone() for k, v in model.state_dict().items()}
        device = self.accelerator.device
        self.sampler = Sampler(sets, recipe.mixture, recipe.seed, device)
        self.pictures = self.sampler.fingerprint()
        self.workers, self.step = workers, 0
        self.mean, self.std = (
            torch.tensor(values, device=device).view(3, 1, 1)
            for values in (model.config.mean, model.config.std)
        )
        self.log = RunLog(folder, active=self.accelerator.is_main_process)
        if (folder / "state.pt").is_file():
            self._resume()

    def _resume(self) -> None:
        path = self.folder / "state.pt"
        try:
            state = torch.load(path, weights_only=True, map_location="cpu")
        except Exception as error:  # pickle, zip and torch have errors of their own
            raise InputError(
                f"{path}: a damaged state ({first_line(error)}); pass another folder"
            ) from None
        now = _settings(self._state())
        before = {name: value for name, value in _settings(state).items() if name in now}
        check_same_settings(before, now, self.folder, "pass another folder")
        self.raw.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema = {k: v.to(self.ema[k].device) for k, v in state["ema"].items()}
        self.step = state["step"]
        if self.step > self.recipe.steps:
            raise InputError(
                f"{self.folder} holds a run of {self.step} steps already; {self.recipe.steps} are "
                "asked for: pass another folder"
            )
        self.log.forget_after(self.step)

    def save(self) -> None:
        """Write `state.pt`: all at once or not at all."""
        if not self.accelerator.is_main_process:
            return
        with atomic(self.folder / "state.pt") as draft:
            torch.save(self._state(), draft)

    def _state(self) -> dict[str, Any]:
        return {
            "model": self.raw.state_dict(), "optimizer": self.optimizer.state_dict(),
            "ema": self.ema, "step": self.step,
            "recipe": asdict(self.recipe), "config": asdict(self.raw.config),
            "pictures": self.pictures,
        }  # fmt: skip

    def plans(self, last: int) -> Iterator[Plan]:
        """The plans of the steps from here to `last`."""
        rank, count = self.accelerator.process_index, self.accelerator.num_processes
        plans = Plans(self.sampler, self.recipe, rank, count)
        ahead = 4 if self.workers else None
        return iter(DataLoader(
            plans, batch_size=None, sampler=range(self.step, last), num_workers=self.workers,
            prefetch_factor=ahead,
        ))  # fmt: skip

    def train_step(self, plan: Plan | None = None) -> dict[str, Tensor]:
        """One optimizer step; the loss and its parts, averaged over all processes."""
        if plan is None:
            plan = next(self.plans(self.step + 1))
        batch = self.sampler.render(plan)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(self.step)
        parts = self._gradients(batch, self._hidden(len(batch.images)))
        learned = [p for p in self.model.parameters() if p.requires_grad]
        self.accelerator.clip_grad_norm_(learned, self.recipe.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        keep = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        now = self.raw.state_dict()
        torch._foreach_lerp_(list(self.ema.values()), [now[k] for k in self.ema], 1 - keep)
        return {k: self.accelerator.reduce(v, "mean") for k, v in parts.items()}

    def _hidden(self, episodes: int) -> Tensor | None:
        """This process's share of what the step hides."""
        count = self.accelerator.num_processes
        about = self.recipe.step(self.step, count)
        hidden = self.recipe.hidden_patches(self.step, about, self.raw.config.patch_size)
        if hidden is None:
            return None
        start = self.accelerator.process_index * episodes
        return hidden[start : start + episodes].to(self.accelerator.device)

    def _gradients(self, batch: Batch, hidden: Tensor | None) -> dict[str, Tensor]:
        """Backward passes over the batch in `accumulate` pieces; the loss and its parts."""
        pieces = self.recipe.accumulate
        size = len(batch.images) // pieces
        total: dict[str, Tensor] = {}
        for piece in range(pieces):
            part = slice(piece * size, (piece + 1) * size)
            last = piece == pieces - 1
            # Gradients travel between processes once a step, with the last piece.
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                few = batch.part(part.start, part.stop)
                if isinstance(self.raw, VotingModel):
                    loss, parts = voting_objective(self.model, self.mean, self.std, few)
                else:
                    loss, parts = objective(
                        self.model, self.mean, self.std, self.recipe.weights, few,
                        None if hidden is None else hidden[part],
                    )  # fmt: skip
                self.accelerator.backward(loss / pieces)
            for name, value in parts.items():
                total[name] = total.get(name, 0) + value / pieces
        return total

    def run(
        self,
        until: int | None = None,
        save_every: int = 100,
        log_every: int = 50,
        validate_every: int = 500,
    ) -> None:
        """Train up to step `until`, or the recipe's last; logs, validates and saves on the way."""
        last = self.recipe.steps if until is None else min(until, self.recipe.steps)
        self.folder.mkdir(parents=True, exist_ok=True)
        plans = self.plans(last)
        meter = Meter()
        shown = self.accelerator.is_main_process
        bar = tqdm(total=last, initial=self.step, unit="step", disable=None if shown else True)
        while self.step < last:
            bar.update()
            before = perf_counter()
            plan = next(plans)
            waited = perf_counter() - before
            parts = self.train_step(plan)
            episodes = len(plan.colors) * self.accelerator.num_processes
            meter.add(parts, episodes, waited, perf_counter() - before)
            if self.step % log_every == 0 or self.step == last:
                rate = self.recipe.rate(self.step)
                self.log.add({"step": self.step, "rate": rate, **meter.means()})
                meter = Meter()
            if self.step % save_every == 0:
                self.save()
            if self.step % validate_every == 0 and self.step < last:
                self.validate()
        bar.close()
        self.save()
        self.validate()

    def validate(self) -> None:
        """Score the averaged weights on every validation and draw the run's pictures."""
        if self.accelerator.is_main_process:
            model = self.averaged()
            for validation in self.validation:
                self.log.add_validation(self.step, validation.examples, validation.score(model))
            shown = self.validation[0].samples(model) if self.validation else []
            self.log.draw(shown)
        self.accelerator.wait_for_everyone()

    def averaged(self) -> Model:
        """A model of its own with the averaged weights, low-rank updates merged."""
        model = assemble(self.raw.config).to(self.accelerator.device)
        model.load_state_dict(merge(self.ema))
        return model.eval()

    def export(self) -> Path:
        """Write the averaged weights as a checkpoint into the folder; answers its weights file."""
        if self.accelerator.is_main_process:
            save(self.averaged(), self.folder)
        self.accelerator.wait_for_everyone()
        return self.folder / WEIGHTS


def start(config: Config, init: str | None = None) -> Model:
    """A model to train: the backbone's pretrained weights, and what can be taken over from `init`.

    From a checkpoint of tokens a voting model takes stem and copy path, see `graft`; from one
    without a summary in its mixer all that it has, since the summary begins at zero.

    Raises:
        InputError: no package of the backbone's weights; `init` of another shape.
    """
    model = assemble(config)
    if isinstance(model, VotingModel):
        model.backbone.load_state_dict(backbone_state(config.backbone))
    before = load(init) if init else None
    if isinstance(model, VotingModel) and isinstance(before, SegGPT):
        graft(model, before)
    elif before is not None:
        free = {"image_size": 0, "mixer_summary": config.mixer_summary}
        if asdict(before.config) | free != asdict(config) | {"image_size": 0}:
            raise InputError(f"--init {init} has another shape than the recipe describes")
        state = model.state_dict() | before.state_dict()
        problems = compare(model.state_dict(), state)
        if problems:  # relative position has tables of the picture's size
            raise InputError(f"--init {init}: {'; '.join(problems)}")
        model.load_state_dict(state)
    return model


def _settings(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return what must stay the same when a run is resumed.

    The number of steps is left out: a longer or shorter schedule is a decision, not another run.
    """
    settings = {
        f"{part}.{name}": value
        for part in ("config", "recipe")
        for name, value in state[part].items()
        if name != "steps"
    }
    # With the same config only the rank of low-rank updates changes shapes.
    settings["the rank of low-rank updates"] = {k: v.shape for k, v in state["model"].items()}
    settings["the pictures"] = state["pictures"]
    return settings


def train_from_file(
    description: Path,
    sources: Sequence[Path],
    folder: Path,
    init: str | None = None,
    until: int | None = None,
    validation: Sequence[Path] = (),
    workers: int = 0,
) -> Path:
    """Run what a JSON file describes (see `incontext.training.recipe.Run`).

    Returns:
        The checkpoint with the averaged weights, in `folder`.

    Raises:
        InputError: see `Run.read` and `load_set`; a set without labels, `init` of another shape.
    """
    about = Run.read(description)
    torch.manual_seed(about.recipe.seed)
    model = start(about.config, init)
    parts = [name for name, _ in model.named_children()]
    for part in about.recipe.frozen:
        if part not in parts:
            raise InputError(f"{description}: frozen part {part!r}; accepted: {', '.join(parts)}")
        model.get_submodule(part).requires_grad_(False)
    sets = [load_set(path, about.cache) for path in sources]
    for data, path in zip(sets, sources, strict=True):
        if not about.recipe.mixture.regions:  # which need no labels
            check_labelled(data, path)
    strange = sorted(about.recipe.mixture.weights.keys() - {data.name for data in sets})
    if strange:
        warnings.warn(
            f"{description}: weights of sets that are not given: {', '.join(strange)}", stacklevel=2
        )
    size = about.config.image_size
    judged = [load_set(path, size) for path in validation]
    checks = [Validation(judged, count) for count in (1, 4)] if judged else []
    trainer = Trainer(model, sets, about.recipe, folder, checks, workers)
    trainer.run(until)
    return trainer.export()
