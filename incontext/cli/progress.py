"""What commands show while they work."""

from typing import Any


class Progress:
    """A progress bar that is told what is being done; steps a second where a `unit` is given."""

    def __init__(self, unit: str = "") -> None:
        self.unit, self.what = unit, ""
        self.bar: Any = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def tell(self, what: str, done: int, total: int | None) -> None:
        """Show it."""
        if self.bar is None or (self.unit and what != self.what):
            self.__exit__()
            self.bar = self._new(done)
        self.what = what
        self.bar.total = total
        self.bar.n = done
        self.bar.set_description_str(what)

    def _new(self, done: int) -> Any:
        from tqdm import tqdm

        shown = "{elapsed}, {rate_fmt}" if self.unit else "{elapsed}"
        return tqdm(
            disable=None, unit=self.unit, initial=max(0, done - 1), smoothing=0,
            bar_format="{desc} |{bar}| {n}/{total} [" + shown + "]",
        )  # fmt: skip
