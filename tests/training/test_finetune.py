"""Finetuning: it helps, holds pictures out, resumes, and leaves a plain checkpoint."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from incontext import InputError
from incontext.checkpoints.checkpoint import load, save
from incontext.data.pictures import PictureSet, load_set
from incontext.model import SegGPT
from incontext.model.low_rank import add_low_rank
from incontext.training.finetune import finetune, split
from incontext.training.recipe import Recipe
from incontext.training.run_log import read_rows
from incontext.training.trainer import Trainer
from tests.training.test_trainer import CONFIG, labelled_set


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> str:
    """A tiny random model of the kind that is trained here."""
    torch.manual_seed(0)
    return str(save(SegGPT(CONFIG), tmp_path_factory.mktemp("small")).parent)


@pytest.fixture(scope="module")
def squares(tmp_path_factory) -> Path:
    """Twelve pictures of a bright square on dark noise."""
    return labelled_set(tmp_path_factory.mktemp("drawn") / "squares", 12)


def pictures(labels: torch.Tensor) -> PictureSet:
    """A set whose pictures hold their own number."""
    images = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    return PictureSet("numbered", "semantic", images, labels)


def numbers(data: PictureSet) -> list[int]:
    return data.images[:, 0, 0, 0].tolist()


def test_split():
    data = pictures(torch.ones(20, 8, 8, dtype=torch.uint8))
    for wanted, count in ((None, 16), (2, 2), (18, 18), (7, 7)):
        learned, held = split(data, wanted, 3, Path("a"))
        assert len(learned) == count
        assert sorted(numbers(learned) + numbers(held)) == list(range(20))
        assert learned.name == held.name == "numbered"
        assert learned.images_by_class == {1: list(range(count))}
    again, _ = split(data, 7, 3, Path("a"))
    assert numbers(again) == numbers(learned)
    assert len({tuple(numbers(split(data, 7, seed, Path("a"))[0])) for seed in range(9)}) == 9
    # More to learn from: the same ones and others.
    assert set(numbers(learned)) < set(numbers(split(data, 9, 3, Path("a"))[0]))


def test_split_refuses():
    data = pictures(torch.ones(5, 8, 8, dtype=torch.uint8))
    for wanted in (None, -1, 0, 1, 4, 5, 9):  # four fifths leave one
        with pytest.raises(InputError, match=r"a/set: 5 pictures, .* two or more to hold out"):
            split(data, wanted, 0, Path("a/set"))
    empty = pictures(torch.zeros(5, 8, 8, dtype=torch.uint8))
    with pytest.raises(
        InputError, match="a/set: no picture to learn from has a label of 12 pixels"
    ):
        split(empty, 3, 0, Path("a/set"))


@pytest.mark.slow
def test_it_helps(small, squares, tmp_path):
    """Bright squares: better on those held out after a few steps, and the log says so."""
    options = {"size": 32, "steps": 12, "learning_rate": 2e-2, "train_images": 6, "episodes": 6}
    outcome = finetune([squares], tmp_path / "run", small, **options)
    assert (outcome.train_count, outcome.held_out) == (6, 6)
    assert outcome.before.keys() == outcome.after.keys() == {1, 4}
    for count in (1, 4):
        assert outcome.after[count] > outcome.before[count] + 10
    rows = [r for r in read_rows(tmp_path / "run/validation.csv") if r["set"] == "mean"]
    assert [(r["step"], r["examples"]) for r in rows] == [
        (str(step), count) for step in (6, 12) for count in ("1", "4")
    ]
    for row in rows[-2:]:
        assert float(row["mIoU"]) == pytest.approx(outcome.after[int(row["examples"])], abs=1e-3)
    assert load(outcome.weights).config == CONFIG


def test_low_rank_from_the_official_shape(tiny_checkpoint, squares, tmp_path):
    """Plain names that load strictly; only linear maps changed, and by no more than the rank."""
    outcome = finetune(
        [squares], tmp_path / "run", str(tiny_checkpoint), size=32, steps=3, rank=2,
        learning_rate=0.5, episodes=2,
    )  # fmt: skip
    before, after = load(tiny_checkpoint), load(tmp_path / "run")
    assert after.config == before.config
    linear = {f"{n}.weight" for n, m in before.named_modules() if isinstance(m, torch.nn.Linear)}
    changed, old = 0, before.state_dict()
    for name, value in after.state_dict().items():
        if name not in linear:
            assert torch.equal(value, old[name]), name
        elif not torch.equal(value, old[name]):
            changed += 1
            assert torch.linalg.matrix_rank(value - old[name], rtol=1e-4) <= 2
    assert changed > 0.9 * len(linear)
    assert outcome.weights == tmp_path / "run/model.safetensors"


@pytest.mark.slow
def test_resumes(small, squares, tmp_path):
    """A finished run is not trained again; a longer one goes on where it stopped."""
    options = {"size": 32, "rank": 1, "episodes": 2}
    first = finetune([squares], tmp_path, small, steps=1, **options)
    weights = first.weights.read_bytes()
    again = finetune([squares], tmp_path, small, steps=1, **options)
    assert again == first
    assert again.weights.read_bytes() == weights
    elsewhere = finetune([squares], tmp_path / "elsewhere", small, steps=1, **options)
    assert elsewhere.weights.read_bytes() == weights  # all chance comes from the seed
    finetune([squares], tmp_path, small, steps=2, **options)
    rows = [r for r in read_rows(tmp_path / "validation.csv") if r["set"] == "mean"]
    assert [r["step"] for r in rows] == ["1", "2"]  # a step judged again is logged once
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == 2
    with pytest.raises(InputError, match=r"other settings .*rank of low-rank updates"):
        finetune([squares], tmp_path, small, steps=2, **options | {"rank": 2})
    with pytest.raises(InputError, match="2 steps already"):
        finetune([squares], tmp_path, small, steps=1, **options)
    with pytest.raises(InputError, match=r"recipe\.seed"):
        finetune([squares], tmp_path, small, steps=2, seed=1, **options)
    with pytest.raises(InputError, match=r"recipe\.learning_rate"):
        finetune([squares], tmp_path, small, steps=2, **options | {"rank": None})


@pytest.mark.slow
def test_killed_and_resumed_low_rank_equals_uninterrupted(squares, tmp_path):
    data = load_set(squares, 32)
    recipe = Recipe(steps=4, pictures=6, examples=(1, 2), sizes=(32,), warmup=2)

    def trainer(name: str) -> Trainer:
        torch.manual_seed(0)
        model = SegGPT(CONFIG)
        add_low_rank(model, 2)
        return Trainer(model, [data], recipe, tmp_path / name)

    whole, part = trainer("whole"), trainer("part")
    whole.run()
    part.run(until=2)
    part.train_step()  # lost
    resumed = trainer("part")
    assert resumed.step == 2
    resumed.run()
    for name, value in whole.averaged_model().state_dict().items():
        assert torch.equal(value, resumed.averaged_model().state_dict()[name]), name
    for name, value in whole.raw.state_dict().items():
        assert torch.equal(value, resumed.raw.state_dict()[name]), name


def test_refuses(small, squares, tmp_path):
    def refused(wanted: str, *sources: Path, **options) -> None:
        with pytest.raises(InputError, match=wanted):
            finetune(sources or [squares], tmp_path / "run", small, steps=1, **options)

    refused("rank is 0; accepted", rank=0)
    refused("rate is -1.0; accepted", learning_rate=-1.0)
    for size in (20, 0, -8):
        refused(f"finetune: size {size} is no multiple of the patch, 8", size=size)
    refused("12 pictures, 11 of them to learn from", train_images=11)
    refused("no such file or folder", tmp_path / "nowhere")
    alone = tmp_path / "alone"  # every picture has a class of its own
    shutil.copytree(squares, alone)
    for index, path in enumerate(sorted((alone / "labels").glob("*")), 1):
        Image.fromarray(np.asarray(Image.open(path)) * np.uint8(index)).save(path)
    refused("no two of the pictures held out share a class", alone)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_command(small, squares, tmp_path, incontext):
    out = tmp_path / "run"
    command = ("finetune", squares, "--out", out, "--checkpoint", small, "--threads", 1)
    options = ("--size", 32, "--steps", 1, "--rank", 1, "--pictures", 8)
    done = incontext(*command, *options)
    assert done.code == 0, done.err
    first, *scores, last = done.out.splitlines()
    assert first == "learned from 8 pictures, judged by 4 held out (mean IoU in percent)"
    assert len(scores) == 1  # four that show what a fifth is asked for there are not
    assert scores[0].startswith("  1 example: ")
    assert last == f"wrote {out / 'model.safetensors'}"
    assert load(out).config == CONFIG
    for options, wanted in (
        (("--rank", 0), "rank is 0"), (("--size", 33), "no multiple of the patch"),
        (("--pictures", 11), "two or more to hold out"),
        (("--checkpoint", "none"), "no checkpoint 'none'"), (("--precision", "x"), "accepted: no"),
        (("--rank", 2), "holds a run made with other settings"),
    ):  # fmt: skip
        wrong = incontext(*command, *options)
        assert wrong.code == 2
        assert wrong.err.startswith("Error: ")
        assert wanted in wrong.err
