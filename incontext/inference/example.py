"""Example: a picture and its labels."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from incontext.images.image import ImageLike, read_image
from incontext.labels.color_mask import Rgb
from incontext.labels.encodings import Labels, LabelsLike, read_labels
from incontext.labels.partial import mark


class Example:
    """A picture and its labels; read and checked at once.

    Args:
        image: see `incontext.images.image.read_image`.
        labels: see `incontext.labels.encodings.read_labels`; the same size as the upright picture.
        colors: {id: (r, g, b)} of a color mask.
        ignore: value in the labels that means "unknown"; "none": 255 is an id.
        threshold: for soft masks: at or above it is id 1.
        unlabelled: what pixels of value 0 mean: "background", or "unknown" where only a part of
            the picture was labelled. What is unknown is not shown to the model as anything.
        negative: an id, or several, that means "not this": background that was looked at, which
            counts beside `unlabelled="unknown"` as well. It is no id of the prompt.

    Attributes:
        names: of ids, where the source of the labels has them; reports use them.
        source: what to call the example, "" where nothing is known.

    Raises:
        InputError: what cannot be read, or can be read in two ways.
    """

    def __init__(
        self,
        image: ImageLike,
        labels: LabelsLike,
        *,
        colors: dict[int, Rgb] | None = None,
        ignore: int | str | None = None,
        threshold: int | float | None = None,
        unlabelled: str = "background",
        negative: int | Sequence[int] | None = None,
    ) -> None:
        self.image: Image.Image = read_image(image)
        self.names: dict[int, str] = {}
        name = Path(image).name if isinstance(image, (str, Path)) else None
        read = read_labels(
            labels, self.image.size, colors=colors, ignore=ignore, threshold=threshold,
            file_name=name,
        )  # fmt: skip
        self.labels: Labels = mark(read, unlabelled, negative)
        self.source: str = name or ""

    @classmethod
    def of(
        cls, image: Image.Image, labels: Labels, names: Mapping[int, str] | None = None,
        source: str = "",
    ) -> "Example":  # fmt: skip
        """From an upright RGB picture and labels of its size that were read already."""
        made = object.__new__(cls)
        made.image, made.labels = image, labels
        made.names, made.source = dict(names or {}), source
        return made

    def __repr__(self) -> str:
        width, height = self.image.size
        return f"Example({width}×{height}, ids {self.labels.present})"

    def cropped(self, margin: float = 0.5) -> "Example":
        """The part around the labels, with a margin on each side as a share of its extent.

        Half of the extent, so that three quarters of the part are surroundings: shown too little
        of them, a model finds the object in tiles that do not hold it.
        """
        rows, columns = np.nonzero(self.labels.ids > 0)  # not around what is negative or unknown
        if not len(rows):
            return self
        spans = []
        for at, limit in ((columns, self.image.width), (rows, self.image.height)):
            pad = int(margin * (at.max() - at.min() + 1)) + 1
            spans.append((max(0, int(at.min()) - pad), min(limit, int(at.max()) + 1 + pad)))
        (left, right), (top, bottom) = spans
        crop = self.labels.ids[top:bottom, left:right]
        return Example.of(
            self.image.crop((left, top, right, bottom)),
            Labels(crop, self.labels.colors, self.labels.discovered), self.names, self.source,
        )  # fmt: skip
