"""Batches of examples, and the prompt that a model encodes them to.

Letters: P prompts (1 or B), B queries, N examples, S examples of a batch, K ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from incontext.model.stem import Matches
from incontext.model.tokens.independent import KeyValueCache
from incontext.model.tokens.token_cache import TokenCache
from incontext.model.votes.voters import Voters


class ExampleBatch(NamedTuple):
    """A few of a prompt's examples."""

    images: Tensor  # (P, S, 3, height, width) normalized RGB
    targets: Tensor  # the same shape, labels painted with their colors
    valid: Tensor | None = None  # (P, S, height, width) bool, False = no label; None: all True
    labels: Tensor | None = None  # (P, S, K, height, width) in 0–1; None: read off the targets


@dataclass(frozen=True)
class EncodedPrompt:
    """N examples as far as they can be computed before a query is known."""

    count: int
    size: tuple[int, int]  # height and width of the images, which queries share
    semantic: Tensor  # (P,) bool: True = semantic kind, False = instance kind
    cache: TokenCache | KeyValueCache | Voters
    matches: Matches | None = None
    colors: Tensor | None = None  # (P, K, 3) normalized, of the ids that voters vote for

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by the names that prompt files and ONNX graphs use."""
        # "known." is the cache: the names are on disk and do not change with those in here.
        tensors = {f"known.{name}": x for name, x in self.cache.tensors().items()}
        if self.matches:
            tensors |= {f"matches.{name}": x for name, x in self.matches.tensors().items()}
        if self.colors is not None:
            tensors["colors"] = self.colors
        return {"semantic": self.semantic, **tensors}

    @classmethod
    def from_tensors(
        cls, tensors: dict[str, Tensor], count: int, size: Sequence[int]
    ) -> "EncodedPrompt":
        """Rebuild a prompt from `tensors()`, unchecked: a check would end up in traced graphs.

        Raises:
            KeyError: a tensor is missing.
        """
        cache_tensors, match_tensors = (
            {n.removeprefix(prefix): x for n, x in tensors.items() if n.startswith(prefix)}
            for prefix in ("known.", "matches.")
        )
        # Each kind of cache has a tensor that the others lack.
        cache_type: type[TokenCache] | type[KeyValueCache] | type[Voters] = TokenCache
        if "block.0" in cache_tensors:
            cache_type = Voters
        elif "merged.0" in cache_tensors:
            cache_type = KeyValueCache
        cache = cache_type.from_tensors(cache_tensors)
        matches = Matches(**match_tensors) if match_tensors else None
        size = (size[0], size[1])
        return cls(count, size, tensors["semantic"], cache, matches, tensors.get("colors"))

    @classmethod
    def parse(cls, tensors: dict[str, Tensor], count: int, size: Sequence[int]) -> "EncodedPrompt":
        """Rebuild a prompt from what a file contains, checking `count` and `size`.

        Raises:
            KeyError: a tensor is missing.
            ValueError: `count` or `size` is malformed or does not fit the tensors.
        """
        if not (len(size) == 2 and all(_is_count(side) for side in size)):
            raise ValueError(f"size {list(size)}; accepted: height and width")
        prompt = cls.from_tensors(tensors, count, size)
        if not _is_count(count) or not prompt.cache.fits(count):
            raise ValueError(f"{count!r} examples, but its tensors are of another number")
        return prompt

    @classmethod
    def concat(cls, prompts: "Sequence[EncodedPrompt]") -> "EncodedPrompt":
        """Concatenate prompts of the same model, P and kind; every example weighs alike.

        The tensors get the dtype of the last prompt. A target stream that was precomputed is a
        mean over its own examples, so with joint attention no prompt may have one.
        """
        if len(prompts) == 1:
            return prompts[0]
        first, caches = prompts[0], [prompt.cache for prompt in prompts]
        cache: TokenCache | KeyValueCache | Voters
        if isinstance(first.cache, Voters):
            cache = Voters.concat([x for x in caches if isinstance(x, Voters)])
        elif isinstance(first.cache, TokenCache):
            cache = TokenCache.concat([x for x in caches if isinstance(x, TokenCache)])
        else:
            cache = KeyValueCache.concat([x for x in caches if isinstance(x, KeyValueCache)])
        matches = [prompt.matches for prompt in prompts if prompt.matches]
        count = sum(prompt.count for prompt in prompts)
        return replace(
            first, count=count, cache=cache, matches=Matches.concat(matches) if matches else None
        )

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.semantic.device

    @property
    def nbytes(self) -> int:
        """Size of all tensors but kind and colors."""
        matches = self.matches.tensors().values() if self.matches else []
        return self.cache.nbytes + sum(x.nbytes for x in matches)

    def to(self, dtype_or_device: torch.dtype | torch.device) -> "EncodedPrompt":
        """Convert or move what is stored; queries are computed in their own dtype."""
        matches = self.matches.to(dtype_or_device) if self.matches else None
        semantic, colors = self.semantic, self.colors
        if not isinstance(dtype_or_device, torch.dtype):
            semantic = semantic.to(dtype_or_device)
            colors = None if colors is None else colors.to(dtype_or_device)
        cache = self.cache.to(dtype_or_device)
        return replace(self, semantic=semantic, cache=cache, matches=matches, colors=colors)

    def select(self, numbers: Tensor) -> "EncodedPrompt":
        """Pick other examples for each query: `numbers` (B, k) of the N; P must be 1."""
        return replace(
            self, count=numbers.shape[1], semantic=self.semantic.expand(len(numbers)),
            cache=self.cache.select(numbers),
            matches=self.matches.select(numbers) if self.matches else None,
        )  # fmt: skip

    def join(self, count: int) -> "EncodedPrompt":
        """Make every `count` examples in a row one, whose cells are those of all; voting only."""
        assert isinstance(self.cache, Voters)
        return replace(self, count=self.count // count, cache=self.cache.join(count))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
