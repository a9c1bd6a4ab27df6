"""Parts: tensors of many examples, some examples each, so that not all need to be at hand at once.

A part is (M, some, …): M prompts or queries, then examples. Whoever keeps them elsewhere than in
memory (see `incontext.spill`) brings a class with the same four methods.
"""

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor


class Parts(Protocol):
    """A list of tensors of fixed length; what is set replaces what was there."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Tensor: ...
    def __setitem__(self, index: int, part: Tensor) -> None: ...
    def append(self, part: Tensor) -> None:
        """One more part."""

    def empty(self) -> "Parts":
        """A new one of the same kind without parts."""


class InMemory(list[Tensor]):
    """Parts in memory."""

    def empty(self) -> "InMemory":
        """A new one without parts."""
        return InMemory()


def each(parts: Parts) -> Iterator[Tensor]:
    """The parts in order, one at a time."""
    return (parts[index] for index in range(len(parts)))


def numbered(named: dict[str, Tensor], name: str) -> list[Tensor]:
    """The tensors NAME.0, NAME.1, … in this order."""
    own = [key for key in named if key.startswith(f"{name}.")]
    return [named[f"{name}.{index}"] for index in range(len(own))]
