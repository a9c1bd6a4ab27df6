"""Responses: results of several images as label PNGs, a COCO file, or JSON."""

import asyncio
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from tempfile import SpooledTemporaryFile
from typing import IO, Any

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from incontext import Coco, Segmentation
from incontext.web.api_errors import ApiError

Entry = dict[str, Any]
IN_MEMORY = 8_000_000  # bytes of a zip, then it is a file without a name
CHUNK = 1 << 16


class JsonBuilder:
    """Builds JSON: one entry per image, in the order of the request."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def add(self, name: str, stem: str, result: Segmentation) -> None:
        """Add a segmented image: the client's name, and a safe and unique one for a file."""
        self.entries.append(result_entry(name, result, masks=True))

    def add_error(self, name: str, text: str) -> None:
        """Add an image that could not be read."""
        self.entries.append({"name": name, "error": text})

    def response(self) -> Response:
        """Return the response; called in the thread that built it."""
        return Response(json.dumps({"pictures": self.entries}), media_type="application/json")


class CocoBuilder(JsonBuilder):
    """Builds a COCO file; `failed` lists the images that could not be read."""

    def __init__(self) -> None:
        super().__init__()
        self.coco = Coco()

    def add(self, name: str, stem: str, result: Segmentation) -> None:
        """See `JsonBuilder`."""
        self.coco.add(name, result)

    def response(self) -> Response:
        """See `JsonBuilder`."""
        document = {**self.coco.document(), "failed": self.entries}
        return Response(json.dumps(document), media_type="application/json")


class LabelsBuilder(JsonBuilder):
    """Builds a zip of label PNGs with the entries in results.json; of one image the PNG alone."""

    def __init__(self, single: bool) -> None:
        super().__init__()
        self.single = single
        self.png = b""
        self.file = SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - it is read as it is sent
        self.archive = zipfile.ZipFile(self.file, "w")  # stored: PNGs are compressed already

    def add(self, name: str, stem: str, result: Segmentation) -> None:
        """See `JsonBuilder`."""
        memory = io.BytesIO()
        result.label_image().save(memory, "PNG")
        self.png, file = memory.getvalue(), f"{stem}.png"
        self.entries.append({**result_entry(name, result, masks=False), "labels": file})
        if not self.single:
            self.archive.writestr(file, self.png)

    def response(self) -> Response:
        """See `JsonBuilder`.

        Raises:
            ApiError: the only image could not be read.
        """
        if self.single and not self.png:
            raise ApiError(422, self.entries[0]["error"])
        if self.single:
            return Response(self.png, media_type="image/png")
        self.archive.writestr("results.json", json.dumps({"pictures": self.entries}))
        self.archive.close()
        return stream_file(self.file, "application/zip", "labels.zip")


BUILDERS: dict[str, Callable[[bool], JsonBuilder]] = {  # by the field `answer`
    "json": lambda single: JsonBuilder(),
    "coco": lambda single: CocoBuilder(),
    "labels": LabelsBuilder,
}


def result_entry(name: str, result: Segmentation, masks: bool) -> Entry:
    """Return what is in an image, as in results.json of `incontext segment`.

    Args:
        masks: add the masks as RLE.

    Returns:
        An entry whose `confidence` is a mean: of an id over its own pixels, null if it has none.
    """
    coco = Coco()
    if masks:
        coco.add(name, result)
    rles = {
        annotation["category_id"]: annotation["segmentation"] for annotation in coco.annotations
    }
    ids: Entry = {}
    for index, presence in result.presence.items():
        mask = result.mask(index)
        confidence = result.confidence[mask]
        ids[str(index)] = {
            "name": result.names[index], "pixels": int(mask.sum()), "presence": round(presence, 4),
            "quality": round(result.quality[index], 4),
            "confidence": round(float(confidence.mean()), 4) if len(confidence) else None,
        }  # fmt: skip
        if masks:
            ids[str(index)]["rle"] = rles.get(index)
    return {
        "name": name, "size": [result.image.width, result.image.height],
        "confidence": round(result.mean_confidence, 4), "ids": ids,
    }  # fmt: skip


def stream_file(file: IO[bytes], media_type: str, name: str) -> StreamingResponse:
    """Return a response that sends an open file as a download and closes it."""
    length = file.seek(0, io.SEEK_END)
    file.seek(0)

    def chunks() -> Iterator[bytes]:
        with file:
            while chunk := file.read(CHUNK):
                yield chunk

    headers = {
        "Content-Disposition": f'attachment; filename="{name}"',
        "Content-Length": str(length),
    }
    return StreamingResponse(chunks(), media_type=media_type, headers=headers)


class TimedResponse(Response):
    """A response that is cut off if the client does not read it in time.

    Args:
        resources: closed when the response ended, however it did.
    """

    def __init__(self, response: StreamingResponse, seconds: float, resources: ExitStack) -> None:
        self.response, self.seconds, self.resources = response, seconds, resources
        self.status_code, self.raw_headers = response.status_code, response.raw_headers
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        with self.resources, suppress(TimeoutError):
            async with asyncio.timeout(self.seconds):
                await self.response(scope, receive, send)
