"""The one error that bad input raises; the command line prints its text and nothing else."""

from numbers import Integral


class InputError(ValueError):
    """Input that cannot be used as it is: what was wrong, and what is accepted."""


def first_line(error: Exception) -> str:
    """What an error of another library says, short enough for one line of ours."""
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


def check_count(name: str, value: object) -> None:
    """Raise InputError unless `value` is None or a whole number from 1 on."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if value is not None and not (whole and value >= 1):  # type: ignore[operator]
        raise InputError(f"{name} is {value!r}; accepted: whole numbers, 1 or more")
