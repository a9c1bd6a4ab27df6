"""ONNX export: a checkpoint as graphs in a folder, with a file that says how to run them."""

import json
import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from incontext.checkpoints.checkpoint import fingerprint
from incontext.checkpoints.onnx_graphs import ALL, Graph, graphs_of
from incontext.checkpoints.onnx_sessions import FORMAT, METADATA, VERSION, Sessions
from incontext.errors import InputError
from incontext.files import exclusive
from incontext.labels.coloring import PALETTE
from incontext.model import Model, VotingModel
from incontext.model.int8 import Int8Linear
from incontext.model.votes.voters import FINE_SHARE

OPSET = 20
GRAPHS = ("prompt", "query", "joint")
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# Largest difference accepted between a painting of the graphs and PyTorch's, in normalized RGB.
LIMIT = 1e-4
EXAMPLE_COUNTS = (1, 3)  # with which an export is checked

MEANING = {
    "images": "RGB pictures of the examples, resized to size × size (bicubic), divided by 255, "
    "minus mean, divided by std; channels first",
    "targets": "labels of the examples in the same numbers: pictures of size × size (nearest) with "
    "a color of the palette for each label, the same in all of them, on the background",
    "kind": "true: semantic, everything of the class; false: instance, the very object",
    "palette": "colors of the labels in the targets, a row each, in the numbers of images",
    "query": "RGB pictures to segment, in the numbers of images",
    "painting": "of each query, in the numbers of images: times std plus mean, times 255, clipped "
    "to 0–255; a pixel has the label whose color is nearest",
}
PROMPT = "what a prompt keeps of its examples: an output of one graph, an input of the other"


@dataclass(frozen=True)
class ExportResult:
    """Written files, and how far the graphs' paintings are from PyTorch's."""

    folder: Path
    files: list[str]
    differences: dict[int, float]  # largest by number of examples, in normalized RGB


def write(model: Model, folder: str | Path, *, name: str = "") -> ExportResult:
    """Write a model's graphs and `incontext.json` into a folder, checked against the model.

    With independent examples `prompt.onnx` and `query.onnx`, otherwise `joint.onnx`; weights of
    large models are in files of their own. An earlier export there is replaced once all files are
    written and checked.

    Args:
        model: float32, on the CPU.
        folder: created if necessary.
        name: of the checkpoint, for the metadata.

    Raises:
        InputError: a package is missing, `folder` is a file or holds graphs that no
            `incontext.json` lists, the model has int8 weights or is not
            float32 on the CPU, or the graphs paint something else than the model.
        OSError: the folder cannot be written.
    """
    folder = Path(folder)
    check_input(folder)
    _check_model(model)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".onnx-", dir=folder) as draft:
        graphs = graphs_of(model)
        entries = {graph.name: _write_graph(graph, Path(draft)) for graph in graphs}
        differences = compare(model, Path(draft))
        metadata = onnx_metadata(model, name, entries, differences)
        (Path(draft) / METADATA).write_text(_json(metadata), encoding="utf-8")
        files = place(Path(draft), folder)
    return ExportResult(folder, files, differences)


def write_cache(model: Model, folder: Path, name: str) -> None:
    """Write graphs that onnxruntime has improved already, so that they load in half the time.

    Args:
        folder: see `onnx_sessions.cache_folder`.

    Raises:
        InputError: see `write`; a model whose examples do not vote, or another process that is
            writing there.
        OSError: see `write`.
    """
    if not isinstance(model, VotingModel):
        raise InputError(
            f"{name}: the onnx backend runs checkpoints whose examples vote, such as "
            "incontext-votes"
        )
    with exclusive(folder), TemporaryDirectory(prefix=".graphs-", dir=folder.parent) as draft:
        improve(model, write(model, draft, name=name).folder, folder)


def improve(model: Model, exported: Path, folder: Path) -> None:
    """Write the graphs of an export as onnxruntime improves them, checked against the model.

    Args:
        folder: exists; what an export left there is replaced.

    Raises:
        InputError: the improved graphs paint something else than the model.
    """
    with TemporaryDirectory(prefix=".improved-", dir=folder) as name:
        draft = Path(name)
        sessions = Sessions(exported, torch.get_num_threads())
        for graph in sessions.names:
            sessions.open(graph, draft / f"{graph}.onnx")
        compare(model, draft)
        description = json.loads((exported / METADATA).read_bytes()) | {"optimized": True}
        (draft / METADATA).write_text(_json(description), encoding="utf-8")
        place(draft, folder)


def place(draft: Path, folder: Path) -> list[str]:
    """Move an export from a draft folder, replacing an earlier one; return the file names."""
    stale = _exported_files(folder)
    # Removed first and moved last: it must never describe other graphs than those next to it.
    (folder / METADATA).unlink(missing_ok=True)
    for file in stale:
        (folder / file).unlink(missing_ok=True)
    written = {path.name for path in draft.iterdir()} - {METADATA}
    files = [*sorted(written), METADATA]
    for file in files:
        os.replace(draft / file, folder / file)
    return files


def _exported_files(folder: Path) -> list[str]:
    """Return the files that the folder's `incontext.json` lists; none if it is not an export's."""
    try:
        metadata = json.loads((folder / METADATA).read_bytes())
        graphs = metadata["graphs"].values() if metadata["format"] == FORMAT else ()
        names = [str(n) for graph in graphs for n in (graph["file"], *graph.get("weights", ()))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    return [name for name in names if name.startswith(tuple(f"{graph}.onnx" for graph in GRAPHS))]


def check_input(folder: Path) -> None:
    """Raise InputError if a package is missing, or the folder is a file or holds other graphs."""
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        raise InputError(f"ONNX needs {', '.join(missing)}: pip install 'incontext-seg[onnx]'")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder} is a file; accepted: a folder")
    existing = {path.name for name in GRAPHS for path in folder.glob(f"{name}.onnx*")}
    if (folder / METADATA).exists() and not _exported_files(folder):
        existing.add(METADATA)
    foreign = sorted(existing.difference(_exported_files(folder)))
    if foreign:
        raise InputError(
            f"{folder} holds {foreign[0]}, not of an earlier export; choose another --out"
        )


def _check_model(model: Model) -> None:
    """Raise InputError unless all weights are float32 on the CPU."""
    if any(isinstance(module, Int8Linear) for module in model.modules()):
        raise InputError("a model with int8 weights; accepted: float32 ones, load it without int8")
    wrong = next((p for p in model.parameters() if p.dtype != torch.float32 or not p.is_cpu), None)
    if wrong is not None:
        raise InputError(
            f"a model in {wrong.dtype} on {wrong.device}; accepted: torch.float32 on cpu"
        )


def _write_graph(graph: Graph, folder: Path) -> dict[str, Any]:
    """Write one graph; return its entry in the metadata."""
    program = graph.trace()
    with _quiet():
        # Runtimes simplify graphs themselves; to do it here takes as long as all the rest.
        exported = torch.onnx.export(
            program, dynamo=True, verbose=False, opset_version=OPSET, input_names=graph.inputs,
            output_names=graph.outputs, dynamic_shapes=graph.free_axes, optimize=False,
        )  # fmt: skip
        assert exported is not None
        path = folder / f"{graph.name}.onnx"
        exported.save(path)
    onnx_graph = exported.model.graph
    # ONNX files hold 2 GB at most: the exporter puts larger weights into files of their own.
    weights = sorted(p.name for p in folder.glob(f"{path.name}.*"))
    return {
        "file": path.name, **({"weights": weights} if weights else {}),
        "inputs": _describe_values(onnx_graph.inputs),
        "outputs": _describe_values(onnx_graph.outputs),
    }  # fmt: skip


def _json(metadata: dict[str, Any]) -> str:
    """Format JSON for people too: a list of plain values is one line."""
    text = json.dumps(metadata, indent=1, ensure_ascii=False)
    return re.sub(r"\[[^\[\]{}]+\]", lambda match: re.sub(r"\s+", " ", match[0]), text) + "\n"


def _describe_values(values: Any) -> list[dict[str, Any]]:
    """Return names, types and shapes of a graph's inputs or outputs; free axes by their name."""
    return [
        {
            "name": value.name,
            "dtype": "bool" if "BOOL" in str(value.dtype) else "float32",
            "shape": [d if isinstance(d, int) else str(d) for d in value.shape],
            "meaning": MEANING.get(value.name, PROMPT),
        }
        for value in values
    ]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' warnings about packages and steps that do not matter here."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def paint(
    sessions: Sessions, query: Tensor, images: Tensor, targets: Tensor, kind: Tensor,
    palette: Tensor,
) -> Tensor:  # fmt: skip
    """Paint queries by examples: see `JointGraph`, `PromptGraph`."""
    inputs = {"images": images, "targets": targets, "kind": kind, "palette": palette}
    first = "joint" if "joint" in sessions.names else "prompt"
    names = {node.name for node in sessions.open(first).get_inputs()}
    inputs = {name: x for name, x in inputs.items() if name in names}
    if first == "joint":
        outputs = sessions.run("joint", query=query, **inputs)
    else:
        prompt = sessions.run("prompt", **inputs)
        prompt = {name: x for name, x in prompt.items() if not name.startswith(ALL)}
        outputs = sessions.run("query", query=query, **prompt)
    return torch.from_numpy(outputs["painting"])


def compare(model: Model, folder: Path) -> dict[int, float]:
    """Return the largest difference of paintings by `EXAMPLE_COUNTS`, on random pictures.

    Raises:
        InputError: a difference is larger than `LIMIT`.
    """
    sessions = Sessions(folder, torch.get_num_threads())
    rng = torch.Generator().manual_seed(0)
    side = model.config.image_size
    differences = {}
    for count in EXAMPLE_COUNTS:
        query, images, targets = (
            torch.randn(number, 3, side, side, generator=rng) for number in (1, count, count)
        )
        kind = torch.tensor([count == EXAMPLE_COUNTS[0]])
        colors = torch.randn(count, 3, generator=rng)
        with torch.inference_mode():
            prompt = model.encode(images[None], targets[None], kind, colors=colors[None])
            reference = model.paint(query, prompt)
        painting = paint(sessions, query, images, targets, kind, colors)
        differences[count] = float((painting - reference).abs().max())
        if not differences[count] <= LIMIT:  # also where it is NaN
            raise InputError(
                f"the graphs paint something else than the model: {differences[count]:.1e} apart "
                f"with {count} examples, accepted: {LIMIT:.0e}; nothing was written"
            )
    return differences


def onnx_metadata(
    model: Model, name: str, graphs: dict[str, Any], differences: dict[int, float]
) -> dict[str, Any]:
    """Return what a program needs to run the graphs without this package."""
    config = model.config
    metadata = {
        "format": FORMAT, "version": VERSION, "checkpoint": name,
        "fingerprint": fingerprint(model), "opset": OPSET,
        "example_attention": config.example_attention, "size": config.image_size,
        "mean": config.mean, "std": config.std,
        "background": [0, 0, 0], "palette": PALETTE.colors,
        "difference_from_pytorch": {str(n): value for n, value in differences.items()},
        "graphs": graphs,
    }  # fmt: skip
    if isinstance(model, VotingModel):
        metadata |= {"thinning": _describe_thinning(model), "reading": _describe_reading(model)}
    return metadata


def _describe_thinning(model: VotingModel) -> dict[str, Any]:
    """Return which cells the package keeps of examples."""
    return {"thin_to": model.default_thin_to, "share_at_stride_4": FINE_SHARE}


def _describe_reading(model: VotingModel) -> dict[str, Any]:
    """Return how the package reads logits: see `incontext.inference.calibration`."""
    slope, offset = model.config.calibration
    head = model.quality
    weights = head and {name: x.tolist() for name, x in head.state_dict().items()}
    return {
        "slope": slope, "offset": offset, "quality": weights,
        "presence": model.presence is not None,
    }  # fmt: skip
