"""Rules: which predicted frames of a video are remembered, and as what.

A rule is a small object that can be replaced: see `Rule`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from PIL import Image

from incontext.errors import InputError
from incontext.inference.predictor import CLASSES_PER_PASS
from incontext.inference.segmentation import Segmentation
from incontext.labels.coloring import Coloring
from incontext.labels.encodings import IdMap


class Remembered(Protocol):
    """What a rule may ask the memory."""

    colorings: list[Coloring]  # of the passes

    def ask_back(self, picture: Image.Image, ids: IdMap) -> dict[int, float]:
        """See `incontext.video.memory.Memory.ask_back`."""


@dataclass(frozen=True)
class Rule(ABC):
    """Which predicted frames are remembered, and as what.

    Args:
        keep: K, how many of them; the oldest makes room. 0: only annotated frames are examples.
        per_pass: ids that one painting may show.
    """

    keep: int = 4
    per_pass: int = CLASSES_PER_PASS

    def __post_init__(self) -> None:
        if isinstance(self.keep, bool) or not isinstance(self.keep, int) or self.keep < 0:
            raise InputError(f"keep is {self.keep!r}; accepted: whole numbers, 0 or more")

    @abstractmethod
    def judge(self, picture: Image.Image, result: Segmentation, memory: Remembered) -> "Judged":
        """What to answer for a frame, and what to remember of it.

        Args:
            picture: the frame.
            result: what was predicted; `result.paintings` has one for each of `memory.colorings`.
            memory: what it was predicted from.
        """


@dataclass(frozen=True)
class Judged:
    """`labels` to remember a frame with, of any size, -1 where unknown; None: not at all.

    `trust`: for ids that were looked into, how far their masks can be trusted, 0–1.
    """

    result: Segmentation
    labels: "IdMap | None" = None
    trust: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Official(Rule):
    """The rule of SegGPT's released video script: every frame is remembered, and its painting is
    made white where the mean of RGB is over 128, black elsewhere (official `inference_video`).

    So one painting knows one object; several are asked for one after the other, and where two
    paintings are white the later one counts. Paintings are read in whole numbers.
    """

    per_pass: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.per_pass != 1:
            raise InputError(f"per_pass is {self.per_pass}; the official rule knows one object")

    def judge(self, picture: Image.Image, result: Segmentation, memory: Remembered) -> Judged:
        """See `Rule`."""
        ids = np.zeros(result.paintings[0].shape[:2], np.int32)
        for painting, coloring in zip(result.paintings, memory.colorings, strict=True):
            ids[painting.astype(float).mean(-1) > 128] = coloring.ids[0]
        return Judged(result, ids)


@dataclass(frozen=True)
class Trusted(Rule):
    """Frames that show something, surely, and that give back the annotated frame.

    A frame is asked back: shown alone with what was predicted for it, it must paint the annotated
    frame nearly as well as that frame does itself. A prediction that has gone astray does not;
    one that brings nothing back is no object, and its mask is emptied.

    Args:
        sure: mean confidence over an object's pixels below which a frame is not remembered.
        doubt: half of the range of presence around 0.5 in which it is not either.
        back: how well each object must come back to be remembered: IoU as a share of what the
            annotated frame gives of itself, 0–1; 0: frames are not asked.
        absent: share below which there is no such object in the frame.
    """

    sure: float = 0.5
    doubt: float = 0.3
    back: float = 0.9
    absent: float = 0.2

    def judge(self, picture: Image.Image, result: Segmentation, memory: Remembered) -> Judged:
        """See `Rule`."""
        trust = {}
        if self.back and result.labels.any():
            back = memory.ask_back(picture, result.labels)
            trust = {i: share for i, share in back.items() if (result.labels == i).any()}
        gone = [i for i, share in trust.items() if share < self.absent]
        result = emptied(result, gone, trust)
        seen = [i for i in result.presence if (result.labels == i).any()]
        sure = [float(result.confidence[result.labels == i].mean()) for i in seen]
        refused = (
            not seen or gone or min(sure) < self.sure
            or any(abs(there - 0.5) < self.doubt for there in result.presence.values())
            or min((trust[i] for i in seen if i in trust), default=1.0) < self.back
        )  # fmt: skip
        return Judged(result, None if refused else result.labels, trust)


def emptied(
    result: Segmentation, ids: Sequence[int], presence: Mapping[int, float]
) -> Segmentation:
    """A result without the masks of some ids, whose presence becomes the one given."""
    if not ids:
        return result
    inside = np.isin(result.labels, ids)
    return replace(
        result, labels=np.where(inside, 0, result.labels).astype(np.int32),
        confidence=np.where(inside, 0, result.confidence).astype(np.float32),
        presence={i: presence[i] if i in ids else p for i, p in result.presence.items()},
    )  # fmt: skip
