"""Training: the loop, exact resume, several processes, the command, the log."""

import csv
import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from incontext import InputError
from incontext.checkpoints.checkpoint import load, save
from incontext.checkpoints.pretrained import backbone_state
from incontext.data.episodes import EpisodeSampler
from incontext.data.pictures import load_set
from incontext.data.plan import Mixture
from incontext.images.normalizer import Normalizer
from incontext.model import SIZES, Config, SegGPT, assemble
from incontext.training.from_file import check_same_shape, train_from_file
from incontext.training.objective import objective
from incontext.training.recipe import Recipe, Run
from incontext.training.trainer import Trainer
from incontext.training.validation import Validation

CONFIG = Config(
    image_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=2, decoder_dim=16,
    position_grid=4, relative_position=False, merge_after=0, taps=(1, 2),
    example_attention="independent", stem=(16, 16, 32), stem_blocks=1, copy_heads=2, copy_dim=8,
)  # fmt: skip
RECIPE = Recipe(
    steps=12, pictures=10, examples=(1, 2), sizes=(32,), warmup=4, hidden=0.3,
    mixture=Mixture(scenes=1.0),
)  # fmt: skip


def trainer(folder: Path, recipe: Recipe = RECIPE, **options) -> Trainer:
    torch.manual_seed(0)
    return Trainer(SegGPT(CONFIG), [], recipe, folder, **options)


def same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def labelled_set(folder: Path, count: int = 8) -> Path:
    """Pictures of a bright square (id 1) on dark noise."""
    rng = np.random.default_rng(0)
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for i in range(count):
        labels = np.zeros((40, 40), np.uint8)
        top, left = rng.integers(0, 24, 2)
        labels[top : top + 14, left : left + 14] = 1
        picture = rng.integers(0, 60, (40, 40, 3), dtype=np.uint8) + labels[..., None] * 180
        Image.fromarray(picture).save(folder / f"images/{i}.png")
        Image.fromarray(labels).save(folder / f"labels/{i}.png")
    return folder


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    whole = trainer(tmp_path / "whole")
    whole.run()
    part = trainer(tmp_path / "part")
    for _ in range(5):
        part.train_step()
    part.save()
    part.train_step()  # lost: the run is killed here
    torch.manual_seed(99)
    resumed = Trainer(SegGPT(CONFIG), [], RECIPE, tmp_path / "part", workers=2)
    assert resumed.step == 5
    resumed.run()
    same(whole.raw.state_dict(), resumed.raw.state_dict())
    same(whole.ema, resumed.ema)


@pytest.mark.slow
def test_killed_process_resumes(tmp_path):
    """A real process, killed with no warning somewhere between two saves."""
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, '.')\n"
        "import torch; torch.set_num_threads(1)\n"
        "from tests.training.test_trainer import trainer\n"
        "run = trainer(Path(sys.argv[1]))\n"
        "step = run.train_step\n"
        "def dying(plan):\n"
        "    if run.step == 7: import os; os.kill(os.getpid(), 9)\n"
        "    return step(plan)\n"
        "run.train_step = dying\n"
        "run.run(save_every=2)\n"
    )
    root = Path(__file__).parents[2]
    killed = [sys.executable, "-c", script, str(tmp_path / "killed")]
    assert subprocess.run(killed, cwd=root, check=False).returncode == -9
    again = trainer(tmp_path / "killed")
    assert again.step == 6
    again.run(save_every=2)
    whole = trainer(tmp_path / "whole")
    whole.run()
    state = torch.load(tmp_path / "killed/state.pt", weights_only=True)
    assert state["step"] == RECIPE.steps
    same(whole.raw.state_dict(), state["model"])


def run_logged(recipe: Path, source: Path, out: Path) -> None:
    """A whole run from a file, each step logged."""
    about = Run.read(recipe)
    torch.manual_seed(0)
    sets = [load_set(source, about.cache)]
    Trainer(SegGPT(about.config), sets, about.recipe, out).run(log_every=1)


def in_two_processes(*paths: Path) -> None:
    """The same by torchrun."""
    root = Path(__file__).parents[2]
    script = paths[-1].with_suffix(".py")
    script.write_text(
        "import sys; from pathlib import Path; import torch; torch.set_num_threads(1)\n"
        "from tests.training.test_trainer import run_logged\n"
        "run_logged(*map(Path, sys.argv[1:]))\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]
    done = subprocess.run(
        [sys.executable, *launch, str(script), *map(str, paths)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_two_processes_give_the_loss_of_one(tmp_path):
    """torchrun with two processes, the same global batch; here in one piece and in two."""
    source = labelled_set(tmp_path / "set")
    for name, accumulate in (("one", 1), ("pieces", 2), ("two", 1)):
        description = {
            "model": "small", "cache": 32,
            "config": asdict(CONFIG),
            "recipe": {
                "steps": 3, "pictures": 12, "examples": [1, 2], "sizes": [32], "warmup": 2,
                "hidden": 0.5, "accumulate": accumulate, "seed": 4,
            },
            "mixture": {"scenes": 0.5, "absent": 0.3},
        }  # fmt: skip
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(description))
        if name == "two":
            in_two_processes(path, source, tmp_path / name)
        else:
            run_logged(path, source, tmp_path / name)
    logs = {
        n: list(csv.DictReader((tmp_path / n / "log.csv").open())) for n in ("one", "two", "pieces")
    }
    for name in ("two", "pieces"):
        assert len(logs[name]) == 3
        for expected, got in zip(logs["one"], logs[name], strict=True):
            for part in ("loss", "painted", "overlap", "copied"):
                assert float(got[part]) == pytest.approx(float(expected[part]), abs=2e-5), part
    states = {n: torch.load(tmp_path / n / "state.pt", weights_only=True)["model"] for n in logs}
    for name, value in states["one"].items():
        for other in ("two", "pieces"):
            torch.testing.assert_close(states[other][name], value, rtol=1e-3, atol=2e-4)


def test_another_run_is_not_resumed(tmp_path):
    trainer(tmp_path).save()
    longer = trainer(tmp_path, replace(RECIPE, steps=99))
    assert longer.step == 0
    with pytest.raises(InputError, match=r"recipe\.seed"):
        trainer(tmp_path, replace(RECIPE, seed=3))
    with pytest.raises(InputError, match=r"config\.depth"):
        Trainer(SegGPT(replace(CONFIG, depth=4)), [], RECIPE, tmp_path)
    data = load_set(labelled_set(tmp_path / "set"), 32)
    with pytest.raises(InputError, match="the pictures"):
        Trainer(SegGPT(CONFIG), [data], RECIPE, tmp_path)


def test_until_and_log(tmp_path):
    data = load_set(labelled_set(tmp_path / "set"), 32)
    run = trainer(tmp_path / "run", validation=[Validation([data], 1, 4)])
    run.run(until=0)
    assert run.step == 0
    run.run(until=3, log_every=2)
    assert run.step == 3
    run.run(until=4, log_every=2, validate_every=2)
    rows = list(csv.DictReader((tmp_path / "run/log.csv").open()))
    assert [row["step"] for row in rows] == ["2", "3", "4"]  # the last step of each call too
    assert all(0.3 < float(row["loss"]) < 10 for row in rows)
    assert all(0 <= float(row["waiting"]) <= 1 and float(row["episodes_per_s"]) > 0 for row in rows)
    scores = list(csv.DictReader((tmp_path / "run/validation.csv").open()))
    assert {row["set"] for row in scores} == {"set", "mean"}
    assert {"0", "3", "4"} == {row["step"] for row in scores}
    assert Image.open(tmp_path / "run/curves.png").size == (800, 400)
    assert Image.open(tmp_path / "run/paintings.png").size == (5 * 32, 32)


@pytest.mark.slow
def test_it_learns():
    """A batch seen again and again is learned."""
    torch.manual_seed(0)
    model = SegGPT(CONFIG)
    batch = EpisodeSampler([], RECIPE.mixture, seed=0).batch(0, 6, 1, 32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    normalizer = Normalizer(CONFIG.mean, CONFIG.std)
    losses = []
    for _ in range(60):
        loss, parts = objective(model, normalizer, RECIPE.weights, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        assert parts.keys() == {"loss", "painted", "overlap", "copied"}
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.slow
def test_command_trains_and_logs(tmp_path, incontext):
    description = {
        "model": "tiny", "cache": 40, "config": {"depth": 4, "taps": [2, 3]},
        "recipe": {"steps": 50, "pictures": 2, "examples": [1], "sizes": [16], "warmup": 2},
        "mixture": {"scenes": 1.0},
    }  # fmt: skip
    (tmp_path / "recipe.json").write_text(json.dumps(description))
    pair = labelled_set(tmp_path / "set")
    arguments = [
        "train", pair, "--recipe", tmp_path / "recipe.json", "--threads", 1, "--validation", pair,
    ]  # fmt: skip
    done = incontext(*arguments, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert load(tmp_path / "run").config.depth == 4
    rows = list(csv.DictReader((tmp_path / "run/log.csv").open()))
    assert rows[0]["step"] == "50"
    assert float(rows[0]["loss"]) > 0
    scores = list(csv.DictReader((tmp_path / "run/validation.csv").open()))
    assert {row["examples"] for row in scores} == {"1", "4"}
    again = incontext(*arguments, "--out", tmp_path / "b", "--init", tmp_path / "run", "--until", 2)
    assert again.code == 0, again.err
    other = save(SegGPT(CONFIG), tmp_path / "other").parent
    wrong = incontext(*arguments, "--out", tmp_path / "c", "--init", other)
    assert wrong.code == 2
    assert "another shape than the recipe describes: " in wrong.err
    assert "depth is " in wrong.err


def test_a_run_from_a_file_says_what_is_odd(tmp_path):
    path = tmp_path / "recipe.json"
    description = {
        "model": "tiny", "cache": 40, "config": {"depth": 4, "taps": [2, 3]},
        "recipe": {"steps": 1, "pictures": 2, "examples": [1], "sizes": [16]},
        "mixture": {"weights": {"sett": 1.0}, "scenes": 0.0},
    }  # fmt: skip
    path.write_text(json.dumps(description))
    source = labelled_set(tmp_path / "set", 3)
    with pytest.warns(UserWarning, match="not given: sett"):
        train_from_file(path, [source], tmp_path / "run")
    other = save(SegGPT(Config(**asdict(load(tmp_path / "run").config) | {"image_size": 64})),
                 tmp_path / "larger").parent  # fmt: skip
    with pytest.raises(InputError, match=r"misshapen: .*rel_pos"):
        train_from_file(path, [source], tmp_path / "run2", init=str(other))
    # Pictures alone serve for regions, and only for them.
    shutil.rmtree(source / "labels")
    with pytest.raises(InputError, match="no picture to learn from has a label"):
        train_from_file(path, [source], tmp_path / "run3")
    description["mixture"] = {"regions": 0.5, "scenes": 0.0}
    path.write_text(json.dumps(description))
    assert train_from_file(path, [source], tmp_path / "run4").is_file()
    (tmp_path / "run4/state.pt").write_bytes(b"half a state")
    with pytest.raises(InputError, match="damaged state"):
        train_from_file(path, [source], tmp_path / "run4")


@pytest.mark.slow
def test_a_voting_model_trains_and_resumes(tmp_path):
    """From a file: frozen parts stay as they are, and resumed runs are the same."""
    small = {
        "image_size": 32, "stem": [16, 16, 32], "stem_blocks": 1, "copy_heads": 2, "copy_dim": 8,
        "match_heads": 2, "match_dim": 8, "mixer": [16, 8, 8], "mixer_blocks": 1,
    }  # fmt: skip
    recipe = {
        "steps": 4, "pictures": 6, "examples": [1, 2], "sizes": [32], "warmup": 2, "decay": 0.5,
        "frozen": ["stem", "copying"],
    }  # fmt: skip
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(
        {"model": "votes", "cache": 40, "config": small, "recipe": recipe, "mixture": {}}
    ))  # fmt: skip
    sets = [labelled_set(tmp_path / "set")]
    former = save(SegGPT(CONFIG), tmp_path / "former").parent
    weights = train_from_file(path, sets, tmp_path / "whole", init=str(former), validation=sets)
    whole, before = load(weights.parent), load(former)
    stem = before.encoder.stem.state_dict()
    same(whole.stem.state_dict(), {n: x for n, x in stem.items() if "proj" not in n})
    same(whole.copying.fine.state_dict(), before.encoder.copy_path.fine.state_dict())
    same(whole.backbone.state_dict(), backbone_state("efficientnet-lite0"))
    train_from_file(path, sets, tmp_path / "part", init=str(former), until=2)
    again = load(train_from_file(path, sets, tmp_path / "part", init=str(former)).parent)
    same(whole.state_dict(), again.state_dict())
    assert not torch.equal(whole.mixer.votes.weight, assemble(whole.config).mixer.votes.weight)
    with pytest.raises(InputError, match="no stem"):
        train_from_file(path, sets, tmp_path / "bare", init=str(save(
            SegGPT(replace(CONFIG, stem=(), copy_heads=0)), tmp_path / "plain").parent
        ))  # fmt: skip


def test_lines_after_the_last_save_are_forgotten(tmp_path):
    """A killed run logs steps again that it logged before."""
    run = trainer(tmp_path)
    run.run(until=2, log_every=1)
    for _ in range(2):
        run.train_step()
        run.log.add({"step": run.step, "loss": 1.0})
    trainer(tmp_path).run(until=5, log_every=1)
    steps = [row["step"] for row in csv.DictReader((tmp_path / "log.csv").open())]
    assert steps == ["1", "2", "3", "4", "5"]


def test_sets_that_cannot_be_read(tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({"model": "tiny", "cache": 40, "recipe": {}}))
    with pytest.raises(InputError, match="no picture under images/"):
        train_from_file(path, [tmp_path], tmp_path / "run")
    (tmp_path / "no.tar").write_bytes(b"x" * 2000)
    with pytest.raises(InputError, match=r"no readable \.tar"):
        train_from_file(path, [tmp_path / "no.tar"], tmp_path / "run")


def test_a_summary_may_be_added_and_not_dropped():
    plain = replace(SIZES["votes"], mixer_summary=False)
    summary = replace(plain, mixer_summary=True, image_size=64, quality_width=4)
    check_same_shape(summary, plain, "a")
    with pytest.raises(InputError, match="mixer_summary is True there and False in the recipe"):
        check_same_shape(plain, summary, "a")
