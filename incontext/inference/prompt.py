"""Prompt: examples in a model's own terms, made once for any number of queries."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from incontext.errors import InputError, first_line
from incontext.files import atomic
from incontext.images.tiles import Tiling
from incontext.inference.example import Example
from incontext.inference.retrieval import Gallery
from incontext.inference.thumbnail import Thumbnail
from incontext.labels.color_mask import MAX_ID, Rgb, check_colors
from incontext.labels.coloring import PALETTE, Coloring
from incontext.labels.encodings import Labels, match_colors
from incontext.model.tokens.encoder import EncodedPrompt

KINDS = ("instance", "semantic")
KEY, VERSION = "incontext.prompt", 1  # of the metadata of a prompt file
# What values of other types and shapes than expected raise while a file is read.
_DAMAGED = (SafetensorError, OSError, ValueError, TypeError, AttributeError, IndexError)


@dataclass(frozen=True, eq=False)
class Pass:
    """Some of a prompt's ids under one coloring, encoded."""

    coloring: Coloring
    encoded: EncodedPrompt = field(repr=False)


@dataclass(frozen=True, eq=False)
class Prompt:
    """N examples in model space, encoded once, used for many queries.

    It holds tensors and no model: it can be pickled, sent to other processes, and kept in a file.

    `ids` in ascending order; `colors` are for people (the caller's palette where there is one);
    `passes` hold the ids in groups that one painting separates well; `checkpoint` is the
    fingerprint of the model that encoded it, no other can use it, and `model_name` what it was
    loaded as; with a `gallery` each query sees the examples nearest to it only. `made` says how it
    came about and how it did on held-out pictures, `thumbnail` (h, w, 3) uint8 what it looks for.
    """

    ids: tuple[int, ...]
    colors: dict[int, Rgb] = field(repr=False)
    names: dict[int, str]
    kind: str
    examples: int
    passes: tuple[Pass, ...] = field(repr=False)
    checkpoint: str
    gallery: Gallery | None = field(default=None, repr=False)
    model_name: str = ""
    made: dict[str, Any] = field(default_factory=dict, repr=False)
    thumbnail: Thumbnail | None = field(default=None, repr=False)

    @property
    def nbytes(self) -> int:
        """Size of all tensors."""
        return sum(part.encoded.nbytes for part in self.passes)

    def paintings(self, width: int, height: int, tile: int | None = None) -> int:
        """How many a model makes of a picture of so many pixels: one for each pass, and tile.

        Raises:
            InputError: a tile of less than 16 pixels.
        """
        tiles = 1 if tile is None else len(Tiling(width, height, tile))
        return tiles * len(self.passes)

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        return self.passes[0].encoded.semantic.device

    def to(self, device: torch.device) -> "Prompt":
        """The prompt elsewhere; itself where it is there already."""
        if device == self.device:
            return self
        passes = tuple(Pass(p.coloring, p.encoded.to(device)) for p in self.passes)
        return replace(self, passes=passes)

    def __getstate__(self) -> dict[str, Any]:
        # Other processes need not have the device that this one has.
        return dict(vars(self.to(torch.device("cpu"))))

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file that `load` reads; it appears whole or not at all.

        Raises:
            InputError: a name that does not end in .safetensors.
            OSError: it cannot be written.
        """
        path = prompt_path(path)
        about: dict[str, Any] = {
            "ids": self.ids, "colors": self.colors, "names": self.names, "kind": self.kind,
            "examples": self.examples, "checkpoint": self.checkpoint,
            "passes": [
                {"ids": p.coloring.ids, "colors": p.coloring.colors, "size": p.encoded.size,
                 "count": p.encoded.count}
                for p in self.passes
            ],
            "nearest": self.gallery.nearest if self.gallery else None, "version": VERSION,
            "model_name": self.model_name, "made": self.made,
        }  # fmt: skip
        tensors = {name: x.detach().cpu().contiguous() for name, x in self._tensors().items()}
        # A file holds each tensor by itself; some here are views of a larger one.
        tensors = {n: x.clone() if x._is_view() else x for n, x in tensors.items()}
        try:
            with atomic(path) as draft:
                save_file(tensors, draft, metadata={KEY: json.dumps(about)})
        except SafetensorError as error:  # what safetensors makes of an OSError
            raise OSError(None, first_line(error), str(path)) from None
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
        return path

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> "Prompt":
        """Read what `save` wrote.

        Raises:
            InputError: no file, or no prompt in it.
        """
        if not Path(path).is_file():
            raise InputError(f"{path}: no such file; accepted: what `incontext prompt` writes")
        try:
            with safe_open(path, "pt", device=str(device)) as file:
                about = json.loads((file.metadata() or {})[KEY])
                # Copies: where the file has them they may lie across cache lines, and matrix
                # products of such tensors differ in the last digits.
                tensors = {n: file.get_tensor(n).clone() for n in file.keys()}  # noqa: SIM118
            newer = about["version"] > VERSION
            made = None if newer else cls._of(about, tensors)
        except KeyError as error:
            raise InputError(f"{path}: not a prompt file (it lacks {error.args[0]})") from None
        except _DAMAGED as error:
            raise InputError(
                f"{path}: not a prompt file, or a damaged one ({first_line(error)})"
            ) from None
        if made is None:
            raise InputError(f"{path}: made by a newer release of incontext; update it")
        return made

    def _tensors(self) -> dict[str, Tensor]:
        """All tensors by name."""
        named = {
            f"pass.{number}.{name}": x
            for number, part in enumerate(self.passes)
            for name, x in part.encoded.tensors().items()
        }
        if self.thumbnail is not None:
            named["thumbnail"] = torch.from_numpy(self.thumbnail)
        if self.gallery:
            named["gallery.features"] = self.gallery.features
            named |= {f"gallery.shows.{i}": x for i, x in enumerate(self.gallery.shows)}
        return named

    @classmethod
    def _of(cls, about: dict[str, Any], tensors: dict[str, Tensor]) -> "Prompt":
        """What `_tensors` and the metadata say, together again."""
        passes = []
        for number, said in enumerate(about["passes"]):
            start = f"pass.{number}."
            own = {n.removeprefix(start): x for n, x in tensors.items() if n.startswith(start)}
            coloring = Coloring(tuple(said["ids"]), tuple(tuple(c) for c in said["colors"]))
            passes.append(Pass(coloring, EncodedPrompt.parse(own, said["count"], said["size"])))
        if not passes:
            raise ValueError("it has no passes")
        gallery, small = None, tensors.get("thumbnail")
        if about["nearest"]:
            shows = tuple(tensors[f"gallery.shows.{number}"] for number in range(len(passes)))
            gallery = Gallery(tensors["gallery.features"], shows, about["nearest"])
        return cls(
            tuple(about["ids"]), {int(i): tuple(c) for i, c in about["colors"].items()},
            {int(i): n for i, n in about["names"].items()}, about["kind"], about["examples"],
            tuple(passes), about["checkpoint"], gallery, about.get("model_name", ""),
            about.get("made", {}), None if small is None else small.cpu().numpy(),
        )  # fmt: skip


def is_prompt(path: str | Path) -> bool:
    """Whether a file is one that `Prompt.save` wrote."""
    try:
        with safe_open(path, "pt") as file:
            return KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def prompt_path(path: str | Path) -> Path:
    """Where a prompt may be written.

    Raises:
        InputError: a folder, or a name that could be a picture's: pictures are not overwritten.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; accepted: a file to write, NAME.safetensors")
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: a prompt file is named NAME.safetensors")
    return path


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
    check_palettes(maps)
    if not any(m.present for m in maps):
        raise InputError("no example shows an object: their labels are all background or ignored")
    return maps


def check_palettes(maps: Sequence[Labels]) -> None:
    """Raise InputError where an id has one color in one palette and another in another."""
    seen: dict[int, Rgb] = {}
    for index, rgb in ((i, m.colors[i]) for m in maps for i in m.present if i in m.colors):
        if seen.setdefault(index, rgb) != rgb:
            raise InputError(
                f"id {index} is {seen[index]} in the palette of one example and {rgb} in "
                "another's: the same id must mean the same thing; give both one palette"
            )


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


def names_of(said: Iterable[tuple[Iterable[int], Mapping[int, str]]]) -> dict[int, str]:
    """Names of all examples together; of each the ids that it shows and the names it brings.

    Raises:
        InputError: an id that has one name in one example and another in another.
    """
    seen: dict[int, str] = {}
    for present, names in said:
        for index in present:
            name = names.get(index)
            if name is not None and seen.setdefault(index, name) != name:
                raise InputError(
                    f"id {index} is {seen[index]!r} in one example and {name!r} in another: the "
                    "same id must mean the same thing"
                )
    return seen


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
