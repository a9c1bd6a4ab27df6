"""Pairs of a query and an id: what a voting model computes for each by itself.

Letters: B queries or episodes, K ids, J pairs, P prompts (1 or B), V views.
"""

from torch import Tensor


class Pairs:
    """All pairs of a query and an id, or the requested ones; ordered by query, then by id.

    All pairs are reached by shapes alone, without an index, so that K and B stay free in graphs
    (and without einops, which would need one of them as a number).

    Args:
        queries, ids: B and K.
        requested: (B, K) bool; None: all.
    """

    def __init__(self, queries: int, ids: int, requested: Tensor | None = None) -> None:
        self.queries, self.ids, self.requested = queries, ids, requested
        self.indices = None if requested is None else requested.nonzero(as_tuple=True)

    def select(self, x: Tensor) -> Tensor:
        """Select the pairs of a tensor over queries and ids: (B, K, …) → (J, …)."""
        return x.flatten(0, 1) if self.indices is None else x[self.indices]

    def from_prompts(self, x: Tensor) -> Tensor:
        """Give every pair what its prompt holds for its id: (P, K, …) → (J, …)."""
        return self.select(x.expand(self.queries, -1, *x.shape[2:]))

    def from_queries(self, x: Tensor) -> Tensor:
        """Give every pair what its query, or all of them, have: (B or 1, …) → (J, …)."""
        return self.from_prompts(x[:, None].expand(-1, self.ids, *x.shape[1:]))

    def scatter(self, x: Tensor, fill: float) -> Tensor:
        """Undo `select`: (J, …) → (B, K, …), `fill` for pairs that are not requested."""
        if self.requested is None:
            return x.unflatten(0, (-1, self.ids))
        full = x.new_full((*self.requested.shape, *x.shape[1:]), fill)
        return full.masked_scatter(
            self.requested.view(*self.requested.shape, *[1] * (x.dim() - 1)), x
        )


def ids_of_other_views(labels: Tensor) -> Tensor:
    """Find the ids that the other views show: labels (B, V, K, H, W) → (B, V, K) bool."""
    present = (labels > 0).flatten(3).any(3)
    return (present.sum(1, keepdim=True) - present.long()) > 0
