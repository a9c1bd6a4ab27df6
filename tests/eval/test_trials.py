"""Trials: what a mixer is not to read stays unread while the rest learns."""

from pathlib import Path

import torch

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
