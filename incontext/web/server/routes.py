"""Routes: prompts, segmenting, and how the server is."""

import shutil
from collections.abc import Callable, Sequence
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
from incontext.web.api_errors import Refusal
from incontext.web.limits import check_paintings, new_folder, open_picture, tile_of
from incontext.web.reporting import going_on
from incontext.web.server.responses import ANSWERS, Answer, Within, streamed
from incontext.web.server.schema import SEGMENTED, Info, Pictures, PromptInfo, Status, problems
from incontext.web.server.service import Service
from incontext.web.server.uploads import Options, Shown, options, stored

Files = Annotated[list[UploadFile], File()]
ExampleFiles = Annotated[list[UploadFile], File(description="example pictures")]
MaskFiles = Annotated[list[UploadFile], File(description="their masks, in the same order")]
Asked = Annotated[Options, Depends(options)]


def health(service: Service) -> APIRouter:
    """Whether the server lives and is ready, and what it has done."""
    router = APIRouter()

    @router.get("/healthz", summary="The process lives", response_model=Status)
    async def healthz() -> Status:
        return Status(status="ok")

    @router.get(
        "/readyz", summary="The model is loaded", response_model=Status, responses=problems(503)
    )
    async def readyz() -> Status:
        if not service.ready:
            what = "this server is shutting down" if service.draining else "loading the model"
            raise Refusal(503, what)
        return Status(status="ready")

    @router.get("/metrics", summary="Counts, for Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(service.meters.text(), media_type=CONTENT_TYPE_LATEST)

    return router


def api(service: Service) -> APIRouter:
    """Everything under /v1."""
    router = APIRouter(prefix="/v1", responses=problems(401, 422, 503))

    @router.get("/info", summary="Version, checkpoint, limits", response_model=Info)
    async def info() -> Info:
        one = service.predictor
        return Info(
            version=incontext.__version__, checkpoint=one.name, fingerprint=one.checkpoint,
            size=one.size, device=str(one.device), limits=asdict(service.limits),
        )  # fmt: skip

    @router.post(
        "/segment", summary="Segment pictures", response_model=Pictures,
        responses={**SEGMENTED, **problems(404, 408, 413, 504)},
    )  # fmt: skip
    async def segment(
        request: Request,
        asked: Asked,
        images: Annotated[list[UploadFile], File(description="the pictures to segment")],
        prompt: Annotated[str | None, Form(description="id of a prompt")] = None,
        examples: ExampleFiles = [],  # noqa: B006
        masks: MaskFiles = [],  # noqa: B006
        tile: Annotated[int | None, Form(description="cut into tiles of so many pixels")] = None,
        answer: Annotated[str, Form(description="labels, coco or json")] = "json",
    ) -> Response:
        """With the id of a prompt, or with examples for this once."""
        await _check_fields(request, {"images", "prompt", "examples", "masks", "tile", "answer"})
        _check_files(service, [*images, *examples, *masks])
        shown, side = Shown(examples, masks, options=asked), tile_of(tile)
        if answer not in ANSWERS:
            raise InputError(f"answer {answer[:40]!r}; accepted: {', '.join(ANSWERS)}")
        if bool(prompt) == bool(examples or masks):
            raise InputError("name a prompt, or send examples with their masks")
        if prompt:
            shown.check_options(decided=True)
        else:
            shown.check()
        held = service.held.get(prompt) if prompt else None

        def work(folder: Path, stop: Event) -> Response:
            used = held or shown.prompt(service.predictor, service.limits, folder)
            made = ANSWERS[answer](len(images) == 1)
            return _answered(service, images, used, side, made, folder, stop)

        return await service.in_turn(request, _in_folder(work))

    _prompts(service, router)
    return router


def _prompts(service: Service, router: APIRouter) -> None:
    """The routes of prompts."""

    @router.post(
        "/prompts", summary="Make a prompt, or bring one", status_code=201,
        response_model=PromptInfo, responses=problems(408, 413, 504),
    )  # fmt: skip
    async def create(
        request: Request,
        asked: Asked,
        examples: ExampleFiles = [],  # noqa: B006
        masks: MaskFiles = [],  # noqa: B006
        file: Annotated[UploadFile | None, File(description="a .safetensors prompt")] = None,
    ) -> PromptInfo:
        """Of examples and masks in pairs, or of the file that `incontext prompt` or `tune` wrote.
        The same upload has the same id."""
        await _check_fields(request, {"examples", "masks", "file"})
        _check_files(service, [*examples, *masks])
        shown = Shown(examples, masks, file, asked)
        shown.check()

        def work(folder: Path, stop: Event) -> PromptInfo:
            name = shown.name(service.predictor)
            made = service.held.find(name)
            if made is None:
                made = shown.prompt(service.predictor, service.limits, folder)
                service.held.put(name, made)
            return PromptInfo.of(name, made)

        return await service.in_turn(request, _in_folder(work))

    @router.get(
        "/prompts/{id}", summary="What a prompt is", response_model=PromptInfo,
        responses=problems(404),
    )  # fmt: skip
    async def describe(id: str) -> PromptInfo:
        return PromptInfo.of(id, service.held.get(id))

    @router.get(
        "/prompts/{id}/file", summary="The prompt as a file", response_class=Response,
        responses=problems(404),
    )  # fmt: skip
    async def download(id: str) -> Response:
        """For `incontext segment --prompt`, or for another server with the same checkpoint."""
        prompt = service.held.get(id)

        def write(folder: Path) -> IO[bytes]:
            # Open, it outlasts its folder.
            return prompt.save(folder / "prompt.safetensors").open("rb")

        with ExitStack() as stack:
            stack.enter_context(service.downloading())
            file = stack.enter_context(await run_in_threadpool(_in_folder(write)))
            sent = streamed(file, "application/octet-stream", f"{id}.safetensors")
            return Within(sent, service.limits.seconds, stack.pop_all())

    @router.delete(
        "/prompts/{id}", summary="Forget a prompt", status_code=204, responses=problems(404)
    )
    async def forget(id: str) -> None:
        service.held.drop(id)


async def _check_fields(request: Request, own: set[str]) -> None:
    """Raise InputError at a field that means nothing: a slip of the pen would do something else."""
    accepted = own | {field.name for field in fields(Options)}
    strange = sorted(set(await request.form()) - accepted)
    if strange:
        raise InputError(f"field {strange[0][:40]!r}; accepted: {', '.join(sorted(accepted))}")


def _check_files(service: Service, files: Sequence[UploadFile]) -> None:
    """Raise Refusal where there are too many."""
    if len(files) > service.limits.files:
        text = f"{len(files)} files; accepted: {service.limits.files} at once"
        raise Refusal(413, text, "files")


def _in_folder(work: Callable[..., Any]) -> Callable[..., Any]:
    """Work with a folder of its own, which goes afterwards."""

    def run(*more: Any) -> Any:
        folder = new_folder("desk-")
        try:
            return work(folder, *more)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    return run


def _answered(
    service: Service, images: Sequence[UploadFile], prompt: Prompt, tile: int | None,
    answer: Answer, folder: Path, stop: Event,
) -> Response:  # fmt: skip
    """Answer picture after picture; one that cannot be read does not stop the rest.

    Raises:
        Refusal: one would take too many paintings.
        Stopped: between two pictures.
    """
    paths = stored(images, folder / "images")
    _check_work(service, paths, prompt, tile)
    for path in paths:
        going_on(stop)
        try:
            answer.add(path.name, service.predictor.predict(open_picture(path), prompt, tile=tile))
            service.meters.picture("done")
        except InputError as error:
            answer.fail(path.name, str(error))
            service.meters.picture("failed")
    going_on(stop)
    return answer.response()


def _check_work(service: Service, paths: Sequence[Path], prompt: Prompt, tile: int | None) -> None:
    """Raise Refusal where a picture takes too much; those that cannot be opened are told later."""
    for path in paths:
        try:
            with Image.open(path) as image:
                size = image.size
        except Exception:  # decoders raise nearly anything
            continue
        try:
            check_paintings(path.name, size, prompt, tile, service.limits.paintings)
        except InputError as error:
            raise Refusal(422, str(error), "paintings") from None
