"""The processes of an evaluation: one, or as many as `torchrun` started (through accelerate)."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

T = TypeVar("T")
TIMEOUT = timedelta(days=7)  # how long processes wait for the slowest


@dataclass(frozen=True)
class Processes:
    """Rank of this process among `count`, its device, and how it waits for the others."""

    rank: int = 0
    count: int = 1
    device: str = "auto"
    wait: Callable[[], None] = lambda: None

    @classmethod
    def from_environment(cls) -> "Processes":
        """Read what `torchrun` set in the environment; a single process needs no accelerate."""
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return cls()
        from accelerate import PartialState

        state = PartialState(timeout=TIMEOUT)
        return cls(
            state.process_index, state.num_processes, str(state.device), state.wait_for_everyone
        )

    @property
    def first(self) -> bool:
        """True for the process that prints."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Return this process's part of the items: every `count`-th."""
        return items[self.rank :: self.count]
