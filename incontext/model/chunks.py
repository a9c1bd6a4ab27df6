"""Parts: tensors of many examples, some examples each, so that not all need to be at hand at once.

A part is (M, some, …): M prompts or queries, then examples. Whoever keeps them elsewhere than in
memory (see `incontext.inference.offload`) brings a class with the same methods.
"""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor


class TensorChunks(Protocol):
    """A list of tensors of fixed length; what is set replaces what was there."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Tensor: ...
    def __setitem__(self, index: int, part: Tensor) -> None: ...
    def append(self, part: Tensor) -> None:
        """One more part."""

    def empty(self) -> "TensorChunks":
        """A new one of the same kind without parts."""

    def shapes(self) -> list[torch.Size]:
        """Of all parts, without fetching them."""

    @property
    def nbytes(self) -> int:
        """Size of all parts."""


class MemoryChunks(list[Tensor]):
    """Parts in memory."""

    def empty(self) -> "MemoryChunks":
        """A new one without parts."""
        return MemoryChunks()

    def shapes(self) -> list[torch.Size]:
        """Of all parts."""
        return [part.shape for part in self]

    @property
    def nbytes(self) -> int:
        """Size of all parts."""
        return sum(part.nbytes for part in self)


def iter_chunks(parts: TensorChunks) -> Iterator[Tensor]:
    """The parts in order, one at a time."""
    return (parts[index] for index in range(len(parts)))


def gather_examples(parts: TensorChunks, numbers: Tensor) -> Tensor:
    """Examples of P = 1 by their number among all: (B,) → (B, 1, …); each part is read once."""
    found: dict[int, Tensor] = {}
    start = 0
    for index, shape in enumerate(parts.shapes()):
        here = [n for n in set(numbers.tolist()) if start <= n < start + shape[1]]
        if here:
            part = parts[index]
            found |= {n: part[:, n - start : n - start + 1] for n in here}
        start += shape[1]
    return torch.cat([found[n] for n in numbers.tolist()])


def indexed_tensors(named: dict[str, Tensor], name: str) -> list[Tensor]:
    """The tensors NAME.0, NAME.1, … in this order."""
    own = [key for key in named if key.startswith(f"{name}.")]
    return [named[f"{name}.{index}"] for index in range(len(own))]


def moved(weight: Tensor | None, kind: torch.dtype | torch.device) -> Tensor | None:
    """A weight elsewhere; its dtype stays."""
    return weight if weight is None or isinstance(kind, torch.dtype) else weight.to(kind)
