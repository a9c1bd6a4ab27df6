"""Segmentation by example on real photographs, offline, with the bundled checkpoint.

`python -m demos.photographs OUT`. The scenes are those of `incontext.web.photographs`; where
the truth for the query is drawn as well, the IoU is printed.
"""

import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from incontext import Example, Predictor
from incontext.web.photographs import Scene, absent, coins, eyes, galaxies, glands, motorcycle

# CC0 or public domain: the pictures of the documentation are made of these.
FREE_SCENES = ("eyes", "galaxies", "absent")
SCENES = (coins, eyes, galaxies, glands, motorcycle, absent)


def panel(scene: Scene, result: Image.Image, height: int = 240) -> Image.Image:
    """Put the example with its mask, the query and the result side by side."""
    example = np.array(Image.fromarray(scene.example).convert("RGB"))
    example[scene.mask] = example[scene.mask] // 2 + np.array([0, 64, 127], np.uint8)
    images = [Image.fromarray(example), Image.fromarray(scene.query).convert("RGB"), result]
    images = [i.resize((round(i.width * height / i.height), height)) for i in images]
    row = Image.new("RGB", (sum(i.width for i in images) + 16, height), "white")
    x = 0
    for image in images:
        row.paste(image, (x, 0))
        x += image.width + 8
    return row


def main(out: Path) -> None:
    """Segment every scene and write its labels, confidence, overlay and panel."""
    start = time.perf_counter()
    predictor = Predictor.from_pretrained()
    for make in SCENES:
        scene = make()
        prompt = predictor.prompt(Example(scene.example, scene.mask))
        result = predictor.predict(scene.query, prompt, tile=scene.tile)
        result.save(out, scene.name)
        row = panel(scene, result.overlay())
        row.save(out / f"{scene.name}.panel.jpg", quality=90)
        line = f"{scene.name:<12}presence {result.presence[1]:.2f}"
        if scene.truth is not None:
            intersection = (result.mask(1) & scene.truth).sum()
            line += f"  IoU {intersection / (result.mask(1) | scene.truth).sum():.2f}"
        print(line)
    print(f"{len(SCENES)} photographs in {time.perf_counter() - start:.1f} s; overlays:")
    for path in sorted(out.glob("*.overlay.jpg")):
        print(f"  {path}")
    print("Your own: .venv/bin/incontext segment --example IMAGE MASK --out results FOLDER")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("out/demo"))
