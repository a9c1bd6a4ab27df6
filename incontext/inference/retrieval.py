"""Gallery: of many examples, those that are most like a query."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Gallery:
    """Descriptions of N examples, searched exactly.

    Args:
        features: (N, D), see `Encoder.descriptor`.
        shows: for each of the prompt's passes, (N, ids of the pass) bool: which example shows
            which id.
        nearest: examples that a query is to see, 1 to N.
    """

    features: Tensor
    shows: tuple[Tensor, ...]
    nearest: int

    def choose(self, asked: Tensor) -> list[Tensor]:
        """For each pass the examples of each query: (B, D) → (B, nearest) indices, ascending.

        The nearest by cosine of what tells the examples apart (their mean is taken off). Every id
        of the pass is among them where there are as many examples as ids: the nearest that shows
        it takes the place of the farthest one that is not needed for another id.
        """
        mean = self.features.float().mean(0)
        known = F.normalize(self.features.float() - mean, dim=1)
        likeness = F.normalize(asked.to(known) - mean, dim=1) @ known.T  # (B, N)
        order = likeness.argsort(dim=1, descending=True, stable=True).cpu()
        chosen = [
            torch.stack([self._with_ids(row, shown) for row in order]) for shown in self.shows
        ]
        return [c.to(asked.device) for c in chosen]

    def _with_ids(self, order: Tensor, shown: Tensor) -> Tensor:
        """The first of `order` (N,), after the first that shows each id of (N, ids)."""
        needed = [int(order[shown[order, i].int().argmax()]) for i in range(shown.shape[1])]
        first = list(dict.fromkeys(sorted(needed, key=order.tolist().index)))[: self.nearest]
        rest = [n for n in order.tolist() if n not in first]
        return torch.tensor(sorted(first + rest[: self.nearest - len(first)]))
