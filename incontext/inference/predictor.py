"""Predictor: examples in, label maps out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from incontext.checkpoints import checkpoint
from incontext.errors import InputError, check_count
from incontext.images.image import ImageLike, Normalizer, read_image
from incontext.inference.decoding import read_tiles, read_whole
from incontext.inference.example import Example
from incontext.inference.offload import DiskChunks
from incontext.inference.prompt import (
    KINDS,
    Pass,
    Prompt,
    align,
    check_names,
    display_colors,
    group,
    names_of,
)
from incontext.inference.retrieval import Gallery
from incontext.inference.segmentation import Segmentation
from incontext.inference.thumbnail import MOST
from incontext.inference.thumbnail import thumbnail as picture_of
from incontext.labels.color_mask import Rgb
from incontext.labels.coloring import Coloring
from incontext.labels.encodings import UNKNOWN, Labels
from incontext.labels.partial import fill, shrink
from incontext.model import Model
from incontext.model.chunks import MemoryChunks, TensorChunks
from incontext.model.int8 import Int8Linear
from incontext.model.tokens.encoder import EncodedPrompt, ExampleBatch

# Ids painted in one pass. Measured on CamVid's 11 classes, see the model card.
CLASSES_PER_PASS = 4
# Examples whose tokens a query looks at in full, see `Predictor.prompt`.
THIN_TO = 4

# What a model computes with, by the names that the command line takes.
DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int8": torch.int8,
}


class Predictor:
    """Has a model, takes pictures, answers in the caller's size and ids.

    Args:
        model: any of `incontext.model`.
        device: "auto" takes a GPU where there is one.
        dtype: of the model's arithmetic; paintings are read in float32. torch.int8: the blocks'
            linear layers have int8 weights, all else is float32; on CPU only, see
            `benchmarks/README.md` for what it gains and loses. The model given is changed.
        compile: let `torch.compile` fuse what it can of the blocks; pays on GPUs.
        name: of the checkpoint, noted in prompts.

    Raises:
        InputError: another dtype, int8 on another device than the CPU, or a model that has int8
            weights.
    """

    def __init__(
        self,
        model: Model,
        *,
        device: str | torch.device = "auto",
        dtype: torch.dtype = torch.float32,
        compile: bool = False,
        name: str = "",
    ) -> None:
        if any(isinstance(module, Int8Linear) for module in model.modules()):
            raise InputError("this model has int8 weights already; load the checkpoint anew")
        if dtype not in DTYPES.values():
            raise InputError(f"dtype {dtype!r}; accepted: torch.{', torch.'.join(DTYPES)}")
        int8 = dtype is torch.int8
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() and not int8 else "cpu"
        self.device, self.dtype = torch.device(device), torch.float32 if int8 else dtype
        if int8 and self.device.type != "cpu":
            raise InputError(f"int8 weights on {self.device}; accepted: device cpu")
        self.checkpoint, self.name = checkpoint.fingerprint(model), name
        self.model = model.to(self.device, self.dtype).eval()
        if int8 and not self.model.blocks:
            raise InputError(
                "int8 weights are for the linear layers of token blocks, which this checkpoint "
                "lacks; accepted: float32, float16, bfloat16"
            )
        for block in self.model.blocks:
            if int8:
                block.quantize()
            if compile:
                block.compile()
        self.size = model.config.image_size
        self.normalizer = Normalizer(model.config.mean, model.config.std)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path = checkpoint.DEFAULT,
        *,
        device: str | torch.device = "auto",
        dtype: torch.dtype = torch.float32,
        compile: bool = False,
        local_files_only: bool = False,
        name: str = "",
    ) -> "Predictor":
        """Make a predictor of a bundled, local or hub checkpoint, see `checkpoint.load`."""
        model = checkpoint.load(source, local_files_only=local_files_only)
        named = name or checkpoint.display_name(source)
        return cls(model, device=device, dtype=dtype, compile=compile, name=named)

    def push_to_hub(self, repo: str, *, private: bool = False) -> str:
        """Upload the model: see `incontext.checkpoints.checkpoint.push_to_hub`."""
        return checkpoint.push_to_hub(self.model, repo, private=private)

    @torch.inference_mode()
    def prompt(
        self,
        examples: Example | Sequence[Example],
        *,
        kind: str = "semantic",
        names: Mapping[int, str] | None = None,
        coloring: Mapping[int, Rgb] | None = None,
        classes_per_pass: int = CLASSES_PER_PASS,
        crop: bool = False,
        chunk: int | None = None,
        nearest: int | None = None,
        thin_to: int | None = THIN_TO,
        half: bool = False,
        spill: bool | str | Path = False,
        thumbnail: bool = True,
    ) -> Prompt:
        """Encode examples once, for any number of queries.

        Args:
            kind: "semantic" (the class) or "instance" (the very object, as in another view of
                the same picture): the model's type token. The official scripts take "instance".
            names: of ids, for reports; beside those that the examples bring along.
            coloring: {id: (r, g, b)} to paint with, all ids in one pass; None: the palette's.
            classes_per_pass: more ids than this are painted in several passes.
            crop: show examples cropped around their labels: fits queries cut into tiles.
            chunk: examples encoded at once; None: `SegGPT.examples_at_once`.
            nearest: each query sees so many of the examples, those most like it; None: all.
            thin_to: a query looks at as many tokens as so many whole examples have; of more
                examples evenly spread ones are kept. None keeps all, as joint attention does.
            half: keep the prompt in float16, half the size.
            spill: keep tokens of joint attention in temporary files, so that memory does not grow
                with the examples; True: in the system's folder, or in the one given.
            thumbnail: keep a small picture of the first examples.

        Raises:
            InputError: no example, none with an object, or one of the options off.
        """
        _check_options(kind, chunk=chunk, nearest=nearest, thin_to=thin_to)
        parts = self._parts(spill)
        examples = _listed(examples, crop)
        maps = align(examples)
        ids = sorted({index for m in maps for index in m.present})
        named = _named(maps, examples, names, ids)
        colorings = group(ids, classes_per_pass, coloring)
        seen_at_once = min(nearest or len(examples), len(examples))
        share = 1.0 if thin_to is None else min(1.0, thin_to / seen_at_once)
        passes = []
        for part in colorings:
            encoded = self.encode(
                examples, part, maps=maps, kind=kind, share=share, chunk=chunk,
                parts=parts.empty(), settle=seen_at_once == len(examples),
            )  # fmt: skip
            passes.append(Pass(part, encoded.to(torch.float16) if half else encoded))
        colors = display_colors(maps, ids)
        shown = [Example.of(e.image, m) for e, m in zip(examples, maps, strict=True)][:MOST]
        return Prompt(
            tuple(ids), colors, named, kind, len(examples), tuple(passes),
            self.checkpoint, self._gallery(examples, maps, colorings, chunk, seen_at_once),
            self.name, {"by": "prompt", "nearest": nearest, "crop": crop},
            picture_of(shown, colors) if thumbnail else None,
        )  # fmt: skip

    @torch.no_grad()
    def encode(
        self,
        examples: Sequence[Example],
        coloring: Coloring,
        *,
        maps: list[Labels] | None = None,
        kind: str = "semantic",
        share: float = 1.0,
        chunk: int | None = None,
        parts: TensorChunks | None = None,
        settle: bool = True,
        start: int = 0,
    ) -> EncodedPrompt:
        """Examples under one coloring as the model keeps them: the step below `prompt`.

        `maps`: their labels under the same ids, None: as they are; the rest: see
        `SegGPT.encode_batches`.
        """
        pairs = self._pairs(list(examples), maps or [e.labels for e in examples], coloring, chunk)
        semantic = torch.tensor([kind == "semantic"], device=self.device)
        colors = self.normalizer.array(np.array([coloring.colors], np.uint8))  # (3, 1, K)
        return self.model.encode_batches(
            pairs, semantic, colors=self._to_device(colors.permute(1, 2, 0)), chunk=chunk,
            storage=parts, precompute_targets=settle, keep_ratio=share,
            start=start,
        )  # fmt: skip

    def _parts(self, spill: bool | str | Path) -> TensorChunks:
        """Where tokens of joint attention are kept."""
        if not spill:
            return MemoryChunks()
        if self.model.config.example_attention == "independent":
            raise InputError(
                "spill is for checkpoints with joint attention; this one keeps as many tokens as "
                "thin_to says, whatever the number of examples"
            )
        if spill is not True and not (isinstance(spill, (str, Path)) and Path(spill).is_dir()):
            raise InputError(f"spill {spill!r}; accepted: True, or a folder that exists")
        return DiskChunks(None if spill is True else spill)

    def load_prompt(self, path: str | Path) -> Prompt:
        """Read a prompt that `Prompt.save` wrote.

        Raises:
            InputError: not a prompt file, or made with another checkpoint.
        """
        prompt = Prompt.load(path, self.device)
        self.check_prompt(prompt, f"{path}: ")
        return prompt

    def _pairs(
        self, examples: list[Example], maps: list[Labels], coloring: Coloring, chunk: int | None
    ) -> Iterator[ExampleBatch]:
        """Images and targets in the model's numbers, (1, some, 3, size, size), some at a time;
        where anything is unknown, also what is known, (1, some, size, size)."""
        partly = any((m.ids == UNKNOWN).any() for m in maps)
        some = chunk or self.model.examples_at_once
        for at in range(0, len(examples), some):
            targets, known = [], []
            for labels in maps[at : at + some]:
                ids = shrink(labels.ids, self.size)
                known.append(torch.from_numpy(ids != UNKNOWN))
                if partly:
                    ids = fill(ids, self.model.config.patch_size)
                targets.append(self.normalizer.array(coloring.paint(ids)))
            images = self._pictures([e.image for e in examples[at : at + some]])
            yield ExampleBatch(
                images[None], self._to_device(torch.stack(targets))[None],
                torch.stack(known).to(self.device)[None] if partly else None,
            )  # fmt: skip

    def _gallery(
        self, examples: list[Example], maps: list[Labels], colorings: Sequence[Coloring],
        chunk: int | None, nearest: int,
    ) -> Gallery | None:  # fmt: skip
        """What finds the examples that are most like a query; None where it sees all of them."""
        if nearest == len(examples):
            return None
        some = chunk or self.model.examples_at_once
        features = [
            self.model.descriptor(self.model.embed_images(self._pictures([e.image for e in part])))
            for part in (examples[at : at + some] for at in range(0, len(examples), some))
        ]
        shows = tuple(
            torch.tensor([[i in m.present for i in c.ids] for m in maps]) for c in colorings
        )
        return Gallery(torch.cat(features), shows, nearest)

    def _pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        """RGB pictures in the model's numbers: (M, 3, size, size)."""
        return self._to_device(torch.stack([self.normalizer.image(p, self.size) for p in pictures]))

    def check_prompt(self, prompt: Prompt, where: str = "") -> None:
        """Raise InputError unless the prompt was made with this checkpoint."""
        if prompt.checkpoint != self.checkpoint:
            theirs, ours = (f"{name}, " if name else "" for name in (prompt.model_name, self.name))
            raise InputError(
                f"{where}the prompt was made with another checkpoint ({theirs}fingerprint "
                f"{prompt.checkpoint}); this is {ours}{self.checkpoint}, to which its tokens mean "
                "something else: use that one, or make it anew"
            )

    def _to_device(self, x: Tensor) -> Tensor:
        return x.to(self.device, self.dtype)

    @overload
    def predict(self, images: ImageLike, prompt: Prompt, **options: Any) -> Segmentation: ...
    @overload
    def predict(
        self, images: list[Any] | tuple[Any, ...], prompt: Prompt, **options: Any
    ) -> list[Segmentation]: ...
    @overload
    def predict(
        self, images: Iterable[Any], prompt: Prompt, **options: Any
    ) -> Iterator[Segmentation]: ...

    def predict(self, images: Any, prompt: Prompt, **options: Any) -> Any:
        """Segment one picture, a list, or any iterable of pictures.

        One picture gives a `Segmentation`, a list or tuple gives a list, any other iterable a
        generator that reads ahead by one batch only. A numpy array or tensor is one picture.

        Args:
            images: see `incontext.images.image.read_image`.
            prompt: of this predictor's `prompt`.
            batch_size: queries in one pass through the model; default 8.
            tile: cut pictures into overlapping square tiles of so many pixels, each seen at the
                model's full size; None sees each picture whole.
            chunk: examples attended at once; bounds memory, does not change the result.

        Raises:
            InputError: a picture that cannot be read, an option that is off.
        """
        if isinstance(images, (str, Path, Image.Image, np.ndarray, Tensor)):
            return next(self._stream([images], prompt, **options))
        if isinstance(images, (list, tuple)):
            return list(self._stream(images, prompt, **options))
        return self._stream(images, prompt, **options)

    def _stream(
        self,
        images: Iterable[ImageLike],
        prompt: Prompt,
        *,
        batch_size: int = 8,
        tile: int | None = None,
        chunk: int | None = None,
    ) -> Iterator[Segmentation]:
        if not isinstance(prompt, Prompt):
            raise InputError(f"{type(prompt).__name__} as prompt; make it with .prompt(examples)")
        self.check_prompt(prompt)
        prompt = prompt.to(self.device)
        check_count("batch_size", batch_size)
        check_count("tile", tile)
        check_count("chunk", chunk)
        source = iter(images)
        while batch := [read_image(image) for image in islice(source, batch_size)]:
            if tile is None:
                paintings = self.paint(batch, prompt, chunk)
                for picture, parts in zip(batch, paintings, strict=True):
                    yield read_whole(picture, prompt, parts)
            else:
                paint = partial(self.paint, prompt=prompt, chunk=chunk)
                for picture in batch:
                    yield read_tiles(picture, prompt, tile, batch_size, paint)

    @torch.inference_mode()
    def paint(
        self,
        pictures: Sequence[Image.Image],
        prompt: Prompt,
        chunk: int | None = None,
        shown: Tensor | None = None,
    ) -> list[list[Tensor]]:
        """What the model paints on RGB pictures, before it is read: the step below `predict`.

        For each picture a list with one painting for each pass of the prompt, (3, size, size)
        float32 RGB in 0–255, `size` being the model's. `shown` (pictures, k): each picture sees
        these k of the prompt's examples only.
        """
        seen = self.model.embed_images(self._pictures(pictures))
        encoded = [part.encoded for part in prompt.passes]
        if shown is not None:
            encoded = [part.select(shown.to(self.device)) for part in encoded]
        elif prompt.gallery:
            chosen = prompt.gallery.choose(self.model.descriptor(seen))
            encoded = [e.select(which) for e, which in zip(encoded, chosen, strict=True)]
        painted = [
            self.normalizer.restore(self.model.paint(seen, one, chunk=chunk)) for one in encoded
        ]
        return [[paintings[index] for paintings in painted] for index in range(len(pictures))]


def _named(
    maps: Sequence[Labels], examples: Sequence[Example], names: Mapping[int, str] | None,
    ids: Sequence[int],
) -> dict[int, str]:  # fmt: skip
    """Names of ids: those given, else those that the examples bring."""
    said = names_of((m.present, e.names) for m, e in zip(maps, examples, strict=True))
    return check_names({**said, **(names or {})}, ids)


def _listed(examples: Example | Sequence[Example], crop: bool) -> list[Example]:
    """Examples as a list, cropped around their labels if so wanted."""
    several = [examples] if isinstance(examples, Example) else list(examples)
    if not crop:
        return several
    align(several)  # says what is wrong before anything is cut
    return [example.cropped() for example in several]


def _check_options(kind: str, **counts: int | None) -> None:
    """Raise InputError unless the kind is known and the counts are counts."""
    if kind not in KINDS:
        raise InputError(f"kind {kind!r}; accepted: {', '.join(KINDS)}")
    for name, value in counts.items():
        check_count(name, value)
