"""What the command line says of examples, for every command that takes them."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from incontext.cli.arguments import color_of, ignore_of, pairs_of
from incontext.errors import InputError

if TYPE_CHECKING:
    from incontext.inference.example import Example
    from incontext.inference.predictor import Predictor
    from incontext.inference.prompt import Prompt

Pairs = Annotated[
    list[str] | None,
    typer.Option(help="A picture and its mask; repeat for more.", metavar="IMAGE MASK"),
]
From = Annotated[
    Path | None,
    typer.Option(help="Labelled data of another tool as examples: docs/formats.md."),
]
Images = Annotated[
    Path | None, typer.Option(help="Folder of the pictures of --examples-from; default: beside.")
]
Format = Annotated[
    str | None,
    typer.Option(help="Format of --examples-from: coco, yolo, voc, …; default: by looking."),
]
Kind = Annotated[str, typer.Option(help="semantic: the class; instance: the very object.")]
Colors = Annotated[
    list[str] | None, typer.Option(help="ID=#rrggbb: meaning of a color in color masks.")
]
Names = Annotated[list[str] | None, typer.Option(help="ID=NAME, for results.json.")]
Ignore = Annotated[
    str | None,
    typer.Option(help="Mask value that is no label, such as 255; or none: 255 is an id."),
]
Threshold = Annotated[
    float | None, typer.Option(help="For soft masks: this value and above is the object.")
]
Unlabelled = Annotated[
    str,
    typer.Option(help="What mask value 0 means: background, or unknown (partly labelled)."),
]
Negative = Annotated[
    list[int] | None,
    typer.Option(help='Mask id that means "not this": known background.'),
]
Crop = Annotated[
    bool, typer.Option(help="Show examples cropped around their labels (fits --tile).")
]
Nearest = Annotated[
    int | None, typer.Option(help="Each picture sees so many examples, those most like it.")
]

Spill = Annotated[
    bool,
    typer.Option(help="Keep examples in files: memory stays flat (joint attention)."),
]


@dataclass(frozen=True)
class Shown:
    """Examples as files, and how to read and show them."""

    pairs: list[tuple[str, ...]] = field(default_factory=list)
    labels: dict[str, Any] = field(default_factory=dict)  # options of `Example`
    names: dict[int, str] = field(default_factory=dict)
    kind: str = "semantic"
    crop: bool = False
    nearest: int | None = None
    source: "Source | None" = None  # of more examples, beside the pairs
    read_from_source: list[str] = field(default_factory=list)  # hashes of its examples

    @classmethod
    def parse(
        cls, example: list[str] | None, color: list[str] | None, name: list[str] | None,
        ignore: str | None, threshold: float | None, unlabelled: str, negative: list[int] | None,
        kind: str, crop: bool = False, nearest: int | None = None,
        source: "Source | None" = None,
    ) -> "Shown":  # fmt: skip
        """From the options' texts.

        Raises:
            InputError: one of them cannot be understood.
        """
        pairs = [tuple(text.split("\0")) for text in example or []]
        colors = {i: color_of(c) for i, c in pairs_of(color, "--color").items()} or None
        labels = {"colors": colors, "ignore": ignore_of(ignore), "threshold": threshold,
                  "unlabelled": unlabelled, "negative": negative}  # fmt: skip
        names = pairs_of(name, "--name")
        return cls(pairs, labels, names, kind, crop, nearest, source)

    def __bool__(self) -> bool:
        """Whether there are any examples."""
        return bool(self.pairs or self.source)

    def read(self) -> list["Example"]:
        """Examples of the pairs of files, and of the source; a problem names its pair or entry."""
        return list(self.each())

    def each(self) -> Iterator["Example"]:
        """The same, read one at a time."""
        from incontext.inference.example import Example

        for image, mask in self.pairs:
            try:
                yield Example(image, mask, **self.labels)
            except InputError as error:
                raise InputError(f"example {image} {mask}: {error}") from None
        if self.source:
            partly = {name: self.labels[name] for name in ("unlabelled", "negative")}
            for one in self.source.each(**partly):
                self.read_from_source.append(_hash(one))
                yield one

    def encode(self, predictor: "Predictor", examples: list["Example"], **options: Any) -> "Prompt":
        """The prompt of these examples."""
        return predictor.prompt(
            examples, kind=self.kind, names=self.names, crop=self.crop, nearest=self.nearest,
            **options,
        )  # fmt: skip

    def described(self) -> dict[str, Any]:
        """What decides a prompt, for comparing runs; after `read`."""
        from incontext.batch.targets import file_hash

        said = {
            "kind": self.kind, "crop": self.crop, "nearest": self.nearest,
            "examples": [[file_hash(path) for path in pair] for pair in self.pairs],
            "labels": self.labels, "names": self.names,
        }  # fmt: skip
        return said | ({"examples_from": self.read_from_source} if self.source else {})


@dataclass(frozen=True)
class Source:
    """`--examples-from` with what belongs to it."""

    path: Path
    images: Path | None = None
    format: str | None = None

    @classmethod
    def parse(cls, path: Path | None, images: Path | None, format: str | None) -> "Source | None":
        """From the options.

        Raises:
            InputError: one that belongs to `--examples-from`, without it.
        """
        if path is None and (images or format):
            raise InputError("--images and --format belong to --examples-from")
        return cls(path, images, format) if path else None

    def each(self, **partly: Any) -> Iterator["Example"]:
        """Its examples; a problem names the entry."""
        from incontext.formats.examples import read_examples

        return read_examples(self.path, images=self.images, format=self.format, **partly)


def _hash(example: "Example") -> str:
    """Of its pixels and labels, as they were read: pictures may have moved since."""
    made = hashlib.sha256(example.image.tobytes())
    made.update(example.labels.ids.tobytes())
    return made.hexdigest()[:16]


# What a prompt file holds already.
HELD = ("example", "examples_from", "images", "format", "kind", "color", "name", "ignore",
        "threshold", "unlabelled", "negative", "crop", "nearest", "spill")  # fmt: skip


def prompt_file(path: Path, ctx: typer.Context) -> Path:
    """The file of `--prompt`; nothing else may be said of examples.

    Raises:
        InputError: it is no file, or an option was given beside it that it decides.
    """
    for name in HELD:
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise InputError(
                f"--{name.replace('_', '-')} beside --prompt: the file was made with what is to "
                "count; give it to `incontext prompt`, or segment with --example"
            )
    if not path.is_file():
        raise InputError(f"--prompt {path}: no such file; `incontext prompt` makes one")
    return path
