"""The command that serves the demo. Parse, call, print."""

import errno
import socket
from typing import Annotated

import typer

from incontext.cli.arguments import DEFAULT
from incontext.errors import InputError


def demo(
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(help=f"To choose from (repeated); the first is the default. [{DEFAULT}]"),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 for all of this machine's.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(help="Default: the first free one from 7860 on.", min=1, max=65535)
    ] = None,
    mcp: Annotated[
        bool, typer.Option(help="Serve the jobs as tools for agents (MCP) too.")
    ] = False,
    sam: Annotated[
        str | None,
        typer.Option(help="SAM checkpoint of transformers for clicks and boxes, if it is here."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of a job; default: all.", min=1)
    ] = None,
) -> None:
    """Serve a page to paint, segment, follow, tune and examine in the browser; offline.

    Without authentication: whoever reaches the address can use it. Stop it with Ctrl+C.
    """
    if port:
        _check_free(host, port)
    try:
        from incontext.web.page.app import serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("demos", "gradio", "skimage", "scipy"):
            raise
        raise InputError(
            f"the demo needs {error.name}: pip install 'incontext-seg[demo]'"
        ) from None
    for name in checkpoint or []:
        _check(name)
    serve(checkpoint or [DEFAULT], host, port, mcp=mcp, sam=sam, threads=threads)


def _check_free(host: str, port: int) -> None:
    """Raise InputError where a port is taken: before the page is built, which takes long."""
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"port {port} is in use; choose another --port") from None


def _check(name: str) -> None:
    """Raise InputError where a checkpoint cannot be had: before visitors find out."""
    from incontext.checkpoints.checkpoint import locate

    locate(name)
