"""Checkpoints: strict loading and saving in three layouts."""

import hashlib
import json
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import Tensor

from incontext.checkpoints import convert, hub
from incontext.checkpoints.location import CONFIG, WEIGHTS, locate
from incontext.errors import InputError, first_line
from incontext.files import atomic
from incontext.model import Config, Model, assemble
from incontext.model.config import READING_FIELDS, READING_PARTS, VOTING_FIELDS


def load(source: str | Path, *, local_files_only: bool = False) -> Model:
    """Load a model: in evaluation mode, float32, on CPU.

    Args:
        source: a bundled name; a folder with `model.safetensors` (ours or transformers'); a
            `.safetensors` or `.pth` file; or a hub id such as `BAAI/SegGPT`, which is looked up
            in the local hub cache and then, unless `local_files_only`, downloaded.

    Raises:
        InputError: an unknown name, a damaged file, tensors that are missing, unexpected or
            misshapen (all named), or a hub that cannot be reached.
    """
    path = locate(source, local_files_only=local_files_only)
    return build(read_state(path), read_config(path), path)


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a `.safetensors` file or an official `.pth` (with `weights_only=True`).

    Raises:
        InputError: the file is damaged or holds something else than named tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
        raise InputError(f"{path}: damaged checkpoint ({first_line(error)})") from None
    except Exception as error:  # pickle.UnpicklingError and what foreign pickles raise
        raise InputError(
            f"{path}: not a checkpoint of plain tensors ({first_line(error)})"
        ) from None
    state = state.get("model", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"{path}: holds no mapping of names to tensors")
    return state


def read_config(weights: Path) -> dict[str, Any] | None:
    """Read the `config.json` next to a weights file, None if there is none.

    Raises:
        InputError: it is not JSON.
    """
    path = weights.with_name(CONFIG)
    # An official .pth needs no config; one in its folder belongs to another checkpoint.
    if weights.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: not a JSON object")
    return config


def build(state: dict[str, Tensor], config: dict[str, Any] | None, path: Path) -> Model:
    """Build a model from tensors of any layout; strict.

    Raises:
        InputError: see `load`.
    """
    try:
        if config and "incontext" in config:
            parsed_config = parse_config(config["incontext"], path.with_name(CONFIG))
        else:
            state = convert.convert(state, "incontext")
            extra = with_tuples(convert.fields_from_transformers(config or {}))
            parsed_config = convert.config_of(state, **extra)
        with torch.device("meta"):
            model = assemble(parsed_config)
    except InputError:
        raise
    except (ValueError, TypeError, AttributeError, IndexError, ArithmeticError) as error:
        raise InputError(f"{path}: {error}") from None
    except RuntimeError as error:  # what torch says of shapes that no module can have
        raise InputError(f"{path}: {first_line(error)}") from None
    problems = compare(model.state_dict(), state)
    if problems:
        raise InputError(f"{path}: " + "; ".join(problems))
    # A copy: tensors of a safetensors file lie where the file has them, across cache lines.
    state = {name: tensor.to(torch.float32, copy=True) for name, tensor in state.items()}
    model.load_state_dict(state, assign=True)
    return model.eval()


def compare(model_state: dict[str, Tensor], state: dict[str, Tensor]) -> list[str]:
    """Return what keeps `state` from being loaded, in words; every tensor is named."""

    def format_names(problem: str, names: Iterable[str]) -> list[str]:
        names = sorted(names)
        return [f"{len(names)} {problem}: {', '.join(names)}"] if names else []

    misshapen = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(model_state[name].shape)}"
        for name in model_state.keys() & state.keys()
        if model_state[name].shape != state[name].shape
    ]
    return (
        format_names("missing", model_state.keys() - state.keys())
        + format_names("unexpected", state.keys() - model_state.keys())
        + format_names("misshapen", misshapen)
    )


def parse_config(values: Any, path: Path) -> Config:
    """Build a Config from JSON values; `path`: the file they are from, for messages.

    Raises:
        InputError: fields that Config does not have, or values that no model can have.
    """
    names = {f.name for f in fields(Config)}
    if not isinstance(values, dict) or values.keys() - names:
        unknown = sorted(values.keys() - names) if isinstance(values, dict) else values
        raise InputError(f"{path}: unknown fields {unknown}")
    try:
        return Config(**with_tuples(values))
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: {error}") from None


def with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    """Turn lists of JSON values into tuples, which frozen dataclasses hold."""
    return {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}


def save(
    model: Model,
    target: str | Path,
    *,
    layout: str = "incontext",
    dtype: torch.dtype | None = None,
) -> Path:
    """Write a checkpoint: a folder (ours, transformers) or a `.pth` file (official).

    Args:
        dtype: store in this float type; None keeps the model's.

    Returns:
        The weights file.

    Raises:
        InputError: the model has parts or settings that the layout has no place for, or it was
            quantized.
    """
    with torch.device("meta"):
        problems = compare(assemble(model.config).state_dict(), model.state_dict())
    if problems:  # such as int8 weights, which live outside the tensors of a model
        raise InputError("this model cannot be saved: " + "; ".join(problems))
    try:
        state = model.state_dict()
        state = dict(state) if layout == "incontext" else convert.convert(state, layout)
    except ValueError as error:
        raise InputError(str(error)) from None
    values: dict[str, Any] = {"incontext": asdict(model.config)}
    if layout != "incontext":
        values = convert.transformers_config(model.config)
        extra = convert.fields_from_transformers(values) if layout == "transformers" else {}
        _check_layout(model, layout, with_tuples(extra))
    state = {name: tensor.to(dtype or tensor.dtype).contiguous() for name, tensor in state.items()}
    target = Path(target)
    if layout == "official":
        with atomic(target) as draft:
            torch.save({"model": state}, draft)
        return target
    # The config takes its place first: the weights alone would be read as another layout's.
    with atomic(target / WEIGHTS) as draft, atomic(target / CONFIG) as config_draft:
        config_draft.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        draft.write_bytes(serialize(state, metadata={"format": "pt"}))
    return target / WEIGHTS


def _check_layout(model: Model, layout: str, extra: dict[str, Any]) -> None:
    """Raise InputError if a model loaded from the layout would have another Config.

    `extra`: Config fields that the layout's config file adds to the tensors' shapes.
    """
    try:
        config = convert.config_of(model.state_dict(), **extra)
    except ValueError:
        config = Config()
    before, after = asdict(model.config), asdict(config)
    changed = [name for name in before if before[name] != after[name]]
    if changed:
        raise InputError(f"the {layout} layout cannot say {', '.join(changed)} of this model")


def fingerprint(model: Model) -> str:
    """Hash a model: 16 hex digits of its config and of values spread over all tensors.

    A thousand values of each tensor, so that it costs milliseconds; training changes them all. What
    reads answers and does not change what a prompt means is left out, and so are fields that the
    model does not use: prompts of earlier versions stay valid.
    """
    config = asdict(model.config)
    for name in READING_FIELDS if model.config.backbone else (*READING_FIELDS, *VOTING_FIELDS):
        del config[name]
    digest = hashlib.sha256(json.dumps(config).encode())
    for name, tensor in model.state_dict().items():
        if name.startswith(READING_PARTS):
            continue
        flat = tensor.detach().flatten()
        sample = flat[:: max(1, len(flat) // 1024)].float().cpu().contiguous()
        digest.update(name.encode() + sample.numpy().tobytes())
    return digest.hexdigest()[:16]


def push_to_hub(model: Model, repo: str, *, private: bool = False) -> str:
    """Upload `model.safetensors` and `config.json` to the hub; return the repository's address.

    Raises:
        InputError: no network, or no permission to write there.
    """
    with tempfile.TemporaryDirectory() as folder:
        save(model, folder)
        return hub.upload(Path(folder), repo, private)
