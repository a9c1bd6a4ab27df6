"""Prompts as values: files, pickles, sizes."""

import json
import multiprocessing
import pickle
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from incontext import Example, InputError, Predictor, Prompt

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 255, (48, 64, 3), np.uint8)
LABELS = np.zeros((48, 64), np.uint8)
LABELS[8:20, 8:30], LABELS[30:44, 40:60] = 3, 7
QUERY = PICTURE[:, ::-1].copy()


@pytest.fixture(scope="module", params=["joint", "independent"])
def predictor(request, tiny_checkpoint) -> Predictor:
    if request.param == "joint":
        return Predictor.from_pretrained(tiny_checkpoint)
    return Predictor.from_pretrained()


def examples(count: int = 1) -> list[Example]:
    return [Example(np.roll(PICTURE, i, 0), np.roll(LABELS, i, 0)) for i in range(count)]


def same(predictor: Predictor, one: Prompt, other: Prompt, atol: float = 0.0) -> None:
    """Both prompts lead to the same answer."""
    for a, b in zip(*(predictor.paint([_picture()], p)[0] for p in (one, other)), strict=True):
        torch.testing.assert_close(a, b, atol=atol, rtol=0)


def _picture():
    return Example(QUERY, LABELS).image


@pytest.mark.parametrize("options", [{}, {"nearest": 2}, {"half": True}, {"classes_per_pass": 1}])
@pytest.mark.slow
def test_file_round_trip(predictor, tmp_path, options):
    prompt = predictor.prompt(examples(5), names={3: "left"}, **options)
    again = predictor.load_prompt(prompt.save(tmp_path / "deep/p.safetensors"))
    for name in ("ids", "colors", "names", "kind", "examples", "checkpoint", "nbytes"):
        assert getattr(again, name) == getattr(prompt, name)
    assert len(again.passes) == len(prompt.passes)
    same(predictor, prompt, again)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["p.safetensors"]


def test_half_is_half_the_size(predictor, tmp_path):
    whole, half = (predictor.prompt(examples(), half=h, thumbnail=False) for h in (False, True))
    assert half.nbytes < 0.51 * whole.nbytes
    same(predictor, whole, half, atol=1.5)  # of 255
    sizes = [p.save(tmp_path / f"{p.nbytes}.safetensors").stat().st_size for p in (whole, half)]
    assert sizes[1] < 0.51 * sizes[0] + 2000  # what it says about itself


def _paint_elsewhere(source: str, prompt: bytes) -> bytes:
    predictor = Predictor.from_pretrained(source)
    [parts] = predictor.paint([_picture()], pickle.loads(prompt))
    return pickle.dumps([p.numpy() for p in parts])


def test_workers_get_it_without_the_model(tiny_checkpoint):
    """Pickled, sent to another process, used there with a model of its own."""
    predictor = Predictor.from_pretrained(tiny_checkpoint)
    prompt = predictor.prompt(examples(2), spill=True, thumbnail=False)
    sent = pickle.dumps(prompt)
    assert len(sent) < prompt.nbytes + 20_000
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        answer = pool.apply(_paint_elsewhere, (str(tiny_checkpoint), sent))
    [here] = predictor.paint([_picture()], prompt)
    for one, other in zip(pickle.loads(answer), here, strict=True):
        np.testing.assert_allclose(one, other.numpy(), atol=1e-3)


def test_other_checkpoints_are_refused(predictor, tiny_checkpoint, tmp_path):
    prompt = predictor.prompt(examples())
    path = prompt.save(tmp_path / "p.safetensors")
    other = Predictor.from_pretrained(tiny_checkpoint)
    with torch.no_grad():
        other.model.encoder.mask_token += 1
    other = Predictor(other.model)
    for use in (lambda: other.load_prompt(path), lambda: other.predict(QUERY, prompt)):
        with pytest.raises(InputError, match=f"another checkpoint .*{prompt.checkpoint}"):
            use()


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (lambda p: None, "no such file"),
        (lambda p: p.write_bytes(b"no"), "not a prompt file"),
        (lambda p: save_file({"x": torch.ones(1)}, p), "not a prompt file"),
        (lambda p: save_file({}, p, {"incontext.prompt": "{}"}), "not a prompt file"),
        (lambda p: save_file({}, p, {"incontext.prompt": '{"version": 9}'}), "newer release"),
        (lambda p: save_file({}, p, {"incontext.prompt": "{"}), "damaged one"),
    ],
)
def test_bad_files(predictor, tmp_path, make, wanted):
    path = tmp_path / "p.safetensors"
    make(path)
    with pytest.raises(InputError, match=f"p.safetensors.*{wanted}"):
        predictor.load_prompt(path)


def test_truncated_file(predictor, tmp_path):
    path: Path = predictor.prompt(examples()).save(tmp_path / "p.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="damaged one"):
        predictor.load_prompt(path)


@pytest.fixture(scope="module")
def written(predictor, tmp_path_factory):
    """What the file of a prompt of two examples says, and its tensors."""
    folder = tmp_path_factory.mktemp("written")
    path = predictor.prompt(examples(2)).save(folder / "p.safetensors")
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["incontext.prompt"])
        return about, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize(
    ("lie", "wanted"),
    [
        ({"count": 0}, "0 examples"), ({"count": 3}, "3 examples"),
        ({"count": "2"}, "'2' examples"), ({"count": 2.0}, "2.0 examples"),
        ({"count": True}, "True examples"), ({"size": []}, r"size \[\]"),
        ({"size": [48]}, r"size \[48\]"), ({"size": [48, -48]}, r"size \[48, -48\]"),
        ({"size": [48, "48"]}, r"size \[48, '48'\]"), ({"size": 48}, "damaged one"),
        ({"colors": []}, "damaged one"), (None, "no passes"),
    ],
)  # fmt: skip
def test_files_that_lie(written, tmp_path, lie, wanted):
    """What a file says of its tensors is compared with them."""
    about, tensors = written
    passes = [] if lie is None else [{**about["passes"][0], **lie}]
    path = tmp_path / "p.safetensors"
    save_file(tensors, path, {"incontext.prompt": json.dumps({**about, "passes": passes})})
    with pytest.raises(InputError, match=f"p.safetensors: .*{wanted}"):
        Prompt.load(path)


@pytest.mark.parametrize("name", ["p", "p.png", ""])
def test_bad_names(predictor, tmp_path, name):
    with pytest.raises(InputError, match=r"NAME\.safetensors"):
        predictor.prompt(examples()).save(tmp_path / name)


def test_full_disk_leaves_nothing(predictor, tmp_path):
    """A prompt that does not fit keeps what was there, and its error names the file."""
    path = predictor.prompt(examples()).save(tmp_path / "p.safetensors")
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(OSError, match=r"p\.safetensors"):
            predictor.prompt(examples(2)).save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["p.safetensors"]
