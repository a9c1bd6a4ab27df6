"""The one error that bad input raises, and warnings where a former name is used.

The command line prints the text of an `InputError` and nothing else.
"""

import warnings
from collections.abc import Callable
from functools import wraps
from numbers import Integral
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class InputError(ValueError):
    """Input that cannot be used as it is: what was wrong, and what is accepted."""


def first_line(error: Exception) -> str:
    """Return the first line of another library's error, shortened to 160 characters."""
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


def check_count(name: str, value: object) -> None:
    """Raise InputError unless `value` is None or a whole number of at least 1."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if value is not None and not (whole and value >= 1):  # type: ignore[operator]
        raise InputError(f"{name} is {value!r}; accepted: whole numbers, 1 or more")


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
