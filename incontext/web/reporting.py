"""Telling: what goes wrong becomes one sentence for the visitor, without paths of the server."""

import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

import gradio as gr

from incontext import InputError

Function = TypeVar("Function", bound=Callable[..., Any])
log = logging.getLogger("incontext.demo")


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """The visitor stopped a job."""


def going_on(stop: threading.Event) -> None:
    """Raise Stopped where the visitor stopped the job."""
    if stop.is_set():
        raise Stopped


def refusal(text: str) -> gr.Error:
    """What a visitor is told; the server's terminal need not hear of it."""
    return gr.Error(text, print_exception=False)


@contextmanager
def _telling() -> Iterator[None]:
    """Whatever goes wrong in here becomes a sentence, without paths of the server."""
    try:
        yield
    except gr.Error:
        raise
    except Stopped:
        raise refusal("Stopped.") from None
    except (InputError, OSError) as error:
        raise refusal(without_paths(str(error))) from None
    except Exception:
        log.exception("a job failed")
        raise refusal("Something went wrong here; the server's log has it.") from None


def told(function: Function) -> Function:
    """What goes wrong in an event is told in one sentence."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with _telling():
            return function(*args, **kwargs)

    return call  # type: ignore[return-value]


def told_in(status: int, outputs: int) -> Callable[[Function], Function]:
    """The same for events that yield: the sentence takes the place of the status as well, which is
    number `status` of so many outputs; the others stay as they are."""

    def around(function: Function) -> Function:
        @wraps(function)
        def generate(*args: Any, **kwargs: Any) -> Iterator[Any]:
            try:
                with _telling():
                    yield from function(*args, **kwargs)
            except gr.Error as error:
                yield tuple(f"⚠ {error.message}" if i == status else gr.skip()
                            for i in range(outputs))  # fmt: skip
                raise

        return generate  # type: ignore[return-value]

    return around


def without_paths(text: str) -> str:
    """A text in which files are called by their names."""
    return re.sub(r"(?<![\w.])/(?:[^/\s:'\"]+/)+", "", text)
