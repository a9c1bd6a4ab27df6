"""Prompt parameters: what of a prompt is learned while the model stays as it is.

SegGPT (section 3.3) learns the example's image and target. Here that is `PixelPrompt`;
`TokenOffsets` learns what the model makes of examples: an offset to everything that is kept of
them, which is keys and values of every block and of the copy path with independent attention, and
features of cells in a model that votes. Both are learned under random colorings, so that any
coloring can be used later; votes do not depend on colors.

Letters: N examples, K ids, S the model's size.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from incontext.evaluation.labelled_set import LabelledSet
from incontext.images.normalizer import Normalizer
from incontext.inference.predictor import Predictor
from incontext.labels.coloring import Coloring, separated_colors
from incontext.labels.encodings import UNKNOWN
from incontext.model import Model, VotingModel
from incontext.model.encoded_prompt import EncodedPrompt, ExampleBatch

RANDOM_COLORINGS = 8  # that `TokenOffsets` encodes examples under
INITIAL_LOGIT = 6.0  # of the labels that soft targets start from


class PromptParameters(nn.Module, ABC):
    """A prompt of some ids; its parameters are what is learned."""

    @abstractmethod
    def draw_coloring(self, rng: np.random.Generator) -> Coloring:
        """Draw a coloring to learn under: the default in one of three steps."""

    @abstractmethod
    def encode(self, coloring: Coloring) -> EncodedPrompt:
        """Encode the prompt under any coloring of its ids, with gradients."""


def random_coloring(rng: np.random.Generator, ids: Sequence[int]) -> Coloring:
    """Draw well-separated random colors for ids, see `separated_colors`."""
    table = np.round(separated_colors(rng, len(ids))[1:] * 255).astype(int)
    return Coloring(tuple(ids), tuple((int(r), int(g), int(b)) for r, g, b in table))


class TokenOffsets(PromptParameters):
    """Offsets to what the model keeps of real examples, in units of its standard deviation.

    The examples are encoded once under the default coloring and, unless the model votes, a few
    random ones; a step costs the query's pass alone.

    Args:
        coloring: the default one.
        keep_ratio: share of each example's tokens to keep, see `SegGPT.encode_batches`.
    """

    def __init__(
        self,
        predictor: Predictor,
        dataset: LabelledSet,
        coloring: Coloring,
        kind: str,
        keep_ratio: float,
        seed: int,
    ) -> None:
        super().__init__()
        rng = np.random.default_rng((seed, 1))
        count = 0 if isinstance(predictor.model, VotingModel) else RANDOM_COLORINGS
        colorings = [coloring, *(random_coloring(rng, coloring.ids) for _ in range(count))]
        examples = [dataset.example(i) for i in range(len(dataset))]
        self.base = partial(
            predictor.encode, examples, kind=kind, keep_ratio=keep_ratio, precompute_targets=False
        )
        self.bases = {c: self.base(c) for c in colorings}
        tensors = {
            name: x
            for name, x in self.bases[coloring].tensors().items()
            if x.is_floating_point() and _is_learnable(name)
        }
        self.units = {name: x.std() for name, x in tensors.items()}
        # Names of parameters must not contain dots.
        self.offsets = nn.ParameterDict(
            {n.replace(".", "/"): nn.Parameter(torch.zeros_like(x)) for n, x in tensors.items()}
        )

    def draw_coloring(self, rng: np.random.Generator) -> Coloring:
        """See `PromptParameters`; otherwise one of the random ones."""
        colorings = list(self.bases)
        default = len(colorings) == 1 or rng.random() < 1 / 3
        return colorings[0] if default else colorings[int(rng.integers(1, len(colorings)))]

    def encode(self, coloring: Coloring) -> EncodedPrompt:
        """See `PromptParameters`."""
        base = self.bases.get(coloring) or self.base(coloring)
        tensors = base.tensors()
        for name, unit in self.units.items():
            offset = self.offsets[name.replace(".", "/")]
            tensors[name] = tensors[name] + unit * offset
        return EncodedPrompt.from_tensors(tensors, base.count, base.size)


def _is_learnable(name: str) -> bool:
    """True if a tensor that is kept of examples may be learned.

    Not weights: they say how many tokens one stands for, and a bias with gradients would keep
    attention from the fused kernel. Not labels, which stay those of the examples, nor colors.
    """
    return not {"weight", "labels", "colors"} & set(name.split("."))


class PixelPrompt(PromptParameters):
    """Images and soft targets of examples (SegGPT, section 3.3), encoded again in every step.

    Targets are logits of the ids, so that they can be painted in any coloring.
    """

    def __init__(
        self,
        predictor: Predictor,
        dataset: LabelledSet,
        coloring: Coloring,
        kind: str,
        keep_ratio: float,
        seed: int,
    ) -> None:
        super().__init__()
        self.model: Model
        self.__dict__["model"] = predictor.model  # no submodule: its weights are not learned
        self.default, self.keep_ratio, device = coloring, keep_ratio, predictor.device
        self.semantic = torch.tensor([kind == "semantic"], device=device)
        config = predictor.model.config
        self.normalizer = Normalizer(config.mean, config.std, device)
        self.images = nn.Parameter(self.normalizer(dataset.images.to(device) / 255))
        ids = np.stack([dataset.example(i).labels.ids for i in range(len(dataset))])
        valid_mask = torch.from_numpy(ids != UNKNOWN)
        self.valid_mask = None if valid_mask.all() else valid_mask[None].to(device)
        index = np.zeros(ids.shape, np.int64)
        for number, value in enumerate(coloring.ids, 1):
            index[ids == value] = number
        one_hot = F.one_hot(torch.from_numpy(index), len(coloring.ids) + 1).float().to(device)
        self.logits = nn.Parameter(INITIAL_LOGIT * rearrange(one_hot, "n h w k -> n k h w"))

    def draw_coloring(self, rng: np.random.Generator) -> Coloring:
        """See `PromptParameters`; otherwise any."""
        return self.default if rng.random() < 1 / 3 else random_coloring(rng, self.default.ids)

    def encode(self, coloring: Coloring) -> EncodedPrompt:
        """See `PromptParameters`."""
        colors = torch.tensor([(0, 0, 0), *coloring.colors], device=self.images.device) / 255
        probabilities = self.logits.softmax(1)
        targets = self.normalizer(torch.einsum("nkhw,kc->nchw", probabilities, colors))
        labels = probabilities[None, :, 1:]  # what a model that votes reads
        batch = ExampleBatch(self.images[None], targets[None], self.valid_mask, labels)
        return self.model.encode_batches(
            [batch], self.semantic, precompute_targets=False, keep_ratio=self.keep_ratio,
            colors=self.normalizer.colors(colors[1:])[None],
        )  # fmt: skip


SPACES: dict[str, type[TokenOffsets] | type[PixelPrompt]] = {
    "tokens": TokenOffsets,
    "pixels": PixelPrompt,
}
