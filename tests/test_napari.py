"""The recipe for napari runs on its layers, without a window."""

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("napari", reason="needs napari (dev extra)")

PAGE = Path(__file__).parents[1] / "docs/volumes.md"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stack", "plane", "colors"])
def test_recipe_segments_layers(kind):
    """One labelled plane of a stack, in 12 bits, is enough for the others."""
    from napari.components import ViewerModel  # what a window shows, without the window

    z, y, x = np.mgrid[:4, :64, :72]
    truth = ((x - 20 - 8 * z) ** 2 + (y - 30) ** 2 < 150).astype(np.uint8)
    noise = np.random.default_rng(0).integers(300, 800, truth.shape)
    pixels = (truth * 2500.0 + noise).astype(np.uint16)
    drawn = np.where(z == 1, truth, 0).astype(np.uint8)
    if kind == "plane":
        pixels, truth, drawn = pixels[1], truth[1], drawn[1]
    if kind == "colors":
        pixels = np.stack([pixels // 16] * 3, -1).astype(np.uint8)
    viewer = ViewerModel()
    viewer.add_image(pixels, name="image", rgb=kind == "colors", scale=[2] * truth.ndim)
    viewer.add_labels(drawn, name="labels", scale=[2] * truth.ndim)
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    exec(code, {"viewer": viewer})
    layer = viewer.layers["image labels"]
    assert layer.data.shape == truth.shape
    assert np.array_equal(layer.extent.world, viewer.layers["labels"].extent.world)
    assert ((layer.data == 1) & (truth == 1)).sum() > 0.9 * ((layer.data == 1) | (truth == 1)).sum()
