"""How many examples random tests draw, and what is lifted of Hypothesis's limits."""

import os

from hypothesis import HealthCheck, settings


def fuzz(examples: int) -> settings:
    """Settings of a random test; FUZZ_EXAMPLES=10000 draws as many of each."""
    return settings(
        deadline=None, derandomize=True, suppress_health_check=list(HealthCheck),
        max_examples=int(os.environ.get("FUZZ_EXAMPLES", examples)), database=None,
    )  # fmt: skip
