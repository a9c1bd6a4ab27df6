"""Checkpoints: three layouts, strict loading, names, messages."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from incontext import InputError
from incontext.checkpoint import (
    BUNDLED,
    DEFAULT,
    bundled,
    compare,
    load,
    locate,
    push_to_hub,
    save,
)
from incontext.convert import convert, layout_of, rename
from incontext.model import SIZES, SegGPT


@pytest.fixture
def model(tiny_checkpoint) -> SegGPT:
    return load(tiny_checkpoint)


@pytest.mark.parametrize("layout", ["official", "transformers", "incontext"])
def test_round_trip_is_exact(model, layout, tmp_path):
    target = tmp_path / ("a.pth" if layout == "official" else "folder")
    weights = save(model, target, layout=layout)
    again = load(target)
    assert again.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    state = torch.load(weights)["model"] if layout == "official" else load_file(weights)
    assert layout_of(state) == layout
    assert not list(tmp_path.rglob("*.part"))


def test_official_file_becomes_transformers_and_back(shared, tmp_path):
    source = shared / "parity/official_tiny.pth"
    save(load(source), tmp_path / "hf", layout="transformers")
    save(load(tmp_path / "hf"), tmp_path / "back.pth", layout="official")
    before, after = (torch.load(p)["model"] for p in (source, tmp_path / "back.pth"))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        # The class row of the position table is never read; it comes back as zero.
        skip = slice(None) if name != "pos_embed" else (slice(None), slice(1, None))
        assert torch.equal(tensor[skip], after[name][skip]), name
        assert tensor.shape == after[name].shape


def test_transformers_reads_what_we_write(model, tmp_path):
    transformers = pytest.importorskip("transformers")
    save(model, tmp_path, layout="transformers")
    theirs = transformers.SegGptForImageSegmentation.from_pretrained(tmp_path)
    expected = convert(model.state_dict(), "transformers")
    assert theirs.state_dict().keys() == expected.keys()
    assert all(torch.equal(theirs.state_dict()[k], v) for k, v in expected.items())


def test_stored_in_half_precision(model, tmp_path):
    weights = save(model, tmp_path, dtype=torch.float16)
    assert {t.dtype for t in load_file(weights).values()} == {torch.float16}
    assert {p.dtype for p in load(tmp_path).parameters()} == {torch.float32}


def test_problems_are_named(model, tmp_path):
    save(model, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state["encoder.extra"] = torch.zeros(2)
    del state["decoder.head.bias"]
    state["encoder.norm.weight"] = torch.zeros(7)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(InputError) as caught:
        load(tmp_path)
    text = str(caught.value)
    assert "1 missing: decoder.head.bias" in text
    assert "1 unexpected: encoder.extra" in text
    assert "encoder.norm.weight (7,) instead of (32,)" in text
    assert compare(model.state_dict(), model.state_dict()) == []


def test_truncated_official_file(shared, tmp_path):
    """Tensors that the official layout must have, but a file lacks, are named too."""
    state = torch.load(shared / "parity/official_tiny.pth")["model"]
    del state["blocks.3.mlp.fc1.bias"]
    torch.save({"model": state}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"1 missing: encoder\.blocks\.3\.mlp\.fc1\.bias"):
        load(tmp_path / "a.pth")
    del state["decoder_pred.0.weight"]
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"no tensor decoder\.conv\.weight"):
        load(tmp_path / "a.pth")


class Boom:
    def __reduce__(self):
        return (print, ("code of a pickle ran",))


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.safetensors", b"", "damaged"),
        ("a.safetensors", b"garbage garbage garbage", "damaged"),
        ("a.pth", b"garbage", "not a checkpoint|damaged"),
        ("a.pth", b"", "not a checkpoint|damaged"),
    ],
)
def test_damaged_files(tmp_path, name, content, text):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=text):
        load(tmp_path / name)


def test_no_code_of_pickles_runs(tmp_path, capsys):
    torch.save({"model": Boom()}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="plain tensors"):
        load(tmp_path / "a.pth")
    assert "ran" not in capsys.readouterr().out


def test_other_models_are_refused(tmp_path):
    save_file({"conv.weight": torch.zeros(3)}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"not a SegGPT checkpoint.*conv\.weight"):
        load(tmp_path / "a.safetensors")


def test_bad_config(model, tmp_path):
    save(model, tmp_path)
    config = tmp_path / "config.json"
    values = json.loads(config.read_text())
    for change, text in [
        ({"depth": 13}, "missing: encoder.blocks.12"),
        ({"colour": 1}, "unknown fields"),
        ({"num_heads": 5}, "num_heads"),
        ({"num_heads": 0}, "num_heads is 0"),
        ({"patch_size": 0}, "patch_size is 0"),
        ({"embed_dim": -32}, "embed_dim is -32"),
        ({"mean": [0.5]}, "three values"),
        ({"std": [0, 0, 0]}, "positive"),
        ({"stem": [8, 16, 20], "copy_heads": 1, "copy_dim": 2}, "copy_dim|stem"),
    ]:
        config.write_text(json.dumps({"incontext": values["incontext"] | change}))
        with pytest.raises(InputError, match=text):
            load(tmp_path)
    config.write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        load(tmp_path)


def test_names(tmp_path):
    assert DEFAULT in bundled()
    assert locate(DEFAULT) == BUNDLED / DEFAULT / "model.safetensors"
    with pytest.raises(InputError, match=f"accepted: {DEFAULT}.*BAAI/SegGPT"):
        load("incontext-startre")
    with pytest.raises(InputError, match="holds no model"):
        load(tmp_path)


@pytest.mark.parametrize("repo", ["BAAI/SegGPT", "BAAI/seggpt-vit-large", "someone/something"])
def test_hub_without_network(repo, tmp_path):
    """Offline and without a cache: one sentence that says what to put where."""
    code = f"from incontext.checkpoint import load; load({repo!r})"
    environments = [{"HF_HUB_OFFLINE": "1"}]
    if repo == "BAAI/SegGPT":  # the hub client tries a closed port for half a minute
        environments.append({"HF_ENDPOINT": "http://127.0.0.1:9"})
    for environment in environments:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False,
            env={"HF_HOME": str(tmp_path), "PATH": "", **environment},
        )  # fmt: skip
        last = done.stderr.strip().splitlines()[-1]
        wanted = "seggpt_vit_large.pth" if repo == "BAAI/SegGPT" else "model.safetensors"
        assert f"download {wanted} of {repo}" in last, done.stderr


def test_hub_cache_is_used(tiny_checkpoint, tmp_path):
    """A repository in the local hub cache loads offline."""
    snapshot = tmp_path / "hub/models--me--tiny/snapshots/abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "hub/models--me--tiny/refs").mkdir()
    (tmp_path / "hub/models--me--tiny/refs/main").write_text("abc")
    for name in ("model.safetensors", "config.json"):
        (snapshot / name).write_bytes((tiny_checkpoint / name).read_bytes())
    code = "from incontext.checkpoint import load; print(load('me/tiny').config.embed_dim)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PATH": ""},
    )  # fmt: skip
    assert done.stdout.strip() == "32"


def test_push_without_network(model, tiny_checkpoint):
    with pytest.raises(InputError, match="cannot upload to me/it"):
        push_to_hub(model, "me/it")
    code = (
        "from incontext.checkpoint import load, push_to_hub\n"
        f"push_to_hub(load({str(tiny_checkpoint)!r}), 'me/it')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env={"HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "hf_none", "PATH": ""},
    )  # fmt: skip
    assert "InputError: cannot upload to me/it" in done.stderr


def test_misshapen_position_table_is_named(shared, tmp_path):
    state = torch.load(shared / "parity/official_tiny.pth")["model"]
    state["pos_embed"] = state["pos_embed"][:, :13]
    torch.save({"model": state}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"misshapen: encoder\.position \(1, 13, 32\)"):
        load(tmp_path / "a.pth")


def test_official_file_beside_a_config_of_ours(shared, model, tmp_path):
    save(model, tmp_path)
    (tmp_path / "a.pth").write_bytes((shared / "parity/official_tiny.pth").read_bytes())
    assert load(tmp_path / "a.pth").config.depth == 24


def test_what_a_layout_cannot_say_is_refused(tmp_path):
    """The official file has no config: a model that it would be misread as is not written."""
    odd = SegGPT(replace(SIZES["tiny"], merge_after=1))
    with pytest.raises(InputError, match="official layout cannot say merge_after"):
        save(odd, tmp_path / "a.pth", layout="official")
    save(odd, tmp_path, layout="transformers")
    assert load(tmp_path).config == odd.config
    gray = SegGPT(replace(SIZES["tiny"], mean=(0.5, 0.5, 0.5)))
    with pytest.raises(InputError, match="transformers layout cannot say mean"):
        save(gray, tmp_path, layout="transformers")


def test_parts_without_a_place_are_named(tmp_path):
    with pytest.raises(InputError, match=r"no place in the official layout for .*stem"):
        save(SegGPT(SIZES["small"]), tmp_path / "a.pth", layout="official")


def test_every_name_has_a_twin(model):
    """The table is a bijection on the tensors of a model, in all directions."""
    layouts = ("official", "transformers", "incontext")
    for name in model.state_dict():
        for other in layouts[:2]:
            there = rename(name, "incontext", other)
            assert there is not None
            assert rename(there, other, "incontext") == name


def test_bundled_weights_are_described():
    for name in bundled():
        folder: Path = BUNDLED / name
        assert (folder / "README.md").is_file(), f"{name} lacks a model card"
        assert load(name).config.image_size > 0
