"""Plans: which episodes a step has, decided before any pixel is rendered.

Letters: B episodes, K classes, S size of the stored images.
"""

from dataclasses import dataclass, field

from torch import Tensor

from incontext.data.pictures import Ids
from incontext.data.views import Affine, Jitter, Window


@dataclass(frozen=True)
class Mixture:
    """Which episodes are drawn, and how often.

    `scenes` is a share of all episodes, what follows of those with real images. Weights of sets
    are relative; a set without one has `other`.
    """

    weights: dict[str, float] = field(default_factory=dict)
    other: float = 1.0
    scenes: float = 0.15  # procedural scenes
    regions: float = 0.0  # segments that a graph algorithm finds in any image
    two_views: float = 0.25  # two views of one image, else other images of the class
    instances: float = 0.0  # of two views: one connected part, as instance kind
    absent: float = 0.06  # the query is another image, likely without the class
    emptied: float = 0.0  # all labels erased: nothing is to be painted
    several: float = 0.3  # more than one class
    stitched: float = 0.0  # two contexts side by side in each view, under one coloring
    pasted: float = 0.0  # objects cut out and pasted over other images
    classes: int = 4  # at most, in an episode
    min_area: float = 0.3  # smallest crop, share of the image

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
    """An image as a view, or as a part of one."""

    episode: int
    view: int
    source: int  # row of the bank
    background: int  # row of the bank that the objects are pasted over, -1: none
    labels: Ids  # (S, S), already 0 … K
    affine: Affine
    jitter: Jitter  # (JITTER_VALUES,)
    window: Window


@dataclass
class Plan:
    """All that decides a batch; `EpisodeSampler.render` makes the pixels."""

    views: int
    size: int
    cells: list[Cell]
    scenes: dict[int, tuple[Tensor, Tensor]]  # episode → its views and labels, already drawn
    colors: Tensor  # (B, K + 1, 3)
    semantic: Tensor  # (B,)


@dataclass(frozen=True)
class Context:
    """Images that share classes: rows of the bank (query last) and their labels 0 … k."""

    rows: list[int]
    labels: list[Ids]
    semantic: bool
    negatives: list[int]  # rows of the bank that do not show the classes
