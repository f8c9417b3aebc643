"""What is kept between runs: landed snapshots as files, the ledger as a database."""

from typing import TYPE_CHECKING

from vibes_pipelines.loading import modules_on_use

__all__ = ["records", "snapshots"]

if TYPE_CHECKING:
    from vibes_pipelines.store import records, snapshots
else:
    __getattr__ = modules_on_use(__name__, __all__)
