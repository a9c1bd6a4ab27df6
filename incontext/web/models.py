"""Models: the checkpoints that visitors may choose, loaded on first use."""

from collections.abc import Callable
from functools import lru_cache
from threading import Lock

from incontext import InputError, Predictor

MAX_LOADED = 2  # in memory; the one used longest ago makes room


class Models:
    """Predictors by the name of their checkpoint; the first name is the default.

    Args:
        names: checkpoints on offer.
        load: makes the predictor of a name; None: `Predictor.from_pretrained`.
    """

    def __init__(self, names: list[str], load: Callable[[str], Predictor] | None = None) -> None:
        self.names = names
        self._load = lru_cache(MAX_LOADED)(load or Predictor.from_pretrained)
        self._lock = Lock()  # two visitors must not load one checkpoint twice

    def get(self, name: str | None = None) -> Predictor:
        """Return the predictor of a checkpoint.

        Raises:
            InputError: the checkpoint is not on offer, or cannot be loaded.
        """
        name = name or self.names[0]
        if name not in self.names:
            raise InputError(f"checkpoint {name}; accepted: {', '.join(self.names)}")
        with self._lock:
            return self._load(name)
