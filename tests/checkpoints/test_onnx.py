"""ONNX graphs paint what the model paints, for any number of examples and queries."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from incontext import Example, InputError, OnnxPredictor, Predictor
from incontext.checkpoints.checkpoint import fingerprint, load, save
from incontext.checkpoints.onnx_export import (
    LIMIT,
    check_input,
    compare,
    improve,
    paint,
    place,
    write,
    write_cache,
)
from incontext.checkpoints.onnx_graphs import FINE_TENSORS, prompt_tensors
from incontext.checkpoints.onnx_sessions import Sessions, cache_folder, has_graphs
from incontext.checkpoints.pretrained import backbone_state
from incontext.cli.app import app
from incontext.model import SIZES, Model, SegGPT
from incontext.model.votes import backbone
from tests.model.test_model import INDEPENDENT, randomized
from tests.model.test_voting import CONFIG as VOTES
from tests.model.test_voting import assembled

onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime (onnx extra)")
pytest.importorskip("onnxscript", reason="needs onnxscript (onnx extra)")

# Tracing takes seconds a block: two are enough for what differs between blocks.
pytestmark = pytest.mark.slow
TWO = {"depth": 2, "merge_after": 0, "taps": (0, 1)}
CONFIGS = {
    "independent": replace(INDEPENDENT, **TWO),
    "joint": replace(SIZES["tiny"], **TWO),
    "votes": replace(VOTES, presence_width=8),
}
# Of the backbone one block a stage, and two of the last but one, where presence is read.
SHALLOW = (0, 1, 3, 5, 8, 11, 12, 15)


@pytest.fixture(scope="module", autouse=True)
def shallow_backbones():
    """Backbones that have the blocks `SHALLOW` only."""
    counts = (1, 1, 1, 1, 1, 2, 1)
    stages = [(n, *stage[1:]) for n, stage in zip(counts, backbone._STAGES, strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbone, "_STAGES", stages)
        yield


def shallow_state() -> dict[str, torch.Tensor]:
    """The pretrained weights of the blocks `SHALLOW` and the stem."""
    state = backbone_state(VOTES.backbone)
    numbers = {f"blocks.{number}.": f"blocks.{i}." for i, number in enumerate(SHALLOW)}
    result = {name: x for name, x in state.items() if not name.startswith("blocks.")}
    for before, after in numbers.items():
        result |= {
            name.replace(before, after): x for name, x in state.items() if name.startswith(before)
        }
    return result


def model_of(name: str, seed: int = 0) -> Model:
    """Random, and such that its paintings of the two kinds differ if it tells them apart."""
    if name == "votes":
        return assembled(CONFIGS[name], shallow_state())
    model = randomized(CONFIGS[name], seed)
    with torch.no_grad():
        model.encoder.type_instance.copy_(3 * torch.randn_like(model.encoder.type_instance))
    return model


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, tuple[Model, Path, str]]:
    """Of each config the model, its graphs as the command wrote them, and what it said."""
    torch.set_num_threads(1)
    found = {}
    for name in CONFIGS:
        model, folder = model_of(name), tmp_path_factory.mktemp(name)
        save(model, folder / "checkpoint")
        said = CliRunner().invoke(
            app,
            ["export", "onnx", "--checkpoint", str(folder / "checkpoint"),
             "--out", str(folder / "graphs")],
            catch_exceptions=False,
        )  # fmt: skip
        assert said.exit_code == 0, said.output
        found[name] = model, folder / "graphs", said.output
    return found


@cache
def sessions_of(folder: Path) -> Sessions:
    """Loaded once."""
    return Sessions(folder, threads=1)


def pictures(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32)


@pytest.mark.parametrize("kind", ["semantic", "instance"])
@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("examples", [1, 2, 5])
@pytest.mark.parametrize("name", CONFIGS)
def test_graphs_paint_what_the_model_paints(made, name, examples, queries, kind):
    model, folder, _ = made[name]
    torch.manual_seed(examples)
    query, images, targets = pictures(queries), pictures(examples), pictures(examples)
    semantic, palette = torch.tensor([kind == "semantic"]), torch.randn(examples, 3)
    with torch.inference_mode():
        expected, other = (
            model.paint(query, model.encode(images[None], targets[None], k, colors=palette[None]))
            for k in (semantic, ~semantic)
        )
    painting = paint(sessions_of(folder), query, images, targets, semantic, palette)
    torch.testing.assert_close(painting, expected, atol=1e-4, rtol=0)
    if name != "votes":
        assert (painting - other).abs().max() > 5e-4, "the kind makes no difference"


@pytest.mark.parametrize("share", [0.3, 0.7])
@pytest.mark.parametrize("name", ["independent", "votes"])
def test_prompts_made_in_python_go_into_the_graph(made, name, share):
    """Thinned ones, with unknown pixels, and several joined whose numbers of tokens differ."""
    model, folder, _ = made[name]
    torch.manual_seed(0)
    query, semantic = pictures(2), torch.tensor([True])
    images, targets = pictures(3)[None], pictures(3)[None]
    known = torch.ones(1, 3, 32, 32, dtype=torch.bool)
    known[:, 1, :16] = False
    colors = torch.randn(1, 2, 3)
    with torch.inference_mode():
        thin = model.encode_batches([(images, targets)], semantic, keep_ratio=share, colors=colors)
        partly = model.encode_batches([(images, targets, known)], semantic, colors=colors)
        for encoded in (thin, partly, type(thin).concat([thin, partly])):
            expected = model.paint(query, encoded)
            found = sessions_of(folder).run("query", query=query, **prompt_tensors(encoded))[
                "painting"
            ]
            torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["independent", "votes"])
def test_the_prompt_graph_answers_a_prompt(made, name):
    model, folder, _ = made[name]
    images, targets, semantic = pictures(2), pictures(2), torch.tensor([False])
    given, palette = {"images": images, "targets": targets, "kind": semantic}, torch.randn(3, 3)
    with torch.inference_mode():
        encoded = model.encode(images[None], targets[None], semantic, colors=palette[None])
        expected = prompt_tensors(encoded)
    if name == "votes":
        given["palette"] = palette
    found = sessions_of(folder).run("prompt", **given)
    every = [f"all.{x}" for x in FINE_TENSORS] if name == "votes" else []
    assert list(found) == [*expected, *every]
    mine = encoded.tensors()
    assert set(found) - set(mine) - set(every) <= {"known.weight", "matches.weight"}
    assert set(mine) <= set(found)
    for name, tensor in expected.items():
        torch.testing.assert_close(torch.from_numpy(found[name]), tensor, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_description_says_what_the_graphs_take(made, name):
    model, folder, said = made[name]
    about = json.loads((folder / "incontext.json").read_text(encoding="utf-8"))
    assert about["fingerprint"] == fingerprint(model)
    assert (about["size"], about["mean"]) == (32, list(model.config.mean))
    assert list(about["graphs"]) == (["joint"] if name == "joint" else ["prompt", "query"])
    for graph in about["graphs"].values():
        session = onnxruntime.InferenceSession(str(folder / graph["file"]))
        for ends, told in ((session.get_inputs(), "inputs"), (session.get_outputs(), "outputs")):
            assert [(e.name, e.shape) for e in ends] == [
                (t["name"], t["shape"]) for t in graph[told]
            ]
            types = {"tensor(bool)": "bool", "tensor(float)": "float32"}
            assert [types[e.type] for e in ends] == [t["dtype"] for t in graph[told]]
    axes = {tuple(t["shape"][:1]) for t in graph["inputs"] if t["name"] in ("query", "images")}
    assert axes <= {("queries",), ("examples",)}
    differences = about["difference_from_pytorch"]
    assert 0 < max(differences.values()) <= LIMIT
    assert f"3 examples: paintings at most {differences['3']:.1e} from PyTorch's" in said
    files = {"incontext.json", *(graph["file"] for graph in about["graphs"].values())}
    assert {path.name for path in folder.iterdir()} == files


def drafted(folder: Path, *names: str) -> Path:
    """An export of tiny graphs whose weights are in files beside."""
    from onnx import TensorProto, helper, numpy_helper, save_model

    folder.mkdir()
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in ("given", "made")]
    for name in names:
        weight = numpy_helper.from_array(np.arange(4, dtype=np.float32), "weight")
        node = helper.make_node("Add", ["given", "weight"], ["made"])
        graph = helper.make_graph([node], name, ends[:1], ends[1:], [weight])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
        save_model(model, str(folder / f"{name}.onnx"), save_as_external_data=True,
                   location=f"{name}.onnx.data", size_threshold=0)  # fmt: skip
    said = {n: {"file": f"{n}.onnx", "weights": [f"{n}.onnx.data"]} for n in names}
    about = {"format": "incontext graphs", "graphs": said}
    (folder / "incontext.json").write_text(json.dumps(about))
    return folder


def test_weights_beside_graphs_go_along_and_old_graphs_away(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    for number, names in enumerate((["joint"], ["prompt", "query"], ["joint"])):
        check_input(out)
        files = place(drafted(tmp_path / f"draft{number}", *names), out)
        assert sorted([*files, "notes.txt"]) == sorted(path.name for path in out.iterdir())
        assert len(files) == 2 * len(names) + 1
        sessions = Sessions(out)
        assert set(sessions.names) == set(names)
        made = sessions.run(names[0], given=np.ones(4, np.float32))["made"]
        assert made.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("there", ["joint.onnx", "query.onnx.data", "incontext.json"])
def test_graphs_of_somebody_else_are_refused(tmp_path, there):
    (tmp_path / there).write_text("{}")
    with pytest.raises(InputError, match=f"holds {there}, not of .*; choose another --out"):
        write(model_of("joint"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [there]


def test_graphs_of_another_model_are_found_out(made):
    with pytest.raises(InputError, match="paint something else than the model"):
        compare(model_of("independent", seed=1), made["independent"][1])


@pytest.mark.parametrize("name", ["independent", "votes"])
def test_the_program_of_the_page_runs(made, tmp_path, name):
    """It needs nothing of this package, and reads the colors back."""
    shutil.copytree(made[name][1], tmp_path / "graphs")
    rng = np.random.default_rng(0)
    for file in ("photo.jpg", "a.jpg"):
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8)).save(tmp_path / file)
    ids = np.zeros((48, 64), np.uint8)
    ids[10:30, 20:50], ids[30:, :10] = 1, 7
    Image.fromarray(ids).save(tmp_path / "mask.png")
    text = (Path(__file__).parents[2] / "docs/onnx.md").read_text(encoding="utf-8")
    *_, code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert not re.search(r"import (torch|incontext)", code)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    labels = np.asarray(Image.open(tmp_path / "labels.png"))
    assert labels.shape == (48, 64)
    assert set(np.unique(labels)) <= {0, 1, 7}
    # The same through the package: what the page does with pictures is what it does.
    predictor = Predictor(load(made[name][1].parent / "checkpoint"))
    example = Example(tmp_path / "photo.jpg", ids)
    painting = predictor.paint(
        [Image.open(tmp_path / "a.jpg")],
        predictor.prompt([example], thin_to=None, views=False),
        None,
    )[0][0]
    table = np.array([(0, 0, 0), *predictor.prompt([example]).passes[0].coloring.colors])
    far = np.abs(painting.permute(1, 2, 0).numpy()[:, :, None] - table).sum(-1)
    small = np.array([0, 1, 7])[far.argmin(-1)]
    expected = Image.fromarray(small.astype(np.uint8)).resize((64, 48), Image.Resampling.NEAREST)
    assert (labels == np.asarray(expected)).mean() > 0.999


def test_models_that_cannot_be_exported(tmp_path):
    config = CONFIGS["joint"]
    for model, text in (
        (Predictor(SegGPT(config), dtype=torch.int8).model, "int8 weights"),
        (SegGPT(config).half(), "float16 on cpu; accepted: torch.float32 on cpu"),
    ):
        with pytest.raises(InputError, match=text):
            write(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_package_is_missing(tmp_path, incontext, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    answer = incontext("export", "onnx", "--out", tmp_path / "out")
    assert answer.code == 2
    assert "ONNX needs onnxscript: pip install 'incontext-seg[onnx]'" in answer.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["onnx", "--out", "file"], "--out file is a file; accepted: a folder"),
        (["onnx", "--to", "coco", "--out", "x"], "--to is for results"),
        (["onnx", "--checkpoint", "nothing", "--out", "x"], "no checkpoint 'nothing'"),
        (["folder", "--checkpoint", "incontext-small", "--out", "x"], "the word onnx"),
        (["folder", "--out", "x.json"], "no results.json"),
    ],
)
def test_what_the_command_refuses(tmp_path, incontext, monkeypatch, arguments, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    answer = incontext("export", *arguments)
    assert answer.code == 2
    assert text in answer.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_results_in_a_folder_of_that_name_are_still_results(tmp_path, incontext, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx/results.json").write_text("{}")
    assert "not of `incontext segment`" in incontext("export", "onnx", "--out", "x.json").err


def drawing(seed: int, ids: tuple[int, ...] = (1, 7)) -> Example:
    rng = np.random.default_rng(seed)
    labels = np.zeros((48, 64), np.uint8)
    for number, index in enumerate(ids):
        labels[8 * number : 8 * number + 12, 20 : 40 + 5 * number] = index
    pixels = rng.integers(0, 100, (48, 64, 3), np.uint8)
    pixels[labels > 0] += 120
    return Example(pixels, labels)


@pytest.mark.parametrize("options", [{}, {"thin_to": None}, {"views": False, "thin_to": 1}])
@pytest.mark.parametrize("count", [1, 3])
def test_both_backends_answer_alike(made, tmp_path, count, options):
    """Prompts of either serve both, in memory and as files, and results are the same."""
    _, folder, _ = made["votes"]
    torch_predictor = Predictor(load(folder.parent / "checkpoint"))
    onnx_predictor = OnnxPredictor(folder, threads=1)
    examples = [drawing(seed, (1, 7, 9, 20, 300 // 2)) for seed in range(count)]
    ours, theirs = (
        p.prompt(examples, names={7: "seven"}, **options) for p in (onnx_predictor, torch_predictor)
    )
    assert (ours.ids, ours.names, ours.colors) == (theirs.ids, theirs.names, theirs.colors)
    assert [p.coloring for p in ours.passes] == [p.coloring for p in theirs.passes]
    for mine, other in zip(ours.passes, theirs.passes, strict=True):
        arrays, tensors = mine.encoded_prompt.tensors(), other.encoded_prompt.tensors()
        assert list(arrays) == list(tensors)
        for name, x in tensors.items():
            np.testing.assert_allclose(arrays[name], x.numpy(), atol=1e-4, err_msg=name)
    files = [p.save(tmp_path / f"{n}.safetensors") for n, p in (("o", ours), ("t", theirs))]
    query = drawing(9).image
    expected = torch_predictor.predict(query, theirs, min_presence=0.5)
    results = [
        predictor.predict(query, prompt)
        for predictor in (onnx_predictor, torch_predictor)
        for prompt in (ours, theirs, *(predictor.load_prompt(file) for file in files))
    ]
    for result in results:
        assert (result.labels == expected.labels).mean() > 0.999
        np.testing.assert_allclose(result.confidence, expected.confidence, atol=2e-4)
        for mine, other in (
            (result.presence, expected.presence),
            (result.quality, expected.quality),
        ):
            assert mine == pytest.approx(other, abs=1e-4)
        assert np.abs(result.painting.astype(int) - expected.painting).max() <= 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"nearest": 2}, "nearest=2 needs the torch backend"),
        ({"coloring": {1: (255, 0, 0)}}, "coloring=.* needs the torch backend"),
        ({"kind": "thing"}, "kind 'thing'; accepted"),
        ({"views": 3}, "views=3; accepted"),
        ({"thin_to": 0}, "thin_to"),
    ],
)
def test_the_onnx_backend_says_what_it_lacks(made, options, text):
    predictor = OnnxPredictor(made["votes"][1], threads=1)
    with pytest.raises(InputError, match=text):
        predictor.prompt([drawing(0)], **options)
    unknown = Example(
        np.zeros((8, 8, 3), np.uint8), np.eye(8, dtype=np.uint8), unlabelled="unknown"
    )
    with pytest.raises(InputError, match="unknown pixels"):
        predictor.prompt([unknown])
    prompt = predictor.prompt([drawing(0)])
    with pytest.raises(InputError, match="tile=64 needs the torch backend"):
        predictor.predict(drawing(1).image, prompt, tile=64)
    with pytest.raises(InputError, match=r"accepted here: 0\.5"):
        predictor.predict(drawing(1).image, prompt, min_presence=0.2)
    with pytest.raises(InputError, match="checkpoints whose examples vote"):
        OnnxPredictor(made["independent"][1])
    with pytest.raises(InputError, match="holds no graphs of this version"):
        OnnxPredictor(made["votes"][1].parent)


def test_prompts_that_arrays_cannot_hold(made, tmp_path):
    folder = made["votes"][1]
    torch_predictor = Predictor(load(folder.parent / "checkpoint"))
    onnx_predictor = OnnxPredictor(folder, threads=1)
    examples = [drawing(seed) for seed in range(4)]
    query = drawing(9).image
    nearest = torch_predictor.prompt(examples, nearest=2)
    with pytest.raises(InputError, match="nearest needs the torch backend"):
        onnx_predictor.predict(query, nearest)
    with pytest.raises(InputError, match="nearest needs the torch backend"):
        onnx_predictor.load_prompt(nearest.save(tmp_path / "nearest.safetensors"))
    prompt = torch_predictor.prompt(examples)
    brain = Predictor(load(folder.parent / "checkpoint"), dtype=torch.bfloat16).prompt(examples)
    with pytest.raises(InputError, match="bfloat16, which needs the torch backend"):
        onnx_predictor.load_prompt(brain.save(tmp_path / "brain.safetensors"))
    with pytest.raises(InputError, match="str as prompt"):
        onnx_predictor.predict(query, "prompt.safetensors")
    other = replace(prompt, checkpoint="0" * 16)
    with pytest.raises(InputError, match="made with another checkpoint"):
        onnx_predictor.load_prompt(other.save(tmp_path / "other.safetensors"))
    half = torch_predictor.prompt(examples, half=True)
    tensor = torch.from_numpy(np.asarray(query).copy())
    results = [
        p.predict(x, half) for p in (onnx_predictor, torch_predictor) for x in (query, tensor)
    ]
    for result in results:
        np.testing.assert_allclose(result.confidence, results[0].confidence, atol=1e-3)


def test_damaged_graphs_say_what_to_do(made, tmp_path):
    shutil.copytree(made["votes"][1], tmp_path / "graphs")
    (tmp_path / "graphs/prompt.onnx").write_bytes(b"cut")
    predictor = OnnxPredictor.from_pretrained(tmp_path / "graphs")
    with pytest.raises(InputError, match=r"a damaged graph .*; delete its folder"):
        predictor.prompt(drawing(0))
    assert has_graphs(tmp_path / "graphs")
    (tmp_path / "graphs/query.onnx").unlink()
    assert not has_graphs(tmp_path / "graphs")
    with pytest.raises(InputError, match="checkpoints whose examples vote"):
        write_cache(made["joint"][0], tmp_path / "cache", "joint")
    assert not (tmp_path / "cache").exists()


def test_the_command_needs_no_torch(made, tmp_path, monkeypatch):
    """Graphs from the cache, a cold process in which torch cannot be imported."""
    folder = made["votes"][1]
    weights = folder.parent / "checkpoint/model.safetensors"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(folder, cache_folder(weights))
    assert has_graphs(cache_folder(weights))
    example = drawing(0)
    example.image.save(tmp_path / "photo.png")
    Image.fromarray(example.labels.ids.astype(np.uint8)).save(tmp_path / "mask.png")
    drawing(1).image.save(tmp_path / "a.png")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from incontext.cli.app import main; sys.exit(main())"
    )
    arguments = [
        "segment", "a.png", "--example", "photo.png", "mask.png", "--backend", "onnx",
        "--checkpoint", str(weights), "--out", "out",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    labels = np.asarray(Image.open(tmp_path / "out/a.png"))
    torch_predictor = Predictor(load(weights))
    expected = torch_predictor.predict(tmp_path / "a.png", torch_predictor.prompt(
        Example(tmp_path / "photo.png", tmp_path / "mask.png")))  # fmt: skip
    assert (labels == expected.labels).mean() > 0.999
    for options, text in (
        (["--tile", "64"], "leave out --tile"), (["--device", "cuda"], "float32 on the CPU"),
    ):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments, *options], cwd=tmp_path, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert text in done.stderr


def test_graphs_of_the_cache_are_improved_once(made, tmp_path):
    """Two graphs of a model, one as it was exported and one loaded improved, answer alike."""
    model, folder, _ = made["votes"]
    (tmp_path / "graphs").mkdir()
    improve(model, folder, tmp_path / "graphs")
    predictor, other = (OnnxPredictor(x, threads=1) for x in (tmp_path / "graphs", folder))
    assert not predictor.sessions.optimize
    results = [p.predict(drawing(1).image, p.prompt(drawing(0))) for p in (predictor, other)]
    np.testing.assert_allclose(results[0].confidence, results[1].confidence, atol=1e-4)
