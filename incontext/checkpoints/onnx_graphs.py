"""Graphs: the model as modules of plain tensors, which runtimes without Python can have.

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
from incontext.model.votes.votes import Voters, cell_axis

# The prompt tensors that say how many tokens a kept one stands for: not there where all are kept.
WEIGHTS = ("known.weight", "matches.weight")
# Axes whose length is free.
QUERIES, EXAMPLES, TOKENS, CELLS, IDS = (
    Dim(name) for name in ("queries", "examples", "tokens", "cells", "ids")
)
# Of voters at strides 8, 16, 32, and of the copy path at stride 4.
CELLS_AT = tuple(Dim(f"cells{stride}") for stride in (8, 16, 32, 4))


def prompt_tensors(encoded: EncodedPrompt) -> dict[str, Tensor]:
    """A prompt's tensors by name, with weights of 0 where all tokens were kept.

    So a whole prompt and a thinned one have the same names, as the inputs of one graph have. All
    cells that vote are those of one example: so they may be of examples thinned differently.

    Raises:
        ValueError: joint attention, whose prompts have no such tensors.
    """
    if isinstance(encoded.cache, Voters):
        return replace(encoded, cache=encoded.cache.flatten()).tensors()
    if not isinstance(encoded.cache, KeyValueCache):
        raise ValueError("prompts of joint attention go through the model along with a query")
    named = encoded.tensors()
    memory = named["known.merged.0"]  # (P, 2, n, N, K, d)
    named.setdefault(WEIGHTS[0], torch.zeros_like(memory[:, 0, 0, :, :, 0]))
    if encoded.matches:
        named.setdefault(WEIGHTS[1], torch.zeros_like(encoded.matches.keys[:, 0, :, :, 0]))
    return named


class PromptGraph(nn.Module):
    """Independent examples to what a prompt keeps of them."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, images: Tensor, targets: Tensor, kind: Tensor, palette: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Images and targets (N, 3, S, S), kind (1,) bool, where the model votes also the ids'
        colors (K, 3) → `prompt_tensors`'s tensors."""
        table = None if palette is None else palette[None]
        shown = [(images[None], targets[None])]
        named = prompt_tensors(self.model.encode_batches(shown, kind, colors=table))
        # A graph cannot hand out an input under another name.
        given = {"semantic": kind.clone()} | ({} if table is None else {"colors": table.clone()})
        return named | given


class QueryGraph(nn.Module):
    """A prompt of independent examples and queries to paintings."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, query: Tensor, prompt: dict[str, Tensor]) -> Tensor:
        """Queries (B, 3, S, S), `prompt_tensors`'s tensors → paintings (B, 3, S, S)."""
        encoded = EncodedPrompt.from_tensors(prompt, 1, (query.shape[-2], query.shape[-1]))
        if not isinstance(encoded.cache, KeyValueCache):
            return self.model.paint(query, encoded)
        # The logarithm of N as a tensor: as a number it would be fixed in the graph.
        count = torch.ones_like(prompt[WEIGHTS[0]][0, :, 0]).sum()
        flat = replace(encoded, cache=encoded.cache.flatten(count.log()))
        return self.model.paint(query, flat)


class JointGraph(nn.Module):
    """Examples and queries that see each other to paintings."""

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
    """A module with what it takes to trace it."""

    name: str
    module: nn.Module
    given: dict[str, Any]  # arguments of `forward`
    free: dict[str, Any]  # of the same shape: their free axes
    inputs: list[str]
    outputs: list[str]

    def traced(self) -> ExportedProgram:
        """What PyTorch hands to exporters; fails where an axis would not stay free."""
        # With gradients the model computes in one piece, and pieces would be counted here.
        with torch.enable_grad():
            return torch.export.export(
                self.module.eval(), (), kwargs=self.given, dynamic_shapes=self.free, strict=False
            )


def graphs_of(model: Model) -> list[Graph]:
    """All graphs of a model: `joint`, or `prompt` and `query` where examples are independent."""
    side = model.config.image_size
    # Numbers that differ, and none of them 1: equal ones could be taken for the same axis.
    query = torch.zeros(2, 3, side, side)
    pictures = {name: torch.zeros(3, 3, side, side) for name in ("images", "targets")}
    given = {**pictures, "kind": torch.ones(1, dtype=torch.bool)}
    free: dict[str, Any] = {**{name: {0: EXAMPLES} for name in pictures}, "kind": None}
    if isinstance(model, VotingModel):
        given, free = {**given, "palette": torch.zeros(5, 3)}, {**free, "palette": {0: IDS}}
    if isinstance(model, SegGPT) and model.config.example_attention == "joint":
        given, free = {"query": query, **given}, {"query": {0: QUERIES}, **free}
        return [Graph("joint", JointGraph(model), given, free, list(given), ["painting"])]
    with torch.no_grad():
        prompt = PromptGraph(model)(**given)
    names = list(prompt)
    return [
        Graph("prompt", PromptGraph(model), given, free, list(given), names),
        Graph(
            "query", QueryGraph(model), {"query": query, "prompt": prompt},
            {"query": {0: QUERIES}, "prompt": {name: _free(model, name) for name in names}},
            ["query", *names], ["painting"],
        ),
    ]  # fmt: skip


def _free(model: Model, name: str) -> dict[int, Dim] | None:
    """The free axes of a prompt tensor: see `KeyValueCache`, `Matches` and `Voters`."""
    if name == "semantic":
        return None
    if isinstance(model, VotingModel):
        return _free_of_votes(model, name)
    part, _, own = name.partition(".")
    first = 1 if own == "weight" else 3 if part == "known" else 2
    return {first: EXAMPLES, first + 1: TOKENS if part == "known" else CELLS}


def _free_of_votes(model: VotingModel, name: str) -> dict[int, Dim]:
    """The same for a tensor of voters; of one stride all have as many cells."""
    if name == "colors":
        return {1: IDS}
    own = name.removeprefix("known.")
    kind, _, number = own.partition(".")
    levels = {"matched": 0, "keys": 3, "pattern": 3, "weight": 3}
    level = int(number) if number else levels[kind]
    free = {cell_axis(own): CELLS_AT[model.levels[level] if kind == "block" else level]}
    return free | ({2: IDS} if kind in ("labels", "pattern") else {})
