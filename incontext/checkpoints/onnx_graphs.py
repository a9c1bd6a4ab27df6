"""Graphs: the model as modules of plain tensors, which runtimes without Python can run.

Letters: N examples, B queries, K ids, S height and width of a picture; the rest as in
`incontext.model`. N, B, K and the number of tokens or cells kept of an example are free.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from incontext.model import Model, SegGPT, VotingModel
from incontext.model.encoded_prompt import EncodedPrompt
from incontext.model.tokens.independent import KeyValueCache
from incontext.model.votes.cells import pool_labels
from incontext.model.votes.matching import FINE
from incontext.model.votes.painting import read_targets
from incontext.model.votes.voters import (
    FINE_SHARE,
    Voters,
    cell_axis,
    select_fine,
    select_voters,
)

# The prompt tensors that say how many tokens each stands for: absent where all are kept.
WEIGHTS = ("known.weight", "matches.weight")
# What a voting model keeps at stride 4, and the prefix of outputs that hold all cells there, where
# the others hold a part.
FINE_TENSORS, ALL = ("known.keys", "known.pattern"), "all."
# Axes whose length is free.
QUERIES, EXAMPLES, TOKENS, CELLS, IDS = (
    Dim(name) for name in ("queries", "examples", "tokens", "cells", "ids")
)
# Of voters at strides 8, 16, 32, and of the copy path at stride 4.
CELLS_AT = tuple(Dim(f"cells{stride}") for stride in (8, 16, 32, 4))


def prompt_tensors(prompt: EncodedPrompt) -> dict[str, Tensor]:
    """Return a prompt's tensors by name, with weights of 0 where all tokens were kept.

    So a prompt with all tokens and one with some have the same names, as the inputs of one graph
    must. All cells that vote become those of a single example: so they may be of examples of which
    different numbers of cells were kept.

    Raises:
        ValueError: joint attention, whose prompts have no such tensors.
    """
    if isinstance(prompt.cache, Voters):
        return replace(prompt, cache=prompt.cache.flatten()).tensors()
    if not isinstance(prompt.cache, KeyValueCache):
        raise ValueError("prompts of joint attention go through the model along with a query")
    tensors = prompt.tensors()
    memory = tensors["known.merged.0"]  # (P, 2, n, N, K, d)
    tensors.setdefault(WEIGHTS[0], torch.zeros_like(memory[:, 0, 0, :, :, 0]))
    if prompt.matches:
        tensors.setdefault(WEIGHTS[1], torch.zeros_like(prompt.matches.keys[:, 0, :, :, 0]))
    return tensors


class PromptGraph(nn.Module):
    """Encode independent examples to a prompt."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, images: Tensor, targets: Tensor, kind: Tensor, palette: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Encode examples to `prompt_tensors`.

        Images and targets (N, 3, S, S), kind (1,) bool, for voting models also the ids' colors
        (K, 3).
        """
        if isinstance(self.model, VotingModel):
            assert palette is not None
            return self._encode_votes(self.model, images[None], targets[None], kind, palette[None])
        prompt = self.model.encode_batches([(images[None], targets[None])], kind)
        # A graph cannot return an input under another name.
        return prompt_tensors(prompt) | {"semantic": kind.clone()}

    def _encode_votes(
        self, model: VotingModel, images: Tensor, targets: Tensor, kind: Tensor, colors: Tensor
    ) -> dict[str, Tensor]:
        """Encode with all cells at stride `FINE`, which come out too, and select as usual."""
        prompt = model.encode_batches(
            [(images, targets)], kind, colors=colors, keep_ratio=1 / FINE_SHARE
        )
        voters = prompt.cache
        assert isinstance(voters, Voters)
        every = prompt_tensors(prompt)
        grid = (images.shape[-2] // FINE, images.shape[-1] // FINE)
        labels = read_targets(targets, colors, model.config)
        valid = torch.ones_like(labels[:, :, 0], dtype=torch.bool)
        selection = select_voters(pool_labels(labels, valid, grid), grid, FINE, 1.0)
        assert selection is not None
        keys, pattern = select_fine(voters.keys, voters.pattern, selection)
        selected = replace(voters, keys=keys, pattern=pattern, weight=selection.weight)
        outputs = prompt_tensors(replace(prompt, cache=selected))
        outputs |= {"semantic": kind.clone(), "colors": colors.clone()}
        return outputs | {f"{ALL}{name}": every[name] for name in FINE_TENSORS}


class QueryGraph(nn.Module):
    """Paint queries by a prompt of independent examples; a voting model also gives its logits."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, query: Tensor, prompt: dict[str, Tensor]) -> Tensor | tuple[Tensor, Tensor]:
        """Queries (B, 3, S, S) and `prompt_tensors` → paintings (B, 3, S, S).

        Of a voting model also the logits (B, K, S, S) that they are composed of.
        """
        encoded_prompt = EncodedPrompt.from_tensors(prompt, 1, (query.shape[-2], query.shape[-1]))
        cache = encoded_prompt.cache
        if isinstance(self.model, VotingModel):
            logits = self.model.answer(query, encoded_prompt)
            return self.model.compose(logits, encoded_prompt), logits
        assert isinstance(cache, KeyValueCache)
        # The logarithm of N as a tensor: as a number it would be fixed in the graph.
        count = torch.ones_like(prompt[WEIGHTS[0]][0, :, 0]).sum()
        return self.model.paint(query, replace(encoded_prompt, cache=cache.flatten(count.log())))


class JointGraph(nn.Module):
    """Paint queries by examples, both attending to each other."""

    def __init__(self, model: SegGPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, query: Tensor, images: Tensor, targets: Tensor, kind: Tensor) -> Tensor:
        """Queries (B, 3, S, S), images and targets (N, 3, S, S), kind (1,) bool → paintings."""
        painting = self.model(query, images[None], targets[None], kind)
        assert isinstance(painting, Tensor)
        return painting


@dataclass(frozen=True)
class Graph:
    """A module with what is needed to trace it."""

    name: str
    module: nn.Module
    arguments: dict[str, Any]  # of `forward`
    free_axes: dict[str, Any]  # structured like `arguments`
    inputs: list[str]
    outputs: list[str]

    def trace(self) -> ExportedProgram:
        """Return what PyTorch hands to exporters; fails where an axis would not stay free."""
        # With gradients the model computes in one piece, and pieces would be counted here.
        with torch.enable_grad():
            return torch.export.export(
                self.module.eval(), (), kwargs=self.arguments, dynamic_shapes=self.free_axes,
                strict=False,
            )  # fmt: skip


def graphs_of(model: Model) -> list[Graph]:
    """Return all graphs of a model: `joint`, or `prompt` and `query` for independent examples."""
    side = model.config.image_size
    # Numbers that differ, and none of them 1: equal ones could be taken for the same axis.
    query = torch.zeros(2, 3, side, side)
    examples = {name: torch.zeros(3, 3, side, side) for name in ("images", "targets")}
    arguments = {**examples, "kind": torch.ones(1, dtype=torch.bool)}
    axes: dict[str, Any] = {**{name: {0: EXAMPLES} for name in examples}, "kind": None}
    if isinstance(model, VotingModel):
        arguments, axes = {**arguments, "palette": torch.zeros(5, 3)}, {**axes, "palette": {0: IDS}}
    if isinstance(model, SegGPT) and model.config.example_attention == "joint":
        arguments, axes = {"query": query, **arguments}, {"query": {0: QUERIES}, **axes}
        return [Graph("joint", JointGraph(model), arguments, axes, list(arguments), ["painting"])]
    with torch.no_grad():
        prompt = PromptGraph(model)(**arguments)
    outputs = list(prompt)
    prompt = {name: x for name, x in prompt.items() if not name.startswith(ALL)}
    painted = ["painting", "logits"] if isinstance(model, VotingModel) else ["painting"]
    names = list(prompt)
    return [
        Graph("prompt", PromptGraph(model), arguments, axes, list(arguments), outputs),
        Graph(
            "query", QueryGraph(model), {"query": query, "prompt": prompt},
            {"query": {0: QUERIES}, "prompt": {name: _free_axes(model, name) for name in names}},
            ["query", *names], painted,
        ),
    ]  # fmt: skip


def _free_axes(model: Model, name: str) -> dict[int, Dim] | None:
    """Return the free axes of a prompt tensor: see `KeyValueCache`, `Matches` and `Voters`."""
    if name == "semantic":
        return None
    if isinstance(model, VotingModel):
        return _free_axes_of_votes(model, name)
    part, _, tensor = name.partition(".")
    first = 1 if tensor == "weight" else 3 if part == "known" else 2
    return {first: EXAMPLES, first + 1: TOKENS if part == "known" else CELLS}


def _free_axes_of_votes(model: VotingModel, name: str) -> dict[int, Dim]:
    """Return the free axes of a tensor of voters; all of one stride have the same cells."""
    if name == "colors":
        return {1: IDS}
    tensor = name.removeprefix("known.")
    part, _, number = tensor.partition(".")
    levels = {"matched": 0, "keys": 3, "pattern": 3, "weight": 3}
    level = int(number) if number else levels[part]
    axes = {cell_axis(tensor): CELLS_AT[model.levels[level] if part == "block" else level]}
    return axes | ({2: IDS} if part in ("labels", "pattern") else {})
