"""What a person reads about a day: the account, in words and as JSON."""

from typing import TYPE_CHECKING

from vibes_pipelines.loading import modules_on_use

__all__ = ["day_page", "day_plots", "trends"]

if TYPE_CHECKING:
    from vibes_pipelines.report import day_page, day_plots, trends
else:
    __getattr__ = modules_on_use(__name__, __all__)
