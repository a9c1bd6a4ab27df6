"""Episodes of the field's few-shot protocols, drawn as the official code draws them.

HSNet and its successors draw with NumPy's global generator, seeded with 0. `HSNetSampler` repeats
those draws number for number, so that with the published lists the episodes are the published ones.
"""

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from incontext.data.pictures import IGNORE_INDEX
from incontext.errors import InputError

Ids = np.ndarray[Any, np.dtype[np.int16]]  # (H, W): 1 the class, 0 not, -1 unknown
T = TypeVar("T")


@dataclass(frozen=True)
class Item:
    """An image and where one class is on it; `read` loads both when they are needed."""

    name: str
    read: Callable[[], tuple[Image.Image, Ids]]


@dataclass(frozen=True)
class Episode:
    """Examples and a query of one class; `index` is the class."""

    index: int
    examples: tuple[Item, ...]
    query: Item

    @property
    def name(self) -> str:
        """A name that identifies the episode in a journal."""
        return " ".join([str(self.index), *(item.name for item in (*self.examples, self.query))])


@dataclass(frozen=True)
class FewShot:
    """A dataset's few-shot protocol.

    Attributes:
        layout: the files that it is read from, for `--help`.
        image_source: name in `eval.core.domains.IMAGE_SOURCES`.
        episodes: `episodes(folder, fold, shots)` lists the episodes of a fold.
        published: published figures, (method, mean over folds with 1 example / with 5 or as the
            paper has it); "in": the test's classes were trained on.
    """

    name: str
    title: str
    folds: int
    layout: str
    image_source: str
    episodes: Callable[[Path, int, int], list[Episode]]
    published: tuple[tuple[str, str], ...] = ()


class HSNetSampler:
    """The official draws: `np.random.choice(names, 1, replace=False)` after `np.random.seed(0)`."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.RandomState(seed)

    def draw(self, names: Sequence[T]) -> T:
        """Draw one of the names, each as likely."""
        return names[int(self.rng.choice(len(names), 1, replace=False)[0])]

    def draw_examples(self, names: Sequence[T], query: T, count: int) -> list[T]:
        """Draw `count` names other than the query; one may come twice, as in the official code.

        Raises:
            InputError: there is no other name.
        """
        if all(name == query for name in names):
            raise InputError(f"{query}: the only picture of its class, so it has no example")
        examples: list[T] = []
        while len(examples) < count:
            name = self.draw(names)
            if name != query:
                examples.append(name)
        return examples


def read_rgb(path: Path) -> Image.Image:
    """Read an image as it is stored: the official code ignores EXIF, and labels are drawn so."""
    return Image.fromarray(np.asarray(Image.open(path).convert("RGB")))


def class_item(image: Path, labels: Path, value: int, ignore: bool = True) -> Item:
    """Return an item from a label image: `value` is the class; 255 is unknown if `ignore`."""

    def read() -> tuple[Image.Image, Ids]:
        values = np.asarray(Image.open(labels))
        ids = (values == value).astype(np.int16)
        if ignore:
            ids[values == IGNORE_INDEX] = -1
        return read_rgb(image), ids

    return Item(image.stem, read)


def mask_item(image: Path, mask: Path, field: Path | None = None) -> Item:
    """Return an item from a black and white mask, white from 128 on.

    Outside of a white `field` of view the labels are unknown.
    """

    def read() -> tuple[Image.Image, Ids]:
        ids = (np.asarray(Image.open(mask).convert("L")) >= 128).astype(np.int16)
        if field:
            ids[np.asarray(Image.open(field).convert("L")) < 128] = -1
        return read_rgb(image), ids

    return Item(image.stem, read)


def read_fold_list(path: Path) -> list[tuple[str, int]]:
    """Read HSNet's list of a fold, lines `NAME__CLASS`: names and classes, which begin at 1.

    Raises:
        InputError: no such file, or a line of another form.
    """
    pairs = []
    for number, line in enumerate(require(path).read_text(encoding="utf-8").splitlines(), 1):
        name, separator, value = line.strip().rpartition("__")
        if line.strip() and not (separator and value.isdigit()):
            raise InputError(f"{path}, line {number}: {line!r}; accepted: NAME__CLASS")
        if line.strip():
            pairs.append((name, int(value)))
    return pairs


def fold_episodes(
    pairs: Sequence[tuple[str, int]], shots: int, count: int, item: Callable[[str, int], Item]
) -> list[Episode]:
    """List HSNet's test episodes: each pair (image, class) of a fold's list in turn is a query."""
    images_by_class: dict[int, list[str]] = {}
    for name, index in pairs:
        images_by_class.setdefault(index, []).append(name)
    sampler, episodes = HSNetSampler(), []
    for number in range(count if pairs else 0):
        name, index = pairs[number % len(pairs)]
        examples = sampler.draw_examples(images_by_class[index], name, shots)
        items = tuple(item(example, index) for example in examples)
        episodes.append(Episode(index - 1, items, item(name, index)))
    return episodes


def require(path: Path) -> Path:
    """Return a path that exists.

    Raises:
        InputError: it does not.
    """
    if not path.exists():
        raise InputError(f"{path}: not there; see --help for the layout")
    return path


class _PlainUnpickler(pickle.Unpickler):
    """Accepts lists, dicts, numbers and text only: nothing in the file can run."""

    def find_class(self, module: str, name: str) -> Any:
        raise InputError(f"a pickle with {module}.{name}; accepted: plain lists and dicts")


def load_plain_pickle(path: Path) -> Any:
    """Load a pickle of plain containers.

    Raises:
        InputError: no such file, no pickle, or one that holds other objects.
    """
    with require(path).open("rb") as file:
        try:
            return _PlainUnpickler(file).load()
        except (pickle.UnpicklingError, EOFError, ValueError) as error:
            raise InputError(f"{path}: not a pickle ({error})") from None
