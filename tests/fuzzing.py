"""How much property tests draw: little by default, the same each time; more if asked for.

    INCONTEXT_FUZZ=10000 pytest tests -k fuzz

draws that many examples for each test, at random.
"""

import os

from hypothesis import HealthCheck, settings

MANY = os.environ.get("INCONTEXT_FUZZ")


def fuzz(examples: int) -> settings:
    """Return settings that draw so many examples unless INCONTEXT_FUZZ says how many."""
    return settings(
        deadline=None, derandomize=not MANY, max_examples=int(MANY or examples),
        suppress_health_check=list(HealthCheck), database=None,
    )  # fmt: skip
