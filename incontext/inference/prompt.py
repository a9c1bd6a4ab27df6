"""Prompt: examples in a model's own terms, made once for any number of queries, and its file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from safetensors import SafetensorError, safe_open

from incontext.errors import InputError, check_count, first_line, former_attributes
from incontext.files import atomic
from incontext.images.image import resize_nearest
from incontext.images.tiles import Tiling
from incontext.inference.example import Example
from incontext.inference.onnx.array_prompt import ArrayPrompt
from incontext.labels.color_mask import Rgb
from incontext.labels.coloring import Coloring

if TYPE_CHECKING:  # what imports torch, without which onnxruntime reads and writes prompts
    import torch
    from torch import Tensor

    from incontext.inference.retrieval import ExampleIndex
    from incontext.model.encoded_prompt import EncodedPrompt

KINDS = ("instance", "semantic")
KEY, VERSION = "incontext.prompt", 1  # of the metadata of a prompt file
THUMBNAIL_HEIGHT, THUMBNAIL_EXAMPLES = 96, 4  # pixels; examples side by side
# What values of other types and shapes than expected raise while a file is read.
_DAMAGED = (SafetensorError, OSError, ValueError, TypeError, AttributeError, IndexError)

Thumbnail = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True, eq=False)
class Pass:
    """Some of a prompt's ids under one coloring, encoded."""

    coloring: Coloring
    encoded_prompt: "EncodedPrompt | ArrayPrompt" = field(repr=False)

    __getattr__ = former_attributes(encoded="encoded_prompt")

    @property
    def tensors(self) -> "EncodedPrompt":
        """The encoded prompt where it holds tensors, as `Prompt.to` makes sure."""
        assert not isinstance(self.encoded_prompt, ArrayPrompt)
        return self.encoded_prompt


@dataclass(frozen=True, eq=False)
class Prompt:
    """N examples in model space, encoded once, used for many queries.

    It holds tensors and no model: it can be pickled, sent to other processes, and kept in a file.

    Attributes:
        ids: ascending.
        colors: for people; the caller's palette if there is one.
        examples: their number.
        passes: the ids in groups that one painting separates well.
        checkpoint: fingerprint of the model that encoded it; no other can use it.
        example_index: with it each query sees the examples nearest to it only.
        model_name: what the model was loaded as.
        provenance: how the prompt was made, and how it did on held-out images.
        thumbnail: (h, w, 3) uint8, what it looks for.
    """

    ids: tuple[int, ...]
    colors: dict[int, Rgb] = field(repr=False)
    names: dict[int, str]
    kind: str
    examples: int
    passes: tuple[Pass, ...] = field(repr=False)
    checkpoint: str
    example_index: "ExampleIndex | None" = field(default=None, repr=False)
    model_name: str = ""
    provenance: dict[str, Any] = field(default_factory=dict, repr=False)
    thumbnail: Thumbnail | None = field(default=None, repr=False)

    __getattr__ = former_attributes(gallery="example_index", made="provenance")

    @property
    def nbytes(self) -> int:
        """Size of all tensors."""
        return sum(part.encoded_prompt.nbytes for part in self.passes)

    def paintings(self, width: int, height: int, tile: int | None = None) -> int:
        """Return how often a model paints an image of this size: once for each pass and tile.

        Raises:
            InputError: a tile of less than 16 pixels.
        """
        tiles = 1 if tile is None else len(Tiling(width, height, tile))
        return tiles * len(self.passes)

    def check_checkpoint(self, fingerprint: str, name: str, where: str = "") -> None:
        """Raise InputError unless it was made with the checkpoint of this fingerprint and name."""
        if self.checkpoint != fingerprint:
            prompt_model = f"{self.model_name}, " if self.model_name else ""
            model = f"{name}, " if name else ""
            raise InputError(
                f"{where}the prompt was made with another checkpoint ({prompt_model}fingerprint "
                f"{self.checkpoint}); this is {model}{fingerprint}, to which its tokens mean "
                "something else: use that one, or make it again"
            )

    @property
    def device(self) -> "torch.device | None":
        """Where its tensors are; None: it holds numpy arrays, for onnxruntime."""
        return self.passes[0].encoded_prompt.device

    def to(self, device: "torch.device") -> "Prompt":
        """Return the prompt as tensors on a device; itself if that is what it is."""
        if device == self.device:
            return self
        passes = tuple(Pass(p.coloring, p.encoded_prompt.to(device)) for p in self.passes)
        return replace(self, passes=passes)

    def to_arrays(self) -> "Prompt":
        """Return the prompt as numpy arrays; itself if it holds them."""
        passes = tuple(
            Pass(p.coloring, ArrayPrompt.from_encoded(p.encoded_prompt)) for p in self.passes
        )
        return self if self.device is None else replace(self, passes=passes)

    def __getstate__(self) -> dict[str, Any]:
        # Other processes need not have the device that this one has.
        if self.device is None:
            return dict(vars(self))
        import torch

        return dict(vars(self.to(torch.device("cpu"))))

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file that `load` reads; it appears whole or not at all.

        Raises:
            InputError: a name that does not end in .safetensors.
            OSError: it cannot be written.
        """
        path = prompt_path(path)
        metadata = {KEY: json.dumps(self._metadata())}
        save_file = _save_arrays if self.device is None else _save_tensors
        try:
            with atomic(path) as draft:
                save_file(self._tensors(), draft, metadata)
        except SafetensorError as error:  # what safetensors makes of an OSError
            raise OSError(None, first_line(error), str(path)) from None
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
        return path

    @classmethod
    def load(
        cls, path: str | Path, device: "torch.device | str" = "cpu", *, arrays: bool = False
    ) -> "Prompt":
        """Read what `save` wrote.

        Args:
            arrays: as numpy arrays, for onnxruntime; torch is not imported.

        Raises:
            InputError: no file, or no prompt in it.
        """
        if not Path(path).is_file():
            raise InputError(f"{path}: no such file; accepted: what `incontext prompt` writes")
        try:
            with safe_open(path, "np" if arrays else "pt", device=str(device)) as file:
                metadata = json.loads((file.metadata() or {})[KEY])
                problem = _array_problem(metadata, file) if arrays else ""
                names = [] if problem else list(file.keys())
                tensors = {name: file.get_tensor(name) for name in names}
                # Copies: where the file has them they may lie across cache lines, and matrix
                # products of such tensors differ in the last digits.
                tensors = {n: x.copy() if arrays else x.clone() for n, x in tensors.items()}
            newer = metadata["version"] > VERSION
            prompt = None if newer or problem else cls._parse(metadata, tensors, arrays)
        except KeyError as error:
            raise InputError(f"{path}: not a prompt file (it lacks {error.args[0]})") from None
        except _DAMAGED as error:
            raise InputError(
                f"{path}: not a prompt file, or a damaged one ({first_line(error)})"
            ) from None
        if problem:
            raise InputError(f"{path}: {problem}")
        if prompt is None:
            raise InputError(f"{path}: made by a newer release of incontext; update it")
        return prompt

    # "made", "gallery": names on disk stay when attributes are renamed.

    def _metadata(self) -> dict[str, Any]:
        passes = [
            {
                "ids": part.coloring.ids, "colors": part.coloring.colors,
                "size": part.encoded_prompt.size, "count": part.encoded_prompt.count,
            }
            for part in self.passes
        ]  # fmt: skip
        return {
            "ids": self.ids, "colors": self.colors, "names": self.names, "kind": self.kind,
            "examples": self.examples, "checkpoint": self.checkpoint, "passes": passes,
            "nearest": self.example_index.nearest if self.example_index else None,
            "version": VERSION, "model_name": self.model_name, "made": self.provenance,
        }  # fmt: skip

    def _tensors(self) -> dict[str, Any]:
        """Return all tensors, or arrays, by name."""
        tensors = {
            f"pass.{number}.{name}": x
            for number, part in enumerate(self.passes)
            for name, x in part.encoded_prompt.tensors().items()
        }
        if self.thumbnail is not None:
            tensors["thumbnail"] = self.thumbnail
        if self.example_index:
            tensors["gallery.features"] = self.example_index.features
            tensors |= {f"gallery.shows.{i}": x for i, x in enumerate(self.example_index.shows)}
        return tensors

    @classmethod
    def _parse(cls, metadata: dict[str, Any], tensors: dict[str, Any], arrays: bool) -> "Prompt":
        """Return the prompt that `_metadata` and `_tensors` describe."""
        parse = ArrayPrompt.parse if arrays else _parse_tensors
        passes = []
        for number, part in enumerate(metadata["passes"]):
            prefix = f"pass.{number}."
            parts = {n.removeprefix(prefix): x for n, x in tensors.items() if n.startswith(prefix)}
            coloring = Coloring(tuple(part["ids"]), tuple(tuple(c) for c in part["colors"]))
            passes.append(Pass(coloring, parse(parts, part["count"], part["size"])))
        if not passes:
            raise ValueError("it has no passes")
        example_index, thumbnail = None, tensors.get("thumbnail")
        if metadata["nearest"]:
            from incontext.inference.retrieval import ExampleIndex

            shows = tuple(tensors[f"gallery.shows.{number}"] for number in range(len(passes)))
            example_index = ExampleIndex(tensors["gallery.features"], shows, metadata["nearest"])
        return cls(
            tuple(metadata["ids"]), {int(i): tuple(c) for i, c in metadata["colors"].items()},
            {int(i): n for i, n in metadata["names"].items()}, metadata["kind"],
            metadata["examples"], tuple(passes), metadata["checkpoint"], example_index,
            metadata.get("model_name", ""), metadata.get("made", {}),
            thumbnail if thumbnail is None or arrays else thumbnail.cpu().numpy(),
        )  # fmt: skip


def _parse_tensors(tensors: "dict[str, Tensor]", count: int, size: list[int]) -> "EncodedPrompt":
    from incontext.model.encoded_prompt import EncodedPrompt

    return EncodedPrompt.parse(tensors, count, size)


def _array_problem(metadata: dict[str, Any], file: Any) -> str:
    """Return why an open prompt file cannot be held as arrays; "" if it can."""
    if metadata["nearest"]:
        return "a prompt with nearest needs the torch backend"
    if any(file.get_slice(name).get_dtype() == "BF16" for name in file.keys()):  # noqa: SIM118
        return "its numbers are bfloat16, which needs the torch backend"
    return ""


def _save_tensors(tensors: dict[str, Any], path: Path, metadata: dict[str, str]) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = {n: torch.as_tensor(x).detach().cpu().contiguous() for n, x in tensors.items()}
    # A file holds each tensor by itself; some here are views of a larger one.
    tensors = {n: x.clone() if x._is_view() else x for n, x in tensors.items()}
    save_file(tensors, path, metadata=metadata)


def _save_arrays(arrays: dict[str, Any], path: Path, metadata: dict[str, str]) -> None:
    from safetensors.numpy import save_file

    save_file({n: np.ascontiguousarray(x) for n, x in arrays.items()}, path, metadata=metadata)


def is_prompt(path: str | Path) -> bool:
    """Return whether a file is one that `Prompt.save` wrote."""
    try:
        with safe_open(path, "np") as file:
            return KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def prompt_path(path: str | Path) -> Path:
    """Return where a prompt may be written.

    Raises:
        InputError: a folder, or a name that could be an image's: images are not overwritten.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; accepted: a file to write, NAME.safetensors")
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: a prompt file is named NAME.safetensors")
    return path


def draw_thumbnail(examples: Sequence[Example], colors: Mapping[int, Rgb]) -> Thumbnail:
    """Draw the first examples side by side, ids in their colors: (96, w, 3) uint8."""
    tiles = [_draw_tile(example, colors) for example in examples[:THUMBNAIL_EXAMPLES]]
    return np.concatenate(tiles, 1)


def _draw_tile(example: Example, colors: Mapping[int, Rgb]) -> Thumbnail:
    """Draw one image with its labels at half strength, at most twice as wide as high."""
    width, height = example.image.size
    scaled_width = round(width * THUMBNAIL_HEIGHT / height)
    size = (max(1, min(2 * THUMBNAIL_HEIGHT, scaled_width)), THUMBNAIL_HEIGHT)
    image = example.image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    rgb = np.array(image, np.uint8)
    ids = resize_nearest(example.labels.ids, size[::-1])
    for index, color in colors.items():
        mask = ids == index
        rgb[mask] = (rgb[mask].astype(int) + np.array(color)) // 2
    return rgb


def check_options(kind: str, **counts: int | None) -> None:
    """Raise InputError unless the kind is known and the counts are counts."""
    if kind not in KINDS:
        raise InputError(f"kind {kind!r}; accepted: {', '.join(KINDS)}")
    for name, value in counts.items():
        check_count(name, value)
