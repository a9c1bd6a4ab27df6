"""`python -m eval trials`: trainings with one change at a time, on a small equal budget.

They show which changes are worth a long run; the figures are below those of a bundled checkpoint.
"""

import csv
import json
import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from incontext.checkpoints.checkpoint import load, parse_config, with_tuples
from incontext.data.pictures import PictureSet, load_set
from incontext.data.plan import Mixture
from incontext.errors import InputError
from incontext.files import atomic
from incontext.model import Model, VotingModel
from incontext.model.votes.votes import MAPS
from incontext.training.from_file import initial_model
from incontext.training.objective import Weights
from incontext.training.recipe import Run
from incontext.training.trainer import Trainer
from incontext.training.validation import Validation

TRAINED = "trained.json"  # what a trial cost; with it, the trial only needs to be scored
PACE_STEPS = 40  # from which the time of a step is estimated


@dataclass(frozen=True)
class Trial:
    """What differs from the base: fields of the config, the recipe, the mixture, the weights.

    Attributes:
        unread_inputs: inputs that the mixer does not read, see `stop_reading`.
        init: another checkpoint to begin from; "": none.
    """

    config: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    mixture: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Any] = field(default_factory=dict)
    unread_inputs: tuple[str, ...] = ()
    init: str | None = None


TRIALS = {
    "base": Trial(),
    "base, another seed": Trial(recipe={"seed": 6}),
    "joint attention": Trial({"example_attention": "joint"}),
    "no copy path": Trial({"copy_heads": 0}),
    "copy path, 8 heads": Trial({"copy_heads": 8}),
    "depth 8": Trial({"depth": 8, "taps": [5, 7]}),
    "width 144": Trial({"embed_dim": 144}),
    "stem twice as wide": Trial({"stem": [32, 64, 128]}),
    "patch 16": Trial({"patch_size": 16, "stem": [16, 32, 64, 96], "position_grid": 4}),
    "merged before the first block's end": Trial({"merge_after": 0}),
    "merged after block 2": Trial({"merge_after": 2}),
    "views of 64 px": Trial(recipe={"sizes": [64]}),
    "one example only": Trial(recipe={"examples": [1]}),
    "random blocks hidden": Trial(recipe={"hidden": 0.3}),
    "no stitched, pasted, regions": Trial(mixture={"stitched": 0, "pasted": 0, "regions": 0}),
    "no scenes": Trial(mixture={"scenes": 0}),
    "scenes only": Trial(mixture={"scenes": 1.0}),
    "regions half of all": Trial(mixture={"regions": 0.5}),
    "no two views": Trial(mixture={"two_views": 0}),
    "no Dice": Trial(weights={"overlap": 0.0}),
    "Dice twice": Trial(weights={"overlap": 1.0}),
    "copied colors not judged": Trial(weights={"copied": 0.0}),
}

EMOJI = [f"emoji_{letter}" for letter in "abcde"]
VOTING_TRIALS = {
    "base": Trial(),
    "a summary of the query in the mixer": Trial({"mixer_summary": True}),
    "lite2": Trial({"backbone": "efficientnet-lite2"}),
    "all sets drawn alike": Trial(mixture={"weights": {}}),
    "no drawn objects": Trial(mixture={"weights": dict.fromkeys(EMOJI, 0.0)}),
    "stem and copy path learned too": Trial(recipe={"frozen": []}),
    "stem and copy path from nothing": Trial(recipe={"frozen": []}, init=""),
    "views of 192 and 224 px": Trial(recipe={"sizes": [192, 224]}),
    "mixer 64 wide": Trial({"mixer": [64, 32, 16]}),
    "mixer 160 wide": Trial({"mixer": [160, 64, 16]}),
    "mixer twice as deep": Trial({"mixer_blocks": 4}),
    "no learned matching": Trial(unread_inputs=("matching",)),
    "no copy path": Trial(unread_inputs=("copying",)),
    "no largest cosines, no prototypes": Trial(unread_inputs=("cues",)),
    "no votes of the query's own cells": Trial(unread_inputs=("own",)),
    "no absent objects": Trial(mixture={"absent": 0.0}),
    "base, another seed": Trial(recipe={"seed": 6}),
}


def stop_reading(model: VotingModel, inputs: tuple[str, ...]) -> None:
    """Set the weights of some inputs of a mixer to zero and keep them there while it trains.

    The inputs are computed all the same, so a trial without them is no cheaper.
    """
    mixer = model.mixer
    votes = len(model.levels) * MAPS  # before the maps of the learned matching
    maps = torch.arange(votes)
    columns: dict[str, list[tuple[torch.nn.Conv2d, slice | Tensor]]] = {
        "matching": [(mixer.votes, slice(votes, votes + 2 * model.config.match_heads))],
        "cues": [(mixer.votes, maps[maps % MAPS >= 3])],
        "copying": [(mixer.copied, slice(None))],
        "own": [(mixer.own, slice(None))],
    }
    for name in inputs:
        for layer, channels in columns[name]:
            read_mask = torch.ones_like(layer.weight)
            read_mask[:, channels] = 0
            with torch.no_grad():
                layer.weight.mul_(read_mask)

            def mask_gradient(gradient: Tensor, read_mask: Tensor = read_mask) -> Tensor:
                return gradient * read_mask

            layer.weight.register_hook(mask_gradient)


def begin(trial: Trial, base: Run, recipe: Path, init: str | None) -> tuple[Model, Run]:
    """Return the model of a trial and the run that trains it.

    Args:
        recipe: where `base` was read, for messages.
        init: checkpoint to begin from, unless the trial names another.
    """
    config = parse_config({**base.config.__dict__, **with_tuples(trial.config)}, recipe)
    mixture = {**base.recipe.mixture.__dict__, **trial.mixture}
    if trial.mixture.get("weights"):  # sets that the trial does not name keep their weights
        mixture["weights"] = base.recipe.mixture.weights | trial.mixture["weights"]
    trial_recipe = replace(
        base.recipe,
        **with_tuples(trial.recipe),
        mixture=Mixture(**mixture),
        weights=Weights(**{**base.recipe.weights.__dict__, **trial.weights}),
    )
    torch.manual_seed(trial_recipe.seed)
    model = initial_model(config, (init if trial.init is None else trial.init) or None)
    for part in trial_recipe.frozen:
        model.get_submodule(part).requires_grad_(False)
    if isinstance(model, VotingModel):
        stop_reading(model, trial.unread_inputs)
    return model, replace(base, config=config, recipe=trial_recipe)


def train_for(trainer: Trainer, minutes: float) -> None:
    """Train for some minutes of CPU time; the pace of the first steps gives the number of steps."""
    start_time = time.process_time()
    trainer.run(PACE_STEPS)
    pace = (time.process_time() - start_time) / PACE_STEPS
    steps = max(PACE_STEPS + 1, round(60 * minutes / pace))
    trainer.recipe = replace(trainer.recipe, steps=steps)
    trainer.run()


def train(
    model: Model, sets: list[PictureSet], trial_run: Run, folder: Path, minutes: float
) -> None:
    """Train a trial; write its averaged weights and what it cost into `folder`.

    Args:
        minutes: CPU time; 0: the recipe's steps.
    """
    # The time of a training that was killed is unknown, so it starts from the beginning.
    shutil.rmtree(folder, ignore_errors=True)
    trainer = Trainer(model, sets, trial_run.recipe, folder)
    start_time = time.process_time()
    if minutes:
        train_for(trainer, minutes)
    else:
        trainer.run()
    seconds = time.process_time() - start_time
    trainer.export()
    count = sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6
    with atomic(folder / TRAINED) as draft:
        draft.write_text(
            json.dumps({
                "learned, M": f"{count:.2f}", "steps": f"{trainer.step}",
                "CPU seconds": f"{seconds:.0f}",
            })
        )  # fmt: skip


def run(
    train_path: Path,
    validation: Path,
    recipe: Path,
    out: Path,
    names: list[str],
    episodes: int = 24,
    minutes: float = 0,
    init: str | None = None,
) -> None:
    """Train every trial not yet in `out`/trials.csv; score it with 1 and 4 examples and print it.

    The table also has the score of each set with one example.

    Args:
        minutes: CPU time of each trial; 0: the recipe's steps.
        init: checkpoint that the trials begin from.

    Raises:
        InputError: an unknown trial.
    """
    base = Run.read(recipe)
    trials = VOTING_TRIALS if base.config.backbone else TRIALS
    if set(names) - trials.keys():
        raise InputError(f"trials {', '.join(names)}; accepted: {', '.join(trials)}")
    out.mkdir(parents=True, exist_ok=True)
    table = out / "trials.csv"
    finished_trials = (
        {row["trial"] for row in csv.DictReader(table.open())} if table.exists() else set()
    )
    size = base.config.image_size
    sets = [load_set(path, base.cache) for path in sorted(train_path.glob("*.tar"))]
    val_sets = [load_set(path, size) for path in sorted(validation.glob("*.tar"))]
    val_sets = [s for s in val_sets if s.set_type == "semantic"]
    validations = [Validation(val_sets, n, episodes) for n in (1, 4)]
    for name in names or list(trials):
        if name in finished_trials:
            continue
        folder = out / name.replace(" ", "-")
        if not (folder / TRAINED).is_file():
            model, trial_run = begin(trials[name], base, recipe, init)
            train(model, sets, trial_run, folder, minutes)
        trained = json.loads((folder / TRAINED).read_text())
        averaged_model = load(folder)
        scores = [v.score(averaged_model) for v in validations]
        means = [sum(by_set.values()) / len(by_set) for by_set in scores]
        row = {
            "trial": name, **trained,
            "1 example": f"{means[0]:.1f}", "4 examples": f"{means[1]:.1f}",
        }  # fmt: skip
        print("| " + " | ".join(row.values()) + " |", flush=True)
        _append(table, row | {name: f"{score:.1f}" for name, score in scores[0].items()})


def _append(table: Path, row: dict[str, str]) -> None:
    """Append a row to a CSV file, which begins with the names of the columns."""
    is_new = not table.exists()
    with table.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if is_new:
            writer.writeheader()
        writer.writerow(row)
