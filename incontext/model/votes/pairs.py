"""Pairs of a query and an id: what a voting model computes of each by itself.

Letters: B queries, K ids, J pairs.
"""

from torch import Tensor


class Pairs:
    """All pairs, or those that are asked for; in order of the queries, of each in order of its ids.

    All of them are reached by shapes alone: nothing is looked up, and K and B stay free in graphs.

    Args:
        queries, ids: B and K.
        asked: (B, K) bool; None: all.
    """

    def __init__(self, queries: int, ids: int, asked: Tensor | None = None) -> None:
        self.queries, self.ids, self.asked = queries, ids, asked
        self.where = None if asked is None else asked.nonzero(as_tuple=True)

    def of(self, x: Tensor) -> Tensor:
        """What is there for every query and id (B, K, …): (J, …)."""
        return x.flatten(0, 1) if self.where is None else x[self.where]

    def of_prompts(self, x: Tensor) -> Tensor:
        """The same for what prompts hold of every id (P, K, …), P being 1 or B."""
        return self.of(x.expand(self.queries, -1, *x.shape[2:]))

    def each(self, x: Tensor) -> Tensor:
        """What is there for every query (B, …), or for all of them (1, …): (J, …)."""
        return self.of_prompts(x[:, None].expand(-1, self.ids, *x.shape[1:]))

    def spread(self, x: Tensor, other: float) -> Tensor:
        """Of pairs (J, …) → (B, K, …), `other` where nothing is asked."""
        if self.asked is None:
            return x.unflatten(0, (-1, self.ids))
        spread = x.new_full((*self.asked.shape, *x.shape[1:]), other)
        return spread.masked_scatter(self.asked.view(*self.asked.shape, *[1] * (x.dim() - 1)), x)
