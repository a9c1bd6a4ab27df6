"""Error reporting: failures become one sentence for the visitor, without paths of the server."""

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


class JobStopped(Exception):  # noqa: N818 - nothing went wrong
    """A job that its visitor stopped."""


def raise_if_stopped(stop: threading.Event) -> None:
    """Raise JobStopped if the visitor has stopped the job."""
    if stop.is_set():
        raise JobStopped


def user_error(text: str) -> gr.Error:
    """Return an error that the visitor sees and the server's terminal does not."""
    return gr.Error(text, print_exception=False)


@contextmanager
def _errors_as_sentences() -> Iterator[None]:
    try:
        yield
    except gr.Error:
        raise
    except JobStopped:
        raise user_error("Stopped.") from None
    except (InputError, OSError) as error:
        raise user_error(without_paths(str(error))) from None
    except Exception:
        log.exception("a job failed")
        raise user_error("Something went wrong here; the server's log has it.") from None


def report_errors(function: Function) -> Function:
    """Make an event handler report whatever it raises in one sentence."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with _errors_as_sentences():
            return function(*args, **kwargs)

    return call  # type: ignore[return-value]


def report_errors_in(status: int, outputs: int) -> Callable[[Function], Function]:
    """Make a generator handler report what it raises, in its status line too.

    Args:
        status: position of the status line among the handler's outputs.
        outputs: number of outputs; all but the status line stay as they are.
    """

    def decorate(function: Function) -> Function:
        @wraps(function)
        def generate(*args: Any, **kwargs: Any) -> Iterator[Any]:
            try:
                with _errors_as_sentences():
                    yield from function(*args, **kwargs)
            except gr.Error as error:
                yield tuple(
                    f"⚠ {error.message}" if i == status else gr.skip() for i in range(outputs)
                )
                raise

        return generate  # type: ignore[return-value]

    return decorate


def without_paths(text: str) -> str:
    """Return the text with every path shortened to the name of its file."""
    return re.sub(r"(?<![\w.])/(?:[^/\s:'\"]+/)+", "", text)
