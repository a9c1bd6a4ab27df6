"""The command line: its commands, and how errors are shown. Imports torch in commands only."""

import io
import os
import sys
import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from incontext.cli.advice import WELCOME, advise
from incontext.cli.check import check
from incontext.cli.checkpoint import convert, info
from incontext.cli.common import PairCommand, reuse_freed_memory
from incontext.cli.demo import demo
from incontext.cli.export import export
from incontext.cli.prompt import prompt
from incontext.cli.segment import segment
from incontext.cli.serve import serve
from incontext.cli.training import calibrate, finetune, train
from incontext.cli.tuning import doctor, tune
from incontext.cli.video import video
from incontext.errors import InputError, OmissionWarning


class Commands(TyperGroup):
    """The commands; a word that is none of them is answered with what could be meant."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command.

        Raises:
            InputError: none has that name.
        """
        command = super().get_command(ctx, cmd_name)
        if command is None and not cmd_name.startswith("-"):
            raise InputError(advise(cmd_name, list(self.commands)))
        return command


app = typer.Typer(
    cls=Commands, add_completion=False, invoke_without_command=True, pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain text: an error is one line, not a frame of several
)  # fmt: skip


def _print_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(version("incontext-seg"))
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Segment pictures by example: show a few with masks, get masks for the rest."""
    if context.invoked_subcommand is None:
        typer.echo(WELCOME)


for command in (segment, prompt, tune, doctor, video):
    app.command(cls=PairCommand)(command)
for command in (demo, serve, export, info, convert, finetune, calibrate, train, check):
    # A container configures its server by variables, such as INCONTEXT_SERVE_QUEUE=32.
    prefix = "INCONTEXT_SERVE" if command is serve else None
    app.command(context_settings={"auto_envvar_prefix": prefix})(command)


def main() -> None:
    """Run the command line; problems become one line, never a traceback.

    INCONTEXT_DEBUG=1 shows tracebacks all the same.
    """
    reuse_freed_memory()
    if os.environ.get("INCONTEXT_DEBUG"):
        app(prog_name="incontext")
    omissions = list[str]()

    def print_warning(
        message: Warning | str, category: type[Warning], *_: object, **__: object
    ) -> None:
        typer.echo(f"Warning: {message}", err=True)
        if issubclass(category, OmissionWarning):
            omissions.append(str(message))

    warnings.showwarning = print_warning
    for stream in (sys.stdout, sys.stderr):  # file names may hold bytes that are no text
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    # The hub client logs each attempt to reach it; our own error says in one line how they ended.
    os.environ.setdefault("HF_HUB_VERBOSITY", "critical")
    try:
        app(prog_name="incontext")
    except SystemExit as end:
        if omissions and not end.code:
            _stop(f"{len(omissions)} of the labels could not be used, see the warnings", 1)
        raise
    except InputError as error:
        _stop(str(error), 2)
    except OSError as error:
        _stop(f"{error.filename or 'file'}: {error.strerror or error}", 2)
    except (MemoryError, RuntimeError) as error:
        # torch reports full memory as a RuntimeError of its own, on CPU and on GPU
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        _stop("out of memory; try a smaller --batch-size, --chunk or --tile (segment), --size "
              "(finetune), or fewer pictures a step in the recipe (train)", 2)  # fmt: skip


def _stop(text: str, code: int) -> None:
    typer.echo(f"Error: {text}", err=True)
    sys.exit(code)
