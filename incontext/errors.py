"""The one error that bad input raises, and warnings where a former name is used.

The command line prints the text of an `InputError` and nothing else.
"""

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from numbers import Integral, Real
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class InputError(ValueError):
    """Input that cannot be used as it is: what was wrong, and what is accepted."""


class ShapeError(InputError):
    """An outline or run lengths that cannot be drawn; the rest of its file can be used."""


class OmissionWarning(UserWarning):
    """Something of the input was left out; a command that warns of it ends with exit code 1."""


@contextmanager
def located(location: str) -> Iterator[None]:
    """Put a location in front of every InputError and warning of the block."""
    try:
        with warnings.catch_warnings(record=True) as records:
            warnings.simplefilter("always")
            yield
    except InputError as error:
        raise type(error)(f"{location}: {error}") from None
    for record in records:
        warnings.warn(f"{location}: {record.message}", record.category, stacklevel=4)


@contextmanager
def explain_parsing(path: object, accepted: str) -> Iterator[None]:
    """Turn what parsing a file of another shape raises into an InputError that names the file."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path}: not {accepted} ({type(error).__name__}: {first_line(error)})"
        ) from None


def first_line(error: Exception) -> str:
    """Return the first line of another library's error, shortened to 160 characters."""
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


def check_count(name: str, value: object) -> None:
    """Raise InputError unless `value` is None or a whole number of at least 1."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if value is not None and not (whole and value >= 1):  # type: ignore[operator]
        raise InputError(f"{name} is {value!r}; accepted: whole numbers, 1 or more")


def check_share(name: str, value: object) -> None:
    """Raise InputError unless `value` is a number from 0 to 1."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not (number and 0 <= value <= 1):  # type: ignore[operator]
        raise InputError(f"{name} is {value!r}; accepted: a number, 0 … 1")


def parse_whole(name: str, value: object, low: int = 0, high: int | None = None) -> int:
    """Return a whole number that a file gives as 3, 3.0, "3" or "3.0".

    Raises:
        InputError: anything else, or a number outside `low` … `high` (None: any that is higher).
    """
    number = None
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([+-]?[0-9]{1,18})(?:\.0*)?\s*", value, re.ASCII)
        number = int(match[1]) if match else None
    elif isinstance(value, Integral) and not isinstance(value, bool):
        number = int(value)
    elif isinstance(value, Real) and not isinstance(value, bool):
        number = int(float(value)) if float(value).is_integer() else None
    if number is None or number < low or (high is not None and number > high):
        accepted = f"integers, {low} or more" if high is None else f"integers {low} … {high}"
        raise InputError(f"{name} {value!r:.60}; accepted: {accepted}")
    return number


def former_attributes(**names: str) -> Callable[[Any, str], Any]:
    """Return a `__getattr__` that finds attributes by their former names, with a warning.

    Args:
        names: former name → name.
    """

    def find(self: Any, name: str) -> Any:
        if name not in names:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        _warn(name, names[name])
        return getattr(self, names[name])

    return find


def former_parameters(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator: parameters are accepted by their former names too, with a warning.

    Args:
        names: former name → name.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            for former in names.keys() & kwargs.keys():
                _warn(former, names[former])
                kwargs[names[former]] = kwargs.pop(former)
            return function(*args, **kwargs)

        return call

    return decorate


def former_constructor(former: str, name: str) -> Any:
    """Return a class method that calls the one called `name` now, with a warning.

    Args:
        former: the name that it is assigned to.
    """

    def call(cls: Any, *args: Any, **kwargs: Any) -> Any:
        _warn(former, name)
        return getattr(cls, name)(*args, **kwargs)

    return classmethod(call)


def _warn(former: str, name: str) -> None:
    text = f"{former} is now called {name}; the former name goes with the next release"
    warnings.warn(text, DeprecationWarning, stacklevel=3)
