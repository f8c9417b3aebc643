"""What of a person is under way, so that an erasure would lose it: answers and opt-outs.

An answer that is awaited names the person when it comes. An opt-out that has not left yet must
leave first, unless the platform forgets the person by the erasure itself. Of a callback that waits
with a former number only, nobody could say afterwards whose it was.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import sqlalchemy as sa

from vibes_pipelines.reconcile.destinations import DESTINATIONS, VIBES
from vibes_pipelines.settings import Settings
from vibes_pipelines.stages.erasing_ledger import theirs
from vibes_pipelines.stages.erasing_numbers import WAITING
from vibes_pipelines.stages.erasing_platform import will_ask
from vibes_pipelines.stages.erasing_subject import ErasureError, Subject
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.database import is_there, open_engine
from vibes_pipelines.store.models import callbacks, diff_sets, operations, realtime_operations
from vibes_pipelines.store.records import Kind

_OPT_OUTS: tuple[Kind, ...] = ("opt_out", "crm_opt_out")
_CHANGES = "subscription_changes.parquet"
_WITHOUT_REPORT = sa.and_(operations.c.route == "file", operations.c.status == "unknown")


def require_nothing_open(project: Project, subject: Subject) -> None:
    """Refuses an erasure that would lose an answer or an opt-out.

    Raises:
        ErasureError: one is under way, for any destination; or a callback waits of which nobody
            can say afterwards whose it was.
    """
    doubtful = _read(project.settings, _in_doubt(subject))
    if doubtful:
        msg = f"{doubtful} callbacks wait that tell nothing but a number this person had"
        cure = "let them be acted on, or see `callbacks parked`; then erase again"
        raise ErasureError(f"{msg}; {cure}")
    for settings in ledgers(project.settings):
        waiting = _read(settings, _awaited(operations, subject).where(~_WITHOUT_REPORT))
        if waiting:
            msg = f"{waiting} operations about this person await the platform's answer"
            raise ErasureError(f"{msg}; run the job repush, then erase again")
        unreported = _read(settings, _awaited(operations, subject).where(_WITHOUT_REPORT))
        if unreported:
            msg = f"{unreported} operations about this person went in import files without a report"
            raise ErasureError(f"{msg}; erase again when the next day's certificate is there")
        prompt = _read(settings, _awaited(realtime_operations, subject))
        if prompt:
            msg = f"{prompt} changes of this person were sent in real time without an answer"
            raise ErasureError(f"{msg}; erase again when the next day's certificate is there")
        is_replaced = settings is project.settings and will_ask(project, subject)
        open_opt_outs = _opt_outs(settings, subject, is_replaced=is_replaced)
        if open_opt_outs:
            msg = f"{open_opt_outs} opt-outs of this person have not left yet"
            raise ErasureError(f"{msg}; deliver them, approved if a guard holds, then erase again")


def ledgers(settings: Settings) -> Iterator[Settings]:
    """The settings of Vibes and of every other destination that has a ledger."""
    yield settings
    for name, destination in DESTINATIONS.items():
        own = settings.of_destination(name)
        if destination is not VIBES and own.home.is_dir() and is_there(own.ledger_url):
            yield own


def _in_doubt(subject: Subject) -> sa.Select[Any]:
    """What waits with a number that the person and somebody else had about that time."""
    return sa.select(sa.func.count()).where(
        callbacks.c.status.in_(WAITING), callbacks.c.id.in_(subject.doubtful_callbacks)
    )


def _awaited(table: sa.Table, subject: Subject) -> sa.Select[Any]:
    return sa.select(sa.func.count()).where(
        theirs(table, subject), table.c.status.in_(("sent", "unknown")), table.c.outcome.is_(None)
    )


def _read(settings: Settings, query: sa.Select[Any]) -> int:
    engine = open_engine(settings.ledger_url)
    try:
        with engine.begin() as connection:
            return int(connection.execute(query).scalar_one())
    finally:
        engine.dispose()


def _opt_outs(settings: Settings, subject: Subject, *, is_replaced: bool) -> int:
    """Opt-outs that wait: planned ones, and those of a diff set that is not planned yet.

    `is_replaced`: those for the platform need not leave.
    """
    kinds = [kind for kind in _OPT_OUTS if not (is_replaced and kind == "opt_out")]
    of_open_sets = (
        sa.select(sa.func.count())
        .select_from(operations.join(diff_sets))
        .where(
            diff_sets.c.status == "open",
            theirs(operations, subject),
            operations.c.kind.in_(kinds),
            operations.c.status == "planned",
            operations.c.outcome.is_(None),
        )
    )
    in_real_time = sa.select(sa.func.count()).where(
        theirs(realtime_operations, subject),
        realtime_operations.c.kind.in_(kinds),
        realtime_operations.c.status == "planned",
    )
    unplanned = sa.select(diff_sets.c.day).where(
        diff_sets.c.status == "open", diff_sets.c.plan.is_(None)
    )
    engine = open_engine(settings.ledger_url)
    try:
        with engine.begin() as connection:
            count = int(connection.execute(of_open_sets).scalar_one())
            count += int(connection.execute(in_real_time).scalar_one())
            days = connection.execute(unplanned).scalars().all()
    finally:
        engine.dispose()
    sides = {"crm"} if is_replaced else {"crm", "platform"}
    folders = [settings.home / "diff_sets" / day for day in days]
    return count + sum(_decided(folder / _CHANGES, subject, sides) for folder in folders)


def _decided(path: Path, subject: Subject, sides: set[str]) -> int:
    """Opt-outs of the person in a diff set."""
    if not path.is_file():
        return 0
    columns = ["side", "action", "external_person_id", "person_key"]
    rows = pq.read_table(path, columns=columns, filters=[("action", "=", "opt_out")]).to_pylist()
    return sum(
        row["side"] in sides
        and bool({row["external_person_id"], (row["person_key"] or "").lower()} & subject.keys)
        for row in rows
    )
