"""What commands share: option groups, parsing of option texts, opening a predictor, progress."""

import ctypes
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand

from incontext.errors import InputError

if TYPE_CHECKING:
    from incontext.inference.predictor import Predictor

DEFAULT = "incontext-votes"  # the bundled checkpoint; its own module would import torch

Threads = Annotated[int, typer.Option(help="CPU threads to use.", min=1)]
Kind = Annotated[
    str, typer.Option(help="What to find: all of a class (semantic) or the very object (instance).")
]
Checkpoint = Annotated[
    str,
    typer.Option(help="Checkpoint: bundled name, folder, .safetensors or .pth file, or hub id."),
]


# Options of glibc's `mallopt` with the variables that tell a new process the same: how much freed
# memory is kept, and up to which size (32 MiB is the most that older versions take).
MALLOC_OPTIONS = ((-1, "MALLOC_TRIM_THRESHOLD_", 2**30), (-3, "MALLOC_MMAP_THRESHOLD_", 2**25))


def reuse_freed_memory() -> None:
    """Keep freed memory instead of giving it back to the system, here and in child processes.

    A query makes and frees tables of some megabytes, and fresh pages for them cost time on CPU.
    Does nothing where the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS; Windows
        return
    for option, variable, size in MALLOC_OPTIONS:
        if variable not in os.environ:  # else glibc was told what to do, and did it at the start
            mallopt(option, size)
            os.environ[variable] = str(size)


def option_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Make each field of a parameter that is a dataclass an option of the command.

    typer knows functions of plain parameters only: they are what it sees, while the command gets
    the dataclass with the values in it.
    """
    signature = inspect.signature(command, eval_str=True)
    parameters: list[inspect.Parameter] = []
    groups: dict[str, type[Any]] = {}
    for parameter in signature.parameters.values():
        group = parameter.annotation
        if not (isinstance(group, type) and is_dataclass(group)):
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        groups[parameter.name] = group
        hints = get_type_hints(group, include_extras=True)
        parameters += [
            inspect.Parameter(
                option.name, inspect.Parameter.KEYWORD_ONLY, default=option.default,
                annotation=hints[option.name],
            )
            for option in fields(group)
        ]  # fmt: skip

    @wraps(command)
    def run(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(
                **{option.name: values.pop(option.name) for option in fields(group)}
            )
        command(**values)

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


@dataclass(frozen=True)
class ModelOptions:
    """Which checkpoint computes, and where."""

    checkpoint: Checkpoint = DEFAULT
    device: Annotated[
        str, typer.Option(help="Device that computes: auto, cpu, cuda, cuda:1 or mps.")
    ] = "auto"

    def open(self, weights: Path, dtype: str = "float32") -> "Predictor":
        """Open a predictor; `weights` is where the checkpoint was found.

        Raises:
            InputError: a device or dtype that is unknown, or cannot be used here.
        """
        return open_predictor(weights, self.device, dtype, self.checkpoint)


@dataclass(frozen=True)
class PrecisionOptions(ModelOptions):
    """The same, and in which numbers."""

    dtype: Annotated[
        str, typer.Option(help="Number type: float32, float16, bfloat16, or int8 (weights; CPU).")
    ] = "float32"


def open_predictor(
    weights: Path, device: str, dtype: str = "float32", name: str = ""
) -> "Predictor":
    """Open a predictor on a device; `name` is what the user called the checkpoint.

    Raises:
        InputError: a device or dtype that is unknown, or cannot be used here.
    """
    from incontext.checkpoints.location import display_name
    from incontext.inference.precision import DTYPES
    from incontext.inference.predictor import Predictor

    if device.partition(":")[0] not in ("auto", "cpu", "cuda", "mps"):
        raise InputError(f"--device {device!r}; accepted: auto, cpu, cuda, cuda:1, mps")
    if dtype not in DTYPES:
        raise InputError(f"--dtype {dtype!r}; accepted: {', '.join(DTYPES)}")
    try:
        return Predictor.from_pretrained(
            weights, device=device, dtype=DTYPES[dtype], name=display_name(name or weights)
        )
    except (RuntimeError, AssertionError) as error:  # what torch raises for absent devices
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {device!r} cannot be used here: {reason}") from None


def check_out_folder(out: Path) -> None:
    """Raise InputError where `--out` is a file."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; accepted: a folder")


def _parse_pair(text: str, option: str) -> tuple[int, str]:
    """Parse "3=cat" as (3, "cat")."""
    number, equals, value = text.partition("=")
    if not equals or not number.strip().isdecimal() or not value:
        such_as = "1=#ff0000" if option == "--color" else "1=mug"
        raise InputError(f"{option} {text!r}; accepted: ID=VALUE, such as {such_as}")
    return int(number), value


def parse_pairs(texts: list[str] | None, option: str) -> dict[int, str]:
    """Parse ["3=cat", "4=dog"] as {3: "cat", 4: "dog"}."""
    pairs = [_parse_pair(text, option) for text in texts or []]
    table = dict(pairs)
    if len(table) < len(pairs):
        raise InputError(f"{option} names an id twice: {' '.join(texts or [])}")
    return table


def parse_color(text: str) -> tuple[int, int, int]:
    """Parse "#ff0080" or "255,0,128" as (255, 0, 128)."""
    try:
        if text.startswith("#") and len(text) == 7:
            red, green, blue = bytes.fromhex(text[1:])
        else:
            red, green, blue = bytes(int(part) for part in text.split(","))
    except ValueError:  # bytes raises it too, for a number above 255
        raise InputError(f"color {text!r}; accepted: #rrggbb or r,g,b in 0–255") from None
    return red, green, blue


def parse_ignore(text: str | None) -> int | str | None:
    """Parse "255" as 255; "none" and None stay."""
    if text is None or text == "none":
        return text
    try:
        return int(text)
    except ValueError:
        raise InputError(f"--ignore {text!r}; accepted: an integer or none") from None


def from_command_line(ctx: typer.Context, name: str) -> bool:
    """Tell whether the user gave an option, rather than its default."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


class PairCommand(TyperCommand):
    """A command whose `--example` takes two values: typer knows no repeated option with several.

    Both travel as one text with a NUL between, which no argument can hold by itself.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Join the two values of every `--example`, then parse as usual."""
        words: list[str] = []
        remaining = iter(args)
        for word in remaining:
            if word == "--":
                words += [word, *remaining]
                break
            if word != "--example" and not word.startswith("--example="):
                words.append(word)
                continue
            image = word.partition("=")[2] or next(remaining, "")
            mask = next(remaining, "")
            if not image or not mask or image.startswith("--") or mask.startswith("--"):
                raise InputError("--example takes two values: a picture and its mask")
            words += ["--example", f"{image}\0{mask}"]
        return super().parse_args(ctx, words)


class Progress:
    """A progress bar for steps of a task; with a `unit` it shows steps a second."""

    def __init__(self, unit: str = "") -> None:
        self.unit, self.task = unit, ""
        self.bar: Any = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def update(self, task: str, step: int, total: int | None) -> None:
        """Show that `step` of `total` steps of a task are finished."""
        if self.bar is None or (self.unit and task != self.task):
            self.__exit__()
            self.bar = self._new_bar(step)
        self.task = task
        self.bar.total = total
        self.bar.n = step
        self.bar.set_description_str(task)

    def _new_bar(self, step: int) -> Any:
        from tqdm import tqdm

        times = "{elapsed}, {rate_fmt}" if self.unit else "{elapsed}"
        return tqdm(
            disable=None, unit=self.unit, initial=max(0, step - 1), smoothing=0,
            bar_format="{desc} |{bar}| {n}/{total} [" + times + "]",
        )  # fmt: skip
