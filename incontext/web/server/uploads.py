"""Uploads: what a request sent, as files, examples and prompts."""

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import Form, UploadFile
from PIL import Image
from pydantic import Json

from incontext import Example, InputError, Predictor, Prompt
from incontext.web.api_errors import Refusal
from incontext.web.limits import open_mask, open_picture
from incontext.web.reporting import without_paths
from incontext.web.server.schema import PromptInfo
from incontext.web.server.service import Limits


@dataclass(frozen=True)
class Options:
    """How examples are read and shown: what `incontext prompt` takes, under the same names."""

    kind: str = "semantic"
    names: dict[int, str] | None = None
    colors: dict[int, tuple[int, int, int]] | None = None
    ignore: int | str | None = None
    threshold: float | None = None
    unlabelled: str = "background"
    negative: tuple[int, ...] = ()
    crop: bool = False
    nearest: int | None = None

    @property
    def labels(self) -> dict[str, Any]:
        """Those of `Example`."""
        return {
            "colors": self.colors, "ignore": self.ignore, "threshold": self.threshold,
            "unlabelled": self.unlabelled, "negative": list(self.negative) or None,
        }  # fmt: skip


Table = Json[dict[int, str]]
Colors = Json[dict[int, tuple[int, int, int]]]


def options(
    kind: Annotated[str, Form(description="semantic (the class) or instance")] = "semantic",
    names: Annotated[Table | None, Form(description='of ids: {"1": "cell"}')] = None,
    colors: Annotated[Colors | None, Form(description='color masks: {"1": [255, 0, 0]}')] = None,
    ignore: Annotated[str | None, Form(description="mask value: unknown; or none")] = None,
    threshold: Annotated[float | None, Form(description="soft masks: from here on id 1")] = None,
    unlabelled: Annotated[str, Form(description="0 is background, or unknown")] = "background",
    negative: Annotated[list[int] | None, Form(description="ids that mean: not this")] = None,
    crop: Annotated[bool, Form(description="show what is around the labels, for tiles")] = False,
    nearest: Annotated[int | None, Form(description="examples that a picture sees")] = None,
) -> Options:
    """From the fields of a form.

    Raises:
        Refusal: `ignore` is no number.
    """
    if ignore is not None and ignore != "none":
        try:
            ignore = int(ignore)  # type: ignore[assignment]
        except ValueError:
            raise Refusal(422, f"ignore {ignore[:40]!r}; accepted: an integer or none") from None
    return Options(
        kind, names, colors, ignore, threshold, unlabelled, tuple(negative or ()), crop, nearest
    )


@dataclass(frozen=True)
class Shown:
    """What a prompt is to be made of: examples and masks in pairs, or the file of a prompt."""

    examples: Sequence[UploadFile] = ()
    masks: Sequence[UploadFile] = ()
    file: UploadFile | None = None
    options: Options = Options()

    def check(self) -> None:
        """Raise InputError unless it is one of both."""
        if len(self.examples) != len(self.masks):
            raise InputError(
                f"{len(self.examples)} examples and {len(self.masks)} masks; accepted: pairs"
            )
        if bool(self.examples) == bool(self.file):
            raise InputError("send examples with their masks, or the file of a prompt")
        self.check_options(bool(self.file))

    def check_options(self, decided: bool) -> None:
        """Raise InputError where options are given that a prompt decides already."""
        default = asdict(Options())
        given = [name for name, value in asdict(self.options).items() if value != default[name]]
        if decided and given:
            raise InputError(f"{', '.join(given)} beside a prompt, which decides that itself")

    def name(self, predictor: Predictor) -> str:
        """Decided by the content: the same upload has the same name, 32 hex digits."""
        said = json.dumps([predictor.checkpoint, asdict(self.options)], sort_keys=True)
        digest = hashlib.sha256(said.encode())
        for one in (*self.examples, *self.masks, *([self.file] if self.file else [])):
            one.file.seek(0)
            digest.update(hashlib.file_digest(one.file, "sha256").digest())  # type: ignore[arg-type]
        return digest.hexdigest()[:32]

    def prompt(self, predictor: Predictor, limits: Limits, folder: Path) -> Prompt:
        """Encode the examples, or read the file.

        Raises:
            InputError: what cannot be read, or not be used.
            Refusal: too much of it.
        """
        if self.file:
            [path] = stored([self.file], folder / "prompt")
            made = read_prompt(predictor, path.replace(folder / "prompt.safetensors"), path.name)
        else:
            examples = self._read(limits, folder)
            _check_ids({i for one in examples for i in one.labels.present}, limits)
            asked = self.options
            made = predictor.prompt(
                examples, kind=asked.kind, names=asked.names, crop=asked.crop,
                nearest=asked.nearest,
            )  # fmt: skip
        _check_ids(set(made.ids), limits)
        return made

    def _read(self, limits: Limits, folder: Path) -> list[Example]:
        pictures = stored(self.examples, folder / "examples")
        found, pixels = list[Example](), 0
        for picture, mask in zip(pictures, stored(self.masks, folder / "masks"), strict=True):
            image = open_picture(picture)
            pixels += image.width * image.height
            if pixels > limits.example_pixels:
                raise Refusal(
                    413, f"examples of more than {limits.example_pixels / 1e6:g} megapixels "
                    "together; make them smaller, models see them smaller still", "pixels",
                )  # fmt: skip
            drawn = open_mask(mask)
            try:
                found.append(Example(image, drawn, **self.options.labels))
            except InputError as error:
                raise InputError(f"{mask.name}: {error}") from None
        return found


def _check_ids(ids: set[int], limits: Limits) -> None:
    if len(ids) > limits.ids:
        raise Refusal(413, f"{len(ids)} ids in one prompt; accepted here: {limits.ids}", "ids")


def read_prompt(predictor: Predictor, path: Path, name: str) -> Prompt:
    """A prompt of a file that anybody may have made, tried on a small picture.

    Raises:
        InputError: no prompt, one of another checkpoint, or one that does not work.
    """
    try:
        prompt = predictor.load_prompt(path)
        assert all(part.encoded.size == (predictor.size,) * 2 for part in prompt.passes)
        tried = predictor.predict(Image.new("RGB", (32, 32)), prompt)
        tried.label_image()
        PromptInfo.of(name, prompt)
        assert set(tried.names) == set(tried.colors) == set(prompt.ids)
    except InputError as error:
        raise InputError(without_paths(str(error)).replace(path.name, name)) from None
    except Exception:  # tensors that do not fit fail anywhere
        raise InputError(f"{name}: not a prompt file, or a damaged one") from None
    return prompt


def stored(uploads: Sequence[UploadFile], folder: Path) -> list[Path]:
    """Uploads as files of the clients' names, as far as these are safe; none twice."""
    folder.mkdir()
    paths: list[Path] = []
    for upload, name in zip(uploads, names_of(uploads), strict=True):
        upload.file.seek(0)
        paths.append(folder / name)
        with paths[-1].open("wb") as file:
            shutil.copyfileobj(upload.file, file)
    return paths


def names_of(uploads: Sequence[UploadFile]) -> list[str]:
    """Names of files, safe anywhere; those that differ in their suffix alone get a number."""
    names, taken = list[str](), set[str]()
    for upload in uploads:
        last = re.split(r"[/\\]", upload.filename or "")[-1]
        stem, dot, suffix = re.sub(r"[^\w.() -]+", "_", last)[-60:].strip(". ").rpartition(".")
        stem = (stem if dot else suffix) or "picture"
        end, chosen, number = (f".{suffix}" if dot else ""), stem, 1
        while chosen.lower() in taken:
            number += 1
            chosen = f"{stem}-{number}"
        taken.add(chosen.lower())
        names.append(chosen + end)
    return names
