"""Schema: what the routes answer, as OpenAPI describes it."""

from typing import Any

from pydantic import BaseModel, Field

from incontext import Prompt

Rgb = tuple[int, int, int]


class Problem(BaseModel):
    """What went wrong."""

    error: str


class Status(BaseModel):
    """That all is well."""

    status: str


class Info(BaseModel):
    """What this server is."""

    version: str
    checkpoint: str
    fingerprint: str = Field(description="of the weights: prompts of another are refused")
    size: int = Field(description="pixels: pictures and tiles up to this size keep every detail")
    device: str
    limits: dict[str, int]


class PromptInfo(BaseModel):
    """A prompt that is held."""

    id: str = Field(description="the same upload has the same id")
    ids: list[int]
    names: dict[int, str]
    colors: dict[int, Rgb]
    kind: str
    examples: int
    bytes: int

    @classmethod
    def of(cls, name: str, prompt: Prompt) -> "PromptInfo":
        """What is told of a prompt."""
        return cls(
            id=name, ids=list(prompt.ids), names=prompt.names, colors=prompt.colors,
            kind=prompt.kind, examples=prompt.examples, bytes=prompt.nbytes,
        )  # fmt: skip


class Rle(BaseModel):
    """A mask as COCO has it: compressed run lengths."""

    size: tuple[int, int] = Field(description="height, width")
    counts: str


class Found(BaseModel):
    """One id in a picture."""

    name: str
    pixels: int
    presence: float = Field(description="0–1; below 0.5 there are no pixels")
    confidence: float | None = Field(description="mean over its pixels, 0–1")
    rle: Rle | None


class Picture(BaseModel):
    """One picture; of one that could not be read `name` and `error` alone."""

    name: str
    size: tuple[int, int] | None = Field(None, description="width, height")
    confidence: float | None = None
    ids: dict[int, Found] | None = None
    error: str | None = None


class Pictures(BaseModel):
    """All pictures of a request, in order."""

    pictures: list[Picture]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """That these statuses are told by a `Problem`."""
    return {status: {"model": Problem} for status in statuses}


SEGMENTED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "answer=json: the entries. answer=coco: a COCO file, with `failed`. "
        "answer=labels: a PNG of ids for one picture, else a zip of them and results.json",
        "content": {
            "image/png": {"schema": {"type": "string", "format": "binary"}},
            "application/zip": {"schema": {"type": "string", "format": "binary"}},
        },
    },
}  # fmt: skip
