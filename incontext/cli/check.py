"""The command that checks the installation."""

import re
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from typing import NamedTuple

import typer

from incontext.cli.common import DEFAULT, Checkpoint

NAME = "incontext-seg"
OF_DEVELOPERS = ("dev", "docs", "notebooks")  # extras that no command needs
# As in `gradio[mcp]>=6; extra == 'demo'`: the package, its own extras, the extra that needs it.
REQUIREMENT = re.compile(r"([\w.-]+)(?:\[([\w,.-]+)\])?[^;]*(?:;.*extra == ['\"]([\w-]+)['\"])?")
MIN_IOU = 0.8  # that the self-test reaches with any checkpoint that works


class Extra(NamedTuple):
    """An extra of the package: its name, and the packages that are missing."""

    name: str
    missing: tuple[str, ...]


def check(checkpoint: Checkpoint = DEFAULT) -> None:
    """Check the installation.

    Says which extras are installed and what computes, loads the checkpoint and segments a drawn
    image. The exit code is 1 if that goes wrong; missing extras are fine.
    """
    typer.echo(f"incontext {version(NAME)}, Python {sys.version.split()[0]}")
    for line in _describe_dependencies():
        typer.echo(line)
    extras = list_extras()
    for extra in extras:
        state = "installed" if not extra.missing else f"not installed: {', '.join(extra.missing)}"
        typer.echo(f"  {extra.name:<8} {state}")
    if any(extra.missing for extra in extras):
        typer.echo(f"Install an extra with: pip install '{NAME}[NAME]'")
    device, size, iou, seconds = _segment_drawing(checkpoint)
    typer.echo(f"{checkpoint}: on {device}, sees images at {size} x {size} pixels")
    typer.echo(f"Self-test: IoU {iou:.2f} on a drawn image, {seconds:.1f} s with loading")
    if iou < MIN_IOU:
        typer.echo(
            f"Error: the self-test reached an IoU of {iou:.2f}; a checkpoint that works has "
            f"{MIN_IOU} or more. Is the checkpoint damaged, or trained for something else?",
            err=True,
        )
        raise typer.Exit(1)
    typer.echo("All is well. Next: incontext segment --help, or incontext demo")


def list_extras() -> list[Extra]:
    """List the extras, and what each lacks."""
    packages = dict[str, list[str]]()
    for package, own_extras, extra in _parse_requirements():
        if extra and extra not in OF_DEVELOPERS:
            # An extra may be made of others, as in `incontext-seg[demo]`.
            inner = [p for name in own_extras for p in packages.get(name, [])]
            packages.setdefault(extra, []).extend(inner if package == NAME else [package])
    return [
        Extra(name, tuple(package for package in some if find_version(package) is None))
        for name, some in sorted(packages.items())
    ]


def find_version(package: str) -> str | None:
    """Return the version of a package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _describe_dependencies() -> Iterator[str]:
    """Yield a line for each package that is always needed."""
    for package, _, extra in _parse_requirements():
        if not extra:
            yield f"  {package} {find_version(package) or 'is not installed'}"


def _parse_requirements() -> Iterator[tuple[str, list[str], str]]:
    """Yield of each requirement the package, its own extras, and the extra that needs it."""
    for requirement in requires(NAME) or []:
        match = REQUIREMENT.match(requirement)
        if match:
            yield match[1], (match[2] or "").split(","), match[3] or ""


def _segment_drawing(checkpoint: str) -> tuple[str, int, float, float]:
    """Return device, size, IoU and seconds of segmenting one drawn disc by another."""
    import numpy as np

    from incontext import Example, Predictor

    start = time.perf_counter()
    predictor = Predictor.from_pretrained(checkpoint)
    rows, columns = np.mgrid[:160, :200]
    images, masks = [], []
    for row, column, radius in ((60, 70, 34), (90, 130, 40)):
        mask = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
        # Two clear colors and a little texture: any checkpoint that works tells them apart.
        texture = (8 * np.sin(rows / 3) * np.cos(columns / 5))[..., None]
        image = np.where(mask[..., None], (210, 60, 40), (90, 120, 90)) + texture
        images.append(image.clip(0, 255).astype(np.uint8))
        masks.append(mask)
    result = predictor.predict(images[1], predictor.prompt(Example(images[0], masks[0])))
    found_mask = result.mask(1)
    iou = (found_mask & masks[1]).sum() / (found_mask | masks[1]).sum()
    return str(predictor.device), predictor.size, float(iou), time.perf_counter() - start
