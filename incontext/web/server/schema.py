"""Schema: what the routes return, as OpenAPI describes it."""

from typing import Any

from pydantic import BaseModel, Field

from incontext import Prompt

Rgb = tuple[int, int, int]
Responses = dict[int | str, dict[str, Any]]


class Problem(BaseModel):
    """What went wrong."""

    error: str


class Status(BaseModel):
    """The state of the server."""

    status: str


class Info(BaseModel):
    """Version, checkpoint and limits of the server."""

    version: str
    checkpoint: str
    fingerprint: str = Field(description="of the weights: prompts of another are refused")
    size: int = Field(description="pixels: pictures and tiles up to this size keep every detail")
    device: str
    limits: dict[str, int]


class PromptInfo(BaseModel):
    """A prompt that the server holds."""

    id: str = Field(description="the same upload has the same id")
    ids: list[int]
    names: dict[int, str]
    colors: dict[int, Rgb]
    kind: str
    examples: int
    bytes: int

    @classmethod
    def from_prompt(cls, name: str, prompt: Prompt) -> "PromptInfo":
        """Describe a prompt that is held under a name."""
        return cls(
            id=name, ids=list(prompt.ids), names=prompt.names, colors=prompt.colors,
            kind=prompt.kind, examples=prompt.examples, bytes=prompt.nbytes,
        )  # fmt: skip


class Rle(BaseModel):
    """A mask as COCO's compressed run lengths."""

    size: tuple[int, int] = Field(description="height, width")
    counts: str


class ObjectEntry(BaseModel):
    """One id in a picture."""

    name: str
    pixels: int
    presence: float = Field(description="0–1; below 0.5 (min_presence) there are no pixels")
    quality: float = Field(description="the IoU with the true mask to expect, 0–1")
    confidence: float | None = Field(description="mean over its pixels, 0–1")
    rle: Rle | None


class ImageEntry(BaseModel):
    """One picture; if it could not be read, `name` and `error` alone."""

    name: str
    size: tuple[int, int] | None = Field(None, description="width, height")
    confidence: float | None = None
    ids: dict[int, ObjectEntry] | None = None
    error: str | None = None


class ImageEntries(BaseModel):
    """All pictures of a request, in order."""

    pictures: list[ImageEntry]


def problems(*statuses: int) -> Responses:
    """Return the OpenAPI responses of a route that reports these statuses as a `Problem`."""
    return {status: {"model": Problem} for status in statuses}


SEGMENT_RESPONSES: Responses = {
    200: {
        "description": "answer=json: the entries. answer=coco: a COCO file, with `failed`. "
        "answer=labels: a PNG of ids for one picture, else a zip of them and results.json",
        "content": {
            "image/png": {"schema": {"type": "string", "format": "binary"}},
            "application/zip": {"schema": {"type": "string", "format": "binary"}},
        },
    },
    **problems(404, 408, 413, 504),
}
