"""How much property tests draw: little by default, the same each time; more if asked for.

    INCONTEXT_FUZZ=10000 pytest tests -k fuzz -n 2 --dist loadfile

draws that many examples for each property, at random.
"""

import math
import os

from hypothesis import HealthCheck, settings

MANY = os.environ.get("INCONTEXT_FUZZ")


def fuzz(examples: int, cases: int = 1) -> settings:
    """Return settings that draw so many examples unless INCONTEXT_FUZZ says how many.

    These are divided among the `cases` (formats, say) that a property is a test each of.
    """
    count = math.ceil(int(MANY) / cases) if MANY else examples
    return settings(
        deadline=None, derandomize=not MANY, max_examples=count,
        suppress_health_check=list(HealthCheck), database=None,
    )  # fmt: skip
