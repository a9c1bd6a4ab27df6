"""Example: an image and its labels."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from incontext.errors import former_constructor
from incontext.images.image import ImageLike, read_image
from incontext.images.tiles import Box
from incontext.images.volume import picture_name
from incontext.inference.segmentation import overlay
from incontext.labels.color_mask import Rgb
from incontext.labels.encodings import IdMap, Labels, LabelsLike, read_labels
from incontext.labels.partial import mark


class Example:
    """An image and its labels; read and checked at once.

    Args:
        image: see `incontext.images.image.read_image`.
        labels: see `incontext.labels.encodings.read_labels`; the same size as the upright image.
        colors: {id: (r, g, b)} of a color mask.
        ignore: value in the labels that means "unknown"; "none": 255 is an id.
        threshold: for soft masks: values at or above it are id 1.
        unlabelled: what pixels of value 0 mean: "background", or "unknown" if only a part of the
            image was labelled. Unknown pixels are not shown to the model.
        negative: an id, or several, that means "not this": background that was looked at, even
            with `unlabelled="unknown"`. It is not an id of the prompt.

    Attributes:
        names: names of ids, if the source of the labels has them; for reports.
        source: what to call the example, "" if nothing is known.

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
        name = picture_name(Path(image)) if isinstance(image, (str, Path)) else None
        read = read_labels(
            labels, self.image.size, colors=colors, ignore=ignore, threshold=threshold,
            file_name=name,
        )  # fmt: skip
        self.labels: Labels = mark(read, unlabelled, negative)
        self.source: str = name or ""

    @classmethod
    def from_labels(
        cls, image: Image.Image, labels: Labels, names: Mapping[int, str] | None = None,
        source: str = "",
    ) -> "Example":  # fmt: skip
        """Make an example of an upright RGB image and labels of its size, both read before."""
        example = object.__new__(cls)
        example.image, example.labels = image, labels
        example.names, example.source = dict(names or {}), source
        return example

    of = former_constructor("of", "from_labels")

    def __repr__(self) -> str:
        width, height = self.image.size
        return f"Example({width}×{height}, ids {self.labels.present})"

    def overlay(self, opacity: float = 0.5) -> Image.Image:
        """Return the image with every id in its color, as `Segmentation.overlay` draws results.

        The colors are those that a prompt of this example alone has.
        """
        from incontext.inference.id_table import display_colors  # which imports this file

        colors = display_colors([self.labels], self.labels.present)
        return overlay(self.image, self.labels.ids, colors, opacity)

    def cropped(self, margin: float = 0.5) -> "Example":
        """Return the part around the labels, with a margin on each side as a share of its extent.

        Half of the extent leaves three quarters of the part for surroundings: with less of them a
        model finds the object in tiles that do not hold it.
        """
        rows, columns = np.nonzero(self.labels.ids > 0)  # not around what is negative or unknown
        if not len(rows):
            return self
        spans = []
        for at, limit in ((columns, self.image.width), (rows, self.image.height)):
            pad = int(margin * (at.max() - at.min() + 1)) + 1
            spans.append((max(0, int(at.min()) - pad), min(limit, int(at.max()) + 1 + pad)))
        (left, right), (top, bottom) = spans
        return self.crop_to((left, top, right, bottom))

    def crop_to(self, box: Box) -> "Example":
        """Return the part in a box."""
        left, top, right, bottom = box
        return self._replace(self.image.crop(box), self.labels.ids[top:bottom, left:right])

    def mirror(self) -> "Example":
        """Return the example with left and right swapped."""
        return self._replace(ImageOps.mirror(self.image), self.labels.ids[:, ::-1].copy())

    def _replace(self, image: Image.Image, ids: IdMap) -> "Example":
        """Return another image and labels with the same colors, names and source."""
        labels = Labels(ids, self.labels.colors, self.labels.discovered)
        return Example.from_labels(image, labels, self.names, self.source)
