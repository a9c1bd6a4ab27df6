"""Labelled set: images with labels held at a model's size, to learn from or to evaluate on.

Letters: M images, K ids, S the model's size.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from incontext.errors import InputError
from incontext.inference.example import Example
from incontext.inference.id_table import check_names, check_palettes, collect_names, display_colors
from incontext.labels.color_mask import Rgb
from incontext.labels.encodings import IGNORE_INDEX, UNKNOWN, Labels
from incontext.labels.partial import shrink

MAX_IDS = IGNORE_INDEX - 1


@dataclass(frozen=True, eq=False)
class LabelledSet:
    """M labelled images under the same ids, small enough that thousands fit into memory.

    Attributes:
        images: (M, 3, S, S) uint8 RGB.
        labels: (M, S, S) uint8: 0 background, 1 … K the ids in order, 255 unknown.
        areas: (M, K), pixels of each id in the image's own size.
        sizes: (width, height) of the images as they were given.
        sources: name of each image in reports.
    """

    images: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    areas: np.ndarray[tuple[int, int], np.dtype[np.int64]] = field(repr=False)
    sizes: tuple[tuple[int, int], ...] = field(repr=False)
    sources: tuple[str, ...] = field(repr=False)
    ids: tuple[int, ...]
    names: dict[int, str]
    colors: dict[int, Rgb] = field(repr=False)

    @classmethod
    def from_examples(
        cls,
        examples: Iterable[Example],
        size: int,
        *,
        names: Mapping[int, str] | None = None,
        sources: Sequence[str] = (),
    ) -> "LabelledSet":
        """Resize examples to `size` × `size` pixels, one at a time (bicubic; labels nearest).

        Args:
            names: of ids.
            sources: name of each image in reports; by default its file's.

        Raises:
            InputError: none with an object, more than 254 ids, ids that stand for colors of a
                color mask without a table.
        """
        images, label_maps = list[Tensor](), list[Labels]()
        areas, sizes, example_names = list[dict[int, int]](), [], list[Mapping[int, str]]()
        file_names = list[str]()
        for number, example in enumerate(examples, 1):
            _check(example, number)
            small = example.image.resize((size, size), Image.Resampling.BICUBIC)
            images.append(torch.from_numpy(np.array(small)).permute(2, 0, 1))
            id_map = example.labels.ids
            label_maps.append(Labels(shrink(id_map, size), example.labels.colors))
            example_names.append(example.names)
            values, counts = np.unique(id_map[id_map > 0], return_counts=True)
            areas.append(dict(zip(values.tolist(), counts.tolist(), strict=True)))
            sizes.append(example.image.size)
            file_names.append(example.source)
        ids = sorted({i for area in areas for i in area})
        if not ids:
            raise InputError(
                "no example shows an object: their labels are all background or unknown"
            )
        if len(ids) > MAX_IDS:
            raise InputError(f"{len(ids)} ids; accepted: {MAX_IDS} or fewer")
        check_palettes(label_maps)
        names = {**collect_names(zip(areas, example_names, strict=True)), **(names or {})}
        return cls(
            torch.stack(images), torch.stack([_index_map(m.ids, ids) for m in label_maps]),
            np.array([[area.get(i, 0) for i in ids] for area in areas], np.int64), tuple(sizes),
            tuple(sources) or name_images(file_names),
            tuple(ids), check_names(names, ids), display_colors(label_maps, ids),
        )  # fmt: skip

    @classmethod
    def coerce(
        cls, examples: "Iterable[Example] | LabelledSet", size: int, names: Mapping[int, str] | None
    ) -> "LabelledSet":
        """Return a labelled set as it is, or make one of examples.

        Raises:
            InputError: see `from_examples`; a set of another size than the model's.
        """
        if not isinstance(examples, LabelledSet):
            return cls.from_examples(examples, size, names=names)
        if examples.size != size:
            raise InputError(
                f"a labelled set of {examples.size} × {examples.size} pixels, but the model's size "
                f"is {size} × {size}: LabelledSet.from_examples(examples, predictor.size)"
            )
        return examples if names is None else examples.with_names(names)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> int:
        """Height and width of the images as held."""
        return self.images.shape[-1]

    def image(self, index: int) -> Image.Image:
        """Return one of the images, as held."""
        return Image.fromarray(self.images[index].permute(1, 2, 0).numpy())

    def example(self, index: int) -> Example:
        """Return one of the images with its labels, as held, in the caller's ids."""
        table = np.zeros(256, np.int32)
        table[1 : 1 + len(self.ids)] = self.ids
        table[IGNORE_INDEX] = UNKNOWN
        ids = table[self.labels[index].numpy()]
        return Example.from_labels(self.image(index), Labels(ids, self.colors))

    def subset(self, indices: Sequence[int]) -> "LabelledSet":
        """Return some of the images under all of the ids."""
        rows = list(indices)
        return replace(
            self, images=self.images[rows], labels=self.labels[rows], areas=self.areas[rows],
            sizes=tuple(self.sizes[i] for i in rows), sources=tuple(self.sources[i] for i in rows),
        )  # fmt: skip

    def with_names(self, names: Mapping[int, str]) -> "LabelledSet":
        """Return the same images with names for ids."""
        return replace(self, names=check_names(names, self.ids))

    def indices_with_labels(self) -> list[int]:
        """Return the images with at least one pixel whose label is known."""
        return [i for i, labels in enumerate(self.labels) if (labels != IGNORE_INDEX).any()]

    def indices_with_objects(self) -> list[int]:
        """Return the images that show at least one id at the size held."""
        return [i for i, m in enumerate(self.labels) if ((m > 0) & (m <= len(self.ids))).any()]

    # Former names, for one release; `incontext.Pool` warns.
    of, named, known, showing, picture = (
        from_examples, with_names, indices_with_labels, indices_with_objects, image,
    )  # fmt: skip


def name_images(file_names: Sequence[str]) -> tuple[str, ...]:
    """Return what reports call each image: its file's name if no other has it, else its number."""
    counts = Counter(file_names)
    return tuple(
        name if name and counts[name] == 1 else f"example {number}"
        for number, name in enumerate(file_names, 1)
    )


def _check(example: object, number: int) -> None:
    if not isinstance(example, Example):
        type_name = type(example).__name__
        raise InputError(f"{type_name} among the examples; accepted: Example(image, labels)")
    if example.labels.discovered:
        raise InputError(
            f"example {number} is a color mask without a table of ids; pass "
            "colors={id: (r, g, b)}"
        )


def _index_map(id_map: np.ndarray[Any, Any], ids: Sequence[int]) -> Tensor:
    """Map ids to their positions in `ids`: 0 background, 1 … K, 255 unknown; (S, S) uint8."""
    table = {0: 0, UNKNOWN: IGNORE_INDEX, **{i: n for n, i in enumerate(ids, 1)}}
    values, inverse = np.unique(id_map, return_inverse=True)
    indices = np.array([table[int(v)] for v in values], np.uint8)
    return torch.from_numpy(indices[inverse.reshape(id_map.shape)])


def occurrence(dataset: LabelledSet) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return which image shows which id at the size held, (M, K)."""
    flat = dataset.labels.flatten(1)
    rows = range(1, len(dataset.ids) + 1)
    return np.stack([(flat == row).any(1).numpy() for row in rows], 1)
