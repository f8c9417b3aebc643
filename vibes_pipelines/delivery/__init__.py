"""Delivery: carries a released diff set out, and proves afterwards what became of it."""

from typing import TYPE_CHECKING

from vibes_pipelines.loading import modules_on_use

__all__ = ["certificate"]

if TYPE_CHECKING:
    from vibes_pipelines.delivery import certificate
else:
    __getattr__ = modules_on_use(__name__, __all__)
