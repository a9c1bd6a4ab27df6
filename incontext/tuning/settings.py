"""Settings: how a prompt is tuned."""

from dataclasses import dataclass

from incontext.errors import InputError, former_attributes, former_parameters
from incontext.tuning.parameters import SPACES

# Names that go with the next release.
FORMER_SETTINGS = {
    "rate": "learning_rate", "average": "ema", "judged": "evaluations", "worth": "token_budget",
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """How a prompt is tuned; what the defaults bring: `prompts/README.md`."""

    space: str = "tokens"  # or "pixels", see `incontext.tuning.parameters`
    steps: int = 100  # for each painting that a query takes
    learning_rate: float = 0.02  # in units of a token's or an image's standard deviation
    examples: int = 16  # real ones that a prompt starts from
    # Token budget of a painting, in whole examples; None: 2, of a model that votes 1.25.
    token_budget: float | None = None
    queries: int = 2  # a step
    evaluations: int = 5  # on held-out images during a run
    patience: int = 3  # evaluations in a row without a gain that end a run
    ema: float = 0.98  # decay of the averaged values
    seed: int = 0

    def __post_init__(self) -> None:
        if self.space not in SPACES:
            raise InputError(f"space {self.space!r}; accepted: {', '.join(SPACES)}")
        for name in ("steps", "examples", "queries", "evaluations", "patience"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; accepted: 1 or more")
        if not (self.learning_rate > 0 and (self.token_budget is None or self.token_budget > 0)):
            raise InputError("learning_rate and token_budget are positive numbers")

    __getattr__ = former_attributes(**FORMER_SETTINGS)


Settings.__init__ = former_parameters(**FORMER_SETTINGS)(Settings.__init__)  # type: ignore[method-assign]
