"""Uploads: what a request sent, read into files, examples and prompts."""

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
from incontext.web.api_errors import ApiError
from incontext.web.limits import open_image, open_mask
from incontext.web.reporting import without_paths
from incontext.web.server.schema import PromptInfo
from incontext.web.server.service import Limits


@dataclass(frozen=True)
class Options:
    """How examples are read: the options of `incontext prompt`, under the same names."""

    kind: str = "semantic"
    names: dict[int, str] | None = None
    colors: dict[int, tuple[int, int, int]] | None = None
    ignore: int | str | None = None
    threshold: float | None = None
    unlabelled: str = "background"
    negative: tuple[int, ...] = ()
    crop: bool = False
    nearest: int | None = None
    views: bool = True

    @property
    def labels(self) -> dict[str, Any]:
        """Those that `Example` takes."""
        return {
            "colors": self.colors, "ignore": self.ignore, "threshold": self.threshold,
            "unlabelled": self.unlabelled, "negative": list(self.negative) or None,
        }  # fmt: skip


Names = Json[dict[int, str]]
Colors = Json[dict[int, tuple[int, int, int]]]


def parse_options(
    kind: Annotated[str, Form(description="semantic (the class) or instance")] = "semantic",
    names: Annotated[Names | None, Form(description='of ids: {"1": "cell"}')] = None,
    colors: Annotated[Colors | None, Form(description='color masks: {"1": [255, 0, 0]}')] = None,
    ignore: Annotated[str | None, Form(description="mask value: unknown; or none")] = None,
    threshold: Annotated[float | None, Form(description="soft masks: from here on id 1")] = None,
    unlabelled: Annotated[str, Form(description="0 is background, or unknown")] = "background",
    negative: Annotated[list[int] | None, Form(description="ids that mean: not this")] = None,
    crop: Annotated[bool, Form(description="show what is around the labels, for tiles")] = False,
    nearest: Annotated[int | None, Form(description="examples that a picture sees")] = None,
    views: Annotated[bool, Form(description="one or two also close up and mirrored")] = True,
) -> Options:
    """Read the options from the fields of a form.

    Raises:
        ApiError: `ignore` is neither a number nor "none".
    """
    if ignore is not None and ignore != "none":
        try:
            ignore = int(ignore)  # type: ignore[assignment]
        except ValueError:
            raise ApiError(422, f"ignore {ignore[:40]!r}; accepted: an integer or none") from None
    return Options(
        kind, names, colors, ignore, threshold, unlabelled, tuple(negative or ()), crop, nearest,
        views,
    )  # fmt: skip


@dataclass(frozen=True)
class PromptUpload:
    """What a prompt is made from: examples and masks in pairs, or the file of a prompt."""

    examples: Sequence[UploadFile] = ()
    masks: Sequence[UploadFile] = ()
    file: UploadFile | None = None
    options: Options = Options()

    def check(self) -> None:
        """Raise InputError unless there are either pairs or a file."""
        if len(self.examples) != len(self.masks):
            raise InputError(
                f"{len(self.examples)} examples and {len(self.masks)} masks; accepted: pairs"
            )
        if bool(self.examples) == bool(self.file):
            raise InputError("send examples with their masks, or the file of a prompt")
        if self.file:
            self.check_no_options()

    def check_no_options(self) -> None:
        """Raise InputError if options are set, which a prompt has decided already."""
        default = asdict(Options())
        conflicts = [name for name, value in asdict(self.options).items() if value != default[name]]
        if conflicts:
            raise InputError(f"{', '.join(conflicts)} beside a prompt, which decides that itself")

    def content_id(self, predictor: Predictor) -> str:
        """Return 32 hex digits that the content decides: the same upload has the same id."""
        settings = json.dumps([predictor.checkpoint, asdict(self.options)], sort_keys=True)
        digest = hashlib.sha256(settings.encode())
        for upload in (*self.examples, *self.masks, *([self.file] if self.file else [])):
            upload.file.seek(0)
            file_hash = hashlib.file_digest(upload.file, "sha256")  # type: ignore[arg-type]
            digest.update(file_hash.digest())
        return digest.hexdigest()[:32]

    def build(self, predictor: Predictor, limits: Limits, folder: Path) -> Prompt:
        """Encode the examples, or read the file, into a prompt.

        Raises:
            InputError: something cannot be read, or not be used.
            ApiError: a limit is exceeded.
        """
        if self.file:
            [path] = save_uploads([self.file], folder / "prompt")
            prompt = read_prompt(predictor, path.replace(folder / "prompt.safetensors"), path.name)
        else:
            examples = self._read_examples(limits, folder)
            _check_ids({i for example in examples for i in example.labels.present}, limits)
            options = self.options
            prompt = predictor.prompt(
                examples, kind=options.kind, names=options.names, crop=options.crop,
                nearest=options.nearest, views="auto" if options.views else False,
            )  # fmt: skip
        _check_ids(set(prompt.ids), limits)
        return prompt

    def _read_examples(self, limits: Limits, folder: Path) -> list[Example]:
        image_paths = save_uploads(self.examples, folder / "examples")
        mask_paths = save_uploads(self.masks, folder / "masks")
        examples, pixels = list[Example](), 0
        for image_path, mask_path in zip(image_paths, mask_paths, strict=True):
            image = open_image(image_path)
            pixels += image.width * image.height
            if pixels > limits.example_pixels:
                raise ApiError(
                    413, f"examples of more than {limits.example_pixels / 1e6:g} megapixels "
                    "together; make them smaller, models see them smaller still", "pixels",
                )  # fmt: skip
            mask = open_mask(mask_path)
            try:
                examples.append(Example(image, mask, **self.options.labels))
            except InputError as error:
                raise InputError(f"{mask_path.name}: {error}") from None
        return examples


def _check_ids(ids: set[int], limits: Limits) -> None:
    if len(ids) > limits.ids:
        raise ApiError(413, f"{len(ids)} ids in one prompt; accepted here: {limits.ids}", "ids")


def read_prompt(predictor: Predictor, path: Path, name: str) -> Prompt:
    """Read a prompt file that anybody may have made, and try it on a small image.

    Raises:
        InputError: not a prompt, one of another checkpoint, or one that does not work.
    """
    try:
        prompt = predictor.load_prompt(path)
        assert all(part.encoded_prompt.size == (predictor.size,) * 2 for part in prompt.passes)
        result = predictor.predict(Image.new("RGB", (32, 32)), prompt)
        result.label_image()
        PromptInfo.from_prompt(name, prompt)
        assert set(result.names) == set(result.colors) == set(prompt.ids)
    except InputError as error:
        raise InputError(without_paths(str(error)).replace(path.name, name)) from None
    except Exception:  # tensors that do not fit fail anywhere
        raise InputError(f"{name}: not a prompt file, or a damaged one") from None
    return prompt


def save_uploads(uploads: Sequence[UploadFile], folder: Path) -> list[Path]:
    """Write uploads to files under the clients' names, made safe and unique."""
    folder.mkdir()
    paths: list[Path] = []
    for upload, name in zip(uploads, safe_names(uploads), strict=True):
        upload.file.seek(0)
        paths.append(folder / name)
        with paths[-1].open("wb") as file:
            shutil.copyfileobj(upload.file, file)
    return paths


def safe_names(uploads: Sequence[UploadFile]) -> list[str]:
    """Return file names that are safe anywhere; those that differ in their suffix alone get a
    number."""
    names, stems = list[str](), set[str]()
    for upload in uploads:
        last = re.split(r"[/\\]", upload.filename or "")[-1]
        stem, dot, suffix = re.sub(r"[^\w.() -]+", "_", last).strip(". ").rpartition(".")
        stem, suffix = (stem if dot else suffix)[:60].strip(". ") or "picture", suffix[:20]
        ending, unique_stem, number = (f".{suffix}" if dot else ""), stem, 1
        while unique_stem.lower() in stems:
            number += 1
            unique_stem = f"{stem}-{number}"
        stems.add(unique_stem.lower())
        names.append(unique_stem + ending)
    return names
