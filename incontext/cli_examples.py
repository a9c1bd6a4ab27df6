"""What the command line says of examples, for every command that takes them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from incontext.arguments import color_of, ignore_of, pairs_of
from incontext.errors import InputError

if TYPE_CHECKING:
    from incontext.example import Example
    from incontext.predictor import Predictor
    from incontext.prompt import Prompt

Pairs = Annotated[
    list[str] | None,
    typer.Option(help="A picture and its mask; repeat for more.", metavar="IMAGE MASK"),
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

    @classmethod
    def parse(
        cls, example: list[str] | None, color: list[str] | None, name: list[str] | None,
        ignore: str | None, threshold: float | None, unlabelled: str, negative: list[int] | None,
        kind: str, crop: bool = False, nearest: int | None = None,
    ) -> "Shown":  # fmt: skip
        """From the options' texts.

        Raises:
            InputError: one of them cannot be understood.
        """
        pairs = [tuple(text.split("\0")) for text in example or []]
        colors = {i: color_of(c) for i, c in pairs_of(color, "--color").items()} or None
        labels = {"colors": colors, "ignore": ignore_of(ignore), "threshold": threshold,
                  "unlabelled": unlabelled, "negative": negative}  # fmt: skip
        return cls(pairs, labels, pairs_of(name, "--name"), kind, crop, nearest)

    def read(self) -> list["Example"]:
        """Examples of the pairs of files; a problem names its pair."""
        return list(self.each())

    def each(self) -> Iterator["Example"]:
        """The same, read one at a time."""
        from incontext.example import Example

        for image, mask in self.pairs:
            try:
                yield Example(image, mask, **self.labels)
            except InputError as error:
                raise InputError(f"example {image} {mask}: {error}") from None

    def encode(self, predictor: "Predictor", examples: list["Example"], **options: Any) -> "Prompt":
        """The prompt of these examples."""
        return predictor.prompt(
            examples, kind=self.kind, names=self.names, crop=self.crop, nearest=self.nearest,
            **options,
        )  # fmt: skip

    def described(self) -> dict[str, Any]:
        """What decides a prompt, for comparing runs."""
        from incontext.targets import file_hash

        return {
            "kind": self.kind, "crop": self.crop, "nearest": self.nearest,
            "examples": [[file_hash(path) for path in pair] for pair in self.pairs],
            "labels": self.labels, "names": self.names,
        }  # fmt: skip


# What a prompt file holds already.
HELD = ("example", "kind", "color", "name", "ignore", "threshold", "unlabelled", "negative", "crop",
        "nearest", "spill")  # fmt: skip


def prompt_file(path: Path, ctx: typer.Context) -> Path:
    """The file of `--prompt`; nothing else may be said of examples.

    Raises:
        InputError: it is no file, or an option was given beside it that it decides.
    """
    for name in HELD:
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise InputError(
                f"--{name} beside --prompt: the file was made with what is to count; give it to "
                "`incontext prompt`, or segment with --example"
            )
    if not path.is_file():
        raise InputError(f"--prompt {path}: no such file; `incontext prompt` makes one")
    return path
