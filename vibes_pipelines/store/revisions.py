"""Which shape the ledger's tables have, without changing them."""

from dataclasses import dataclass

import sqlalchemy as sa

from vibes_pipelines.store.database import MIGRATIONS


@dataclass(frozen=True)
class Revision:
    """The migration that the tables have (None: none yet), and the newest one."""

    present: str | None
    newest: str | None

    @property
    def is_current(self) -> bool:
        """True when nothing is left to migrate."""
        return self.present == self.newest


def revision_of(connection: sa.Connection) -> Revision:
    """The revision of the ledger behind a connection."""
    from alembic.migration import MigrationContext  # noqa: PLC0415 - slow, as in `database`
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    present = MigrationContext.configure(connection).get_current_revision()
    return Revision(present, ScriptDirectory(str(MIGRATIONS)).get_current_head())
