"""Routes: prompts, segmentation, and the state of the server."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, fields
from pathlib import Path
from threading import Event
from typing import IO, Annotated, Any

from fastapi import APIRouter, Depends, File, Form, Request, Response, UploadFile
from PIL import Image
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.concurrency import run_in_threadpool

import incontext
from incontext import InputError, Prompt
from incontext.web.api_errors import ApiError
from incontext.web.file_names import client_names
from incontext.web.limits import TILES, check_paintings, new_folder, open_image, parse_integer
from incontext.web.reporting import raise_if_stopped
from incontext.web.server.responses import BUILDERS, JsonBuilder, TimedResponse, stream_file
from incontext.web.server.schema import (
    SEGMENT_RESPONSES,
    ImageEntries,
    Info,
    PromptInfo,
    Status,
    problems,
)
from incontext.web.server.service import Service
from incontext.web.server.uploads import Options, PromptUpload, parse_options, save_uploads

health = APIRouter()
api = APIRouter(prefix="/v1", responses=problems(401, 422, 503))


async def get_service(request: Request) -> Service:
    """Return the service of the application."""
    service: Service = request.app.state.service
    return service


ServiceState = Annotated[Service, Depends(get_service)]
ExampleFiles = Annotated[list[UploadFile], File(description="example pictures")]
MaskFiles = Annotated[list[UploadFile], File(description="their masks, in the same order")]
FormOptions = Annotated[Options, Depends(parse_options)]
SEGMENT_FIELDS = {
    "images", "prompt", "examples", "masks", "tile", "skip_empty", "min_presence", "answer",
}  # fmt: skip


@health.get("/healthz", summary="The process lives", response_model=Status)
async def healthz() -> Status:
    """Needs no key."""
    return Status(status="ok")


@health.get(
    "/readyz", summary="The model is loaded", response_model=Status, responses=problems(503)
)
async def readyz(service: ServiceState) -> Status:
    """Work is accepted: the model is loaded and the server does not shut down."""
    if not service.ready:
        text = "this server is shutting down" if service.draining else "loading the model"
        raise ApiError(503, text)
    return Status(status="ready")


@health.get("/metrics", summary="Counts, for Prometheus", response_class=Response)
async def metrics(service: ServiceState) -> Response:
    """In Prometheus' text format."""
    return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)


@api.get("/info", summary="Version, checkpoint, limits", response_model=Info)
async def info(service: ServiceState) -> Info:
    """What this server runs, and what clients may ask of it."""
    predictor = service.predictor
    return Info(
        version=incontext.__version__, checkpoint=predictor.name,
        fingerprint=predictor.checkpoint, size=predictor.size, device=str(predictor.device),
        limits=asdict(service.limits),
    )  # fmt: skip


@api.post(
    "/segment", summary="Segment pictures", response_model=ImageEntries,
    responses=SEGMENT_RESPONSES,
)  # fmt: skip
async def segment(
    request: Request,
    service: ServiceState,
    options: FormOptions,
    images: Annotated[list[UploadFile], File(description="the pictures to segment")],
    prompt: Annotated[str | None, Form(description="id of a prompt")] = None,
    examples: ExampleFiles = [],  # noqa: B006
    masks: MaskFiles = [],  # noqa: B006
    tile: Annotated[int | None, Form(description="cut into tiles of so many pixels")] = None,
    skip_empty: Annotated[
        bool, Form(description="skip tiles where a coarse look shows nothing; may lose objects")
    ] = False,
    min_presence: Annotated[
        float, Form(description="presence below which an id has no pixels", ge=0, le=1)
    ] = 0.5,
    answer: Annotated[str, Form(description="labels, coco or json")] = "json",
) -> Response:
    """With the id of a prompt, or with examples for this once."""
    await _check_fields(request, SEGMENT_FIELDS)
    _check_count(service, [*images, *examples, *masks])
    upload = PromptUpload(examples, masks, options=options)
    tile_size = None if tile is None else parse_integer("tile", tile, *TILES)
    if skip_empty and tile_size is None:
        raise InputError("skip_empty without tile; accepted: both")
    if answer not in BUILDERS:
        raise InputError(f"answer {answer[:40]!r}; accepted: {', '.join(BUILDERS)}")
    if bool(prompt) == bool(examples or masks):
        raise InputError("name a prompt, or send examples with their masks")
    if prompt:
        upload.check_no_options()
    else:
        upload.check()
    service.predictor.check_presence(min_presence)
    stored_prompt = service.prompts.get(prompt) if prompt else None

    def work(folder: Path, stop: Event) -> Response:
        used_prompt = stored_prompt or upload.build(service.predictor, service.limits, folder)
        names = client_names(image.filename for image in images)
        paths = dict(zip(names, save_uploads(images, folder / "images"), strict=True))
        _check_paintings(service, paths, used_prompt, tile_size)
        builder = BUILDERS[answer](len(images) == 1)
        _segment_files(
            service, paths, used_prompt, builder, stop, tile=tile_size, skip_empty=skip_empty,
            min_presence=min_presence,
        )  # fmt: skip
        return builder.response()

    return await service.run_job(request, _with_folder(work))


@api.post(
    "/prompts", summary="Make a prompt, or bring one", status_code=201, response_model=PromptInfo,
    responses=problems(408, 413, 504),
)  # fmt: skip
async def create(
    request: Request,
    service: ServiceState,
    options: FormOptions,
    examples: ExampleFiles = [],  # noqa: B006
    masks: MaskFiles = [],  # noqa: B006
    file: Annotated[UploadFile | None, File(description="a .safetensors prompt")] = None,
) -> PromptInfo:
    """From examples and masks in pairs, or from the file that `incontext prompt` or `tune` wrote.
    The same upload has the same id."""
    await _check_fields(request, {"examples", "masks", "file"})
    _check_count(service, [*examples, *masks])
    upload = PromptUpload(examples, masks, file, options)
    upload.check()

    def work(folder: Path, stop: Event) -> PromptInfo:
        name = upload.content_id(service.predictor)
        prompt = service.prompts.find(name)
        if prompt is None:
            prompt = upload.build(service.predictor, service.limits, folder)
            service.prompts.put(name, prompt)
        return PromptInfo.from_prompt(name, prompt)

    return await service.run_job(request, _with_folder(work))


@api.get(
    "/prompts/{id}", summary="What a prompt is", response_model=PromptInfo, responses=problems(404)
)
async def describe(service: ServiceState, id: str) -> PromptInfo:
    """As it was returned when the prompt was made."""
    return PromptInfo.from_prompt(id, service.prompts.get(id))


@api.get(
    "/prompts/{id}/file", summary="The prompt as a file", response_class=Response,
    responses=problems(404),
)  # fmt: skip
async def download(service: ServiceState, id: str) -> Response:
    """For `incontext segment --prompt`, or for another server with the same checkpoint."""
    prompt = service.prompts.get(id)

    def write(folder: Path) -> IO[bytes]:
        # Open, it outlasts its folder.
        return prompt.save(folder / "prompt.safetensors").open("rb")

    with ExitStack() as stack:
        stack.enter_context(service.download_slot())
        file = stack.enter_context(await run_in_threadpool(_with_folder(write)))
        response = stream_file(file, "application/octet-stream", f"{id}.safetensors")
        return TimedResponse(response, service.limits.seconds, stack.pop_all())


@api.delete("/prompts/{id}", summary="Forget a prompt", status_code=204, responses=problems(404))
async def forget(service: ServiceState, id: str) -> None:
    """The same upload makes it again, under the same id."""
    service.prompts.drop(id)


async def _check_fields(request: Request, fields_of_route: set[str]) -> None:
    """Raise InputError at an unknown field: a misspelled one would be ignored silently."""
    accepted = fields_of_route | {field.name for field in fields(Options)}
    unknown = sorted(set(await request.form()) - accepted)
    if unknown:
        raise InputError(f"field {unknown[0][:40]!r}; accepted: {', '.join(sorted(accepted))}")


def _check_count(service: Service, files: Sequence[UploadFile]) -> None:
    if len(files) > service.limits.files:
        text = f"{len(files)} files; accepted: {service.limits.files} at once"
        raise ApiError(413, text, "files")


def _with_folder(work: Callable[..., Any]) -> Callable[..., Any]:
    """Return the work with a folder of its own as first argument, removed afterwards."""

    def run(*arguments: Any) -> Any:
        folder = new_folder("session-")
        try:
            return work(folder, *arguments)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    return run


def _check_paintings(
    service: Service, paths: Mapping[str, Path], prompt: Prompt, tile: int | None
) -> None:
    """Raise ApiError if an image takes too many paintings; what cannot be opened fails later."""
    for name, path in paths.items():
        try:
            with Image.open(path) as image:
                size = image.size
        except Exception:  # decoders raise nearly anything
            continue
        try:
            check_paintings(name, size, prompt, tile, service.limits.paintings)
        except InputError as error:
            raise ApiError(422, str(error), "paintings") from None


def _segment_files(
    service: Service, paths: Mapping[str, Path], prompt: Prompt, builder: JsonBuilder,
    stop: Event, **options: Any,
) -> None:  # fmt: skip
    """Segment image after image; one that cannot be read does not stop the rest.

    Args:
        paths: the client's name → file.
        options: of `Predictor.predict`.

    Raises:
        JobStopped: between two images.
    """
    for name, path in paths.items():
        raise_if_stopped(stop)
        try:
            result = service.predictor.predict(open_image(path), prompt, **options)
            builder.add(name, path.stem, result)
            service.metrics.count_image("done")
        except InputError as error:
            builder.add_error(name, str(error).replace(path.name, name))
            service.metrics.count_image("failed")
    raise_if_stopped(stop)
