"""Policies: which predicted frames of a video are remembered, and as what.

A policy is a small object that can be replaced: see `MemoryPolicy`.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import numpy as np
from PIL import Image

from incontext.errors import InputError, former_attributes
from incontext.inference.id_table import CLASSES_PER_PASS
from incontext.inference.segmentation import Segmentation
from incontext.labels.coloring import Coloring
from incontext.labels.encodings import IdMap
from incontext.video.checks import Check

__getattr__ = partial(
    former_attributes(
        Rule="MemoryPolicy", Trusted="CycleConsistencyPolicy", Official="SegGPTPolicy",
        Judged="Decision",
    ),
    sys.modules[__name__],
)  # fmt: skip


class MemoryView(Protocol):
    """What a policy may ask of the memory."""

    colorings: list[Coloring]  # of the passes
    frame: int  # number of the frame observed last
    last_check: Check | None  # of cycle consistency, with these examples

    def cycle_consistency(self, image: Image.Image, ids: IdMap) -> dict[int, float]:
        """See `incontext.video.memory.Memory.cycle_consistency`."""


@dataclass(frozen=True)
class MemoryPolicy(ABC):
    """Which predicted frames are remembered, and as what.

    Args:
        keep: K, how many of them; the oldest makes room. 0: only annotated frames are examples.
        per_pass: ids that one painting may show.
    """

    keep: int = 4
    per_pass: int = CLASSES_PER_PASS

    def __post_init__(self) -> None:
        _check_whole("keep", self.keep, 0)

    @abstractmethod
    def decide(self, image: Image.Image, result: Segmentation, memory: MemoryView) -> "Decision":
        """Decide on the result of a frame, and what to remember of it.

        Args:
            image: the frame.
            result: what was predicted; `result.paintings` has one for each of `memory.colorings`.
            memory: what it was predicted from.
        """


@dataclass(frozen=True)
class Decision:
    """What a policy decided on a frame.

    Attributes:
        result: of the frame, as the caller gets it.
        labels: to remember the frame with, of any size, -1 where unknown; None: the frame is not
            remembered.
        trust: how far the masks of the ids that were checked can be trusted, 0–1.
        check: what was checked; None: nothing was.
    """

    result: Segmentation
    labels: "IdMap | None" = None
    trust: dict[int, float] = field(default_factory=dict)
    check: Check | None = None


@dataclass(frozen=True)
class SegGPTPolicy(MemoryPolicy):
    """Remember every frame, as SegGPT's released video script does: its painting is made white
    where the mean of RGB is over 128, black elsewhere (official `inference_video`).

    So one painting holds one object; several objects are painted one after the other, and where
    two paintings are white the later one counts.
    """

    per_pass: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.per_pass != 1:
            raise InputError(f"per_pass is {self.per_pass}; the official rule knows one object")

    def decide(self, image: Image.Image, result: Segmentation, memory: MemoryView) -> Decision:
        """See `MemoryPolicy`."""
        ids = np.zeros(result.paintings[0].shape[:2], np.int32)
        for painting, coloring in zip(result.paintings, memory.colorings, strict=True):
            ids[painting.astype(float).mean(-1) > 128] = coloring.ids[0]
        return Decision(result, ids)


@dataclass(frozen=True)
class CycleConsistencyPolicy(MemoryPolicy):
    """Remember a frame only if it is confident and cycle-consistent: used as the only example, its
    mask must reproduce the annotated frame's mask nearly as well as that frame does itself.

    A mask that has drifted to something else does not. One that reproduces nothing is no object
    at all, and is erased.

    A check takes as long as segmenting a frame, so few frames are checked: the first one, those
    whose masks differ from the masks checked last (`checks.MaskSummary.differs`), and those
    `interval` frames behind it. What a check found stands for the frames up to the next one, which
    are not remembered: they show little that is new.

    Args:
        interval: frames from one check to the next, at most; 1: every frame is checked.
        sure: mean confidence over an object's pixels (the probability that they are right) below
            which a frame is not remembered.
        doubt: half of the range of presence around 0.5 in which it is not either.
        back: IoU that each object must reach on the annotated frame, as a share of what that frame
            reaches on itself, 0–1; 0: cycle consistency is not checked.
        absent: share below which the frame does not hold the object.
    """

    interval: int = 4
    sure: float = 0.55
    doubt: float = 0.07
    back: float = 0.9
    absent: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_whole("interval", self.interval, 1)

    def decide(self, image: Image.Image, result: Segmentation, memory: MemoryView) -> Decision:
        """See `MemoryPolicy`."""
        check = memory.last_check
        if check and self.back and check.covers(memory.frame, result, self.interval):
            trust = {i: share for i, share in check.shares.items() if (result.labels == i).any()}
            return Decision(erase_ids(result, self._lost_ids(trust), trust), None, trust)
        trust = {}
        if self.back and result.labels.any():
            trust = memory.cycle_consistency(image, result.labels)
        check, lost_ids = Check.from_result(memory.frame, result, trust), self._lost_ids(trust)
        result = erase_ids(result, lost_ids, trust)
        ids = [i for i in result.presence if (result.labels == i).any()]
        confidences = [float(result.confidence[result.labels == i].mean()) for i in ids]
        doubtful = (
            not ids or lost_ids or min(confidences) < self.sure
            or any(abs(presence - 0.5) < self.doubt for presence in result.presence.values())
            or min((trust[i] for i in ids if i in trust), default=1.0) < self.back
        )  # fmt: skip
        return Decision(
            result, None if doubtful else result.labels, trust, check if self.back else None
        )

    def _lost_ids(self, trust: Mapping[int, float]) -> list[int]:
        return [i for i, share in trust.items() if share < self.absent]


def _check_whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} is {value!r}; accepted: whole numbers, {least} or more")


def erase_ids(
    result: Segmentation, ids: Sequence[int], presence: Mapping[int, float]
) -> Segmentation:
    """Return a result without the masks of some ids, whose presence becomes the one given."""
    if not ids:
        return result
    inside = np.isin(result.labels, ids)
    return replace(
        result, labels=np.where(inside, 0, result.labels).astype(np.int32),
        confidence=np.where(inside, 1 - result.confidence, result.confidence).astype(np.float32),
        presence={i: presence[i] if i in ids else p for i, p in result.presence.items()},
        quality={i: 0.0 if i in ids else q for i, q in result.quality.items()},
    )  # fmt: skip
