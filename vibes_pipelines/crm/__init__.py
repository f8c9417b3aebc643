"""The CRM's SQL database: landing its contacts, writing opt-outs and fields back."""

from typing import TYPE_CHECKING

from vibes_pipelines.loading import modules_on_use

__all__ = ["database", "mapped_columns"]

if TYPE_CHECKING:
    from vibes_pipelines.crm import database, mapped_columns
else:
    __getattr__ = modules_on_use(__name__, __all__)
