"""The command that serves the page."""

import errno
import socket
from typing import Annotated

import typer

from incontext.cli.common import DEFAULT
from incontext.errors import InputError


def demo(
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Checkpoint to offer; repeat it for more, the first is selected. [{DEFAULT}]"
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 means all of this machine's.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(help="Port; by default the first free one from 7860 on.", min=1, max=65535),
    ] = None,
    mcp: Annotated[
        bool, typer.Option(help="Also serve the jobs as tools for agents (MCP).")
    ] = False,
    sam: Annotated[
        str | None,
        typer.Option(
            help="SAM checkpoint of transformers for clicks and boxes, already downloaded."
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads per job; by default all.", min=1)
    ] = None,
) -> None:
    """Serve a page for the browser, offline.

    On it you paint examples, segment images, follow objects through videos, tune prompts and check
    examples. There is no password: whoever reaches the address can use it. Ctrl+C stops it.
    """
    if port:
        _check_free(host, port)
    try:
        from incontext.web.page.app import serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("gradio", "skimage", "scipy"):
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
    from incontext.checkpoints.location import locate

    locate(name)
