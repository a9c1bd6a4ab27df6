"""Options about examples, for every command that takes them, and the files that they name."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from incontext.cli.common import Kind, from_command_line, parse_color, parse_ignore, parse_pairs
from incontext.errors import InputError

if TYPE_CHECKING:
    from incontext.inference.example import Example
    from incontext.inference.onnx.predictor import OnnxPredictor
    from incontext.inference.predictor import Predictor
    from incontext.inference.prompt import Prompt


@dataclass(frozen=True)
class Source:
    """Labelled data of another tool: `--examples-from` and its companions."""

    path: Path
    images: Path | None = None
    format: str | None = None

    def read(self, **label_options: Any) -> Iterator["Example"]:
        """Read the examples one at a time; a problem names its entry."""
        from incontext.formats.examples import read_examples

        return read_examples(self.path, images=self.images, format=self.format, **label_options)


@dataclass(frozen=True)
class ExampleFiles:
    """Examples as files, and how to read and encode them."""

    pairs: list[tuple[str, ...]] = field(default_factory=list)
    label_options: dict[str, Any] = field(default_factory=dict)  # keywords of `Example`
    names: dict[int, str] = field(default_factory=dict)
    kind: str = "semantic"
    crop: bool = False
    nearest: int | None = None
    views: bool = True  # where they gain, see `Predictor.prompt`
    source: Source | None = None  # of more examples
    source_hashes: list[str] = field(default_factory=list)  # of its examples, once they are read

    def __bool__(self) -> bool:
        """Tell whether there are any examples."""
        return bool(self.pairs or self.source)

    @property
    def partial_options(self) -> dict[str, Any]:
        """The keywords that also apply to labels that need no decoding."""
        return {name: self.label_options[name] for name in ("unlabelled", "negative")}

    def read(self) -> list["Example"]:
        """Read all examples; a problem names its pair or entry."""
        return list(self.iter_examples())

    def iter_examples(self) -> Iterator["Example"]:
        """Read the examples one at a time: those of the pairs, then those of the source."""
        from incontext.images.volume import SlicePath
        from incontext.inference.example import Example

        for image, mask in self.pairs:
            if SlicePath.parse(mask):
                yield from self._read_source(self._volumes(image, mask))
                continue
            try:
                yield Example(image, mask, **self.label_options)
            except InputError as error:
                raise InputError(f"example {image} {mask}: {error}") from None
        if self.source:
            self._refuse_label_options("", "--examples-from, whose labels")
            yield from self._read_source(self.source)

    def _read_source(self, source: Source) -> Iterator["Example"]:
        for example in source.read(**self.partial_options):
            self.source_hashes.append(_hash(example))
            yield example

    def _volumes(self, image: str, mask: str) -> Source:
        """Return a scan and its label volume, whose labelled slices are examples."""
        self._refuse_label_options(f"example {image} {mask}: ", "a label volume, whose values")
        return Source(Path(mask), Path(image), "nifti")

    def _refuse_label_options(self, where: str, source: str) -> None:
        """Raise InputError for options that say how masks are read, where they have no effect."""
        for name in ("colors", "ignore", "threshold"):
            if self.label_options.get(name) is not None:
                option = "color" if name == "colors" else name
                raise InputError(f"{where}--{option} with {source} are ids as they are")

    def encode(
        self, predictor: "Predictor | OnnxPredictor", examples: list["Example"], **options: Any
    ) -> "Prompt":
        """Encode these examples as a prompt."""
        return predictor.prompt(
            examples, kind=self.kind, names=self.names, crop=self.crop, nearest=self.nearest,
            views="auto" if self.views else False, **options,
        )  # fmt: skip

    def settings(self) -> dict[str, Any]:
        """Return what decides the prompt, for comparing runs; call it after `read`."""
        from incontext.batch.inputs import file_hash
        from incontext.images.volume import SlicePath

        settings = {
            "kind": self.kind, "crop": self.crop, "nearest": self.nearest,
            "examples": [
                [file_hash(path) for path in pair]
                for pair in self.pairs if not SlicePath.parse(pair[1])
            ],
            "labels": self.label_options, "names": self.names,
        }  # fmt: skip
        # Earlier versions knew no views: their runs go on with --no-views only.
        settings |= {"views": True} if self.views else {}
        return settings | ({"examples_from": self.source_hashes} if self.source_hashes else {})


def _hash(example: "Example") -> str:
    """Hash pixels and labels as they were read: the files may have moved since."""
    digest = hashlib.sha256(example.image.tobytes())
    digest.update(example.labels.ids.tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class MaskOptions:
    """Examples in pairs of files, and how their masks are read."""

    example: Annotated[
        list[str] | None,
        typer.Option(help="An image and its mask; repeat it for more.", metavar="IMAGE MASK"),
    ] = None
    color: Annotated[
        list[str] | None,
        typer.Option(help="Id of a color in color masks, ID=#rrggbb; repeat it for more."),
    ] = None
    name: Annotated[
        list[str] | None, typer.Option(help="Name of an id, ID=NAME; repeat it for more.")
    ] = None
    ignore: Annotated[
        str | None,
        typer.Option(help="Mask value that means unknown, such as 255; none makes 255 an id."),
    ] = None
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Lowest value of the object in a soft mask; 1 makes all ids of a mask one."
        ),
    ] = None
    unlabelled: Annotated[
        str, typer.Option(help="Meaning of mask value 0: background, or unknown.")
    ] = "background"
    negative: Annotated[
        list[int] | None, typer.Option(help='Mask id that means "not this", known background.')
    ] = None

    def files(self) -> ExampleFiles:
        """Parse the texts of the options.

        Raises:
            InputError: one of them cannot be understood.
        """
        pairs = [tuple(text.split("\0")) for text in self.example or []]
        colors = {i: parse_color(c) for i, c in parse_pairs(self.color, "--color").items()} or None
        options = {"colors": colors, "ignore": parse_ignore(self.ignore),
                   "threshold": self.threshold, "unlabelled": self.unlabelled,
                   "negative": self.negative}  # fmt: skip
        return ExampleFiles(pairs, options, parse_pairs(self.name, "--name"))


@dataclass(frozen=True)
class ExampleOptions(MaskOptions):
    """The same, and labelled data of other tools."""

    examples_from: Annotated[
        Path | None,
        typer.Option(help="Labelled data of another tool as examples, see docs/formats.md."),
    ] = None
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of the images of --examples-from, if not beside it."),
    ] = None
    format: Annotated[
        str | None,
        typer.Option(help="Format of --examples-from: coco, yolo, voc, …; recognized by default."),
    ] = None
    kind: Kind = "semantic"

    def files(self) -> ExampleFiles:
        """Parse the texts of the options.

        Raises:
            InputError: one of them cannot be understood, or belongs to an option that is missing.
        """
        if self.examples_from is None and (self.images or self.format):
            raise InputError("--images and --format belong to --examples-from")
        path = self.examples_from
        source = Source(path, self.images, self.format) if path else None
        return replace(super().files(), kind=self.kind, source=source)


@dataclass(frozen=True)
class PromptOptions(ExampleOptions):
    """The same, and how a prompt shows them to the model."""

    crop: Annotated[
        bool, typer.Option(help="Crop examples around their labels, which suits --tile.")
    ] = False
    nearest: Annotated[
        int | None, typer.Option(help="Number of examples, the most similar, that an image sees.")
    ] = None
    views: Annotated[
        bool,
        typer.Option(help="Show one or two examples also close up and mirrored (votes)."),
    ] = True
    spill: Annotated[
        bool,
        typer.Option(help="Keep examples in files so that memory stays flat (joint attention)."),
    ] = False

    def files(self) -> ExampleFiles:
        """Parse the texts of the options.

        Raises:
            InputError: one of them cannot be understood, or belongs to an option that is missing.
        """
        return replace(super().files(), crop=self.crop, nearest=self.nearest, views=self.views)


def check_prompt_file(path: Path, ctx: typer.Context) -> None:
    """Check the file of `--prompt`.

    Raises:
        InputError: there is no such file, or an option was given that the file decides.
    """
    for option in fields(PromptOptions):
        if from_command_line(ctx, option.name):
            raise InputError(
                f"--{option.name.replace('_', '-')} with --prompt: the file decides it already; "
                "give it to `incontext prompt`, or segment with --example"
            )
    if not path.is_file():
        raise InputError(f"--prompt {path}: no such file; `incontext prompt` makes one")
