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
    """Name of the layout whose keys these are.

    Raises:
        ValueError: keys of none of the three, a few of them named.
    """
    marks: list[str] = []
    for column, name in enumerate(LAYOUTS):
        marks = [TABLE[0][column], TABLE[5][column]]
        if all(mark in state for mark in marks):
            return name
    seen = ", ".join(list(state)[:4]) or "no tensors at all"
    raise ValueError(
        f"not a SegGPT checkpoint: its tensors are {seen} …; accepted are the layouts of the "
        f"official code, of transformers and of incontext (they hold e.g. {', '.join(marks)})"
    )


def rename(name: str, source: str, target: str) -> str | None:
    """A tensor's name in another layout, or None if the source layout has no such tensor."""
    columns = LAYOUTS.index(source), LAYOUTS.index(target)
    for row in TABLE:
        pattern = re.escape(row[columns[0]]).replace(r"\#", r"(\d+)") + r"((?:\.\w+)*)"
        found = re.fullmatch(pattern, name)
        if found:
            *number, rest = found.groups()
            return row[columns[1]].replace("#", number[0] if number else "#") + rest
    return None


def convert(state: State, target: str) -> State:
    """The same weights in another layout; float tensors keep their dtype.

    Raises:
        ValueError: an unknown layout, or a tensor that has no place in the target layout, by name.
    """
    if target not in LAYOUTS:
        raise ValueError(f"unknown layout {target!r}; accepted: {', '.join(LAYOUTS)}")
    source = layout_of(state)
    if source == target:
        return dict(state)
    renamed = {name: rename(name, source, target) for name in state}
    lost = [name for name, new in renamed.items() if new is None]
    if lost:
        raise ValueError(
            f"no place in the {target} layout for {', '.join(lost[:8])}"
            + (f" and {len(lost) - 8} more" if len(lost) > 8 else "")
        )
    return {
        new: _reshape(new, state[name], target) for name, new in renamed.items() if new is not None
    }


def _reshape(name: str, tensor: Tensor, target: str) -> Tensor:
    """Add or drop the dimensions in which the layouts differ; `name` is the one in `target`."""
    ours = target == "incontext"
    if name in {row[LAYOUTS.index(target)] for row in TABLE[:5]}:
        return tensor.reshape(-1) if ours else tensor.reshape(1, 1, 1, -1)
    if name != TABLE[5][LAYOUTS.index(target)]:
        return tensor
    if ours:
        side = round((tensor.shape[1] - 1) ** 0.5) if tensor.dim() == 3 else 0
        if tensor.dim() != 3 or tensor.shape[:2] != (1, side**2 + 1):
            raise ValueError(
                f"misshapen: {name} {tuple(tensor.shape)}; accepted: (1, 1 + a square, channels)"
            )
        return tensor[0, 1:].reshape(side, side, -1)
    flat = tensor.reshape(1, -1, tensor.shape[-1])
    return torch.cat([torch.zeros_like(flat[:, :1]), flat], 1)


def config_of(state: State, **known: Any) -> Config:
    """The Config of a model in the official shape, read off its tensors in our layout.

    What tensors do not show is taken from `known`, else as in the official model: the merge after
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
    numbers = {int(n[1]) for n in (re.match(r"encoder\.blocks\.(\d+)\.", k) for k in state) if n}
    depth, dim, patch = max(numbers) + 1, weight.shape[0], weight.shape[-1]
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
    return Config(**(shape | known))
