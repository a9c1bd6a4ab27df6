"""Episodes: examples, a query and the true labels; how they are drawn, composed and colored.

A step is first *planned* (which pictures, crops, classes, colors: cheap, on CPU, by a worker
process if wanted) and then *rendered* (all pixels at once, where the pictures are kept: GPU or
CPU). A plan depends on the seed, the step and the episode's number only: runs resume exactly
without any state, and processes can share a step.

Letters: B episodes, V views of each (N examples, the query last), H W pixels, K classes, C cells,
S size of the stored pictures.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from incontext.data.pictures import IGNORE, Ids, PictureSet
from incontext.data.plan import Cell, Context, Mixture, Plan
from incontext.data.regions import cut_out, one_part, regions
from incontext.data.scenes import draw_scenes
from incontext.data.views import WHOLE, Window, crop, paste, render, tones
from incontext.labels.coloring import separated_colors


@dataclass(frozen=True)
class Batch:
    """Episodes of equal shape, ready for the model but for normalization."""

    images: Tensor  # (B, V, 3, H, W) in 0–1
    labels: Tensor  # (B, V, H, W) uint8: 0 background, 1 … K, 255 ignore
    colors: Tensor  # (B, K + 1, 3) in 0–1; color of the background first
    semantic: Tensor  # (B,) bool, the kind that the model is told

    def targets(self) -> Tensor:
        """Labels painted with the episode's colors: (B, V, 3, H, W) in 0–1; ignore is black."""
        shown = torch.where(self.labels == IGNORE, 0, self.labels).long()
        episode = torch.arange(len(shown), device=shown.device).view(-1, 1, 1, 1)
        return self.colors[episode, shown].permute(0, 1, 4, 2, 3)

    def asked(self) -> Tensor:
        """Which classes an example shows: (B, K + 1) bool."""
        classes = torch.arange(self.colors.shape[1], device=self.labels.device)
        shown = self.labels[:, :-1].flatten(1)
        return (shown[:, None] == classes[:, None]).any(2)

    def part(self, start: int, stop: int) -> "Batch":
        """Some of the episodes."""
        chosen = slice(start, stop)
        return Batch(
            self.images[chosen], self.labels[chosen], self.colors[chosen], self.semantic[chosen]
        )


class Sampler:
    """Draws batches of episodes from sets of pictures.

    Args:
        sets: at least one, unless all episodes are procedural scenes; all of one size.
        seed: two samplers with the same seed plan the same episodes for a step.
        device: where the pictures are kept and rendered.
    """

    def __init__(
        self,
        sets: Sequence[PictureSet],
        mixture: Mixture,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        # A set without labels serves for regions, and for nothing else.
        self.sets = [s for s in sets if s.holders or mixture.regions]
        self.mixture, self.seed, self.device = mixture, seed, torch.device(device)
        weights = [mixture.weights.get(s.name, mixture.other) for s in self.sets]
        self.weights = np.array(weights) / sum(weights) if weights else np.zeros(0)
        self.offsets = np.cumsum([0, *(len(s) for s in self.sets)])
        if self.sets:
            labels = torch.cat([s.labels for s in self.sets])
            self.pictures = torch.cat([s.images for s in self.sets])
            # From here on the sets are views, so that gigabytes of pictures are held once.
            for data, start, end in zip(self.sets, self.offsets, self.offsets[1:], strict=False):
                data.images, data.labels = self.pictures[start:end], labels[start:end]
            self.labels = labels.numpy()
            self.bank = self.pictures.to(self.device)

    def __getstate__(self) -> dict[str, Any]:
        """Processes that are spawned plan only: what is kept on a GPU does not travel."""
        return {name: value for name, value in self.__dict__.items() if name != "bank"}

    def fingerprint(self) -> str:
        """What tells these pictures and labels from all others."""
        parts = (self.pictures.numpy().data, self.labels.data) if self.sets else ()
        return hashlib.sha256(b"".join(hashlib.sha256(p).digest() for p in parts)).hexdigest()

    def batch(self, step: int, episodes: int, examples: int, size: int) -> Batch:
        """Plan and render `episodes` episodes of `examples` examples and one query each."""
        return self.render(self.plan(step, range(episodes), examples, size))

    def plan(self, step: int, episodes: Sequence[int], examples: int, size: int) -> Plan:
        """Decide the episodes of these numbers in a step; `size` of the views in pixels."""
        views = examples + 1
        plan = Plan(views, size, [], {}, torch.empty(0), torch.empty(0))
        colors, semantic = [], []
        for place, number in enumerate(episodes):
            rng = np.random.default_rng((self.seed, step, number))
            colors.append(separated_colors(rng, self.mixture.classes))
            semantic.append(self._plan_episode(plan, rng, place))
        plan.colors = torch.from_numpy(np.stack(colors)).float()
        plan.semantic = torch.tensor(semantic)
        return plan

    def _plan_episode(self, plan: Plan, rng: np.random.Generator, place: int) -> bool:
        """Add one episode to a plan; answers whether it is of semantic kind."""
        mixture = self.mixture
        if not self.sets or rng.random() < mixture.scenes:
            drawing = torch.Generator().manual_seed(int(rng.integers(2**62)))
            absent = bool(rng.random() < mixture.absent)
            count = self._class_count(rng)
            plan.scenes[place] = draw_scenes(drawing, plan.views, plan.size, count, absent)
            return bool(rng.random() < 0.5)
        most = mixture.classes
        stitched = most > 1 and rng.random() < mixture.stitched
        first = self._context(rng, plan.views, most - 1 if stitched else most)
        if not stitched:
            self._add_views(plan, rng, place, first, 0, [WHOLE] * plan.views)
            return first.semantic
        used = max(int(np.where(m == IGNORE, 0, m).max()) for m in first.labels)
        second = self._context(rng, plan.views, most - used)
        sides: list[tuple[Window | None, Window | None]] = [_halves(rng) for _ in range(plan.views)]
        if rng.random() < 0.3:  # the query shows one of the two: the other one is absent
            sides[-1] = (WHOLE, None) if rng.random() < 0.5 else (None, WHOLE)
        self._add_views(plan, rng, place, first, 0, [one for one, _ in sides])
        self._add_views(plan, rng, place, second, used, [other for _, other in sides])
        return first.semantic

    def _class_count(self, rng: np.random.Generator, most: int | None = None) -> int:
        most = self.mixture.classes if most is None else most
        if most < 2 or rng.random() >= self.mixture.several:
            return 1
        return int(rng.integers(2, most + 1))

    def _context(self, rng: np.random.Generator, views: int, most: int) -> Context:
        """Pictures and labels of one context, at most `most` classes."""
        mixture = self.mixture
        number = int(rng.choice(len(self.sets), p=self.weights))
        chosen, offset = self.sets[number], int(self.offsets[number])
        if rng.random() < mixture.regions or not chosen.holders:
            return self._region_context(rng, offset + int(rng.integers(len(chosen))), views, most)
        wanted = int(rng.choice(list(chosen.holders)))
        holders = chosen.holders[wanted]
        foreign = self._foreign(rng, number, wanted)
        rows = [offset + int(i) for i in rng.choice(holders, views, len(holders) < views)]
        single = chosen.kind != "semantic" or rng.random() < mixture.two_views or len(holders) < 2
        instance = single and rng.random() < mixture.instances
        if single:
            rows = rows[:1] * views
        elif rng.random() < mixture.absent and foreign:
            rows[-1] = int(rng.choice(foreign))
        asked = [wanted]
        if not instance:
            asked += self._beside(rng, chosen, rows[0], wanted, self._class_count(rng, most) - 1)
        labels = [self._asked_labels(row, number, asked) for row in rows]
        if instance:
            labels = [one_part(rng, labels[0])] * views
        if rng.random() < mixture.emptied:
            labels = [np.where(m == IGNORE, m, 0).astype(np.uint8) for m in labels]
        return Context(rows, labels, not instance, foreign)

    def _region_context(self, rng: np.random.Generator, row: int, views: int, most: int) -> Context:
        picture = self.pictures[row].permute(1, 2, 0).numpy()
        labels = regions(rng, picture, self._class_count(rng, most))
        others = [int(i) for i in rng.integers(len(self.labels), size=4)]
        return Context([row] * views, [labels] * views, bool(rng.random() < 0.5), others)

    def _asked_labels(self, row: int, number: int, asked: list[int]) -> Ids:
        """Labels of a row of the bank in terms of the asked classes of one set."""
        mapped = np.zeros(256, np.uint8)
        mapped[IGNORE] = IGNORE
        if self.offsets[number] <= row < self.offsets[number + 1]:
            mapped[asked] = np.arange(1, len(asked) + 1)
        return mapped[self.labels[row]]

    def _beside(
        self, rng: np.random.Generator, chosen: PictureSet, row: int, wanted: int, more: int
    ) -> list[int]:
        """Classes asked beside: the first example must show them, the query need not."""
        if more < 1:
            return []
        there = np.unique(self.labels[row]).tolist()
        there = [c for c in there if c != wanted and c in chosen.holders]
        return [int(c) for c in rng.permutation(there)[:more]]

    def _foreign(self, rng: np.random.Generator, number: int, wanted: int) -> list[int]:
        """A few rows of the bank that do not hold a class: of its set, or of another domain."""
        chosen, found = self.sets[number], list[int]()
        if chosen.kind == "semantic":
            tried = rng.integers(len(chosen), size=6) + self.offsets[number]
            found = [int(i) for i in tried if not (self.labels[i] == wanted).any()]
        others = [i for i, s in enumerate(self.sets) if s.domain and s.domain != chosen.domain]
        if chosen.domain and others and (not found or rng.random() < 0.3):
            other = int(rng.choice(others))
            picked = rng.integers(len(self.sets[other]), size=3) + self.offsets[other]
            found += [int(i) for i in picked]
        return found

    def _add_views(
        self,
        plan: Plan,
        rng: np.random.Generator,
        place: int,
        context: Context,
        used: int,
        windows: Sequence[Window | None],
    ) -> None:
        """Crop and recolor a context's pictures into windows of the episode's views.

        Ids are raised by `used`, so that two contexts share a coloring.
        """
        tone = tones(rng, plan.views)
        pasting = bool(context.foreign) and rng.random() < self.mixture.pasted
        for view, window in enumerate(windows):
            labels, behind = context.labels[view], -1
            if pasting and rng.random() < 0.7:
                inside = (labels > 0) & (labels != IGNORE)
                if 0.01 < inside.mean() < 0.7:
                    labels, behind = cut_out(labels), int(rng.choice(context.foreign))
            if used:
                labels = np.where((labels > 0) & (labels != IGNORE), labels + used, labels)
            if window is None:
                continue
            mapped = crop(rng, labels, self.mixture.min_area, window)
            plan.cells.append(
                Cell(place, view, context.rows[view], behind, labels, mapped, tone[view], window)
            )

    def render(self, plan: Plan) -> Batch:
        """The pixels of a plan, on the sampler's device."""
        episodes, views, size = len(plan.colors), plan.views, plan.size
        images = torch.empty(episodes, views, 3, size, size, device=self.device)
        labels = torch.zeros(episodes, views, size, size, dtype=torch.uint8, device=self.device)
        for place, (drawn, ids) in plan.scenes.items():
            images[place], labels[place] = drawn.to(self.device), ids.to(self.device)
        if plan.cells:
            self._render_cells(plan, images, labels)
        drop_unshown(labels, self.mixture.classes)
        return Batch(images, labels, plan.colors.to(self.device), plan.semantic.to(self.device))

    def _render_cells(self, plan: Plan, images: Tensor, labels: Tensor) -> None:
        cells = plan.cells
        ids = torch.from_numpy(np.stack([c.labels for c in cells])).to(self.device)
        pictures = self.bank[torch.tensor([c.source for c in cells], device=self.device)] / 255
        pasted = [i for i, c in enumerate(cells) if c.behind >= 0]
        if pasted:
            at = torch.tensor(pasted, device=self.device)
            rows = torch.tensor([cells[i].behind for i in pasted], device=self.device)
            pictures[at] = paste(pictures[at], ids[at], self.bank[rows] / 255)
        maps, tone = (
            torch.from_numpy(np.stack(parts)).to(self.device)
            for parts in ([c.map for c in cells], [c.tone for c in cells])
        )
        seen, where = render(pictures, ids, maps, tone, plan.size)
        whole = [i for i, c in enumerate(cells) if c.window == WHOLE]
        place = [cells[i].episode for i in whole], [cells[i].view for i in whole]
        images[place], labels[place] = seen[whole], where[whole]
        for index, cell in enumerate(cells):
            if cell.window != WHOLE:
                down, right = cell.window.pixels(plan.size)
                images[cell.episode, cell.view, :, down, right] = seen[index, :, down, right]
                labels[cell.episode, cell.view, down, right] = where[index, down, right]


def drop_unshown(labels: Tensor, classes: int) -> None:
    """Classes that no example shows become background in the query: they cannot be known.

    `labels` (B, V, H, W) uint8 is changed in place.
    """
    query = labels[:, -1]
    for index in range(1, classes + 1):
        shown = (labels[:, :-1] == index).flatten(1).any(1)
        query[(query == index) & ~shown[:, None, None]] = 0


def _halves(rng: np.random.Generator) -> tuple[Window, Window]:
    """A view cut in two, side by side or one above the other, in random order."""
    at = float(rng.choice([-0.25, 0.0, 0.25]))
    if rng.random() < 0.5:
        parts = Window(right=at), Window(left=at)
    else:
        parts = Window(bottom=at), Window(top=at)
    return parts if rng.random() < 0.5 else parts[::-1]
