"""Array encoder: images and labels in a model's numbers, encoded by its prompt graph.

What `incontext.inference.example_encoder` does with torch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from incontext.checkpoints.onnx_sessions import Sessions
from incontext.images.contrast import Mask
from incontext.inference.example import Example
from incontext.inference.example_views import VIEWS, expand_views, keep_ratio
from incontext.inference.onnx.array_prompt import ArrayPrompt, Arrays, CellAxes, group_cells
from incontext.inference.onnx.cell_selection import select_cells
from incontext.inference.onnx.reading import Floats
from incontext.inference.prompt import Pass
from incontext.labels.coloring import Coloring
from incontext.labels.partial import shrink

FINE = 4  # stride of the copy path's cells
CELLS = "cells"  # how the description names the axis of cells, before their stride
EVERY = "all."  # prefix of outputs that hold all cells at stride 4
BATCH = 16  # views that are encoded at once


class ArrayEncoder:
    """The graphs of a checkpoint, with what is needed to encode examples.

    Args:
        description: what the export says of its graphs.
    """

    def __init__(self, sessions: Sessions, description: Mapping[str, Any]) -> None:
        self.sessions, self.size = sessions, int(description["size"])
        self.fine_share = float(description["thinning"]["share_at_stride_4"])
        self.mean, self.std = (np.array(description[n], np.float32) for n in ("mean", "std"))
        self.axes: CellAxes = {
            node["name"]: (int(length.removeprefix(CELLS)), axis)
            for node in description["graphs"]["query"]["inputs"]
            for axis, length in enumerate(map(str, node["shape"]))
            if length.startswith(CELLS)
        }

    def encode(
        self, examples: Sequence[Example], coloring: Coloring, kind: str, thin_to: int | None,
        in_views: bool,
    ) -> Pass:  # fmt: skip
        """Encode examples under one coloring, as `ExampleEncoder.encode` does."""
        ratio = keep_ratio(thin_to, len(examples), in_views)
        views = expand_views(examples, in_views)
        parts = []
        for start in range(0, len(views), BATCH):
            parts.append(
                self._encode_views(
                    views[start : start + BATCH], coloring, kind, ratio, start,
                    VIEWS if in_views else 1,
                )
            )  # fmt: skip
        arrays = {
            name: np.concatenate([part[name] for part in parts], 1) if name in self.axes else x
            for name, x in parts[0].items()
        }
        size = (self.size, self.size)
        return Pass(coloring, ArrayPrompt(len(examples), size, arrays))

    def _encode_views(
        self, views: Sequence[Example], coloring: Coloring, kind: str, ratio: float, start: int,
        group: int,
    ) -> Arrays:  # fmt: skip
        targets = [coloring.paint(shrink(view.labels.ids, self.size)) for view in views]
        palette = self._normalize(np.array([[coloring.colors]], np.uint8))  # (1, 3, 1, K)
        outputs = self.sessions.run(
            "prompt",
            images=np.concatenate([self.picture(view.image) for view in views]),
            targets=self._normalize(np.stack(targets)),
            kind=np.array([kind == "semantic"]), palette=palette[0, :, 0].T,
        )  # fmt: skip
        every = {n.removeprefix(EVERY): x for n, x in outputs.items() if n.startswith(EVERY)}
        arrays = {n: every.get(n, x) for n, x in outputs.items() if not n.startswith(EVERY)}
        marked = np.stack(targets).any(-1)  # (V, size, size)
        selections = {}
        for stride in {stride for stride, _ in self.axes.values()}:
            side = self.size // stride
            pixels = marked.reshape(len(views), side, stride, side, stride)
            cells: Mask = np.asarray(pixels.any((2, 4)), bool)
            if stride == FINE:
                share = ratio * self.fine_share
                selections[stride] = select_cells(cells, share, start, differ=ratio < 1)
            else:
                selections[stride] = select_cells(cells, ratio, start)
        return group_cells(arrays, self.axes, selections, group)

    def picture(self, image: Image.Image) -> Floats:
        """Return an RGB image in the model's numbers, (1, 3, size, size)."""
        small = image.resize((self.size, self.size), Image.Resampling.BICUBIC, reducing_gap=None)
        return self._normalize(np.asarray(small)[None])

    def _normalize(self, rgb: np.ndarray[Any, Any]) -> Floats:
        """(B, H, W, 3) in 0–255 → (B, 3, H, W), in the order of rounding of `Normalizer`."""
        values = (rgb.astype(np.float32) / np.float32(255.0) - self.mean) / self.std
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))
