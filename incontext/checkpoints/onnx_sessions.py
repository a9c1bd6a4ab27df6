"""ONNX sessions: exported graphs in onnxruntime, without torch."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from incontext.checkpoints.location import CONFIG
from incontext.errors import InputError, first_line

METADATA = "incontext.json"
FORMAT, VERSION = "incontext graphs", 2


class Sessions:
    """The graphs of a folder, loaded in onnxruntime when they are first run.

    Args:
        threads: of onnxruntime; None: one for each core.
        optimize: improve the graphs while they are loaded; False is for those improved before.
    """

    def __init__(self, folder: Path, threads: int | None = None, optimize: bool = True) -> None:
        self.folder, self.threads, self.optimize = folder, threads or 0, optimize
        self.names = sorted(path.stem for path in folder.glob("*.onnx"))
        self._sessions: dict[str, Any] = {}

    def open(self, name: str, optimized: Path | None = None) -> Any:
        """Return the session of a graph; `optimized`: where to write what it was improved to."""
        if name not in self._sessions:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self.threads
            options.log_severity_level = 3
            levels = onnxruntime.GraphOptimizationLevel
            if not self.optimize:
                options.graph_optimization_level = levels.ORT_DISABLE_ALL
            if optimized is not None:
                # What any processor can run; more gains nothing measurable.
                options.graph_optimization_level = levels.ORT_ENABLE_EXTENDED
                options.optimized_model_filepath = str(optimized)
            path = self.folder / f"{name}.onnx"
            try:
                self._sessions[name] = onnxruntime.InferenceSession(
                    str(path), options, providers=["CPUExecutionProvider"]
                )
            except Exception as error:  # onnxruntime has a type of its own for each kind of damage
                raise InputError(
                    f"{path}: a damaged graph ({first_line(error)}); delete its folder, and it is "
                    "made again"
                ) from None
        return self._sessions[name]

    def run(self, name: str, **inputs: Any) -> dict[str, Any]:
        """Run one graph: outputs by name, for inputs by name (arrays, or tensors on the CPU)."""
        session = self.open(name)
        arrays = {key: np.asarray(value) for key, value in inputs.items()}
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, arrays), strict=True))


def read_description(folder: Path) -> dict[str, Any] | None:
    """Read what an export says of its graphs; None if there is none, or of another version."""
    try:
        description = json.loads((folder / METADATA).read_bytes())
    except (OSError, ValueError):
        return None
    fits = isinstance(description, dict) and description.get("format") == FORMAT
    return description if fits and description.get("version") == VERSION else None


def has_graphs(folder: Path) -> bool:
    """Return whether a folder holds all graphs that its description names."""
    description = read_description(folder)
    return description is not None and all(
        (folder / graph["file"]).is_file() for graph in description["graphs"].values()
    )


def cache_folder(weights: Path) -> Path:
    """Return where the graphs of a checkpoint are kept, in the user's cache.

    The name changes with the weights, their configuration and the version of the graphs.
    """
    digest = hashlib.sha256(str(VERSION).encode())
    for path in (weights, weights.with_name(CONFIG)):
        digest.update(path.read_bytes() if path.is_file() else b"")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "incontext" / "graphs" / digest.hexdigest()[:16]


def check_package() -> None:
    """Raise InputError where onnxruntime is missing."""
    from importlib.util import find_spec

    if find_spec("onnxruntime") is None:
        raise InputError("the onnx backend needs onnxruntime: pip install 'incontext-seg[onnx]'")
