"""Models: the checkpoints that visitors may choose, loaded when first asked for."""

from collections.abc import Callable
from threading import Lock

from incontext import InputError, Predictor

MOST = 2  # in memory


class Models:
    """Predictors by the name of their checkpoint; the first name is what is used by default.

    `load` makes the predictor of a name; None: as it comes.
    """

    def __init__(self, names: list[str], load: Callable[[str], Predictor] | None = None) -> None:
        self.names, self._load = names, load or Predictor.from_pretrained
        self._loaded: dict[str, Predictor] = {}
        self._lock = Lock()

    def get(self, name: str | None = None) -> Predictor:
        """The predictor with a checkpoint.

        Raises:
            InputError: a checkpoint that is not offered, or cannot be loaded.
        """
        name = name or self.names[0]
        if name not in self.names:
            raise InputError(f"checkpoint {name}; accepted: {', '.join(self.names)}")
        with self._lock:
            found = self._loaded.pop(name, None) or self._load(name)
            self._loaded[name] = found  # the one used last stands last
            while len(self._loaded) > MOST:
                self._loaded.pop(next(iter(self._loaded)))
            return found
