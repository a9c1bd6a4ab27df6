"""`python -m eval trials`: one change at a time on a small equal budget.

Says which changes are worth a long run; the figures are below those of a bundled checkpoint.
"""

import csv
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from incontext.checkpoints.checkpoint import parse_config, with_tuples
from incontext.data.pictures import load_set
from incontext.data.plan import Mixture
from incontext.errors import InputError
from incontext.model import Model, VotingModel
from incontext.model.votes.votes import MAPS
from incontext.training.from_file import initial_model
from incontext.training.objective import Weights
from incontext.training.recipe import Run
from incontext.training.trainer import Trainer
from incontext.training.validation import Validation

PACE = 40  # steps that say how long a step takes


@dataclass(frozen=True)
class Trial:
    """What differs from the base: fields of the config, the recipe, the mixture, the weights."""

    config: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    mixture: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Any] = field(default_factory=dict)
    unread: tuple[str, ...] = ()  # inputs that the mixer does not read, see `stop_reading`
    init: str | None = None  # another checkpoint to begin from; "": none


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

FROZEN = ["stem", "copying"]
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
    "no learned matching": Trial(unread=("matching",)),
    "no copy path": Trial(unread=("copying",)),
    "no largest cosines, no prototypes": Trial(unread=("cues",)),
    "no votes of the query's own cells": Trial(unread=("own",)),
    "no absent objects": Trial(mixture={"absent": 0.0}),
    "base, another seed": Trial(recipe={"seed": 6}),
}


def stop_reading(model: VotingModel, inputs: tuple[str, ...]) -> None:
    """Hide inputs from a mixer: their weights are zero and stay so.

    They are computed all the same, so that a trial without them is no cheaper.
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
        for layer, which in columns[name]:
            read = torch.ones_like(layer.weight)
            read[:, which] = 0
            with torch.no_grad():
                layer.weight.mul_(read)

            def masked(gradient: Tensor, read: Tensor = read) -> Tensor:
                return gradient * read

            layer.weight.register_hook(masked)


def begin(trial: Trial, base: Run, recipe: Path, init: str | None) -> tuple[Model, Run]:
    """The model of a trial and what it is trained by."""
    config = parse_config({**base.config.__dict__, **with_tuples(trial.config)}, recipe)
    mixture = {**base.recipe.mixture.__dict__, **trial.mixture}
    if trial.mixture.get("weights"):  # of some sets: the others keep theirs
        mixture["weights"] = base.recipe.mixture.weights | trial.mixture["weights"]
    changed = replace(
        base.recipe,
        **with_tuples(trial.recipe),
        mixture=Mixture(**mixture),
        weights=Weights(**{**base.recipe.weights.__dict__, **trial.weights}),
    )
    torch.manual_seed(changed.seed)
    model = initial_model(config, (init if trial.init is None else trial.init) or None)
    for part in changed.frozen:
        model.get_submodule(part).requires_grad_(False)
    if isinstance(model, VotingModel):
        stop_reading(model, trial.unread)
    return model, replace(base, config=config, recipe=changed)


def train_for(trainer: Trainer, minutes: float) -> None:
    """Train for so many minutes of CPU time; the first steps say how many steps that is."""
    start_time, first = time.process_time(), trainer.step
    trainer.run(PACE)
    pace = (time.process_time() - start_time) / (PACE - first)
    steps = max(PACE + 1, round(60 * minutes / pace))
    trainer.recipe = replace(trainer.recipe, steps=steps)
    trainer.run()


def run(
    train: Path,
    validation: Path,
    recipe: Path,
    out: Path,
    names: list[str],
    episodes: int = 24,
    minutes: float = 0,
    init: str | None = None,
) -> None:
    """Train every trial not yet in `out`/trials.csv, judge it with 1 and 4 examples, print it.

    Args:
        minutes: of CPU time, of each; 0: the recipe's steps.
        init: checkpoint that the trials begin from.
    """
    base = Run.read(recipe)
    known = VOTING_TRIALS if base.config.backbone else TRIALS
    if set(names) - known.keys():
        raise InputError(f"trials {', '.join(names)}; accepted: {', '.join(known)}")
    out.mkdir(parents=True, exist_ok=True)
    table = out / "trials.csv"
    done = {row["trial"] for row in csv.DictReader(table.open())} if table.exists() else set()
    size = base.config.image_size
    sets = [load_set(path, base.cache) for path in sorted(train.glob("*.tar"))]
    judged = [load_set(path, size) for path in sorted(validation.glob("*.tar"))]
    checks = [
        Validation([s for s in judged if s.set_type == "semantic"], n, episodes) for n in (1, 4)
    ]
    for name in names or list(known):
        if name in done:
            continue
        model, about = begin(known[name], base, recipe, init)
        trainer = Trainer(model, sets, about.recipe, out / name.replace(" ", "-"))
        start_time = time.process_time()
        if minutes:
            train_for(trainer, minutes)
        else:
            trainer.run()
        seconds = time.process_time() - start_time
        averaged = trainer.averaged_model()
        scores = [sum(s.values()) / len(s) for s in (v.score(averaged) for v in checks)]
        count = sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6
        row = {
            "trial": name, "learned, M": f"{count:.2f}", "steps": f"{trainer.step}",
            "CPU seconds": f"{seconds:.0f}",
            "1 example": f"{scores[0]:.1f}", "4 examples": f"{scores[1]:.1f}",
        }  # fmt: skip
        new = not table.exists()
        with table.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)
        print("| " + " | ".join(row.values()) + " |", flush=True)
