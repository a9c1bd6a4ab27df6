"""The command that serves the HTTP routes and the page."""

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from incontext.cli.common import PrecisionOptions, open_predictor, option_groups
from incontext.errors import InputError

MILLION = 1_000_000
NEEDS = (
    "cachetools", "fastapi", "gradio", "prometheus_client",
    "prometheus_fastapi_instrumentator", "scipy", "skimage", "uvicorn",
)  # fmt: skip


@dataclass(frozen=True)
class LimitOptions:
    """What clients may ask for."""

    request_mb: Annotated[int, typer.Option(help="Maximum megabytes per request.", min=1)] = 200
    files: Annotated[int, typer.Option(help="Maximum files per request.", min=1)] = 64
    megapixels: Annotated[int, typer.Option(help="Maximum megapixels per image.", min=1)] = 40
    example_megapixels: Annotated[
        int, typer.Option(help="Maximum megapixels of the examples of a prompt together.", min=1)
    ] = 160
    ids: Annotated[int, typer.Option(help="Maximum ids per prompt.", min=1)] = 256
    paintings: Annotated[
        int,
        typer.Option(help="Maximum paintings per image: tiles × passes of four ids.", min=1),
    ] = 4096
    queue: Annotated[
        int, typer.Option(help="Maximum jobs that compute or wait.", min=1, max=1000)
    ] = 16
    jobs: Annotated[int, typer.Option(help="Jobs computed at the same time.", min=1)] = 1
    seconds: Annotated[int, typer.Option(help="Maximum seconds per request.", min=1)] = 300
    prompts: Annotated[int, typer.Option(help="Maximum prompts held in memory.", min=1)] = 64
    prompts_mb: Annotated[
        int, typer.Option(help="Maximum megabytes of these prompts together.", min=1)
    ] = 1000


@option_groups
def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 means all of this machine's.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 picks a free one.", min=0, max=65535)] = 8000,
    *,
    model: PrecisionOptions,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads per job; by default all.", min=1)
    ] = None,
    demo: Annotated[bool, typer.Option(help="Also serve the page, under /demo.")] = True,
    api_key: Annotated[
        str | None,
        typer.Option(
            help="Key that clients must send; use the variable, a command line can be seen.",
            envvar="INCONTEXT_API_KEY",
        ),
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option(help="Origin whose pages may use the routes; repeat it for more."),
    ] = None,
    limits: LimitOptions,
) -> None:
    """Serve segmentation over HTTP, with the page.

    Ctrl+C or SIGTERM ends it: running requests are finished, new ones refused. A second one stops
    the running requests too.
    """
    run, limits_class = _import_server()
    from incontext.checkpoints.location import locate

    if api_key is not None and not (api_key.isascii() and api_key.strip()):
        raise InputError("an API key is empty, or has other characters than ASCII")
    weights = locate(model.checkpoint)
    server_limits = limits_class(
        request_bytes=limits.request_mb * MILLION, files=limits.files,
        pixels=limits.megapixels * MILLION, example_pixels=limits.example_megapixels * MILLION,
        ids=limits.ids, paintings=limits.paintings, queue=limits.queue, at_once=limits.jobs,
        seconds=limits.seconds, prompts=limits.prompts, prompt_bytes=limits.prompts_mb * MILLION,
    )  # fmt: skip
    run(
        model.checkpoint,
        lambda name: open_predictor(weights, model.device, model.dtype, name), host, port,
        limits=server_limits, key=api_key, cors=cors or (), demo=demo, threads=threads,
    )  # fmt: skip


def _import_server() -> tuple[Any, Any]:
    """Import the function that serves and the class of its limits.

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
