"""`incontext prompt`, and its file in `incontext segment`."""

import numpy as np
import pytest
from PIL import Image

from tests.cli.helpers import mask, photo


@pytest.fixture
def make_prompt(incontext, tiny_checkpoint, tmp_path):
    """`prompt` of two examples, into tmp_path/p.safetensors."""
    pairs = []
    for name in ("e1", "e2"):
        image = photo(tmp_path / f"{name}.png")
        pairs += ["--example", image, mask(tmp_path / f"{name}.labels.png")]

    def run(*args: object):
        return incontext(
            "prompt", "--checkpoint", tiny_checkpoint, *pairs,
            "--out", tmp_path / "p.safetensors", *args,
        )  # fmt: skip

    return run, pairs


@pytest.mark.parametrize(
    "options", [[], ["--half"], ["--nearest", 1], ["--spill"], ["--name", "3=coin"]]
)
def test_same_as_examples(incontext, make_prompt, tiny_checkpoint, tmp_path, options):
    run, pairs = make_prompt
    photo(tmp_path / "in/a.png", (70, 90))
    answer = run(*options)
    assert answer.code == 0, answer.err
    assert "2 examples, ids 1, 3, " in answer.out
    common = ["segment", "--checkpoint", tiny_checkpoint, tmp_path / "in"]
    answer = incontext(*common, "--prompt", tmp_path / "p.safetensors", "--out", tmp_path / "a")
    assert answer.code == 0, answer.err
    example_options = [o for o in options if o != "--half"]
    assert incontext(*common, *pairs, *example_options, "--out", tmp_path / "b").code == 0
    from_prompt, from_examples = (np.asarray(Image.open(tmp_path / d / "a.png")) for d in "ab")
    assert np.mean(from_prompt != from_examples) < (0.01 if options == ["--half"] else 1e-9)
    if "--name" in options:
        assert "id 3 (coin" in answer.out
    # Finished files are known again by the prompt's content.
    answer = incontext(*common, "--prompt", tmp_path / "p.safetensors", "--out", tmp_path / "a")
    assert "1 of 1 pictures are finished already" in answer.out


def test_refused(incontext, make_prompt, tiny_checkpoint, tmp_path):
    run, pairs = make_prompt
    assert run().code == 0
    image, file = photo(tmp_path / "in.png"), tmp_path / "p.safetensors"
    common = ["segment", image, "--out", tmp_path / "out", "--checkpoint"]
    for options, message in [
        ([tiny_checkpoint, "--prompt", tmp_path / "q"], "q: no such file"),
        ([tiny_checkpoint, "--prompt", image], "not a prompt file, or a damaged one"),
        ([tiny_checkpoint, "--prompt", file, *pairs], "--example with --prompt"),
        ([tiny_checkpoint, "--prompt", file, "--kind", "semantic"], "--kind with --prompt"),
        ([tiny_checkpoint, "--prompt", file, "--nearest", 0], "--nearest with --prompt"),
        (["incontext-small", "--prompt", file], "another checkpoint"),
    ]:
        answer = incontext(*common, *options)
        assert answer.code == 2
        assert message in answer.err
        assert len([x for x in answer.err.splitlines() if x.startswith("Error: ")]) == 1
    assert "is a folder" in run("--out", tmp_path).err
    # A picture is never overwritten.
    before = image.read_bytes()
    assert "named NAME.safetensors" in run("--out", image).err
    assert image.read_bytes() == before
    (tmp_path / "file").write_text("")
    assert "file/p.safetensors" in run("--out", tmp_path / "file/p.safetensors").err
    assert "--chunk is 0" in run("--chunk", 0).err
    assert "nearest is 0" in run("--nearest", 0).err
