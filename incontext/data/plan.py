"""Plans: which episodes a step has, decided before any pixel is made.

Letters: B episodes, K classes, S size of the stored pictures.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from incontext.data.pictures import Ids
from incontext.data.views import Map, Window


@dataclass(frozen=True)
class Mixture:
    """Which episodes, how often: shares of all episodes, of those with real pictures from
    `regions` on. Weights are relative; sets that are not named weigh `other`."""

    weights: dict[str, float] = field(default_factory=dict)
    other: float = 1.0
    scenes: float = 0.15  # procedural scenes
    regions: float = 0.0  # segments that a graph algorithm finds in any picture
    two_views: float = 0.25  # two views of one picture, else other pictures of the class
    instances: float = 0.0  # of two views: one connected part is asked, told as instance kind
    absent: float = 0.06  # the query shows another picture, likely without the class
    emptied: float = 0.0  # all labels erased: nothing is to be painted
    several: float = 0.3  # more than one class
    stitched: float = 0.0  # two contexts side by side in each view, under one coloring
    pasted: float = 0.0  # objects cut out and pasted over other pictures
    classes: int = 4  # at most so many
    min_area: float = 0.3  # smallest crop, share of the picture

    def __post_init__(self) -> None:
        shares = ("scenes", "regions", "two_views", "instances", "absent", "emptied", "several",
                  "stitched", "pasted", "min_area")  # fmt: skip
        for name in shares:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"Mixture: {name} is {getattr(self, name)}; accepted: 0 to 1")
        if self.classes < 1 or self.other < 0 or min(self.weights.values(), default=0) < 0:
            raise ValueError("Mixture: classes must be 1 or more, weights 0 or more")


@dataclass
class Cell:
    """One picture's part in a view."""

    episode: int
    view: int
    source: int  # row of the bank
    behind: int  # row of the bank that the objects are pasted over, -1: none
    labels: Ids  # (S, S), already 0 … K
    map: Map
    tone: np.ndarray[Any, Any]  # (TONES,)
    window: Window


@dataclass
class Plan:
    """All that decides a batch; `Sampler.render` makes the pixels."""

    views: int
    size: int
    cells: list[Cell]
    scenes: dict[int, tuple[Tensor, Tensor]]  # episode → its views and labels, already drawn
    colors: Tensor  # (B, K + 1, 3)
    semantic: Tensor  # (B,)


@dataclass(frozen=True)
class Context:
    """Pictures that share classes: rows of the bank (query last) and their labels 0 … k."""

    rows: list[int]
    labels: list[Ids]
    semantic: bool
    foreign: list[int]  # rows of the bank that do not hold the classes
