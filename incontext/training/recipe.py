"""Recipe: all that decides a training run beside the model and the pictures."""

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
from incontext.training.masking import query_half, random_blocks
from incontext.training.objective import Weights

CACHE = 128  # pixels that pictures are held at, unless a run says otherwise


@dataclass(frozen=True)
class Step:
    """What the episodes of one step have in common."""

    examples: int
    size: int  # of a view, pixels
    episodes: int


@dataclass(frozen=True)
class Recipe:
    """How long, how fast, on what.

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
    clip: float = 1.0  # norm of all gradients
    ema: float = 0.999
    accumulate: int = 1  # pieces that a step's episodes are computed in
    precision: str = "no"  # or "bf16"
    frozen: tuple[str, ...] = ()  # parts of the model that are not learned, such as "stem"
    seed: int = 0
    weights: Weights = field(default_factory=Weights)
    mixture: Mixture = field(default_factory=Mixture)

    def __post_init__(self) -> None:
        def check(holds: bool, what: str) -> None:
            if not holds:
                raise ValueError(f"Recipe: {what}")

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
        """Learning rate of a step: linear warm-up, then constant, in the end a cosine down to a
        hundredth."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        start = max(self.warmup, round(self.steps * (1 - self.decay)))
        done = max(0, step - start) / max(1, self.steps - start)
        return self.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * min(1.0, done))) / 2)

    def step(self, number: int, processes: int = 1) -> Step:
        """Examples, size and episodes of a step; the episodes can be shared by the processes."""
        rng = np.random.default_rng((self.seed, number))
        examples = int(rng.choice(self.examples))
        size = int(rng.choice(self.sizes))
        wanted = self.pictures * (self.sizes[0] / size) ** 2 / (examples + 1)
        pieces = processes * self.accumulate
        return Step(examples, size, max(1, round(wanted / pieces)) * pieces)

    def hidden_patches(self, number: int, step: Step, patch: int) -> Tensor | None:
        """What the targets of a step hide, (episodes, 2h, w) bool; None: the query half."""
        drawing = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        if float(torch.rand(1, generator=drawing)) >= self.hidden:
            return None
        rows = step.size // patch
        share = 0.5 + 0.4 * float(torch.rand(1, generator=drawing))
        blocks = random_blocks(drawing, step.episodes, rows, rows, share)
        # Half of them see the examples whole: only the query is partly given.
        blocks[::2] &= query_half(1, rows, rows)
        blocks[::2, -1, -1] = True  # something is always painted
        return blocks


@dataclass(frozen=True)
class Run:
    """What a JSON file describes: the model's shape, the recipe, and how pictures are held."""

    config: Config
    recipe: Recipe
    cache: int  # pixels that the pictures are held at

    @classmethod
    def read(cls, path: Path) -> "Run":
        """From JSON: `model` (a size of `SIZES`), `config` (fields of it that differ), `cache`
        (default `CACHE`), `recipe`, `weights` and `mixture` (their fields).

        Raises:
            InputError: unreadable, or fields and values that do not exist.
        """
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
            unknown = about.keys() - {"model", "config", "cache", "recipe", "weights", "mixture"}
            if unknown:
                raise ValueError(f"unknown entries {', '.join(sorted(unknown))}")
            missing = {"model", "recipe"} - about.keys()
            if missing:
                raise ValueError(f"missing entries {', '.join(sorted(missing))}")
            if about["model"] not in SIZES:
                raise ValueError(f"model {about['model']!r}; accepted: {', '.join(SIZES)}")
            values = asdict(SIZES[about["model"]]) | about.get("config", {})
            recipe = Recipe(
                **_known(Recipe, "recipe", with_tuples(about["recipe"])),
                weights=Weights(**_known(Weights, "weights", about.get("weights", {}))),
                mixture=Mixture(**_known(Mixture, "mixture", about.get("mixture", {}))),
            )
            config = parse_config(values, path)
            cache = int(about.get("cache", CACHE))
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


def _known(kind: type, name: str, values: dict[str, Any]) -> dict[str, Any]:
    """Values for a dataclass.

    Raises:
        ValueError: fields that it does not have, or that have an entry of their own.
    """
    accepted = [f.name for f in fields(kind) if f.name not in ("weights", "mixture")]
    accepted += ["weights"] * (kind is Mixture)
    unknown = sorted(values.keys() - set(accepted))
    if unknown:
        raise ValueError(
            f"unknown in {name}: {', '.join(unknown)}; accepted: {', '.join(accepted)}"
        )
    return values


def check_sizes(recipe: Recipe, config: Config, what: str) -> None:
    """Raise InputError unless a recipe's views are whole patches of the model."""
    for size in recipe.sizes:
        if size < config.patch_size or size % config.patch_size:
            raise InputError(
                f"{what}: size {size} is no multiple of the patch, {config.patch_size}"
            )
