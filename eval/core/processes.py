"""The processes of an evaluation: one, or as many as `torchrun` started (through accelerate)."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

T = TypeVar("T")
PATIENCE = timedelta(days=7)  # that processes wait for the slowest


@dataclass(frozen=True)
class Processes:
    """Which of how many this is, where it computes, and how it waits for the others."""

    rank: int = 0
    count: int = 1
    device: str = "auto"
    wait: Callable[[], None] = lambda: None

    @classmethod
    def here(cls) -> "Processes":
        """What `torchrun` says in the environment; a process alone needs no accelerate."""
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return cls()
        from accelerate import PartialState

        state = PartialState(timeout=PATIENCE)
        return cls(
            state.process_index, state.num_processes, str(state.device), state.wait_for_everyone
        )

    @property
    def first(self) -> bool:
        """Whether this one prints."""
        return self.rank == 0

    def share(self, todo: Sequence[T]) -> Sequence[T]:
        """This process's part of what is to be done."""
        return todo[self.rank :: self.count]
