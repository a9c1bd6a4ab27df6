"""Key tables between the three checkpoint layouts: official, transformers, ours. Pure functions.

All three hold the same tensors. Ours drops the broadcast dimensions of the tokens and the class
row of the position table (the official code cuts it off before use); written back, that row is
zero.
"""

import re
from typing import Any

import torch
from torch import Tensor

from incontext.model import Config

State = dict[str, Tensor]

LAYOUTS = ("official", "transformers", "incontext")

# One row a tensor: official, transformers, ours. "#" stands for the block's number.
TABLE = [
    ("mask_token", "model.embeddings.mask_token", "encoder.mask_token"),
    ("segment_token_x", "model.embeddings.segment_token_input", "encoder.segment_image"),
    ("segment_token_y", "model.embeddings.segment_token_prompt", "encoder.segment_target"),
    ("type_token_cls", "model.embeddings.type_token_semantic", "encoder.type_semantic"),
    ("type_token_ins", "model.embeddings.type_token_instance", "encoder.type_instance"),
    ("pos_embed", "model.embeddings.position_embeddings", "encoder.position"),
    ("patch_embed.proj", "model.embeddings.patch_embeddings.projection", "encoder.embed.proj"),
    ("blocks.#.norm1", "model.encoder.layers.#.layernorm_before", "encoder.blocks.#.norm1"),
    ("blocks.#.norm2", "model.encoder.layers.#.layernorm_after", "encoder.blocks.#.norm2"),
    ("blocks.#.attn", "model.encoder.layers.#.attention", "encoder.blocks.#.attn"),
    ("blocks.#.mlp.fc1", "model.encoder.layers.#.mlp.lin1", "encoder.blocks.#.mlp.fc1"),
    ("blocks.#.mlp.fc2", "model.encoder.layers.#.mlp.lin2", "encoder.blocks.#.mlp.fc2"),
    ("norm", "model.encoder.layernorm", "encoder.norm"),
    ("decoder_embed", "decoder.decoder_embed", "decoder.embed"),
    ("decoder_pred.0", "decoder.decoder_pred.conv", "decoder.conv"),
    ("decoder_pred.1", "decoder.decoder_pred.layernorm", "decoder.norm"),
    ("decoder_pred.3", "decoder.decoder_pred.head", "decoder.head"),
]


def layout_of(state: State) -> str:
    """Return the name of the layout whose keys these are.

    Raises:
        ValueError: keys of none of the three, a few of them named.
    """
    keys: list[str] = []
    for column, name in enumerate(LAYOUTS):
        keys = [TABLE[0][column], TABLE[5][column]]
        if all(key in state for key in keys):
            return name
    first_keys = ", ".join(list(state)[:4]) or "no tensors at all"
    raise ValueError(
        f"not a SegGPT checkpoint: its tensors are {first_keys} …; accepted are the layouts of the "
        f"official code, of transformers and of incontext (they hold e.g. {', '.join(keys)})"
    )


def rename(name: str, source: str, target: str) -> str | None:
    """Return a tensor's name in another layout, None if the source layout has no such tensor."""
    columns = LAYOUTS.index(source), LAYOUTS.index(target)
    for row in TABLE:
        pattern = re.escape(row[columns[0]]).replace(r"\#", r"(\d+)") + r"((?:\.\w+)*)"
        match = re.fullmatch(pattern, name)
        if match:
            *number, suffix = match.groups()
            return row[columns[1]].replace("#", number[0] if number else "#") + suffix
    return None


def convert(state: State, target: str) -> State:
    """Convert weights to another layout; float tensors keep their dtype.

    Raises:
        ValueError: an unknown layout, or a tensor that has no place in the target layout, by name.
    """
    if target not in LAYOUTS:
        raise ValueError(f"unknown layout {target!r}; accepted: {', '.join(LAYOUTS)}")
    source = layout_of(state)
    if source == target:
        return dict(state)
    renamed = {name: rename(name, source, target) for name in state}
    unplaced = [name for name, new in renamed.items() if new is None]
    if unplaced:
        raise ValueError(
            f"no place in the {target} layout for {', '.join(unplaced[:8])}"
            + (f" and {len(unplaced) - 8} more" if len(unplaced) > 8 else "")
        )
    return {
        new: _reshape(new, state[name], target) for name, new in renamed.items() if new is not None
    }


def _reshape(name: str, tensor: Tensor, target: str) -> Tensor:
    """Add or drop the dimensions in which the layouts differ; `name` is the one in `target`."""
    to_incontext = target == "incontext"
    if name in {row[LAYOUTS.index(target)] for row in TABLE[:5]}:
        return tensor.reshape(-1) if to_incontext else tensor.reshape(1, 1, 1, -1)
    if name != TABLE[5][LAYOUTS.index(target)]:
        return tensor
    if to_incontext:
        side = round((tensor.shape[1] - 1) ** 0.5) if tensor.dim() == 3 else 0
        if tensor.dim() != 3 or tensor.shape[:2] != (1, side**2 + 1):
            raise ValueError(
                f"misshapen: {name} {tuple(tensor.shape)}; accepted: (1, 1 + a square, channels)"
            )
        return tensor[0, 1:].reshape(side, side, -1)
    flat = tensor.reshape(1, -1, tensor.shape[-1])
    return torch.cat([torch.zeros_like(flat[:, :1]), flat], 1)


def config_of(state: State, **fields: Any) -> Config:
    """Derive the Config of a model in the official shape from its tensors in our layout.

    What tensors do not show is taken from `fields`, else as in the official model: the merge after
    block 2, taps at the quarters of the depth.

    Raises:
        ValueError: a tensor that the reading needs is missing.
    """
    try:
        weight = state["encoder.embed.proj.weight"]
        table = state["encoder.blocks.0.attn.rel_pos_w"]
        hidden = state["encoder.blocks.0.mlp.fc1.weight"].shape[0]
        decoder_dim = state["decoder.conv.weight"].shape[0]
        grid = state["encoder.position"].shape[0]
    except KeyError as error:
        raise ValueError(f"the checkpoint has no tensor {error.args[0]}") from None
    blocks = {int(n[1]) for n in (re.match(r"encoder\.blocks\.(\d+)\.", k) for k in state) if n}
    depth, dim, patch = max(blocks) + 1, weight.shape[0], weight.shape[-1]
    shape: dict[str, Any] = {
        "image_size": (table.shape[0] + 1) // 2 * patch,
        "patch_size": patch,
        "embed_dim": dim,
        "depth": depth,
        "num_heads": dim // table.shape[1],
        "mlp_ratio": hidden / dim,
        "decoder_dim": decoder_dim,
        "position_grid": grid,
        "taps": tuple(depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4)),
    }
    return Config(**(shape | fields))


def fields_from_transformers(config: dict[str, Any]) -> dict[str, Any]:
    """Return the Config fields that a transformers config.json adds to the tensors' shapes."""
    names = {
        "merge_index": "merge_after",
        "intermediate_hidden_state_indices": "taps",
        "layer_norm_eps": "layer_norm_eps",
    }
    return {field: config[name] for name, field in names.items() if name in config}


def transformers_config(config: Config) -> dict[str, Any]:
    """Return a transformers `SegGptConfig` as JSON."""
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
