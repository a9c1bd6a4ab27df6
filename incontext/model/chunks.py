"""Tensor chunks: tensors of many examples, a few examples each, so that not all are in memory.

A chunk is (M, chunk, …): M prompts or queries, then examples. Storage elsewhere than in memory
(see `incontext.inference.offload`) is a class with the same methods.
"""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor


class TensorChunks(Protocol):
    """A list of tensors; an assigned chunk replaces the one at its index."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Tensor: ...
    def __setitem__(self, index: int, chunk: Tensor, /) -> None: ...
    def append(self, chunk: Tensor, /) -> None:
        """Add a chunk at the end."""

    def empty(self) -> "TensorChunks":
        """Return a new, empty storage of the same class."""

    def shapes(self) -> list[torch.Size]:
        """Return the shapes of all chunks without fetching them."""

    @property
    def nbytes(self) -> int:
        """Size of all chunks."""


class MemoryChunks(list[Tensor]):
    """Chunks in memory."""

    def empty(self) -> "MemoryChunks":
        """Return a new, empty storage."""
        return MemoryChunks()

    def shapes(self) -> list[torch.Size]:
        """Return the shapes of all chunks."""
        return [chunk.shape for chunk in self]

    @property
    def nbytes(self) -> int:
        """Size of all chunks."""
        return sum(chunk.nbytes for chunk in self)


def iter_chunks(chunks: TensorChunks) -> Iterator[Tensor]:
    """Yield the chunks in order, one at a time."""
    return (chunks[index] for index in range(len(chunks)))


def gather_examples(chunks: TensorChunks, numbers: Tensor) -> Tensor:
    """Return examples of P = 1 by their numbers (B,): (B, 1, …); each chunk is read once."""
    examples: dict[int, Tensor] = {}
    start = 0
    for index, shape in enumerate(chunks.shapes()):
        hits = [n for n in set(numbers.tolist()) if start <= n < start + shape[1]]
        if hits:
            chunk = chunks[index]
            examples |= {n: chunk[:, n - start : n - start + 1] for n in hits}
        start += shape[1]
    return torch.cat([examples[n] for n in numbers.tolist()])


def indexed_tensors(tensors: dict[str, Tensor], name: str) -> list[Tensor]:
    """Return the tensors NAME.0, NAME.1, … in this order."""
    count = sum(key.startswith(f"{name}.") for key in tensors)
    return [tensors[f"{name}.{index}"] for index in range(count)]


def move_weight(
    weight: Tensor | None, dtype_or_device: torch.dtype | torch.device
) -> Tensor | None:
    """Move a weight to a device; its dtype stays: logarithms of counts need float32."""
    if weight is None or isinstance(dtype_or_device, torch.dtype):
        return weight
    return weight.to(dtype_or_device)
