"""Answers: results of several pictures as label PNGs, a COCO file, or JSON."""

import asyncio
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from incontext import Coco, Segmentation
from incontext.web.api_errors import Refusal

Entry = dict[str, Any]
IN_MEMORY = 8_000_000  # bytes of a zip, then it is a file without a name
PART = 1 << 16


class Answer:
    """Pictures as JSON: an entry each, in the order in which they came."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def add(self, name: str, result: Segmentation) -> None:
        """A picture that was segmented."""
        self.entries.append(entry(name, result, masks=True))

    def fail(self, name: str, text: str) -> None:
        """One that could not be read: its entry says why."""
        self.entries.append({"name": name, "error": text})

    def response(self) -> Response:
        """All of it; called in the thread that made it."""
        return Response(json.dumps({"pictures": self.entries}), media_type="application/json")


class CocoAnswer(Answer):
    """A COCO file; `failed` lists the pictures that could not be read."""

    def __init__(self) -> None:
        super().__init__()
        self.coco = Coco()

    def add(self, name: str, result: Segmentation) -> None:
        """See `Answer`."""
        self.coco.add(name, result)

    def response(self) -> Response:
        """See `Answer`."""
        document = {**self.coco.document(), "failed": self.entries}
        return Response(json.dumps(document), media_type="application/json")


class LabelsAnswer(Answer):
    """Label PNGs in a zip, with the entries in results.json; of one picture the PNG alone."""

    def __init__(self, alone: bool) -> None:
        super().__init__()
        self.alone = alone
        self.image = b""
        self.file = SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - it is read as it is sent
        self.archive = zipfile.ZipFile(self.file, "w")  # stored: PNGs are compressed already

    def add(self, name: str, result: Segmentation) -> None:
        """See `Answer`."""
        memory = io.BytesIO()
        result.label_image().save(memory, "PNG")
        self.image, file = memory.getvalue(), f"{Path(name).stem}.png"
        self.entries.append({**entry(name, result, masks=False), "labels": file})
        if not self.alone:
            self.archive.writestr(file, self.image)

    def response(self) -> Response:
        """See `Answer`.

        Raises:
            Refusal: the only picture could not be read.
        """
        if self.alone and not self.image:
            raise Refusal(422, self.entries[0]["error"])
        if self.alone:
            return Response(self.image, media_type="image/png")
        self.archive.writestr("results.json", json.dumps({"pictures": self.entries}))
        self.archive.close()
        return streamed(self.file, "application/zip", "labels.zip")


ANSWERS: dict[str, Callable[[bool], Answer]] = {
    "json": lambda alone: Answer(),
    "coco": lambda alone: CocoAnswer(),
    "labels": LabelsAnswer,
}


def entry(name: str, result: Segmentation, masks: bool) -> Entry:
    """What is in a picture: as in results.json of `incontext segment`, with masks as RLE if so
    wanted. `confidence` is a mean, of an id over its own pixels, null where it has none."""
    coco = Coco()
    if masks:
        coco.add(name, result)
    found = {one["category_id"]: one["segmentation"] for one in coco.annotations}
    ids: Entry = {}
    for index, presence in result.presence.items():
        mask = result.mask(index)
        sure = result.confidence[mask]
        ids[str(index)] = {
            "name": result.names[index], "pixels": int(mask.sum()), "presence": round(presence, 4),
            "confidence": round(float(sure.mean()), 4) if len(sure) else None,
        }  # fmt: skip
        if masks:
            ids[str(index)]["rle"] = found.get(index)
    return {
        "name": name, "size": [result.picture.width, result.picture.height],
        "confidence": round(float(result.confidence.mean()), 4), "ids": ids,
    }  # fmt: skip


def streamed(file: IO[bytes], kind: str, name: str) -> StreamingResponse:
    """A file, closed after it was sent."""
    length = file.seek(0, io.SEEK_END)
    file.seek(0)

    def parts() -> Iterator[bytes]:
        with file:
            while part := file.read(PART):
                yield part

    headers = {"Content-Disposition": f'attachment; filename="{name}"',
               "Content-Length": str(length)}  # fmt: skip
    return StreamingResponse(parts(), media_type=kind, headers=headers)


class Within(Response):
    """An answer that a client has to read in time: then it is cut off.

    Args:
        held: closed when the answer ended, however it did.
    """

    def __init__(self, answer: StreamingResponse, seconds: float, held: ExitStack) -> None:
        self.answer, self.seconds, self.held = answer, seconds, held
        self.status_code, self.raw_headers = answer.status_code, answer.raw_headers
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        with self.held, suppress(TimeoutError):
            async with asyncio.timeout(self.seconds):
                await self.answer(scope, receive, send)
