"""The command that serves the routes and the page. Parse, call, print."""

from typing import Annotated, Any

import typer

from incontext.cli.arguments import DEFAULT
from incontext.cli.device import Checkpoint, Device, Dtype, open_predictor
from incontext.errors import InputError

MILLION = 1_000_000
NEEDS = ("demos", "fastapi", "gradio", "prometheus_client", "scipy", "skimage", "uvicorn")


def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 for all of this machine's.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free.", min=0, max=65535)] = 8000,
    checkpoint: Checkpoint = DEFAULT,
    device: Device = "auto",
    dtype: Dtype = "float32",
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of a job; default: all.", min=1)
    ] = None,
    demo: Annotated[bool, typer.Option(help="Serve the page under /demo too.")] = True,
    api_key: Annotated[
        str | None,
        typer.Option(
            help="What clients must send; better by the variable, others see the command line.",
            envvar="INCONTEXT_API_KEY",
        ),
    ] = None,
    cors: Annotated[
        list[str] | None, typer.Option(help="Origin whose pages may use the routes (repeated).")
    ] = None,
    request_mb: Annotated[int, typer.Option(help="MB a request may have.", min=1)] = 200,
    files: Annotated[int, typer.Option(help="Files of a request.", min=1)] = 64,
    megapixels: Annotated[int, typer.Option(help="Of a picture.", min=1)] = 40,
    example_megapixels: Annotated[
        int, typer.Option(help="Of a prompt's examples together.", min=1)
    ] = 160,
    ids: Annotated[int, typer.Option(help="Of a prompt.", min=1)] = 256,
    paintings: Annotated[
        int, typer.Option(help="Of a picture: its tiles, each once for every four ids.", min=1)
    ] = 4096,
    queue: Annotated[
        int, typer.Option(help="Jobs at once, those that wait among them.", min=1, max=1000)
    ] = 16,
    jobs: Annotated[int, typer.Option(help="Of them, those that compute.", min=1)] = 1,
    seconds: Annotated[int, typer.Option(help="That a request may take.", min=1)] = 300,
    prompts: Annotated[int, typer.Option(help="Prompts held in memory.", min=1)] = 64,
    prompts_mb: Annotated[int, typer.Option(help="MB of all of them.", min=1)] = 1000,
) -> None:
    """Serve segmenting over HTTP, and the page of `incontext demo` beside it.

    Ctrl+C or SIGTERM: running requests are finished, new ones refused. Twice: they are
    stopped.
    """
    run, limits_of = _server()
    from incontext.checkpoints.checkpoint import locate

    if api_key is not None and not (api_key.isascii() and api_key.strip()):
        raise InputError("an API key is empty, or has other characters than ASCII")
    weights = locate(checkpoint)
    limits = limits_of(
        request_bytes=request_mb * MILLION, files=files, pixels=megapixels * MILLION,
        example_pixels=example_megapixels * MILLION, ids=ids, paintings=paintings, queue=queue,
        at_once=jobs, seconds=seconds, prompts=prompts, prompt_bytes=prompts_mb * MILLION,
    )  # fmt: skip
    run(
        checkpoint, lambda name: open_predictor(weights, device, dtype, name), host, port,
        limits=limits, key=api_key, cors=cors or (), demo=demo, threads=threads,
    )  # fmt: skip


def _server() -> tuple[Any, Any]:
    """What serves, and the limits it takes.

    Raises:
        InputError: the extra is not installed.
    """
    try:
        from incontext.web.server.server import serve as run
        from incontext.web.server.service import Limits
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in NEEDS:
            raise
        raise InputError(
            f"the server needs {error.name}: pip install 'incontext-seg[serve]'"
        ) from None
    return run, Limits
