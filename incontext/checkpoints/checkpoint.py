"""Checkpoints: names, hub, bundled weights; strict loading and saving in three layouts."""

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
from incontext.errors import InputError, first_line
from incontext.files import atomic
from incontext.model import Config, Model, assemble

BUNDLED = Path(__file__).parent / "weights"
DEFAULT = "incontext-votes"
WEIGHTS, CONFIG = "model.safetensors", "config.json"
# Hub repositories that do not hold a `model.safetensors`.
HUB_FILES = {"BAAI/SegGPT": "seggpt_vit_large.pth"}
KNOWN_HUB = ("BAAI/SegGPT", "BAAI/seggpt-vit-large")


def bundled() -> list[str]:
    """Names of the checkpoints that the package carries."""
    return sorted(p.parent.name for p in BUNDLED.glob(f"*/{WEIGHTS}"))


def display_name(source: str | Path) -> str:
    """What to call a checkpoint: a bundled name or hub id as it is, of a path its last part."""
    text, path = str(source), Path(source)
    if not path.exists() and text.count("/") < 2 and text[:1] not in "./~":
        return text
    path = path.resolve()
    return path.parent.name if path.name == WEIGHTS else path.name


def load(source: str | Path, *, local_files_only: bool = False) -> Model:
    """A model in evaluation mode, float32, on CPU.

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


def locate(source: str | Path, *, local_files_only: bool = False) -> Path:
    """The weights file behind a name, folder, file or hub id; see `load`."""
    name = str(source)
    if name in bundled():
        return BUNDLED / name / WEIGHTS
    path = Path(source)
    if path.is_dir():
        if (path / WEIGHTS).is_file():
            return path / WEIGHTS
        raise InputError(f"{path}: the folder holds no {WEIGHTS}")
    if path.is_file():
        return path
    if path.suffix in (".pth", ".safetensors"):
        raise InputError(f"{path}: no such file")
    parts = name.split("/")
    if len(parts) == 2 and all(parts):
        return hub.fetch(name, HUB_FILES.get(name, WEIGHTS), CONFIG, local_files_only)
    raise InputError(
        f"no checkpoint {name!r}; accepted: {', '.join(bundled())}, a folder, a .safetensors or "
        f".pth file, or a hub id such as {' or '.join(KNOWN_HUB)}"
    )


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors of a `.safetensors` file or an official `.pth` (read with `weights_only=True`).

    Raises:
        InputError: damaged, or no mapping of names to tensors.
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
    """The `config.json` beside a weights file, if there is one.

    Raises:
        InputError: it is not JSON.
    """
    path = weights.with_name(CONFIG)
    # An official .pth says all by itself, whatever else lies in its folder.
    if weights.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: not a JSON object")
    return config


def build(state: dict[str, Tensor], config: dict[str, Any] | None, path: Path) -> Model:
    """Model from tensors of any layout; strict.

    Raises:
        InputError: see `load`.
    """
    try:
        if config and "incontext" in config:
            shape = parse_config(config["incontext"], path.with_name(CONFIG))
        else:
            state = convert.convert(state, "incontext")
            shape = convert.config_of(state, **_transformers_config(config or {}))
        with torch.device("meta"):
            model = assemble(shape)
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


def compare(expected: dict[str, Tensor], given: dict[str, Tensor]) -> list[str]:
    """What keeps `given` from being loaded, in words; all tensors are named."""

    def listed(what: str, names: Iterable[str]) -> list[str]:
        names = sorted(names)
        return [f"{len(names)} {what}: {', '.join(names)}"] if names else []

    misshapen = [
        f"{name} {tuple(given[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected.keys() & given.keys()
        if expected[name].shape != given[name].shape
    ]
    return (
        listed("missing", expected.keys() - given.keys())
        + listed("unexpected", given.keys() - expected.keys())
        + listed("misshapen", misshapen)
    )


def parse_config(values: Any, path: Path) -> Config:
    """A Config from JSON values; `path` is where they stand.

    Raises:
        InputError: fields that Config does not have, or values that no model can have.
    """
    known = {f.name for f in fields(Config)}
    if not isinstance(values, dict) or values.keys() - known:
        strange = sorted(values.keys() - known) if isinstance(values, dict) else values
        raise InputError(f"{path}: unknown fields {strange}")
    try:
        return Config(**with_tuples(values))
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: {error}") from None


def _transformers_config(config: dict[str, Any]) -> dict[str, Any]:
    """What a transformers config.json says beyond the tensors' shapes."""
    fields = {
        "merge_index": "merge_after",
        "intermediate_hidden_state_indices": "taps",
        "layer_norm_eps": "layer_norm_eps",
    }
    said = {ours: config[theirs] for theirs, ours in fields.items() if theirs in config}
    return with_tuples(said)


def with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    """JSON values with their lists as tuples, which frozen dataclasses hold."""
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
    described = (
        {"incontext": asdict(model.config)} if layout == "incontext" else _describe(model.config)
    )
    if layout != "incontext":
        said = _transformers_config(described) if layout == "transformers" else {}
        _check_said(model, layout, said)
    state = {name: tensor.to(dtype or tensor.dtype).contiguous() for name, tensor in state.items()}
    target = Path(target)
    if layout == "official":
        with atomic(target) as draft:
            torch.save({"model": state}, draft)
        return target
    # The weights take their place last: a folder is a checkpoint once they are there.
    with atomic(target / WEIGHTS) as draft, atomic(target / CONFIG) as config:
        config.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        draft.write_bytes(serialize(state, metadata={"format": "pt"}))
    return target / WEIGHTS


def _check_said(model: Model, layout: str, said: dict[str, Any]) -> None:
    """Raise InputError if a model would come back from the layout with another Config."""
    try:
        again = convert.config_of(model.state_dict(), **said)
    except ValueError:
        again = Config()
    before, after = asdict(model.config), asdict(again)
    lost = [name for name in before if before[name] != after[name]]
    if lost:
        raise InputError(f"the {layout} layout cannot say {', '.join(lost)} of this model")


def _describe(config: Config) -> dict[str, Any]:
    """A transformers `SegGptConfig` as JSON."""
    side = config.image_size
    return {
        "architectures": ["SegGptForImageSegmentation"],
        "model_type": "seggpt",
        "hidden_size": config.embed_dim,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "mlp_dim": int(config.embed_dim * config.mlp_ratio),
        "image_size": [2 * side, side],
        "patch_size": config.patch_size,
        "pretrain_image_size": config.position_grid * config.patch_size,
        "decoder_hidden_size": config.decoder_dim,
        "layer_norm_eps": config.layer_norm_eps,
        "merge_index": config.merge_after,
        "intermediate_hidden_state_indices": list(config.taps),
    }


def fingerprint(model: Model) -> str:
    """Names a model's weights: 16 hex digits of its shape and of values spread over all tensors.

    A thousand values of each tensor, so that it costs milliseconds; training changes them all.
    """
    digest = hashlib.sha256(json.dumps(asdict(model.config)).encode())
    for name, tensor in model.state_dict().items():
        flat = tensor.detach().flatten()
        picked = flat[:: max(1, len(flat) // 1024)].float().cpu().contiguous()
        digest.update(name.encode() + picked.numpy().tobytes())
    return digest.hexdigest()[:16]


def push_to_hub(model: Model, repo: str, *, private: bool = False) -> str:
    """Upload `model.safetensors` and `config.json` to the hub; answers the repository's address.

    Raises:
        InputError: no network, or no right to write there.
    """
    with tempfile.TemporaryDirectory() as folder:
        save(model, folder)
        return hub.upload(Path(folder), repo, private)
