"""Training by in-context coloring: the loop, exact resume, several processes."""

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

from incontext.checkpoints.checkpoint import save
from incontext.checkpoints.location import WEIGHTS
from incontext.data.episodes import Batch, EpisodeSampler
from incontext.data.pictures import PictureSet
from incontext.data.plan import Plan
from incontext.errors import InputError, first_line
from incontext.files import atomic, check_same_settings
from incontext.images.normalizer import Normalizer
from incontext.model import Model, VotingModel, assemble
from incontext.model.low_rank import merge
from incontext.training.objective import objective, voting_objective
from incontext.training.recipe import Recipe
from incontext.training.run_log import Meter, RunLog
from incontext.training.validation import Validation


class PlanDataset(Dataset[Plan]):
    """Step → this process's share of its plan; what the loader's workers compute."""

    def __init__(
        self, sampler: EpisodeSampler, recipe: Recipe, process: int, processes: int
    ) -> None:
        self.sampler, self.recipe = sampler, recipe
        self.process, self.processes = process, processes

    def share(self, episodes: int) -> range:
        """Return the episodes of a step that this process computes."""
        size = episodes // self.processes
        return range(self.process * size, (self.process + 1) * size)

    def __getitem__(self, number: int) -> Plan:
        step = self.recipe.step(number, self.processes)
        return self.sampler.plan(number, self.share(step.episodes), step.examples, step.size)


class Trainer:
    """A run that can be stopped at any step and resumed to the same weights.

    Under `torchrun` (or `accelerate launch`) the episodes of a step are divided among the
    processes: the loss is that of one process with all of them.

    Args:
        model: trained in place; parameters without gradient stay as they are.
        sets: images to draw episodes from; all of one size.
        folder: where `state.pt` and the log are kept; a state found there is resumed.
        validation: scored at intervals.
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
        # Explicit, since without an accelerator several CPU processes would not find each other.
        cpu = not torch.accelerator.is_available()
        self.accelerator = Accelerator(mixed_precision=recipe.precision, cpu=cpu)
        trained_params = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            [
                {
                    "params": [p for p in trained_params if p.dim() >= 2],
                    "weight_decay": recipe.weight_decay,
                },
                {"params": [p for p in trained_params if p.dim() < 2], "weight_decay": 0.0},
            ],
            lr=recipe.learning_rate,
            betas=(0.9, 0.98),
        )
        self.raw = model
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.ema = {k: v.detach().clone() for k, v in model.state_dict().items()}
        device = self.accelerator.device
        self.sampler = EpisodeSampler(sets, recipe.mixture, recipe.seed, device)
        self.images_hash = self.sampler.fingerprint()
        self.workers, self.step = workers, 0
        self.normalizer = Normalizer(model.config.mean, model.config.std, device)
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
        """Write `state.pt`, whole or not at all."""
        if not self.accelerator.is_main_process:
            return
        with atomic(self.folder / "state.pt") as draft:
            torch.save(self._state(), draft)

    def _state(self) -> dict[str, Any]:
        return {
            "model": self.raw.state_dict(), "optimizer": self.optimizer.state_dict(),
            "ema": self.ema, "step": self.step,
            "recipe": asdict(self.recipe), "config": asdict(self.raw.config),
            "pictures": self.images_hash,
        }  # fmt: skip

    def plans(self, last: int) -> Iterator[Plan]:
        """Plan the steps from here to `last`."""
        rank, count = self.accelerator.process_index, self.accelerator.num_processes
        loader = DataLoader(
            PlanDataset(self.sampler, self.recipe, rank, count), batch_size=None,
            sampler=range(self.step, last), num_workers=self.workers,
            prefetch_factor=4 if self.workers else None,
        )  # fmt: skip
        return iter(loader)

    def train_step(self, plan: Plan | None = None) -> dict[str, Tensor]:
        """Take one optimizer step; return the loss and its parts, averaged over all processes."""
        if plan is None:
            plan = next(self.plans(self.step + 1))
        batch = self.sampler.render(plan)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(self.step)
        parts = self._gradients(batch, self._hidden(len(batch.images)))
        trained_params = [p for p in self.model.parameters() if p.requires_grad]
        self.accelerator.clip_grad_norm_(trained_params, self.recipe.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        keep = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        now = self.raw.state_dict()
        torch._foreach_lerp_(list(self.ema.values()), [now[k] for k in self.ema], 1 - keep)
        return {k: self.accelerator.reduce(v, "mean") for k, v in parts.items()}

    def _hidden(self, episodes: int) -> Tensor | None:
        """Return this process's share of the step's hidden patches."""
        step = self.recipe.step(self.step, self.accelerator.num_processes)
        hidden = self.recipe.hidden_patches(self.step, step, self.raw.config.patch_size)
        if hidden is None:
            return None
        start = self.accelerator.process_index * episodes
        return hidden[start : start + episodes].to(self.accelerator.device)

    def _gradients(self, batch: Batch, hidden: Tensor | None) -> dict[str, Tensor]:
        """Run the batch forward and backward in `accumulate` pieces; return the loss, its parts."""
        pieces = self.recipe.accumulate
        size = len(batch.images) // pieces
        total: dict[str, Tensor] = {}
        for piece in range(pieces):
            start, stop = piece * size, (piece + 1) * size
            last = piece == pieces - 1
            # Gradients travel between processes once a step, with the last piece.
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                part = batch.part(start, stop)
                if isinstance(self.raw, VotingModel):
                    loss, parts = voting_objective(self.model, self.normalizer, part)
                else:
                    loss, parts = objective(
                        self.model, self.normalizer, self.recipe.weights, part,
                        None if hidden is None else hidden[start:stop],
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
        """Train up to step `until`, or the recipe's last; log, validate and save on the way."""
        last = self.recipe.steps if until is None else min(until, self.recipe.steps)
        self.folder.mkdir(parents=True, exist_ok=True)
        plans = self.plans(last)
        meter = Meter()
        # None: drawn on a terminal only.
        disable = None if self.accelerator.is_main_process else True
        bar = tqdm(total=last, initial=self.step, unit="step", disable=disable)
        while self.step < last:
            bar.update()
            start = perf_counter()
            plan = next(plans)
            wait_seconds = perf_counter() - start
            parts = self.train_step(plan)
            episodes = len(plan.colors) * self.accelerator.num_processes
            meter.add(parts, episodes, wait_seconds, perf_counter() - start)
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
        """Score the averaged weights on every validation, and draw curves and paintings."""
        if self.accelerator.is_main_process:
            model = self.averaged_model()
            for validation in self.validation:
                self.log.add_validation(self.step, validation.examples, validation.score(model))
            self.log.draw(self.validation[0].samples(model) if self.validation else [])
        self.accelerator.wait_for_everyone()

    def averaged_model(self) -> Model:
        """Return a new model with the averaged weights, low-rank updates merged."""
        model = assemble(self.raw.config).to(self.accelerator.device)
        model.load_state_dict(merge(self.ema))
        return model.eval()

    def export(self) -> Path:
        """Write the averaged weights as a checkpoint into the folder; return its weights file."""
        if self.accelerator.is_main_process:
            save(self.averaged_model(), self.folder)
        self.accelerator.wait_for_everyone()
        return self.folder / WEIGHTS


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
