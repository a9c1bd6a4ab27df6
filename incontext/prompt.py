"""Examples, and the prompt that a model makes of them once for any number of queries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from incontext.color import PALETTE, Coloring
from incontext.color_mask import MAX_ID, Rgb, check_colors
from incontext.errors import InputError
from incontext.image import ImageLike, read_image
from incontext.labels import Labels, LabelsLike, match_colors, read_labels
from incontext.model import SegGPT
from incontext.model.encoder import Encoded

KINDS = ("instance", "semantic")


class Example:
    """A picture and its labels; read and checked at once.

    Args:
        image: see `incontext.image.read_image`.
        labels: see `incontext.labels.read_labels`; the same size as the upright picture.
        colors: {id: (r, g, b)} of a color mask.
        ignore: value in the labels that means "unknown"; "none": 255 is an id.
        threshold: for soft masks: at or above it is id 1.

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
    ) -> None:
        self.image: Image.Image = read_image(image)
        name = Path(image).name if isinstance(image, (str, Path)) else None
        self.labels: Labels = read_labels(
            labels, self.image.size, colors=colors, ignore=ignore, threshold=threshold,
            file_name=name,
        )  # fmt: skip

    def __repr__(self) -> str:
        width, height = self.image.size
        return f"Example({width}×{height}, ids {self.labels.present})"

    def cropped(self, margin: float = 0.5) -> "Example":
        """The part around the labels, with a margin on each side as a share of its extent.

        Half of the extent, so that three quarters of the part are surroundings: shown too little
        of them, a model finds the object in tiles that do not hold it.
        """
        rows, columns = np.nonzero(self.labels.ids > 0)
        if not len(rows):
            return self
        spans = []
        for at, limit in ((columns, self.image.width), (rows, self.image.height)):
            pad = int(margin * (at.max() - at.min() + 1)) + 1
            spans.append((max(0, int(at.min()) - pad), min(limit, int(at.max()) + 1 + pad)))
        (left, right), (top, bottom) = spans
        part = object.__new__(Example)
        part.image = self.image.crop((left, top, right, bottom))
        part.labels = Labels(
            self.labels.ids[top:bottom, left:right], self.labels.colors, self.labels.discovered
        )
        return part


@dataclass(frozen=True, eq=False)
class Pass:
    """Some of a prompt's ids under one coloring, encoded."""

    coloring: Coloring
    encoded: Encoded = field(repr=False)


@dataclass(frozen=True, eq=False)
class Prompt:
    """N examples in model space, encoded once, used for many queries.

    `ids` in ascending order; `colors` are for people (the caller's palette where there is one);
    `passes` hold the ids in groups that one painting separates well.
    """

    ids: tuple[int, ...]
    colors: dict[int, Rgb] = field(repr=False)
    names: dict[int, str]
    kind: str
    examples: int
    passes: tuple[Pass, ...] = field(repr=False)
    model: SegGPT = field(repr=False)  # the one that encoded it; no other can use it


def align(examples: Sequence[Example]) -> list[Labels]:
    """Labels of all examples under the same ids.

    Raises:
        InputError: no examples, or none that shows an id.
    """
    if not examples:
        raise InputError("a prompt needs one example or more")
    wrong = next((e for e in examples if not isinstance(e, Example)), None)
    if wrong is not None:
        kind = type(wrong).__name__
        raise InputError(f"{kind} among the examples; accepted: Example(image, labels)")
    maps = match_colors([e.labels for e in examples])
    seen: dict[int, Rgb] = {}
    for index, rgb in ((i, m.colors[i]) for m in maps for i in m.present if i in m.colors):
        if seen.setdefault(index, rgb) != rgb:
            raise InputError(
                f"id {index} is {seen[index]} in the palette of one example and {rgb} in "
                "another's: the same id must mean the same thing; give both one palette"
            )
    if not any(m.present for m in maps):
        raise InputError("no example shows an object: their labels are all background or ignored")
    return maps


def group(ids: Sequence[int], per_pass: int, colors: Mapping[int, Rgb] | None) -> list[Coloring]:
    """Colorings that share the ids out, at most `per_pass` to each, as evenly as can be.

    Args:
        colors: the caller's own coloring, in one pass; must name every id.

    Raises:
        InputError: `per_pass` below 1, or `colors` that lack an id.
    """
    if colors is not None:
        table = check_colors(dict(colors))
        missing = [i for i in ids if i not in table]
        if missing:
            raise InputError(f"coloring lacks a color for id {missing[0]}")
        return [Coloring(tuple(ids), tuple(table[i] for i in ids))]
    if not 1 <= per_pass <= len(PALETTE):
        raise InputError(f"classes_per_pass is {per_pass}; accepted: 1 … {len(PALETTE)}")
    count = -(-len(ids) // per_pass)
    return [Coloring.of(ids[start::count]) for start in range(count)]


def display_colors(maps: Sequence[Labels], ids: Sequence[int]) -> dict[int, Rgb]:
    """A color for people for every id: the source's own, else the palette's (white left out)."""
    known = {index: rgb for m in maps for index, rgb in m.colors.items()}
    fallback = {index: PALETTE.of(order + 1) for order, index in enumerate(ids)}
    return {i: known.get(i, fallback[i]) for i in ids}


def check_names(names: Mapping[int, str] | None, ids: Sequence[int]) -> dict[int, str]:
    """Names for ids, their number as text where none is given.

    Raises:
        InputError: a name for an id that no example shows.
    """
    names = names or {}
    strange = [i for i in names if i not in ids]
    if strange:
        raise InputError(f"a name for id {strange[0]}, which no example shows (0 … {MAX_ID})")
    return {i: names.get(i, str(i)) for i in ids}
