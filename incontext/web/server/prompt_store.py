"""Prompt store: prompts that clients made, by an id that their content decides."""

from threading import Lock

from cachetools import LRUCache

from incontext import Prompt
from incontext.web.api_errors import ApiError


class PromptStore:
    """Prompts in memory; the one used longest ago makes room.

    Args:
        max_count: number of prompts.
        max_bytes: of all their tensors.
    """

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self._max_count = max_count
        self._cache: LRUCache[str, Prompt] = LRUCache(max_bytes, lambda prompt: prompt.nbytes)
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._cache)

    @property
    def nbytes(self) -> int:
        """Bytes of all prompts."""
        return int(self._cache.currsize)

    def find(self, name: str) -> Prompt | None:
        """Return a prompt, which counts as used now, or None."""
        with self._lock:
            return self._cache.get(name)

    def get(self, name: str) -> Prompt:
        """Return a prompt, which counts as used now.

        Raises:
            ApiError: there is none of this name.
        """
        prompt = self.find(name)
        if prompt is None:
            raise ApiError(
                404, f"no prompt {name[:64]!r}: never made here, deleted, or dropped for newer "
                "ones; make it again, the same upload gets the same id",
            )  # fmt: skip
        return prompt

    def put(self, name: str, prompt: Prompt) -> None:
        """Hold a prompt, and drop what no longer fits.

        Raises:
            ApiError: it is too large by itself.
        """
        if prompt.nbytes > self._cache.maxsize:
            raise ApiError(
                413, f"a prompt of {prompt.nbytes / 1e6:.0f} MB; at most "
                f"{self._cache.maxsize / 1e6:g} MB are held here", "prompt",
            )  # fmt: skip
        with self._lock:
            self._cache[name] = prompt
            while len(self._cache) > self._max_count:
                self._cache.popitem()

    def drop(self, name: str) -> None:
        """Forget a prompt.

        Raises:
            ApiError: there is none of this name.
        """
        self.get(name)
        with self._lock:
            self._cache.pop(name, None)
