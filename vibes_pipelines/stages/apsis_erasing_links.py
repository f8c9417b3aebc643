"""Whether a contact is known for APSIS One: a set-up may have nothing else, and no row at Vibes.

Only looking belongs here; what becomes of the person is in `apsis_erasing`.
"""

from pathlib import Path

import duckdb
import sqlalchemy as sa

from vibes_pipelines.reconcile.destinations import APSIS
from vibes_pipelines.reconcile.sql import clean
from vibes_pipelines.settings import Settings
from vibes_pipelines.stages.apsis_landing import READS
from vibes_pipelines.stages.landed_texts import landed_texts
from vibes_pipelines.stages.landing import CONTACTS
from vibes_pipelines.store.database import is_there, open_engine
from vibes_pipelines.store.models import operations, realtime_operations
from vibes_pipelines.store.snapshots import DATA


def apsis_settings(settings: Settings) -> Settings | None:
    """Those of APSIS One; None where nothing was ever synchronised there."""
    own = settings.of_destination(APSIS.name)
    return own if own.home.is_dir() and is_there(own.ledger_url) else None


def is_known_for_apsis(settings: Settings, contact_key: str, asked: str) -> bool:
    """Whether a contact with this key was landed, read or written for APSIS One.

    `contact_key` is the column of the contacts that holds their keys.
    """
    own = apsis_settings(settings)
    if own is None:
        return False
    files = sorted(own.home.rglob(DATA))
    return (
        _is_in([one for one in files if is_of_feed(one, CONTACTS)], contact_key, asked)
        or _is_in([one for one in files if is_of_feed(one, READS)], "key", asked)
        or _is_recorded(own.ledger_url, asked)
    )


def is_of_feed(path: Path, feed: str) -> bool:
    """Whether a file is the data of a feed: landed, or replaced by a later full sync of the day."""
    folders = path.parent, path.parent.parent
    return path.name == DATA and any(one.as_posix().endswith(f"/{feed}") for one in folders)


def _is_in(files: list[Path], column: str, asked: str) -> bool:
    if not files:
        return False
    with duckdb.connect(config={"threads": 1}) as engine:
        found = engine.execute(
            f"SELECT count(*) FROM {landed_texts(engine, files, key=column)}"  # noqa: S608 - quoted
            f" WHERE {clean('key')} = ?",
            [asked],
        ).fetchall()
    return bool(found[0][0])


def _is_recorded(ledger_url: str, asked: str) -> bool:
    engine = open_engine(ledger_url)
    try:
        with engine.begin() as connection:
            return any(
                connection.execute(
                    sa.select(table.c.operation_id)
                    .where(table.c.external_person_id == asked)
                    .limit(1)
                ).first()
                for table in (operations, realtime_operations)
            )
    finally:
        engine.dispose()
