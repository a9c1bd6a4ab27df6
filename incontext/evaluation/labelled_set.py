"""Pool: labelled pictures held at a model's size, to learn from, to judge by, to choose from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from incontext.errors import InputError
from incontext.inference.example import Example
from incontext.inference.prompt import check_names, check_palettes, display_colors, names_of
from incontext.labels.color_mask import Rgb
from incontext.labels.encodings import UNKNOWN, Labels
from incontext.labels.partial import shrink

IGNORE = 255  # unknown, in a pool's index maps; 0 is the background, 1 … K stand for its ids
MOST_IDS = IGNORE - 1


@dataclass(frozen=True, eq=False)
class Pool:
    """M labelled pictures under the same ids; small, so that thousands fit into memory.

    Attributes:
        images: (M, 3, S, S) uint8 RGB.
        labels: (M, S, S) uint8: 0 background, 1 … K the ids in order, 255 unknown.
        areas: (M, K), pixels of each id in the picture's own size.
        sizes: (width, height) of the pictures as they came.
        sources: what to call them.
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
    def of(
        cls,
        examples: Iterable[Example],
        size: int,
        *,
        names: Mapping[int, str] | None = None,
        sources: Sequence[str] = (),
    ) -> "Pool":
        """Examples, one at a time, at `size` × `size` pixels (bicubic; labels nearest).

        Raises:
            InputError: none with an object, more than 254 ids, ids that stand for colors of a
                color mask without a table.
        """
        images, maps, areas, sizes = list[Tensor](), list[Labels](), list[dict[int, int]](), []
        named = list[Mapping[int, str]]()
        for number, example in enumerate(examples):
            if not isinstance(example, Example):
                kind = type(example).__name__
                raise InputError(f"{kind} among the examples; accepted: Example(image, labels)")
            if example.labels.discovered:
                raise InputError(
                    f"example {number + 1} is a color mask without a table of ids; pass "
                    "colors={id: (r, g, b)}"
                )
            small = example.image.resize((size, size), Image.Resampling.BICUBIC)
            images.append(torch.from_numpy(np.array(small)).permute(2, 0, 1))
            own = example.labels.ids
            maps.append(Labels(shrink(own, size), example.labels.colors))
            named.append(example.names)
            values, counts = np.unique(own[own > 0], return_counts=True)
            areas.append(dict(zip(values.tolist(), counts.tolist(), strict=True)))
            sizes.append(example.image.size)
        ids = sorted({i for area in areas for i in area})
        if not ids:
            raise InputError("no example shows an object: their labels are all background or "
                             "unknown")  # fmt: skip
        if len(ids) > MOST_IDS:
            raise InputError(f"{len(ids)} ids; accepted: {MOST_IDS} or fewer")
        check_palettes(maps)
        names = {**names_of(zip(areas, named, strict=True)), **(names or {})}
        table = {0: 0, UNKNOWN: IGNORE, **{i: n for n, i in enumerate(ids, 1)}}
        labels = []
        for found in maps:
            there, where = np.unique(found.ids, return_inverse=True)
            mapped = np.array([table[int(v)] for v in there], np.uint8)
            labels.append(torch.from_numpy(mapped[where.reshape(found.ids.shape)]))
        return cls(
            torch.stack(images), torch.stack(labels),
            np.array([[area.get(i, 0) for i in ids] for area in areas], np.int64), tuple(sizes),
            tuple(sources) or tuple(f"example {n}" for n in range(1, len(images) + 1)),
            tuple(ids), check_names(names, ids), display_colors(maps, ids),
        )  # fmt: skip

    @classmethod
    def gather(
        cls, examples: "Iterable[Example] | Pool", size: int, names: Mapping[int, str] | None
    ) -> "Pool":
        """A pool as it is, examples as one.

        Raises:
            InputError: see `of`; a pool of another size than the model's.
        """
        if not isinstance(examples, Pool):
            return cls.of(examples, size, names=names)
        if examples.size != size:
            raise InputError(
                f"a pool of {examples.size} × {examples.size} pixels, the model sees {size} × "
                f"{size}: Pool.of(examples, predictor.size)"
            )
        return examples if names is None else examples.named(names)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> int:
        """Height and width of the pictures as held."""
        return self.images.shape[-1]

    def picture(self, index: int) -> Image.Image:
        """One of the pictures, as held."""
        return Image.fromarray(self.images[index].permute(1, 2, 0).numpy())

    def example(self, index: int) -> Example:
        """One of the pictures with its labels, as held, in the caller's ids."""
        table = np.zeros(256, np.int32)
        table[1 : 1 + len(self.ids)] = self.ids
        table[IGNORE] = UNKNOWN
        ids = table[self.labels[index].numpy()]
        return Example.of(self.picture(index), Labels(ids, self.colors))

    def subset(self, chosen: Sequence[int]) -> "Pool":
        """Some of the pictures, all of the ids."""
        at = list(chosen)
        return replace(
            self, images=self.images[at], labels=self.labels[at], areas=self.areas[at],
            sizes=tuple(self.sizes[i] for i in at), sources=tuple(self.sources[i] for i in at),
        )  # fmt: skip

    def named(self, names: Mapping[int, str]) -> "Pool":
        """The same with names for ids."""
        return replace(self, names=check_names(names, self.ids))

    def known(self) -> list[int]:
        """Pictures on which anything is known."""
        return [i for i, labels in enumerate(self.labels) if (labels != IGNORE).any()]

    def showing(self) -> list[int]:
        """Pictures that show some id at the size held."""
        return [i for i, m in enumerate(self.labels) if ((m > 0) & (m <= len(self.ids))).any()]


def shown_by(pool: Pool) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which picture shows which of the pool's ids, (M, K)."""
    flat = pool.labels.flatten(1)
    return np.stack([(flat == row).any(1).numpy() for row in range(1, len(pool.ids) + 1)], 1)
