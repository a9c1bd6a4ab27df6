"""Finetuning any checkpoint on a user's own labelled images, all weights or low-rank updates."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from incontext.checkpoints.checkpoint import load
from incontext.data.pictures import PictureSet, check_labelled, load_set
from incontext.data.plan import Mixture
from incontext.errors import InputError
from incontext.model import SegGPT
from incontext.model.low_rank import add_low_rank
from incontext.training.recipe import Recipe, check_sizes
from incontext.training.trainer import Trainer
from incontext.training.validation import Validation

# Real images only, mostly pairs of one class: what the user will ask for.
RECIPE = Recipe(
    steps=200, pictures=24, examples=(1, 2, 4), learning_rate=2e-4, warmup=20, ema=0.98,
    mixture=Mixture(scenes=0.0, two_views=0.15, absent=0.1, several=0.2, pasted=0.1),
)  # fmt: skip
LOW_RANK_RATE = 2e-3  # learning rate of low-rank updates, higher since they start at zero


@dataclass(frozen=True)
class FinetuneResult:
    """The new checkpoint, and mean IoU in percent on the held-out images by number of examples."""

    weights: Path
    before: dict[int, float]
    after: dict[int, float]
    train_count: int  # images
    held_out: int


def finetune(
    sources: Sequence[Path],
    folder: Path,
    checkpoint: str,
    *,
    train_images: int | None = None,
    rank: int | None = None,
    size: int | None = None,
    steps: int = RECIPE.steps,
    learning_rate: float | None = None,
    seed: int = 0,
    workers: int = 0,
    images_per_step: int = RECIPE.pictures,
    accumulate: int = 1,
    precision: str = "no",
    episodes: int = 100,
) -> FinetuneResult:
    """Train a checkpoint further on a few labelled images, and validate it on those held out.

    Args:
        sources: sets (see `incontext.data.pictures.read_pairs`).
        folder: where the state, the log and the new checkpoint go; a state in it is resumed.
        train_images: number of each set, drawn by `seed`; the rest is held out. None: four fifths.
        rank: of low-rank updates, merged into the weights on saving; None trains all weights.
        size: of the views in pixels; None: the checkpoint's.
        steps: length of the training.
        learning_rate: None: that of `RECIPE`, or `LOW_RANK_RATE`.
        images_per_step, accumulate, precision: see `Recipe`; large checkpoints need fewer images,
            more pieces and "bf16" to fit into memory.
        episodes: of validation, for each set and number of examples.

    Raises:
        InputError: too few images to train or to validate on, no class to learn or none to
            validate, a rank below 1, or a learning rate that is not positive.
    """
    model = load(checkpoint)
    size = model.config.image_size if size is None else size
    recipe = _recipe(rank, learning_rate, {
        "sizes": (size,), "seed": seed, "steps": steps, "pictures": images_per_step,
        "accumulate": accumulate, "precision": precision,
    })  # fmt: skip
    check_sizes(recipe, model.config, "finetune")
    parts = [split(load_set(path, size), train_images, seed, path) for path in sources]
    train_sets, val_sets = [part[0] for part in parts], [part[1] for part in parts]
    # With few images held out no class may have the five that four examples and a query need.
    checks = [v for v in (Validation(val_sets, n, episodes) for n in (1, 4)) if any(v.episodes)]
    if not checks:
        raise InputError("no two of the pictures held out share a class; hold out more")
    if rank:
        if not isinstance(model, SegGPT):
            raise InputError(
                f"low-rank updates are for linear maps, which {checkpoint} lacks; accepted: no rank"
            )
        torch.manual_seed(seed)
        add_low_rank(model, rank)
    trainer = Trainer(model, train_sets, recipe, folder, checks, workers)
    device = trainer.accelerator.device
    original = load(checkpoint).to(device)  # the model in training may be resumed
    before = {v.examples: _mean(v.score(original)) for v in checks}
    trainer.run(validate_every=max(1, recipe.steps // 2))
    finetuned = trainer.averaged_model()
    after = {v.examples: _mean(v.score(finetuned)) for v in checks}
    return FinetuneResult(
        trainer.export(), before, after, sum(map(len, train_sets)), sum(map(len, val_sets))
    )


def _recipe(rank: int | None, rate: float | None, changes: dict[str, Any]) -> Recipe:
    """Change `RECIPE` as the caller wants.

    Raises:
        InputError: see `finetune`.
    """
    if rank is not None and rank < 1:
        raise InputError(f"rank is {rank}; accepted: whole numbers, 1 or more")
    if rate is not None and rate <= 0:
        raise InputError(f"rate is {rate}; accepted: positive numbers")
    if rate is None:
        rate = LOW_RANK_RATE if rank else RECIPE.learning_rate
    try:
        return replace(RECIPE, learning_rate=rate, **changes)
    except ValueError as error:
        raise InputError(str(error)) from None


def split(
    data: PictureSet, train_images: int | None, seed: int, source: Path
) -> tuple[PictureSet, PictureSet]:
    """Split a set into images to train and to validate on, drawn by `seed`.

    Raises:
        InputError: fewer than two of either, or no class to learn.
    """
    count = round(0.8 * len(data)) if train_images is None else train_images
    if count < 2 or len(data) - count < 2:
        raise InputError(
            f"{source}: {len(data)} pictures, {count} of them to learn from; needed are two or "
            "more to learn from and two or more to hold out"
        )
    order = np.random.default_rng(seed).permutation(len(data)).tolist()
    train_set, val_set = data.subset(sorted(order[:count])), data.subset(sorted(order[count:]))
    check_labelled(train_set, source)
    return train_set, val_set


def _mean(scores: dict[str, float]) -> float:
    return float(np.mean(list(scores.values())))
