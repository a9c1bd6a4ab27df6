"""`python -m eval trials`: one change at a time on a small fixed budget, from scratch.

Says which changes are worth a long run; the figures are far below those of a bundled checkpoint.
"""

import csv
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from incontext.checkpoint import parse_config, with_tuples
from incontext.errors import InputError
from incontext.model import SegGPT
from incontext.objective import Weights
from incontext.pictures import load_set
from incontext.plan import Mixture
from incontext.recipe import Run
from incontext.train import Trainer
from incontext.validation import Validation


@dataclass(frozen=True)
class Trial:
    """What differs from the base: fields of the config, the recipe, the mixture, the weights."""

    config: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    mixture: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Any] = field(default_factory=dict)


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


def run(
    train: Path, validation: Path, recipe: Path, out: Path, names: list[str], episodes: int = 24
) -> None:
    """Train every trial not yet in `out`/trials.csv, judge it with 1 and 4 examples, print it."""
    if set(names) - TRIALS.keys():
        raise InputError(f"trials {', '.join(names)}; accepted: {', '.join(TRIALS)}")
    base = Run.read(recipe)
    if base.config.backbone:
        raise InputError(f"{recipe} describes a model that votes; accepted: a recipe of tokens")
    out.mkdir(parents=True, exist_ok=True)
    table = out / "trials.csv"
    done = {row["trial"] for row in csv.DictReader(table.open())} if table.exists() else set()
    size = base.config.image_size
    sets = [load_set(path, base.cache) for path in sorted(train.glob("*.tar"))]
    judged = [load_set(path, size) for path in sorted(validation.glob("*.tar"))]
    checks = [Validation([s for s in judged if s.kind == "semantic"], n, episodes) for n in (1, 4)]
    for name in names or list(TRIALS):
        if name in done:
            continue
        trial = TRIALS[name]
        config = parse_config({**base.config.__dict__, **with_tuples(trial.config)}, recipe)
        changed = replace(
            base.recipe,
            **with_tuples(trial.recipe),
            mixture=Mixture(**{**base.recipe.mixture.__dict__, **trial.mixture}),
            weights=Weights(**{**base.recipe.weights.__dict__, **trial.weights}),
        )
        torch.manual_seed(changed.seed)
        model = SegGPT(config)
        trainer = Trainer(model, sets, changed, out / name.replace(" ", "-"))
        start = time.process_time()
        trainer.run()
        seconds = time.process_time() - start
        averaged = trainer.averaged()
        scores = [sum(s.values()) / len(s) for s in (v.score(averaged) for v in checks)]
        count = sum(p.numel() for p in model.parameters()) / 1e6
        row = {
            "trial": name, "parameters, M": f"{count:.2f}", "CPU seconds": f"{seconds:.0f}",
            "1 example": f"{scores[0]:.1f}", "4 examples": f"{scores[1]:.1f}",
        }  # fmt: skip
        new = not table.exists()
        with table.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)
        print("| " + " | ".join(row.values()) + " |", flush=True)
