"""Predictor: examples in, label maps out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from incontext.checkpoints import checkpoint, location
from incontext.errors import InputError, check_count, check_share, former_parameters
from incontext.images.image import ImageLike, read_image
from incontext.inference import precision
from incontext.inference.calibration import Calibration
from incontext.inference.decoding import Answer, Reading, decode_image
from incontext.inference.evidence import Evidence, gather_evidence
from incontext.inference.example import Example
from incontext.inference.example_encoder import ExampleEncoder
from incontext.inference.example_views import keep_ratio, resolve_views
from incontext.inference.id_table import (
    CLASSES_PER_PASS,
    align_examples,
    assign_colorings,
    check_names,
    collect_names,
    display_colors,
)
from incontext.inference.prompt import Pass, Prompt, check_options, draw_thumbnail
from incontext.inference.segmentation import PRESENT, Segmentation
from incontext.inference.tile_decoding import EMPTY, check_tile, decode_tiles
from incontext.labels.color_mask import Rgb
from incontext.labels.coloring import Coloring
from incontext.model import Model, VotingModel
from incontext.model.encoded_prompt import EncodedPrompt

ThinTo = int | Literal["auto"] | None  # see `Predictor.prompt`
Views = bool | Literal["auto"]  # likewise


class Predictor:
    """A model that takes images and returns label maps in the caller's size and ids.

    Args:
        model: any of `incontext.model`; it is changed in place.
        device: "auto" takes a GPU if there is one.
        dtype: of the model's arithmetic; paintings are read in float32. torch.int8: the blocks'
            linear layers have int8 weights, all else is float32; on CPU only, see
            `benchmarks/README.md` for what it gains and loses.
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
        self.device, self.dtype = precision.resolve(model, device, dtype)
        self.checkpoint, self.name = checkpoint.fingerprint(model), name
        self.model = model.to(self.device, self.dtype).eval()
        for block in self.model.blocks:
            if dtype is torch.int8:
                block.quantize()
            if compile:
                block.compile()
        self.size = model.config.image_size
        self.encoder = ExampleEncoder(self.model, self.device, self.dtype)
        self.normalizer = self.encoder.normalizer
        self.calibration = Calibration.from_model(self.model)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path = location.DEFAULT,
        *,
        device: str | torch.device = "auto",
        dtype: torch.dtype = torch.float32,
        compile: bool = False,
        local_files_only: bool = False,
        name: str = "",
    ) -> "Predictor":
        """Make a predictor of a bundled, local or hub checkpoint, see `checkpoint.load`."""
        model = checkpoint.load(source, local_files_only=local_files_only)
        name = name or location.display_name(source)
        return cls(model, device=device, dtype=dtype, compile=compile, name=name)

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
        thin_to: ThinTo = "auto",
        views: Views = "auto",
        half: bool = False,
        spill: bool | str | Path = False,
        thumbnail: bool = True,
    ) -> Prompt:
        """Encode examples once, for any number of queries.

        Args:
            kind: "semantic" (the class) or "instance" (the very object, as in another view of
                the same image): the model's type token. The official scripts take "instance".
            names: of ids, for reports; they win over names that examples bring along.
            coloring: {id: (r, g, b)} to paint with, all ids in one pass; None: the palette's.
            classes_per_pass: more ids than this are painted in several passes.
            crop: crop examples around their labels: fits queries that are cut into tiles.
            chunk: examples encoded at once; None: `SegGPT.examples_at_once`.
            nearest: how many of the examples each query sees, those most like it; None: all.
            thin_to: a query attends to as many tokens as this number of whole examples has; of more
                examples evenly spread tokens are kept. "auto" takes the model's own
                `default_thin_to`; None keeps all, as joint attention does.
            views: show each example also close up and mirrored (`example_views`), to checkpoints
                whose examples vote. "auto": where a query sees no more than `VIEWED_EXAMPLES`.
                False is for objects that only their side or size tells apart.
            half: keep the prompt in float16, half the size.
            spill: keep tokens of joint attention in temporary files, so that memory does not grow
                with the examples; True: in the system's folder, or in the given one.
            thumbnail: keep a small picture of the first examples.

        Raises:
            InputError: no example, none with an object, or an invalid option.
        """
        thin_to = self.model.default_thin_to if thin_to == "auto" else thin_to
        check_options(kind, chunk=chunk, nearest=nearest, thin_to=thin_to)
        storage = self.encoder.storage(spill)
        examples = align_examples(examples, crop)
        ids = sorted({index for example in examples for index in example.labels.present})
        example_names = collect_names((e.labels.present, e.names) for e in examples)
        names = check_names({**example_names, **(names or {})}, ids)
        colorings = assign_colorings(ids, classes_per_pass, coloring)
        count = min(nearest or len(examples), len(examples))  # that a query sees
        select = count < len(examples)
        views = self.resolve_views(views, count)
        passes = [
            self._encode_pass(
                examples, pass_coloring, half, kind=kind, chunk=chunk,
                keep_ratio=keep_ratio(thin_to, count, views), storage=storage.empty(),
                precompute_targets=not select, views=views,
            )
            for pass_coloring in colorings
        ]  # fmt: skip
        colors = display_colors([e.labels for e in examples], ids)
        return Prompt(
            tuple(ids), colors, names, kind, len(examples), tuple(passes), self.checkpoint,
            self.encoder.index(examples, colorings, count, chunk) if select else None, self.name,
            {"by": "prompt", "nearest": nearest, "crop": crop, "views": views},
            draw_thumbnail(examples, colors) if thumbnail else None,
        )  # fmt: skip

    def _encode_pass(
        self, examples: Sequence[Example], coloring: Coloring, half: bool, **options: Any
    ) -> Pass:
        encoded_prompt = self.encoder.encode(examples, coloring, **options)
        return Pass(coloring, encoded_prompt.to(torch.float16) if half else encoded_prompt)

    @former_parameters(
        maps="label_maps", share="keep_ratio", parts="storage", settle="precompute_targets"
    )
    @torch.no_grad()
    def encode(
        self, examples: Sequence[Example], coloring: Coloring, **options: Any
    ) -> EncodedPrompt:
        """Encode examples under one coloring, the step below `prompt`: see `ExampleEncoder`."""
        return self.encoder.encode(examples, coloring, **options)

    def load_prompt(self, path: str | Path) -> Prompt:
        """Read a prompt that `Prompt.save` wrote.

        Raises:
            InputError: not a prompt file, or made with another checkpoint.
        """
        prompt = Prompt.load(path, self.device)
        self.check_prompt(prompt, f"{path}: ")
        return prompt

    def check_prompt(self, prompt: Prompt, where: str = "") -> None:
        """Raise InputError unless the prompt was made with this checkpoint."""
        prompt.check_checkpoint(self.checkpoint, self.name, where)

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
        """Segment one image, a list, or any iterable of images.

        One image gives a `Segmentation`, a list or tuple gives a list, any other iterable a
        generator that reads ahead by one batch only. A numpy array or tensor is one image.

        Args:
            images: see `incontext.images.image.read_image`.
            prompt: of this predictor's `prompt`.
            batch_size: queries in one pass through the model; default 8.
            tile: side in pixels of overlapping square tiles, each of which the model sees at its
                full size; None: it sees each image whole.
            skip_empty: look at several tiles at once first, and paint only those in which that
                shows anything; faster where objects are few, at the risk of losing small ones.
            chunk: examples attended at once; bounds memory, does not change the result.
            min_presence: an id's presence, 0–1, below which its mask is empty; default 0.5. A
                checkpoint that reads presence (incontext-votes) paints nothing below 0.5.

        Raises:
            InputError: an image that cannot be read, or an invalid option.
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
        skip_empty: bool = False,
        chunk: int | None = None,
        min_presence: float = PRESENT,
    ) -> Iterator[Segmentation]:
        if not isinstance(prompt, Prompt):
            raise InputError(f"{type(prompt).__name__} as prompt; make it with .prompt(examples)")
        self.check_prompt(prompt)
        prompt = prompt.to(self.device)
        check_count("batch_size", batch_size)
        check_tile(tile, skip_empty)
        check_count("chunk", chunk)
        self.check_presence(min_presence)
        reading = Reading(self.calibration, min_presence)
        source = iter(images)
        while batch := [read_image(image) for image in islice(source, batch_size)]:
            if tile is None:
                for image, answer in zip(batch, self.answer(batch, prompt, chunk), strict=True):
                    yield decode_image(image, prompt, answer, reading)
            else:
                ask = partial(self.answer, prompt=prompt, chunk=chunk)
                skip_below = EMPTY if skip_empty else 0.0
                for image in batch:
                    yield decode_tiles(image, prompt, tile, batch_size, ask, reading, skip_below)

    def evidence(
        self, result: Segmentation, examples: Example | Sequence[Example], index: int,
        *, at: tuple[int, int] | None = None, crop: bool = False, thin_to: ThinTo = "auto",
        views: Views = "auto", classes_per_pass: int = CLASSES_PER_PASS,
    ) -> Evidence:  # fmt: skip
        """Say which places of the examples voted for an id in a result.

        The examples are encoded again as `prompt` does it; with `nearest` pass those that the query
        saw. Of a result from tiles the evidence is that of its image as a whole.

        Args:
            result: of `predict`, with a prompt of these examples.
            index: the id.
            at: (x, y), a pixel of the result's image; None: all of the id's mask.
            crop, thin_to, views, classes_per_pass: as given to `prompt`.

        Raises:
            InputError: a checkpoint whose examples do not vote, an unknown id, a pixel outside the
                image, or an id without a mask.
        """
        thin_to = self.model.default_thin_to if thin_to == "auto" else thin_to
        check_options("semantic", thin_to=thin_to)
        examples = align_examples(examples, crop)
        ids = sorted({i for example in examples for i in example.labels.present})
        if index not in ids:
            raise InputError(f"no id {index} in the examples; accepted: {ids}")
        colorings = assign_colorings(ids, classes_per_pass, None)
        ids_of_pass = next(coloring.ids for coloring in colorings if index in coloring.ids)
        views = self.resolve_views(views, len(examples))
        return gather_evidence(
            self.encoder, result, examples, index, ids_of_pass, at,
            keep_ratio(thin_to, len(examples), views), views,
        )  # fmt: skip

    def resolve_views(self, views: Views, count: int) -> bool:
        """Return whether examples are encoded in several views; `count`: that a query sees.

        Raises:
            InputError: another value, or views asked of a checkpoint that cannot have them.
        """
        return resolve_views(views, count, isinstance(self.model, VotingModel))

    def check_presence(self, min_presence: float) -> None:
        """Raise InputError unless it is a share, and there are masks to empty below it."""
        check_share("min_presence", min_presence)
        if min_presence < PRESENT and getattr(self.model, "presence", None) is not None:
            raise InputError(
                f"min_presence is {min_presence}; accepted with this checkpoint: {PRESENT} … 1, "
                f"since it paints nothing of an id whose presence is below {PRESENT}"
            )

    @former_parameters(pictures="images", shown="example_indices")
    def paint(
        self,
        images: Sequence[Image.Image],
        prompt: Prompt,
        chunk: int | None = None,
        example_indices: Tensor | None = None,
    ) -> list[list[Tensor]]:
        """Paint RGB images without reading the paintings, see `answer`.

        Returns:
            For each image a painting for each pass of the prompt, (3, size, size) float32 RGB in
            0–255, `size` being the model's.
        """
        answers = self.answer(images, prompt, chunk, example_indices)
        return [list(answer.paintings) for answer in answers]

    @torch.inference_mode()
    def answer(
        self,
        images: Sequence[Image.Image],
        prompt: Prompt,
        chunk: int | None = None,
        example_indices: Tensor | None = None,
    ) -> list[Answer]:
        """Ask the model about RGB images, at its own size: the step below `predict`.

        Args:
            example_indices: (images, k); each image sees these k of the prompt's examples only.
        """
        embedding = self.model.embed_images(self.encoder.normalize(images))
        encoded_prompts = [part.tensors for part in prompt.passes]
        if example_indices is not None:
            indices = example_indices.to(self.device)
            encoded_prompts = [p.select(indices) for p in encoded_prompts]
        elif prompt.example_index:
            nearest = prompt.example_index.search(self.model.descriptor(embedding))
            encoded_prompts = [
                p.select(indices) for p, indices in zip(encoded_prompts, nearest, strict=True)
            ]
        restore = self.normalizer.restore
        if not isinstance(self.model, VotingModel):
            painted = [
                restore(self.model.paint(embedding, p, chunk=chunk)) for p in encoded_prompts
            ]
            return [Answer.from_paintings(prompt, x) for x in zip(*painted, strict=True)]
        logits = [self.model.answer(embedding, p) for p in encoded_prompts]
        painted = [
            restore(self.model.compose(x, p)) for x, p in zip(logits, encoded_prompts, strict=True)
        ]
        on_cpu = [x.float().cpu() for x in logits]
        return [
            Answer.from_logits(prompt, *x)
            for x in zip(zip(*on_cpu, strict=True), zip(*painted, strict=True), strict=True)
        ]
