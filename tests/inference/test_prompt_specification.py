"""docs/prompt-file.md says what is in a prompt file, and nothing is in one that it does not say."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from incontext import Example, Predictor

PAGE = (Path(__file__).parents[2] / "docs/prompt-file.md").read_text(encoding="utf-8")
SECTIONS = {
    "incontext-votes": ("Votes", "pass.0.known."), "incontext-small": ("independent", "pass.0."),
}  # fmt: skip


def rows(section: str) -> list[str]:
    """What stands in code in the first column of the tables of a section."""
    text = re.split(r"^#+ .*", PAGE.split(section, 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def pattern(name: str) -> str:
    """A regular expression of a documented name: capital letters are numbers, * is anything."""
    return re.sub(r"\b[A-Z]\b", r"\\d+", re.escape(name)).replace(r"\*", ".+")


@pytest.mark.slow
@pytest.mark.parametrize("name", SECTIONS)
@pytest.mark.parametrize("half", [False, True])
def test_every_key_and_tensor_is_described(tmp_path, name, half):
    rng = np.random.default_rng(0)
    labels = np.zeros((64, 64), np.uint8)
    labels[10:30, 10:30], labels[40:60, 40:60] = 1, 2
    images = rng.integers(0, 255, (5, 64, 64, 3), np.uint8)
    examples = [Example(image, labels) for image in images]
    prompt = Predictor.from_pretrained(name).prompt(examples, nearest=3, half=half)
    with safe_open(prompt.save(tmp_path / "p.safetensors"), "np") as file:
        metadata = json.loads(file.metadata()["incontext.prompt"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    assert set(metadata) == set(rows("## Metadata"))
    assert set(metadata["passes"][0]) == {"ids", "colors", "size", "count"}
    section, prefix = SECTIONS[name]
    general = [n for n in rows("## Tensors") if not n.endswith("*")]
    special = [prefix + n for n in rows(section)]
    patterns = [pattern(n) for n in (*general, *special)]
    for key, tensor in tensors.items():
        assert any(re.fullmatch(p, key) for p in patterns), f"{key} is not described"
        if ".weight" in key:
            assert tensor.dtype == np.float32
    # Each kind of cache has the tensor that tells it from the others.
    assert f"{prefix}block.0" in tensors or f"{prefix}known.merged.0" in tensors
