"""Portable: a checkpoint as ONNX graphs in a folder, with a file that says how to run them."""

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

import numpy as np
import torch
from torch import Tensor

from incontext.checkpoints.checkpoint import fingerprint
from incontext.checkpoints.onnx_graphs import Graph, graphs_of
from incontext.errors import InputError
from incontext.labels.coloring import PALETTE
from incontext.model import Model
from incontext.model.int8 import Int8Linear

OPSET = 20
ABOUT = "incontext.json"
FORMAT = "incontext graphs"
GRAPHS = ("prompt", "query", "joint")
NEEDED = ("onnx", "onnxscript", "onnxruntime")
# What may lie between a painting of the graphs and one of PyTorch, in normalized RGB.
LIMIT = 1e-4
CHECKED = (1, 3)  # examples

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
class Written:
    """What was written, and how far its paintings are from PyTorch's."""

    folder: Path
    files: list[str]
    differences: dict[int, float]  # largest one by number of examples, in normalized RGB


def write(model: Model, folder: str | Path, *, name: str = "") -> Written:
    """Write a model's graphs and `incontext.json` into a folder, checked against the model.

    With independent examples `prompt.onnx` and `query.onnx`, otherwise `joint.onnx`; weights of
    large models are in files beside. An earlier export there gives way when all files are written
    and have been checked.

    Args:
        model: float32, on the CPU.
        folder: made where it is not there.
        name: of the checkpoint, noted.

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
        described = {graph.name: _write_graph(graph, Path(draft)) for graph in graphs}
        differences = compare(model, Path(draft))
        about = describe(model, name, described, differences)
        (Path(draft) / ABOUT).write_text(_json(about), encoding="utf-8")
        files = place(Path(draft), folder)
    return Written(folder, files, differences)


def place(draft: Path, folder: Path) -> list[str]:
    """Move a whole export where it belongs, in place of an earlier one; the names of its files."""
    stale = _listed(folder)
    # Without it until all is there: what it says must not be of other graphs.
    (folder / ABOUT).unlink(missing_ok=True)
    for file in stale:
        (folder / file).unlink(missing_ok=True)
    files = [*sorted(path.name for path in draft.iterdir() if path.name != ABOUT), ABOUT]
    for file in files:
        os.replace(draft / file, folder / file)
    return files


def _listed(folder: Path) -> list[str]:
    """Files of graphs that the folder's `incontext.json` lists; none where it is not ours."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        graphs = about["graphs"].values() if about["format"] == FORMAT else ()
        names = [str(name) for said in graphs for name in (said["file"], *said.get("weights", ()))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    return [name for name in names if name.startswith(tuple(f"{graph}.onnx" for graph in GRAPHS))]


def check_input(folder: Path) -> None:
    """Raise InputError where a package is missing, or the folder is a file or has other graphs."""
    missing = [package for package in NEEDED if find_spec(package) is None]
    if missing:
        raise InputError(f"ONNX needs {', '.join(missing)}: pip install 'incontext-seg[onnx]'")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder} is a file; accepted: a folder")
    there = {path.name for name in GRAPHS for path in folder.glob(f"{name}.onnx*")}
    if (folder / ABOUT).exists() and not _listed(folder):
        there.add(ABOUT)
    strange = sorted(there.difference(_listed(folder)))
    if strange:
        raise InputError(
            f"{folder} holds {strange[0]}, not of an earlier export; choose another --out"
        )


def _check_model(model: Model) -> None:
    """Raise InputError unless its weights are plain float32 ones."""
    if any(isinstance(module, Int8Linear) for module in model.modules()):
        raise InputError("a model with int8 weights; accepted: float32 ones, load it without int8")
    odd = next((p for p in model.parameters() if p.dtype != torch.float32 or not p.is_cpu), None)
    if odd is not None:
        raise InputError(f"a model in {odd.dtype} on {odd.device}; accepted: torch.float32 on cpu")


def _write_graph(graph: Graph, folder: Path) -> dict[str, Any]:
    """Write one graph; its part of the description."""
    program = graph.traced()
    with _quiet():
        made = torch.onnx.export(
            program, dynamo=True, verbose=False, opset_version=OPSET, input_names=graph.inputs,
            output_names=graph.outputs, dynamic_shapes=graph.free,
        )  # fmt: skip
        assert made is not None
        path = folder / f"{graph.name}.onnx"
        made.save(path)
    ends = made.model.graph
    # The exporter puts weights beside a graph that would be too large for a file of its format.
    weights = sorted(p.name for p in folder.glob(f"{path.name}.*"))
    return {
        "file": path.name, **({"weights": weights} if weights else {}),
        "inputs": _said(ends.inputs), "outputs": _said(ends.outputs),
    }  # fmt: skip


def _json(about: dict[str, Any]) -> str:
    """JSON for people too: a list of plain values is one line."""
    text = json.dumps(about, indent=1, ensure_ascii=False)
    return re.sub(r"\[[^\[\]{}]+\]", lambda found: re.sub(r"\s+", " ", found[0]), text) + "\n"


def _said(values: Any) -> list[dict[str, Any]]:
    """Names, types and shapes of a graph's inputs or outputs; free axes by their name."""
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
    """Without what exporters say of packages and steps that do not matter here."""
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


class Sessions:
    """The graphs of a folder in onnxruntime."""

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3
        self.sessions = {
            path.stem: onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
            for path in folder.glob("*.onnx")
        }

    def run(self, name: str, **given: Any) -> dict[str, Any]:
        """One graph: outputs by name, for inputs by name (tensors or arrays)."""
        session = self.sessions[name]
        fed = {key: np.asarray(value) for key, value in given.items()}
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, fed), strict=True))

    def paint(
        self, query: Tensor, images: Tensor, targets: Tensor, kind: Tensor, palette: Tensor
    ) -> Tensor:
        """Queries and examples to paintings: see `JointGraph`, `PromptGraph`."""
        shown = {"images": images, "targets": targets, "kind": kind, "palette": palette}
        first = "joint" if "joint" in self.sessions else "prompt"
        taken = {given.name for given in self.sessions[first].get_inputs()}
        shown = {name: x for name, x in shown.items() if name in taken}
        if first == "joint":
            found = self.run("joint", query=query, **shown)
        else:
            found = self.run("query", query=query, **self.run("prompt", **shown))
        return torch.from_numpy(found["painting"])


def compare(model: Model, folder: Path) -> dict[int, float]:
    """The largest difference of paintings for each number in `CHECKED`, on random pictures.

    Raises:
        InputError: one is larger than `LIMIT`.
    """
    sessions = Sessions(folder)
    rng = torch.Generator().manual_seed(0)
    side = model.config.image_size
    differences = {}
    for count in CHECKED:
        query, images, targets = (
            torch.randn(number, 3, side, side, generator=rng) for number in (1, count, count)
        )
        kind, colors = torch.tensor([count == CHECKED[0]]), torch.randn(count, 3, generator=rng)
        with torch.inference_mode():
            encoded = model.encode(images[None], targets[None], kind, colors=colors[None])
            expected = model.paint(query, encoded)
        found = sessions.paint(query, images, targets, kind, colors)
        differences[count] = float((found - expected).abs().max())
        if not differences[count] <= LIMIT:  # also where it is NaN
            raise InputError(
                f"the graphs paint something else than the model: {differences[count]:.1e} apart "
                f"with {count} examples, accepted: {LIMIT:.0e}; nothing was written"
            )
    return differences


def describe(
    model: Model, name: str, graphs: dict[str, Any], differences: dict[int, float]
) -> dict[str, Any]:
    """What a program needs that runs the graphs without this package."""
    config = model.config
    return {
        "format": FORMAT, "version": 1, "checkpoint": name,
        "fingerprint": fingerprint(model), "opset": OPSET,
        "example_attention": config.example_attention, "size": config.image_size,
        "mean": config.mean, "std": config.std,
        "background": [0, 0, 0], "palette": PALETTE.colors,
        "difference_from_pytorch": {str(n): value for n, value in differences.items()},
        "graphs": graphs,
    }  # fmt: skip
