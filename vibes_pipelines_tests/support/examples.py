"""How many examples the property tests draw: a part in every run, all of them in `make slow`.

Every run draws anew, so that what one run leaves out another finds.
"""

import os

from hypothesis import settings

ALL = "VIBES_TESTS_EXAMPLES"
PART = 4
FEWEST = 3
DEFAULT = 100


def examples(full: int) -> int:
    """The number of examples to draw where `full` are meant: all when VIBES_TESTS_EXAMPLES=all."""
    return full if os.environ.get(ALL) == "all" else max(FEWEST, full // PART)


def load_profile() -> None:
    """Let tests that name no number draw their part too."""
    settings.register_profile("vibes", max_examples=examples(DEFAULT))
    settings.load_profile("vibes")
