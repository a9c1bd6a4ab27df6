"""Learned prompts: what of a prompt is learned while the model stays as it is.

SegGPT (section 3.3) learns the example's picture and target. Here that is `Pixels`; `Tokens` learns
what the model makes of examples: an offset to everything that is kept of them, for independent
attention keys and values of every block and of the copy path, for a model that votes the features
of cells. Both are learned under random colorings, so that what is learned goes with any; votes
know no colors, so that theirs goes with any by itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from incontext.evaluation.labelled_set import LabelledSet
from incontext.inference.predictor import Predictor
from incontext.labels.coloring import Coloring, separated_colors
from incontext.labels.encodings import UNKNOWN
from incontext.model import Model, VotingModel
from incontext.model.tokens.encoder import EncodedPrompt, ExampleBatch

COLORINGS = 8  # random ones that examples are encoded under, `Tokens`
SURE = 6.0  # logit of the labels that soft targets start from


class Learned(nn.Module, ABC):
    """A prompt of some ids; what of it is learned are its parameters."""

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Coloring:
        """A coloring to learn under: the default in one of three steps."""

    @abstractmethod
    def encode(self, coloring: Coloring) -> EncodedPrompt:
        """The prompt under any coloring of its ids, with gradients."""


def random_coloring(rng: np.random.Generator, ids: Sequence[int]) -> Coloring:
    """Well-separated random colors for ids, see `separated_colors`."""
    table = np.round(separated_colors(rng, len(ids))[1:] * 255).astype(int)
    return Coloring(tuple(ids), tuple((int(r), int(g), int(b)) for r, g, b in table))


class Tokens(Learned):
    """Offsets to what the model keeps of real examples, in units of its spread.

    The examples are encoded once under the default coloring and, unless the model votes, a few
    random ones; a step costs the query's pass alone.

    Args:
        coloring: the default one.
        share: of each example's tokens to keep, see `SegGPT.encode_batches`.
    """

    def __init__(
        self, predictor: Predictor, pool: LabelledSet, coloring: Coloring, kind: str, share: float,
        seed: int,
    ) -> None:  # fmt: skip
        super().__init__()
        rng = np.random.default_rng((seed, 1))
        count = 0 if isinstance(predictor.model, VotingModel) else COLORINGS
        others = [random_coloring(rng, coloring.ids) for _ in range(count)]
        examples = [pool.example(i) for i in range(len(pool))]
        self.base = partial(predictor.encode, examples, kind=kind, share=share, settle=False)
        self.bases = {c: self.base(c) for c in (coloring, *others)}
        first = self.bases[coloring].tensors()
        named = {n: x for n, x in first.items() if x.is_floating_point() and _learns(n)}
        self.units = {n: x.std() for n, x in named.items()}
        self.offsets = nn.ParameterDict(
            {n.replace(".", "/"): nn.Parameter(torch.zeros_like(x)) for n, x in named.items()}
        )

    def draw(self, rng: np.random.Generator) -> Coloring:
        """See `Learned`; else one of the random ones."""
        several = list(self.bases)
        default = len(several) == 1 or rng.random() < 1 / 3
        return several[0] if default else several[int(rng.integers(1, len(several)))]

    def encode(self, coloring: Coloring) -> EncodedPrompt:
        """See `Learned`."""
        base = self.bases.get(coloring) or self.base(coloring)
        tensors = base.tensors()
        for name, unit in self.units.items():
            offset = self.offsets[name.replace(".", "/")]
            tensors[name] = tensors[name] + unit * offset
        return EncodedPrompt.from_tensors(tensors, base.count, base.size)


def _learns(name: str) -> bool:
    """Whether a tensor that is kept of examples may be learned.

    Not weights: they say how many tokens one stands for, and a bias that wants gradients would keep
    attention from the fused kernel. Not labels, which stay what the examples say, nor colors.
    """
    return not {"weight", "labels", "colors"} & set(name.split("."))


class Pixels(Learned):
    """Pictures and soft targets of examples (SegGPT, section 3.3), encoded anew in every step.

    Targets are logits of the ids, so that any coloring paints them.
    """

    def __init__(
        self, predictor: Predictor, pool: LabelledSet, coloring: Coloring, kind: str, share: float,
        seed: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.model: Model
        self.__dict__["model"] = predictor.model  # not a part: it is not learned
        self.default, self.share, device = coloring, share, predictor.device
        self.semantic = torch.tensor([kind == "semantic"], device=device)
        config = predictor.model.config
        self.mean, self.std = (
            torch.tensor(x, device=device).view(3, 1, 1) for x in (config.mean, config.std)
        )
        self.images = nn.Parameter((pool.images.to(device) / 255 - self.mean) / self.std)
        ids = np.stack([pool.example(i).labels.ids for i in range(len(pool))])
        known = torch.from_numpy(ids != UNKNOWN)
        self.known = None if known.all() else known[None].to(device)
        index = np.zeros(ids.shape, np.int64)
        for number, value in enumerate(coloring.ids, 1):
            index[ids == value] = number
        sharp = F.one_hot(torch.from_numpy(index), len(coloring.ids) + 1).permute(0, 3, 1, 2)
        self.logits = nn.Parameter(SURE * sharp.float().to(device))

    def draw(self, rng: np.random.Generator) -> Coloring:
        """See `Learned`; else any."""
        return self.default if rng.random() < 1 / 3 else random_coloring(rng, self.default.ids)

    def encode(self, coloring: Coloring) -> EncodedPrompt:
        """See `Learned`."""
        colors = torch.tensor([(0, 0, 0), *coloring.colors], device=self.images.device) / 255
        painted = torch.einsum("nkhw,kc->nchw", self.logits.softmax(1), colors)
        targets = (painted - self.mean) / self.std
        soft = self.logits.softmax(1)[None, :, 1:]  # what a model that votes reads
        part = ExampleBatch(self.images[None], targets[None], self.known, soft)
        return self.model.encode_batches(
            [part], self.semantic, precompute_targets=False, keep_ratio=self.share,
            colors=((colors[1:] - self.mean.view(3)) / self.std.view(3))[None],
        )  # fmt: skip


SPACES: dict[str, type[Tokens] | type[Pixels]] = {"tokens": Tokens, "pixels": Pixels}
