"""How many examples the property tests draw: a part in every run, all of them in `make slow`.

Every run draws anew, so that what one run leaves out another finds.
"""

import os

from hypothesis import HealthCheck, settings

ALL = "VIBES_TESTS_EXAMPLES"
PART = 8
FEWEST = 3
DEFAULT = 100


def examples(full: int) -> int:
    """The number of examples to draw where `full` are meant: all when VIBES_TESTS_EXAMPLES=all."""
    return full if os.environ.get(ALL) == "all" else max(FEWEST, full // PART)


def load_profile() -> None:
    """Let tests that name no number draw their part too.

    How long a draw or an example takes tells of the machine, which other tests keep busy.
    """
    settings.register_profile(
        "vibes",
        max_examples=examples(DEFAULT),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("vibes")
