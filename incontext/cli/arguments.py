"""What the command line's texts mean: pairs, colors, ids; `--example` with its two values."""

from typing import Any

from typer.core import TyperCommand

from incontext.errors import InputError

DEFAULT = "incontext-votes"  # the bundled checkpoint; its own module would import torch


def _pair(text: str, what: str) -> tuple[int, str]:
    """ "3=cat" → (3, "cat")."""
    left, equals, right = text.partition("=")
    if not equals or not left.strip().isdecimal() or not right:
        raise InputError(f"{what} {text!r}; accepted: ID=VALUE, such as 1=...")
    return int(left), right


def pairs_of(texts: list[str] | None, what: str) -> dict[int, str]:
    """["3=cat", "4=dog"] → {3: "cat", 4: "dog"}."""
    pairs = [_pair(text, what) for text in texts or []]
    table = dict(pairs)
    if len(table) < len(pairs):
        raise InputError(f"{what} names an id twice: {' '.join(texts or [])}")
    return table


def color_of(text: str) -> tuple[int, int, int]:
    """ "#ff0080" or "255,0,128" → (255, 0, 128)."""
    try:
        if text.startswith("#") and len(text) == 7:
            red, green, blue = bytes.fromhex(text[1:])
        else:
            red, green, blue = bytes(int(part) for part in text.split(","))
    except ValueError:  # also what bytes says of a number that is none
        raise InputError(f"color {text!r}; accepted: #rrggbb or r,g,b in 0–255") from None
    return red, green, blue


def ignore_of(text: str | None) -> int | str | None:
    """ "255" → 255; "none" and nothing stay."""
    if text is None or text == "none":
        return text
    try:
        return int(text)
    except ValueError:
        raise InputError(f"--ignore {text!r}; accepted: an integer or none") from None


class PairCommand(TyperCommand):
    """Lets `--example` take two values: typer knows no repeated option with several.

    Both travel as one text with a NUL between, which no argument can hold by itself.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Join the two values of every `--example`, then parse as usual."""
        joined: list[str] = []
        rest = iter(args)
        for arg in rest:
            if arg == "--":
                joined += [arg, *rest]
                break
            if arg != "--example" and not arg.startswith("--example="):
                joined.append(arg)
                continue
            image = arg.partition("=")[2] or next(rest, "")
            mask = next(rest, "")
            if not image or not mask or image.startswith("--") or mask.startswith("--"):
                raise InputError("--example takes two values: a picture and its mask")
            joined += ["--example", f"{image}\0{mask}"]
        return super().parse_args(ctx, joined)
