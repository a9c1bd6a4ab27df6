"""Episodes: examples, a query and the true labels; how they are drawn, composed and colored.

A step is first *planned* (which images, crops, classes, colors: cheap, on CPU, by a worker process
if wanted) and then *rendered* (all pixels at once, where the images are kept: GPU or CPU). A plan
depends on the seed, the step and the episode's number only: runs resume exactly without any state,
and processes can share a step.

Letters: B episodes, V views of each (N examples, the query last), H W pixels, K classes, C cells,
S size of the stored images.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from incontext.data.pictures import IGNORE_INDEX, Ids, PictureSet
from incontext.data.plan import Cell, Context, Mixture, Plan
from incontext.data.regions import cut_out, find_regions, keep_random_part
from incontext.data.scenes import draw_scenes
from incontext.data.views import (
    FULL_VIEW,
    Window,
    color_jitter,
    paste_objects,
    random_crop,
    render,
    split_view,
)
from incontext.labels.coloring import separated_colors


@dataclass(frozen=True)
class Batch:
    """Episodes of equal shape, ready for the model but for normalization."""

    images: Tensor  # (B, V, 3, H, W) in 0–1
    labels: Tensor  # (B, V, H, W) uint8: 0 background, 1 … K, 255 ignore
    colors: Tensor  # (B, K + 1, 3) in 0–1; color of the background first
    semantic: Tensor  # (B,) bool, the kind that the model is given

    def targets(self) -> Tensor:
        """Paint the labels in the episode's colors: (B, V, 3, H, W) in 0–1; ignore is black."""
        ids = torch.where(self.labels == IGNORE_INDEX, 0, self.labels).long()
        episode = torch.arange(len(ids), device=ids.device).view(-1, 1, 1, 1)
        return rearrange(self.colors[episode, ids], "b v h w c -> b v c h w")

    def shown_classes(self) -> Tensor:
        """Return which classes an example shows: (B, K + 1) bool."""
        classes = torch.arange(self.colors.shape[1], device=self.labels.device)
        example_labels = self.labels[:, :-1].flatten(1)
        return (example_labels[:, None] == classes[:, None]).any(2)

    def part(self, start: int, stop: int) -> "Batch":
        """Return some of the episodes."""
        rows = slice(start, stop)
        return Batch(self.images[rows], self.labels[rows], self.colors[rows], self.semantic[rows])


class EpisodeSampler:
    """Draws batches of episodes from sets of images.

    Args:
        sets: at least one, unless all episodes are procedural scenes; all of one size.
        seed: two samplers with the same seed plan the same episodes for a step.
        device: where the images are kept and rendered.
    """

    def __init__(
        self,
        sets: Sequence[PictureSet],
        mixture: Mixture,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        # A set without labels serves for regions, and for nothing else.
        self.sets = [s for s in sets if s.images_by_class or mixture.regions]
        self.mixture, self.seed, self.device = mixture, seed, torch.device(device)
        weights = [mixture.weights.get(s.name, mixture.other) for s in self.sets]
        self.weights = np.array(weights) / sum(weights) if weights else np.zeros(0)
        self.offsets = np.cumsum([0, *(len(s) for s in self.sets)])
        if self.sets:
            labels = torch.cat([s.labels for s in self.sets])
            self.images = torch.cat([s.images for s in self.sets])
            # From here on the sets are views, so that gigabytes of images are held once.
            for data, start, end in zip(self.sets, self.offsets, self.offsets[1:], strict=False):
                data.images, data.labels = self.images[start:end], labels[start:end]
            self.labels = labels.numpy()
            self.bank = self.images.to(self.device)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is kept on a GPU: processes that are spawned only plan."""
        return {name: value for name, value in self.__dict__.items() if name != "bank"}

    def fingerprint(self) -> str:
        """Return a hash of all images and labels."""
        parts = (self.images.numpy().data, self.labels.data) if self.sets else ()
        return hashlib.sha256(b"".join(hashlib.sha256(p).digest() for p in parts)).hexdigest()

    def batch(self, step: int, episodes: int, examples: int, size: int) -> Batch:
        """Plan and render `episodes` episodes of `examples` examples and one query each."""
        return self.render(self.plan(step, range(episodes), examples, size))

    def plan(self, step: int, episodes: Sequence[int], examples: int, size: int) -> Plan:
        """Decide the episodes of these numbers in a step; `size` of the views in pixels."""
        plan = Plan(examples + 1, size, [], {}, torch.empty(0), torch.empty(0))
        colors, semantic = [], []
        for place, number in enumerate(episodes):
            rng = np.random.default_rng((self.seed, step, number))
            colors.append(separated_colors(rng, self.mixture.classes))
            semantic.append(self._plan_episode(plan, rng, place))
        plan.colors = torch.from_numpy(np.stack(colors)).float()
        plan.semantic = torch.tensor(semantic)
        return plan

    def _plan_episode(self, plan: Plan, rng: np.random.Generator, place: int) -> bool:
        """Add one episode to a plan; return whether it is of semantic kind."""
        mixture = self.mixture
        if not self.sets or rng.random() < mixture.scenes:
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
            absent = bool(rng.random() < mixture.absent)
            count = self._class_count(rng)
            plan.scenes[place] = draw_scenes(generator, plan.views, plan.size, count, absent)
            return bool(rng.random() < 0.5)
        max_classes = mixture.classes
        stitched = max_classes > 1 and rng.random() < mixture.stitched
        first = self._context(rng, plan.views, max_classes - 1 if stitched else max_classes)
        if not stitched:
            self._add_views(plan, rng, place, first, 0, [FULL_VIEW] * plan.views)
            return first.semantic
        class_offset = max(int(np.where(m == IGNORE_INDEX, 0, m).max()) for m in first.labels)
        second = self._context(rng, plan.views, max_classes - class_offset)
        sides: list[tuple[Window | None, Window | None]] = [
            split_view(rng) for _ in range(plan.views)
        ]
        if rng.random() < 0.3:  # the query shows one of the two: the other one is absent
            sides[-1] = (FULL_VIEW, None) if rng.random() < 0.5 else (None, FULL_VIEW)
        first_windows, second_windows = zip(*sides, strict=True)
        self._add_views(plan, rng, place, first, 0, first_windows)
        self._add_views(plan, rng, place, second, class_offset, second_windows)
        return first.semantic

    def _class_count(self, rng: np.random.Generator, max_classes: int | None = None) -> int:
        if max_classes is None:
            max_classes = self.mixture.classes
        if max_classes < 2 or rng.random() >= self.mixture.several:
            return 1
        return int(rng.integers(2, max_classes + 1))

    def _context(self, rng: np.random.Generator, views: int, max_classes: int) -> Context:
        """Draw images and labels of one context."""
        mixture = self.mixture
        number = int(rng.choice(len(self.sets), p=self.weights))
        data, offset = self.sets[number], int(self.offsets[number])
        if rng.random() < mixture.regions or not data.images_by_class:
            row = offset + int(rng.integers(len(data)))
            return self._region_context(rng, row, views, max_classes)
        index = int(rng.choice(list(data.images_by_class)))
        indices = data.images_by_class[index]
        negatives = self._draw_negatives(rng, number, index)
        rows = [offset + int(i) for i in rng.choice(indices, views, len(indices) < views)]
        single = data.set_type != "semantic" or rng.random() < mixture.two_views or len(indices) < 2
        instance = single and rng.random() < mixture.instances
        if single:
            rows = rows[:1] * views
        elif rng.random() < mixture.absent and negatives:
            rows[-1] = int(rng.choice(negatives))
        classes = [index]
        if not instance:
            extra = self._class_count(rng, max_classes) - 1
            classes += self._extra_classes(rng, data, rows[0], index, extra)
        labels = [self._map_labels(row, number, classes) for row in rows]
        if instance:
            labels = [keep_random_part(rng, labels[0])] * views
        if rng.random() < mixture.emptied:
            labels = [np.where(m == IGNORE_INDEX, m, 0).astype(np.uint8) for m in labels]
        return Context(rows, labels, not instance, negatives)

    def _region_context(
        self, rng: np.random.Generator, row: int, views: int, max_classes: int
    ) -> Context:
        image = self.images[row].permute(1, 2, 0).numpy()
        labels = find_regions(rng, image, self._class_count(rng, max_classes))
        negatives = [int(i) for i in rng.integers(len(self.labels), size=4)]
        return Context([row] * views, [labels] * views, bool(rng.random() < 0.5), negatives)

    def _map_labels(self, row: int, number: int, classes: list[int]) -> Ids:
        """Return a row's labels with `classes` of set `number` as 1, 2, …, and others as 0."""
        table = np.zeros(256, np.uint8)
        table[IGNORE_INDEX] = IGNORE_INDEX
        if self.offsets[number] <= row < self.offsets[number + 1]:
            table[classes] = np.arange(1, len(classes) + 1)
        return table[self.labels[row]]

    def _extra_classes(
        self, rng: np.random.Generator, data: PictureSet, row: int, index: int, count: int
    ) -> list[int]:
        """Draw up to `count` more classes that the first example shows; the query may lack them."""
        if count < 1:
            return []
        candidates = np.unique(self.labels[row]).tolist()
        candidates = [c for c in candidates if c != index and c in data.images_by_class]
        return [int(c) for c in rng.permutation(candidates)[:count]]

    def _draw_negatives(self, rng: np.random.Generator, number: int, index: int) -> list[int]:
        """Draw a few rows of the bank without a class: of its set, or of another domain."""
        data, negatives = self.sets[number], list[int]()
        if data.set_type == "semantic":
            rows = rng.integers(len(data), size=6) + self.offsets[number]
            negatives = [int(i) for i in rows if not (self.labels[i] == index).any()]
        foreign_sets = [i for i, s in enumerate(self.sets) if s.domain and s.domain != data.domain]
        if data.domain and foreign_sets and (not negatives or rng.random() < 0.3):
            foreign = int(rng.choice(foreign_sets))
            rows = rng.integers(len(self.sets[foreign]), size=3) + self.offsets[foreign]
            negatives += [int(i) for i in rows]
        return negatives

    def _add_views(
        self,
        plan: Plan,
        rng: np.random.Generator,
        place: int,
        context: Context,
        class_offset: int,
        windows: Sequence[Window | None],
    ) -> None:
        """Crop and jitter a context's images into windows of the episode's views.

        Ids are raised by `class_offset`, so that two contexts share a coloring.
        """
        jitter = color_jitter(rng, plan.views)
        pasting = bool(context.negatives) and rng.random() < self.mixture.pasted
        for view, window in enumerate(windows):
            labels, background = context.labels[view], -1
            if pasting and rng.random() < 0.7:
                inside = (labels > 0) & (labels != IGNORE_INDEX)
                if 0.01 < inside.mean() < 0.7:
                    labels, background = cut_out(labels), int(rng.choice(context.negatives))
            if class_offset:
                inside = (labels > 0) & (labels != IGNORE_INDEX)
                labels = np.where(inside, labels + class_offset, labels)
            if window is None:
                continue
            affine = random_crop(rng, labels, self.mixture.min_area, window)
            row = context.rows[view]
            plan.cells.append(
                Cell(place, view, row, background, labels, affine, jitter[view], window)
            )

    def render(self, plan: Plan) -> Batch:
        """Render the pixels of a plan on the sampler's device."""
        episodes, views, size = len(plan.colors), plan.views, plan.size
        images = torch.empty(episodes, views, 3, size, size, device=self.device)
        labels = torch.zeros(episodes, views, size, size, dtype=torch.uint8, device=self.device)
        for place, (scene_images, ids) in plan.scenes.items():
            images[place], labels[place] = scene_images.to(self.device), ids.to(self.device)
        if plan.cells:
            self._render_cells(plan, images, labels)
        erase_unshown_classes(labels, self.mixture.classes)
        return Batch(images, labels, plan.colors.to(self.device), plan.semantic.to(self.device))

    def _render_cells(self, plan: Plan, images: Tensor, labels: Tensor) -> None:
        cells = plan.cells
        ids = torch.from_numpy(np.stack([c.labels for c in cells])).to(self.device)
        sources = self.bank[torch.tensor([c.source for c in cells], device=self.device)] / 255
        pasted_cells = [i for i, c in enumerate(cells) if c.background >= 0]
        if pasted_cells:
            rows = torch.tensor([cells[i].background for i in pasted_cells], device=self.device)
            where = torch.tensor(pasted_cells, device=self.device)
            sources[where] = paste_objects(sources[where], ids[where], self.bank[rows] / 255)
        affines, jitter = (
            torch.from_numpy(np.stack(parts)).to(self.device)
            for parts in ([c.affine for c in cells], [c.jitter for c in cells])
        )
        views, view_labels = render(sources, ids, affines, jitter, plan.size)
        full = [i for i, c in enumerate(cells) if c.window == FULL_VIEW]
        places = [cells[i].episode for i in full], [cells[i].view for i in full]
        images[places], labels[places] = views[full], view_labels[full]
        for index, cell in enumerate(cells):
            if cell.window != FULL_VIEW:
                down, right = cell.window.pixels(plan.size)
                images[cell.episode, cell.view, :, down, right] = views[index, :, down, right]
                labels[cell.episode, cell.view, down, right] = view_labels[index, down, right]


def erase_unshown_classes(labels: Tensor, classes: int) -> None:
    """Make classes that no example shows background in the query: they cannot be known.

    Args:
        labels: (B, V, H, W) uint8, changed in place.
    """
    query = labels[:, -1]
    for index in range(1, classes + 1):
        shown = (labels[:, :-1] == index).flatten(1).any(1)
        query[(query == index) & ~shown[:, None, None]] = 0
