"""Episodes of the field's few-shot protocols, drawn as the official code draws them.

HSNet and what descends from it draw with NumPy's global generator, seeded with 0; `Sampler` repeats
those draws number for number, so that episodes are the published ones where the lists are.
"""

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from incontext.errors import InputError

Ids = np.ndarray[Any, np.dtype[np.int16]]  # (H, W): 1 the class, 0 not, -1 unknown
T = TypeVar("T")
VOID = 255  # what label pictures say where nothing is known


@dataclass(frozen=True)
class Item:
    """A picture and where the class is on it; read when asked for."""

    name: str
    read: Callable[[], tuple[Image.Image, Ids]]


@dataclass(frozen=True)
class Episode:
    """Examples and a query of one class."""

    index: int
    examples: tuple[Item, ...]
    query: Item

    @property
    def name(self) -> str:
        """What tells it from others."""
        return " ".join([str(self.index), *(item.name for item in (*self.examples, self.query))])


@dataclass(frozen=True)
class FewShot:
    """A dataset's protocol.

    `episodes(folder, fold, shots)` lists them; `published`: rows of others, (name, fold mean with
    1 example, with 5 or as the paper has it), "in" where the test's classes were trained on;
    `pictures`: whose pictures they are, for what a checkpoint may have seen.
    """

    name: str
    title: str
    folds: int
    layout: str
    pictures: str
    episodes: Callable[[Path, int, int], list[Episode]]
    published: tuple[tuple[str, str], ...] = ()


class Sampler:
    """`np.random.choice(names, 1, replace=False)` after `np.random.seed(0)`, and what is made of
    it."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.RandomState(seed)

    def one(self, names: Sequence[T]) -> T:
        """One of several, each as likely."""
        return names[int(self.rng.choice(len(names), 1, replace=False)[0])]

    def others(self, names: Sequence[T], query: T, count: int) -> list[T]:
        """So many that are not the query; one may come twice, as in the official code.

        Raises:
            InputError: there is no other.
        """
        if all(name == query for name in names):
            raise InputError(f"{query}: the only picture of its class, so it has no example")
        found: list[T] = []
        while len(found) < count:
            drawn = self.one(names)
            if drawn != query:
                found.append(drawn)
        return found


def rgb(path: Path) -> Image.Image:
    """An RGB picture as it is stored: the official code knows no EXIF, and labels are drawn so."""
    return Image.fromarray(np.asarray(Image.open(path).convert("RGB")))


def read_class(image: Path, labels: Path, value: int, void: bool = True) -> Item:
    """A picture with a label picture, in which `value` is the class and 255 unknown."""

    def read() -> tuple[Image.Image, Ids]:
        ids = np.asarray(Image.open(labels))
        marked = (ids == value).astype(np.int16)
        if void:
            marked[ids == VOID] = -1
        return rgb(image), marked

    return Item(image.stem, read)


def read_binary(image: Path, mask: Path, field: Path | None = None) -> Item:
    """A picture with a black and white mask (from 128 on it is white); outside of a white `field`
    of view nothing is known."""

    def read() -> tuple[Image.Image, Ids]:
        marked = (np.asarray(Image.open(mask).convert("L")) >= 128).astype(np.int16)
        if field:
            marked[np.asarray(Image.open(field).convert("L")) < 128] = -1
        return rgb(image), marked

    return Item(image.stem, read)


def pairs_of(listed: Path) -> list[tuple[str, int]]:
    """Lines `NAME__CLASS` of a split of HSNet: names and classes from 1 on."""
    pairs = []
    for number, line in enumerate(need(listed).read_text(encoding="utf-8").splitlines(), 1):
        name, mark, value = line.strip().rpartition("__")
        if line.strip() and not (mark and value.isdigit()):
            raise InputError(f"{listed}, line {number}: {line!r}; accepted: NAME__CLASS")
        if line.strip():
            pairs.append((name, int(value)))
    return pairs


def fold_episodes(
    pairs: Sequence[tuple[str, int]], shots: int, count: int, item: Callable[[str, int], Item]
) -> list[Episode]:
    """HSNet's test episodes: each pair (picture, class) of a fold's list in turn is a query."""
    holders: dict[int, list[str]] = {}
    for name, index in pairs:
        holders.setdefault(index, []).append(name)
    sampler, episodes = Sampler(), []
    for number in range(count if pairs else 0):
        name, index = pairs[number % len(pairs)]
        shown = sampler.others(holders[index], name, shots)
        items = tuple(item(other, index) for other in shown)
        episodes.append(Episode(index - 1, items, item(name, index)))
    return episodes


def need(path: Path) -> Path:
    """A path that exists.

    Raises:
        InputError: it does not.
    """
    if not path.exists():
        raise InputError(f"{path}: not there; see --help for the layout")
    return path


class _Plain(pickle.Unpickler):
    """Lists, dicts, numbers and text only: nothing in the file can run."""

    def find_class(self, module: str, name: str) -> Any:
        raise InputError(f"a pickle with {module}.{name}; accepted: plain lists and dicts")


def plain_pickle(path: Path) -> Any:
    """What a split's pickle holds, which may be plain containers only."""
    with need(path).open("rb") as file:
        try:
            return _Plain(file).load()
        except (pickle.UnpicklingError, EOFError, ValueError) as error:
            raise InputError(f"{path}: not a pickle ({error})") from None
