"""Held: prompts that clients made, by an id that their content decides."""

from collections import OrderedDict
from threading import Lock

from incontext import Prompt
from incontext.web.api_errors import Refusal


class Held:
    """Prompts in memory; those that were not used for longest go first.

    Args:
        most: of them.
        most_bytes: of all their tensors.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self.most, self.most_bytes = most, most_bytes
        self._prompts: OrderedDict[str, Prompt] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._prompts)

    @property
    def nbytes(self) -> int:
        """Of all."""
        with self._lock:
            return sum(prompt.nbytes for prompt in self._prompts.values())

    def find(self, name: str) -> Prompt | None:
        """A prompt, which counts as used now; None: it is not there."""
        with self._lock:
            if name in self._prompts:
                self._prompts.move_to_end(name)
            return self._prompts.get(name)

    def get(self, name: str) -> Prompt:
        """The same.

        Raises:
            Refusal: it is not there.
        """
        found = self.find(name)
        if found is None:
            raise Refusal(
                404, f"no prompt {name[:64]!r}: never made here, deleted, or dropped for newer "
                "ones; make it again, the same upload gets the same id",
            )  # fmt: skip
        return found

    def put(self, name: str, prompt: Prompt) -> None:
        """Hold one more, and drop what no longer fits.

        Raises:
            Refusal: it is too large by itself.
        """
        if prompt.nbytes > self.most_bytes:
            raise Refusal(
                413, f"a prompt of {prompt.nbytes / 1e6:.0f} MB; at most "
                f"{self.most_bytes / 1e6:g} MB are held here", "prompt",
            )  # fmt: skip
        with self._lock:
            self._prompts[name] = prompt
            self._prompts.move_to_end(name)
            held = sum(one.nbytes for one in self._prompts.values())
            while len(self._prompts) > self.most or held > self.most_bytes:
                _, dropped = self._prompts.popitem(last=False)
                held -= dropped.nbytes

    def drop(self, name: str) -> None:
        """Forget one.

        Raises:
            Refusal: it is not there.
        """
        self.get(name)
        with self._lock:
            self._prompts.pop(name, None)
