"""Training: objective by hand, learning, exact resume, the command."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from incontext import InputError
from incontext.checkpoint import load
from incontext.cli import app
from incontext.episodes import Mixture, Sampler
from incontext.model import SIZES, Config, SegGPT
from incontext.train import Recipe, Trainer, balance, objective, overlap_loss, train_from_file

CONFIG = Config(
    image_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=2, decoder_dim=16,
    position_grid=4, relative_position=False, merge_after=0, taps=(1, 2),
    example_attention="independent", stem=(16, 16, 32), stem_blocks=1, copy_heads=2, copy_dim=8,
)  # fmt: skip
RECIPE = Recipe(
    steps=12, episodes=4, examples=(1, 2), size=32, warmup=4, mixture=Mixture(scenes=1.0)
)


def trainer(folder: Path, recipe: Recipe = RECIPE) -> Trainer:
    torch.manual_seed(0)
    return Trainer(SegGPT(CONFIG), [], recipe, folder)


def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    whole = trainer(tmp_path / "whole")
    whole.run()
    part = trainer(tmp_path / "part")
    for _ in range(5):
        part.train_step()
    part.save()
    part.train_step()  # lost: the run is killed here
    torch.manual_seed(99)
    resumed = Trainer(SegGPT(CONFIG), [], RECIPE, tmp_path / "part")
    assert resumed.step == 5
    resumed.run()
    for name, value in whole.raw.state_dict().items():
        assert torch.equal(value, resumed.raw.state_dict()[name]), name
    for name, value in whole.ema.items():
        assert torch.equal(value, resumed.ema[name]), name


def test_another_run_is_not_resumed(tmp_path):
    trainer(tmp_path).save()
    longer = trainer(tmp_path, replace(RECIPE, steps=99))
    assert longer.step == 0
    with pytest.raises(InputError, match=r"recipe\.seed"):
        trainer(tmp_path, replace(RECIPE, seed=3))
    with pytest.raises(InputError, match=r"config\.depth"):
        Trainer(SegGPT(replace(CONFIG, depth=4)), [], RECIPE, tmp_path)


def test_until(tmp_path):
    run = trainer(tmp_path)
    run.run(until=0)
    assert run.step == 0
    run.run(until=3, log_every=2)
    assert run.step == 3
    run.run(until=4, log_every=2)
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [row["step"] for row in rows] == ["2", "4"]
    assert all(0.5 < float(row["loss"]) < 10 for row in rows)


def test_it_learns():
    """A batch seen again and again is learned."""
    torch.manual_seed(0)
    model = SegGPT(CONFIG)
    batch = Sampler([], 32, RECIPE.mixture, seed=0).batch(6, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (CONFIG.mean, CONFIG.std))
    losses = []
    for _ in range(60):
        loss, parts = objective(model, mean, std, RECIPE, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        assert parts.keys() == {"painted", "overlap", "copied"}
    assert losses[-1] < 0.5 * losses[0]


def test_balance_gives_small_objects_weight():
    labels = torch.zeros(1, 10, 10, dtype=torch.uint8)
    labels[0, :2, :2] = 1
    labels[0, 9] = 255
    weight = balance(labels, 1)
    assert (weight[labels == 255] == 0).all()
    big, small = weight[labels == 0].mean(), weight[labels == 1].mean()
    torch.testing.assert_close(small / big, torch.tensor((86 / 4) ** 0.5))
    torch.testing.assert_close(weight.mean(), torch.tensor(1.0))


def test_overlap_loss_is_zero_for_the_truth():
    labels = torch.zeros(2, 8, 8, dtype=torch.uint8)
    labels[:, 2:5, 2:6] = 1
    labels[:, 7] = 255
    colors = torch.tensor([[[-2.0] * 3, [2.0] * 3, [2.0, -2.0, -2.0]]]).expand(2, -1, -1)
    truth = colors[0][labels.clamp(max=2).long()].permute(0, 3, 1, 2)
    asked = torch.tensor([[True, True, False]]).expand(2, -1)
    assert overlap_loss(truth, labels, colors, asked) < 1e-3
    assert overlap_loss(-truth, labels, colors, asked) > 0.8
    # What an example shows and the query lacks must not be painted anywhere.
    empty = torch.zeros_like(labels)
    black = colors[0][empty.long()].permute(0, 3, 1, 2)
    assert overlap_loss(truth, empty, colors, asked) > 0.8
    assert overlap_loss(black, empty, colors, asked) < 1e-3
    assert overlap_loss(truth, empty, colors, asked & False) == 0


def test_rate():
    recipe = Recipe(steps=100, warmup=10, learning_rate=1.0)
    assert recipe.rate(0) == 0.1
    assert recipe.rate(10) == pytest.approx(1.0)
    assert recipe.rate(100) == pytest.approx(0.01)


def test_command_trains_and_logs(tmp_path):
    from typer.testing import CliRunner

    description = {
        "model": "tiny", "cache": 40, "config": {"depth": 4, "taps": [2, 3]},
        "recipe": {"steps": 50, "episodes": 1, "examples": [1], "size": 16, "warmup": 2},
        "mixture": {"scenes": 1.0},
    }  # fmt: skip
    (tmp_path / "recipe.json").write_text(json.dumps(description))
    pair = tmp_path / "set"
    from PIL import Image

    for part in ("images", "labels"):
        (pair / part).mkdir(parents=True)
        Image.new("L", (20, 20), 1).save(pair / part / "a.png")
    arguments = ["train", str(pair), "--recipe", str(tmp_path / "recipe.json"), "--threads", "1"]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    assert load(tmp_path / "run").config.depth == 4
    rows = list(csv.DictReader((tmp_path / "run/log.csv").open()))
    assert rows[0]["step"] == "50"
    assert float(rows[0]["loss"]) > 0
    again = CliRunner().invoke(
        app, [*arguments, "--out", str(tmp_path / "b"), "--init", str(tmp_path / "run")]
    )
    assert again.exit_code == 0, again.output


def test_bad_recipes(tmp_path):
    path = tmp_path / "recipe.json"
    good = {"model": "tiny", "cache": 40, "recipe": {}}
    path.write_text(json.dumps(good | {"recipe": {"size": 20}}))
    with pytest.raises(InputError, match="no multiple of the patch"):
        train_from_file(path, [], tmp_path / "run")
    path.write_text(json.dumps(good))
    with pytest.raises(InputError, match="no picture under images/"):
        train_from_file(path, [tmp_path], tmp_path / "run")
    for change in ({"model": "huge"}, {"recipe": {"stepz": 1}}, {"config": {"depth": -1}}):
        path.write_text(json.dumps(good | change))
        with pytest.raises(InputError, match=r"recipe\.json"):
            train_from_file(path, [], tmp_path / "run")
    assert SIZES["tiny"].depth == 12
