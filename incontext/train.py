"""Training by in-context coloring: recipe, objective, loop, exact resume."""

import csv
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from incontext.checkpoint import load, parse_config, save, with_tuples
from incontext.episodes import IGNORE, Batch, Mixture, PictureSet, Sampler, load_set
from incontext.errors import InputError
from incontext.model import SIZES, SegGPT, painting_loss


@dataclass(frozen=True)
class Recipe:
    """All that decides a run, beside the model's Config and the pictures."""

    steps: int = 10_000
    episodes: int = 32  # a step
    examples: tuple[int, ...] = (1, 1, 2, 4)  # one of these each step
    size: int = 64  # height and width of a view, pixels
    learning_rate: float = 1e-3
    warmup: int = 300  # steps
    weight_decay: float = 0.05
    clip: float = 1.0  # norm of all gradients
    ema: float = 0.999
    overlap_weight: float = 0.5  # of the Dice term
    copied_weight: float = 0.3  # of the copy path's own colors
    precision: str = "no"  # or "bf16"
    seed: int = 0
    mixture: Mixture = field(default_factory=Mixture)

    def rate(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, then a cosine down to a hundredth."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * min(1.0, done))) / 2)


def balance(labels: Tensor, classes: int) -> Tensor:
    """Weight of every query pixel, (B, H, W): classes by the root of their frequency, mean 1.

    Plain averages let a small object vanish: painting everything black costs next to nothing.
    Ignored pixels weigh 0.
    """
    known = F.one_hot(labels.clamp(max=classes).long(), classes + 1)
    known = known * (labels != IGNORE)[..., None]
    share = known.float().mean((1, 2))  # (B, K + 1)
    weight = torch.where(share > 0, share.clamp(min=1e-3).rsqrt(), 0.0)
    weight = weight / (weight * share).sum(1, keepdim=True).clamp(min=1e-6)
    return (known * weight[:, None, None]).sum(-1)


def overlap_loss(painting: Tensor, labels: Tensor, colors: Tensor, asked: Tensor) -> Tensor:
    """Soft Dice of the labels read back from the painting by color distance (V-Net, eq. 1).

    Args:
        painting: (B, 3, H, W) normalized.
        labels: (B, H, W), 0 … K, 255 = ignore.
        colors: (B, K + 1, 3) normalized.
        asked: (B, K + 1) bool, classes that an example shows. One that the query lacks is judged
            too: all that is painted in its color is too much.
    """
    distance = (painting[:, None] - colors[..., None, None]).abs().mean(2)  # (B, K + 1, H, W)
    classes = colors.shape[1]
    present = F.one_hot(labels.clamp(max=classes - 1).long(), classes).permute(0, 3, 1, 2)
    valid = (labels != IGNORE)[:, None]
    present = present * valid
    judged = asked.clone()
    judged[:, 0] = False
    # Colors that the episode does not use must not take part; the background always does.
    unused = ~judged
    unused[:, 0] = False
    score = (-4.0 * distance).masked_fill(unused[..., None, None], -1e4).softmax(1) * valid
    both = (score * present).sum((2, 3))
    dice = 1 - (2 * both + 1) / (score.sum((2, 3)) + present.sum((2, 3)) + 1)
    return (dice * judged).sum() / judged.sum().clamp(min=1)


def objective(
    model: torch.nn.Module, mean: Tensor, std: Tensor, recipe: Recipe, batch: Batch
) -> tuple[Tensor, dict[str, float]]:
    """Loss of a batch, and its parts by name; `mean` and `std` are (3, 1, 1)."""
    images = (batch.images - mean) / std
    targets = (batch.targets() - mean) / std
    painting, copied = model(
        images[:, -1], images[:, :-1], targets[:, :-1], batch.semantic, with_copied=True
    )
    painting, truth, labels = painting.float(), targets[:, -1], batch.labels[:, -1]
    weight = balance(labels, batch.colors.shape[1] - 1)[:, None]
    hidden = torch.ones(len(images), 1, 1, dtype=torch.bool, device=images.device)
    colors = (batch.colors - mean.view(3)) / std.view(3)
    painted = painting_loss(painting, truth, hidden, weight)
    overlap = overlap_loss(painting, labels, colors, batch.asked())
    loss = painted + recipe.overlap_weight * overlap
    parts = {"painted": painted.item(), "overlap": overlap.item()}
    if copied is not None:
        small = F.adaptive_avg_pool2d(truth, copied.shape[-2:])
        judged = F.adaptive_avg_pool2d(weight, copied.shape[-2:])
        brought = painting_loss(copied.float(), small, hidden, judged)
        loss = loss + recipe.copied_weight * brought
        parts["copied"] = brought.item()
    return loss, parts


class Trainer:
    """A run that can be stopped at any step and resumed to the same weights.

    Args:
        model: trained in place.
        sets: pictures to draw episodes from.
        folder: where `state.pt` and `log.csv` are kept; a state found there is resumed.
    """

    def __init__(
        self, model: SegGPT, sets: Sequence[PictureSet], recipe: Recipe, folder: Path
    ) -> None:
        try:
            from accelerate import Accelerator
        except ImportError:
            raise InputError(
                "training needs accelerate: pip install 'incontext-seg[train]'"
            ) from None
        self.recipe, self.folder = recipe, folder
        self.accelerator = Accelerator(mixed_precision=recipe.precision)
        decayed = [p for p in model.parameters() if p.dim() >= 2]
        kept = [p for p in model.parameters() if p.dim() < 2]
        optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": recipe.weight_decay},
             {"params": kept, "weight_decay": 0.0}],
            lr=recipe.learning_rate, betas=(0.9, 0.98),
        )  # fmt: skip
        self.raw = model
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.ema = {k: v.detach().clone() for k, v in model.state_dict().items()}
        self.sampler = Sampler(sets, recipe.size, recipe.mixture, recipe.seed)
        self.step = 0
        self.mean, self.std = (
            torch.tensor(values, device=self.accelerator.device).view(3, 1, 1)
            for values in (model.config.mean, model.config.std)
        )
        if (folder / "state.pt").is_file():
            self._resume()

    def _resume(self) -> None:
        state = torch.load(self.folder / "state.pt", weights_only=True, map_location="cpu")
        now = {"config": asdict(self.raw.config), "recipe": asdict(self.recipe)}
        # A longer or shorter schedule is a decision; anything else would be another run.
        changed = [
            f"{part}.{name}"
            for part, values in now.items()
            for name, value in values.items()
            if name != "steps" and state[part].get(name) != value
        ]
        if changed:
            raise InputError(
                f"{self.folder} holds a run with other settings ({', '.join(changed)}); pass "
                "another folder"
            )
        self.raw.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema = {k: v.to(self.ema[k].device) for k, v in state["ema"].items()}
        self.step = state["step"]
        self.sampler.restore(state["sampler"])

    def save(self) -> None:
        """Write `state.pt`: all at once or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {
            "model": self.raw.state_dict(), "optimizer": self.optimizer.state_dict(),
            "ema": self.ema, "step": self.step, "sampler": self.sampler.state(),
            "recipe": asdict(self.recipe), "config": asdict(self.raw.config),
        }  # fmt: skip
        draft = self.folder / "state.pt.part"
        torch.save(state, draft)
        draft.replace(self.folder / "state.pt")

    def train_step(self) -> dict[str, float]:
        """One optimizer step; the loss and its parts."""
        recipe = self.recipe
        examples = recipe.examples[int(self.sampler.rng.integers(len(recipe.examples)))]
        batch = self.sampler.batch(recipe.episodes, examples).to(self.accelerator.device)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.rate(self.step)
        loss, parts = objective(self.model, self.mean, self.std, recipe, batch)
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.model.parameters(), recipe.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        keep = min(recipe.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.raw.state_dict().items():
                self.ema[name].lerp_(value, 1 - keep)
        return {"loss": loss.item(), **parts}

    def run(self, until: int | None = None, save_every: int = 200, log_every: int = 50) -> None:
        """Train up to step `until`, or the recipe's last, with a line in `log.csv` now and then."""
        last = self.recipe.steps if until is None else min(until, self.recipe.steps)
        self.folder.mkdir(parents=True, exist_ok=True)
        since, sums, count = time.perf_counter(), dict[str, float](), 0
        while self.step < last:
            for name, value in self.train_step().items():
                sums[name] = sums.get(name, 0.0) + value
            count += 1
            if self.step % log_every == 0:
                now = time.perf_counter()
                means = {name: value / count for name, value in sums.items()}
                row = {"step": self.step, "rate": self.recipe.rate(self.step), **means}
                row["episodes_per_s"] = self.recipe.episodes * count / (now - since)
                self._log(row)
                since, sums, count = now, {}, 0
            if self.step % save_every == 0:
                self.save()
        self.save()

    def _log(self, row: dict[str, float]) -> None:
        path = self.folder / "log.csv"
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow({k: round(v, 5) for k, v in row.items()})


def train_from_file(
    description: Path,
    sources: Sequence[Path],
    folder: Path,
    init: str | None = None,
    until: int | None = None,
) -> Path:
    """Run what a JSON file describes: `model` (a size of `SIZES`), `config` (fields of it that
    differ), `cache` (pixels the pictures are held at), `recipe` and `mixture` (their fields).

    Returns:
        The checkpoint with the averaged weights, in `folder`.

    Raises:
        InputError: an unreadable description, or fields that do not exist.
    """
    try:
        about = json.loads(description.read_text(encoding="utf-8"))
        config = parse_config(asdict(SIZES[about["model"]]) | about.get("config", {}), description)
        mixture = Mixture(**about.get("mixture", {}))
        recipe = Recipe(mixture=mixture, **with_tuples(about["recipe"]))
        cache = int(about["cache"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{description}: {type(error).__name__}: {error}") from None
    torch.manual_seed(recipe.seed)
    model = SegGPT(config)
    if init:
        model.load_state_dict(load(init).state_dict())
    if recipe.size % config.patch_size:
        raise InputError(
            f"{description}: size {recipe.size} is no multiple of the patch, {config.patch_size}"
        )
    trainer = Trainer(model, [load_set(path, cache) for path in sources], recipe, folder)
    trainer.run(until)
    model.load_state_dict(trainer.ema)
    return save(model, folder)
