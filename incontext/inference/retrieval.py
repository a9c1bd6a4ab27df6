"""Retrieval: of many examples, the ones that are most like a query."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ExampleIndex:
    """Descriptors of N examples, searched exactly.

    Args:
        features: (N, D), see `Encoder.descriptor`.
        shows: for each of the prompt's passes, (N, ids of the pass) bool: which example shows
            which id.
        nearest: how many examples a query sees, 1 to N.
    """

    features: Tensor
    shows: tuple[Tensor, ...]
    nearest: int

    def search(self, queries: Tensor) -> list[Tensor]:
        """Return for each pass the examples of each query: (B, D) → (B, nearest), ascending.

        They are the nearest by cosine of the descriptors less the examples' mean, which is what
        tells examples apart. Every id of the pass is among them if there are as many examples as
        ids: the nearest one that shows it replaces the farthest that no other id needs.
        """
        mean = self.features.float().mean(0)
        keys = F.normalize(self.features.float() - mean, dim=1)
        similarity = F.normalize(queries.to(keys) - mean, dim=1) @ keys.T  # (B, N)
        order = similarity.argsort(dim=1, descending=True, stable=True).cpu()
        indices = [torch.stack([self._select(row, shows) for row in order]) for shows in self.shows]
        return [i.to(queries.device) for i in indices]

    def _select(self, order: Tensor, shows: Tensor) -> Tensor:
        """Return the first example in `order` (N,) for each id of (N, ids), then the next ones."""
        rank = {example: place for place, example in enumerate(order.tolist())}
        first_shown = [int(order[shows[order, i].int().argmax()]) for i in range(shows.shape[1])]
        required = list(dict.fromkeys(sorted(first_shown, key=rank.__getitem__)))[: self.nearest]
        others = [example for example in rank if example not in required]
        return torch.tensor(sorted(required + others[: self.nearest - len(required)]))
