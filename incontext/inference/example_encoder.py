"""Example encoder: images and labels in a model's numbers, encoded into the parts of a prompt."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from incontext.errors import InputError
from incontext.images.normalizer import Normalizer
from incontext.inference.example import Example
from incontext.inference.example_views import VIEWS, expand_views
from incontext.inference.offload import DiskChunks
from incontext.inference.retrieval import ExampleIndex
from incontext.labels.coloring import Coloring
from incontext.labels.encodings import UNKNOWN, Labels
from incontext.labels.partial import fill, shrink
from incontext.model import Model
from incontext.model.chunks import MemoryChunks, TensorChunks
from incontext.model.encoded_prompt import EncodedPrompt, ExampleBatch


class ExampleEncoder:
    """A model with what it needs to encode examples and to index them for retrieval.

    Args:
        device, dtype: where the model is and what it computes with.
    """

    def __init__(self, model: Model, device: torch.device, dtype: torch.dtype) -> None:
        self.model, self.device, self.dtype = model, device, dtype
        self.size = model.config.image_size
        self.normalizer = Normalizer(model.config.mean, model.config.std)

    def normalize(self, images: Sequence[Image.Image]) -> Tensor:
        """Return RGB images in the model's numbers: (M, 3, size, size)."""
        return self._to_device(torch.stack([self.normalizer.image(i, self.size) for i in images]))

    def encode(
        self,
        examples: Sequence[Example],
        coloring: Coloring,
        *,
        label_maps: Sequence[Labels] | None = None,
        kind: str = "semantic",
        keep_ratio: float = 1.0,
        chunk: int | None = None,
        storage: TensorChunks | None = None,
        precompute_targets: bool = True,
        start: int = 0,
        views: bool = False,
    ) -> EncodedPrompt:
        """Encode examples under one coloring.

        Args:
            label_maps: their labels under the same ids; None: as they are.
            views: encode the `VIEWS` of each example, see `views_of`, as one example; for voting
                models. `keep_ratio`, `chunk` and `start` are those of a view.
            kind: see `Predictor.prompt`.
            chunk: examples encoded at once; None: `SegGPT.examples_at_once`.
            keep_ratio, storage, precompute_targets, start: see `SegGPT.encode_batches`.
        """
        assert label_maps is None or not views
        examples = expand_views(examples, views)
        label_maps = label_maps or [e.labels for e in examples]
        batches = self._batches(examples, label_maps, coloring, chunk)
        semantic = torch.tensor([kind == "semantic"], device=self.device)
        colors = self.normalizer.array(np.array([coloring.colors], np.uint8))
        encoded_prompt = self.model.encode_batches(
            batches, semantic, colors=self._to_device(rearrange(colors, "c 1 k -> 1 k c")),
            chunk=chunk, storage=storage, precompute_targets=precompute_targets,
            keep_ratio=keep_ratio, start=start,
        )  # fmt: skip
        return encoded_prompt.join(VIEWS) if views else encoded_prompt

    def _batches(
        self, examples: Sequence[Example], label_maps: Sequence[Labels], coloring: Coloring,
        chunk: int | None,
    ) -> Iterator[ExampleBatch]:  # fmt: skip
        """Yield images and targets in the model's numbers, (1, S, 3, size, size).

        If anything is unknown, also which pixels are valid, (1, S, size, size).
        """
        partial = any((labels.ids == UNKNOWN).any() for labels in label_maps)
        step = chunk or self.model.examples_at_once
        for at in range(0, len(examples), step):
            targets, valid_masks = [], []
            for labels in label_maps[at : at + step]:
                ids = shrink(labels.ids, self.size)
                valid_masks.append(torch.from_numpy(ids != UNKNOWN))
                if partial:
                    ids = fill(ids, self.model.config.patch_size)
                targets.append(self.normalizer.array(coloring.paint(ids)))
            images = self.normalize([e.image for e in examples[at : at + step]])
            yield ExampleBatch(
                images[None], self._to_device(torch.stack(targets))[None],
                torch.stack(valid_masks).to(self.device)[None] if partial else None,
            )  # fmt: skip

    def index(
        self, examples: Sequence[Example], colorings: Sequence[Coloring], nearest: int,
        chunk: int | None,
    ) -> ExampleIndex:  # fmt: skip
        """Return what finds the `nearest` of the examples to a query."""
        step = chunk or self.model.examples_at_once
        features = []
        for at in range(0, len(examples), step):
            images = self.normalize([e.image for e in examples[at : at + step]])
            features.append(self.model.descriptor(self.model.embed_images(images)))
        present_ids = [example.labels.present for example in examples]
        shows = tuple(
            torch.tensor([[i in present for i in coloring.ids] for present in present_ids])
            for coloring in colorings
        )
        return ExampleIndex(torch.cat(features), shows, nearest)

    def storage(self, spill: bool | str | Path) -> TensorChunks:
        """Return where tokens of joint attention are kept; see `Predictor.prompt`.

        Raises:
            InputError: a model that keeps few tokens, or a folder that does not exist.
        """
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

    def _to_device(self, x: Tensor) -> Tensor:
        return x.to(self.device, self.dtype)
