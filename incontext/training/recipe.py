"""Recipe: all that decides a training run but the model and the images."""

import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from incontext.checkpoints.checkpoint import parse_config, with_tuples
from incontext.data.plan import Mixture
from incontext.errors import InputError
from incontext.model import SIZES, Config
from incontext.training.objective import Weights, query_half, random_blocks

ENTRIES = frozenset({"model", "config", "cache", "recipe", "weights", "mixture"})  # of a run's file
CACHE = 128  # pixels at which images are held, unless a run says otherwise


@dataclass(frozen=True)
class Step:
    """Shape that the episodes of one step have in common."""

    examples: int
    size: int  # of a view, pixels
    episodes: int


@dataclass(frozen=True)
class Recipe:
    """How long, how fast and on what a model is trained.

    A step with more examples or larger views has fewer episodes, so that all cost about the same.
    """

    steps: int = 10_000
    pictures: int = 96  # a step at the first of `sizes`: examples and queries together
    examples: tuple[int, ...] = (1, 1, 2, 4)  # one of these each step
    sizes: tuple[int, ...] = (64,)  # height and width of views, one of these each step
    hidden: float = 0.0  # share of steps with random blocks hidden instead of the query half
    learning_rate: float = 1e-3
    warmup: int = 300  # steps
    decay: float = 1.0  # the last share of the steps, in which the rate falls
    weight_decay: float = 0.05
    clip: float = 1.0  # largest norm of all gradients
    ema: float = 0.999
    accumulate: int = 1  # micro-batches that a step's episodes are computed in
    precision: str = "no"  # or "bf16"
    frozen: tuple[str, ...] = ()  # parts of the model that are not trained, such as "stem"
    seed: int = 0
    weights: Weights = field(default_factory=Weights)
    mixture: Mixture = field(default_factory=Mixture)

    def __post_init__(self) -> None:
        def check(valid: bool, text: str) -> None:
            if not valid:
                raise ValueError(f"Recipe: {text}")

        for name in ("examples", "sizes"):
            check(bool(getattr(self, name)) and isinstance(getattr(self, name), tuple),
                  f"{name} is {getattr(self, name)!r}; accepted: a list of numbers")  # fmt: skip
        check(min(self.examples) >= 1, f"examples {self.examples} must be 1 or more")
        for name in ("steps", "pictures", "accumulate"):
            check(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; accepted: 1 or more")
        for name in ("learning_rate", "clip"):
            check(getattr(self, name) > 0, f"{name} is {getattr(self, name)}; accepted: over 0")
        for name in ("hidden", "ema", "decay"):
            check(0 <= getattr(self, name) <= 1, f"{name} must lie in 0 to 1")
        check(
            self.precision in ("no", "bf16"),
            f"precision is {self.precision!r}; accepted: no, bf16",
        )

    def rate(self, step: int) -> float:
        """Return the learning rate of a step.

        Linear warm-up, then constant, in the end a cosine down to a hundredth.
        """
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        start = max(self.warmup, round(self.steps * (1 - self.decay)))
        progress = min(1.0, max(0, step - start) / max(1, self.steps - start))
        return self.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)

    def step(self, number: int, processes: int = 1) -> Step:
        """Draw the shape of a step; its episodes can be divided among the processes."""
        rng = np.random.default_rng((self.seed, number))
        examples = int(rng.choice(self.examples))
        size = int(rng.choice(self.sizes))
        episodes = self.pictures * (self.sizes[0] / size) ** 2 / (examples + 1)
        pieces = processes * self.accumulate
        return Step(examples, size, max(1, round(episodes / pieces)) * pieces)

    def hidden_patches(self, number: int, step: Step, patch: int) -> Tensor | None:
        """Draw the hidden patches of a step, (episodes, 2h, w) bool; None: the query half."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        if float(torch.rand(1, generator=generator)) >= self.hidden:
            return None
        rows = step.size // patch
        share = 0.5 + 0.4 * float(torch.rand(1, generator=generator))
        blocks = random_blocks(generator, step.episodes, rows, rows, share)
        # In half of them the examples are fully visible: only the query is partly hidden.
        blocks[::2] &= query_half(1, rows, rows)
        blocks[::2, -1, -1] = True  # something is always painted
        return blocks


@dataclass(frozen=True)
class Run:
    """A run as a JSON file describes it: the model's shape, the recipe, the size of images."""

    config: Config
    recipe: Recipe
    cache: int  # pixels at which images are held

    @classmethod
    def read(cls, path: Path) -> "Run":
        """Read a run from JSON.

        Its entries: `model` (a size of `SIZES`), `config` (fields of it that differ), `cache`
        (default `CACHE`), `recipe`, `weights` and `mixture` (their fields).

        Raises:
            InputError: an unreadable file, unknown or missing entries, bad values.
        """
        try:
            entries = json.loads(path.read_bytes())
            unknown = entries.keys() - ENTRIES
            if unknown:
                raise ValueError(f"unknown entries {', '.join(sorted(unknown))}")
            missing = {"model", "recipe"} - entries.keys()
            if missing:
                raise ValueError(f"missing entries {', '.join(sorted(missing))}")
            if entries["model"] not in SIZES:
                raise ValueError(f"model {entries['model']!r}; accepted: {', '.join(SIZES)}")
            values = asdict(SIZES[entries["model"]]) | entries.get("config", {})
            weights = Weights(**_check_fields(Weights, "weights", entries.get("weights", {})))
            mixture = Mixture(**_check_fields(Mixture, "mixture", entries.get("mixture", {})))
            numbers = _check_fields(Recipe, "recipe", with_tuples(entries["recipe"]))
            recipe = Recipe(**numbers, weights=weights, mixture=mixture)
            config = parse_config(values, path)
            cache = int(entries.get("cache", CACHE))
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"{path}: {error}") from None
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from None
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: {type(error).__name__}: {error}") from None
        check_sizes(recipe, config, str(path))
        return cls(config, recipe, cache)


def _check_fields(target: type, name: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values for a dataclass.

    Raises:
        ValueError: fields that it does not have, or that have an entry of their own.
    """
    accepted = [f.name for f in fields(target) if f.name not in ("weights", "mixture")]
    accepted += ["weights"] * (target is Mixture)
    unknown = sorted(values.keys() - set(accepted))
    if unknown:
        raise ValueError(
            f"unknown in {name}: {', '.join(unknown)}; accepted: {', '.join(accepted)}"
        )
    return values


def check_sizes(recipe: Recipe, config: Config, source: str) -> None:
    """Raise InputError unless a recipe's views are whole patches of the model.

    Args:
        source: begins the text, such as a file's name.
    """
    for size in recipe.sizes:
        if size < config.patch_size or size % config.patch_size:
            raise InputError(
                f"{source}: size {size} is no multiple of the patch, {config.patch_size}"
            )
