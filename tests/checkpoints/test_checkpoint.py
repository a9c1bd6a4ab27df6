"""Checkpoints: three layouts, strict loading, names, messages."""

import http.server
import json
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from incontext import InputError
from incontext.checkpoints.checkpoint import compare, fingerprint, load, save
from incontext.checkpoints.convert import convert, layout_of, rename
from incontext.checkpoints.location import BUNDLED, DEFAULT, bundled, locate
from incontext.inference.prompt import Prompt
from incontext.model import SIZES, SegGPT, VotingModel


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


@pytest.mark.slow
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
    with pytest.raises(InputError, match=f"accepted: .*{DEFAULT}.*BAAI/SegGPT"):
        load("incontext-startre")
    with pytest.raises(InputError, match="holds no model"):
        load(tmp_path)


def elsewhere(*repos: str, **environment: str) -> list[str]:
    """What a process of its own says when it loads each and uploads one: settings are read once."""
    code = (
        "import sys\n"
        "from incontext.checkpoints.checkpoint import load, push_to_hub\n"
        "from incontext.model import SIZES, SegGPT\n"
        "def say(call, *given):\n"
        "    try: print(call(*given))\n"
        "    except Exception as error: print(type(error).__name__, error)\n"
        "for repo in sys.argv[1:]: say(lambda name: load(name).config.embed_dim, repo)\n"
        "say(push_to_hub, SegGPT(SIZES['tiny']), 'me/it')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *repos], capture_output=True, text=True, check=True,
        env={"PATH": "", **environment},
    )  # fmt: skip
    return done.stdout.splitlines()


@pytest.mark.parametrize("setting", ["HF_HUB_OFFLINE=1", "HF_ENDPOINT=http://127.0.0.1:9"])
@pytest.mark.slow
def test_hub_without_network(tiny_checkpoint, tmp_path, setting):
    """What is cached loads; of the rest one sentence says what to put where; no upload."""
    cached = tmp_path / "hub/models--me--tiny"
    for name in ("model.safetensors", "config.json"):
        (cached / "snapshots/abc").mkdir(parents=True, exist_ok=True)
        shutil.copy(tiny_checkpoint / name, cached / "snapshots/abc")
    (cached / "refs").mkdir()
    (cached / "refs/main").write_text("abc")
    name, value = setting.split("=")
    absent = ("BAAI/SegGPT", "BAAI/seggpt-vit-large", "someone/something", "spa ce/x")
    environment = {"HF_HOME": str(tmp_path), "HF_TOKEN": "hf_none", name: value}
    first, *said, last = elsewhere("me/tiny", *absent, **environment)
    assert first == "32"
    for repo, line in zip(absent, said, strict=True):
        wanted = "seggpt_vit_large.pth" if repo == "BAAI/SegGPT" else "model.safetensors"
        assert line.startswith(f"InputError {repo} is not in the local hub cache")
        assert f"download {wanted} of {repo}" in line
    assert last.startswith("InputError cannot upload to me/it")


class Hub(http.server.BaseHTTPRequestHandler):
    """A hub that has me/tiny, as far as the client asks."""

    folder: Path

    def do_HEAD(self):
        name = self.path.rpartition("/resolve/main/")[2]
        found = self.path.startswith("/me/tiny/") and (self.folder / name).is_file()
        content = (self.folder / name).read_bytes() if found else b""
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(content)))
        if found:
            self.send_header("ETag", f'"{name}"')
            self.send_header("X-Repo-Commit", "a" * 40)
        else:
            here = self.path.startswith("/me/tiny/")
            self.send_header("X-Error-Code", "EntryNotFound" if here else "RepoNotFound")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_GET = do_HEAD  # noqa: N815

    def log_message(self, *args):
        pass


@pytest.mark.slow
def test_hub_that_answers(tiny_checkpoint, tmp_path):
    """What it has is downloaded, and what it lacks is said."""
    Hub.folder = tiny_checkpoint
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        said = elsewhere("me/tiny", "no/such", HF_HOME=str(tmp_path), HF_ENDPOINT=endpoint)
        server.shutdown()
    assert said[:2] == ["32", "InputError the hub has no repository 'no/such' that you may read"]
    [found] = tmp_path.glob("hub/models--me--tiny/snapshots/*/model.safetensors")
    assert found.read_bytes() == (tiny_checkpoint / "model.safetensors").read_bytes()


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


@pytest.mark.parametrize(
    "path",
    sorted((Path(__file__).parents[2] / "prompts").glob("*.safetensors")),
    ids=lambda path: path.stem,
)
def test_prompts_of_earlier_versions_stay_valid(path):
    """A prompt file holds the fingerprint of its checkpoint."""
    prompt = Prompt.load(path)
    assert prompt.checkpoint == fingerprint(load(prompt.model_name))


def test_what_reads_answers_does_not_make_prompts_invalid():
    model = load("incontext-votes")
    assert isinstance(model, VotingModel)
    before = fingerprint(model)
    model.presence = model.quality = None
    config = replace(model.config, presence_width=0, quality_width=0, calibration=(2.0, 0.0))
    model.config = config
    assert fingerprint(model) == before
    model.config = replace(config, match_heads=5)
    assert fingerprint(model) != before
