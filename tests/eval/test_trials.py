"""Trials: what a mixer is not to read stays unread while the rest learns."""

import csv
import io
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from eval.studies import trials
from eval.studies.trials import VOTING_TRIALS, Trial, begin, stop_reading
from incontext.model import VotingModel
from incontext.training.recipe import Run

RECIPE = Path(__file__).parents[2] / "recipes/votes-trial.json"


def test_unread_inputs_stay_unread():
    """Their weights are zero, before a step and after it; others move."""
    from tests.model.test_voting import assembled

    model = assembled()
    stop_reading(model, ("matching", "cues", "own"))
    layer, own_votes = model.mixer.votes, model.mixer.own
    optimizer = torch.optim.AdamW([layer.weight, own_votes.weight], 0.1, weight_decay=0.01)
    before = layer.weight.detach().clone()
    (layer(torch.ones(1, layer.in_channels, 2, 2)).sum() + own_votes.weight.sum()).backward()
    optimizer.step()
    has_changed = (layer.weight != before).any(0).flatten()
    blocks, heads = len(model.levels), model.config.match_heads
    assert has_changed[: 6 * blocks].view(blocks, 6).tolist() == [[True] * 3 + [False] * 3] * blocks
    assert not has_changed[6 * blocks : 6 * blocks + 2 * heads].any()
    assert has_changed[6 * blocks + 2 * heads :].all()
    assert not own_votes.weight.any()
    assert not layer.weight[:, 3].any()


def test_trials_change_what_they_say():
    """Recipe, mixture and model of a trial; sets that it does not name keep their weights."""
    base = Run.read(RECIPE)
    model, trial_run = begin(VOTING_TRIALS["no drawn objects"], base, RECIPE, "incontext-small")
    assert isinstance(model, VotingModel)
    assert trial_run.recipe.mixture.weights["emoji_a"] == 0
    assert not any(p.requires_grad for p in model.get_submodule("stem").parameters())
    assert trial_run.recipe.mixture.weights["pets"] == base.recipe.mixture.weights["pets"]
    fresh, trial_run = begin(Trial(recipe={"frozen": []}, init=""), base, RECIPE, "incontext-small")
    assert all(p.requires_grad for p in fresh.get_submodule("stem").parameters())
    assert trial_run.recipe.frozen == ()


def test_a_killed_trial_starts_from_the_beginning(tmp_path, monkeypatch):
    """What it left behind is dropped; a finished one is not trained again."""
    rng = np.random.default_rng(0)
    with tarfile.open(tmp_path / "squares.tar", "w") as tar:
        for number in range(6):
            labels = np.zeros((32, 32), np.uint8)
            labels[8:24, 4 + number : 20 + number] = 1
            image = np.stack([labels * 150] * 3, 2) + rng.integers(0, 50, (32, 32, 3), np.uint8)
            for name, pixels in ((f"images/{number}.png", image), (f"labels/{number}.png", labels)):
                buffer = io.BytesIO()
                Image.fromarray(pixels).save(buffer, "PNG")
                info = tarfile.TarInfo(name)
                info.size = len(buffer.getvalue())
                tar.addfile(info, io.BytesIO(buffer.getvalue()))
    recipe = tmp_path / "recipe.json"
    recipe.write_text('{"model": "tiny", "cache": 32, "recipe": {"sizes": [32], "pictures": 4}}')
    monkeypatch.setattr(trials, "PACE_STEPS", 2)
    out = tmp_path / "out"
    (out / "base").mkdir(parents=True)
    (out / "base/state.pt").write_text("of a trial that was killed")
    for _ in range(2):
        trials.run(tmp_path, tmp_path, recipe, out, ["base"], 2, minutes=1e-6)
    with (out / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["trial"], row["steps"]) for row in rows] == [("base", "3")]
    assert rows[0]["squares"] == rows[0]["1 example"]
    (out / "trials.csv").unlink()  # as if it was killed while it was scored
    trained = (out / "base/state.pt").read_bytes()
    trials.run(tmp_path, tmp_path, recipe, out, ["base"], 2, minutes=1e-6)
    assert list(csv.DictReader((out / "trials.csv").open())) == rows
    assert (out / "base/state.pt").read_bytes() == trained
