"""Slices: the reconcile of a few contacts between two days, by the very rules of the daily one.

Read are the contacts as they are now, and of the newest landed day every record that shares an
identifier with them, directly or through others. Over the landed persons lies what was sent to the
platform, and what the platform told by callback, since the share was made.
"""

# ruff: noqa: S608  (SQL is composed here on purpose: names go through reconcile.sql)

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from vibes_pipelines.blanks import trimmed
from vibes_pipelines.crm.arrow_columns import as_text
from vibes_pipelines.data_files import parquet
from vibes_pipelines.delivery.intents import (
    Origin,
    crm_intents,
    opt_out_intents,
    person_intents,
)
from vibes_pipelines.reconcile.engine import Limits
from vibes_pipelines.reconcile.engine import engine as engine_of
from vibes_pipelines.reconcile.groups import Sought, gather_group
from vibes_pipelines.reconcile.phone import to_e164
from vibes_pipelines.reconcile.run import Inputs, reconcile
from vibes_pipelines.reconcile.sources import ROW, open_source
from vibes_pipelines.reconcile.sql import clean, ident, literal
from vibes_pipelines.stages.bases import base_of
from vibes_pipelines.stages.crm_side import copy_crm_contacts
from vibes_pipelines.stages.heard import Heard, KnownPerson, Whose, heard_subscriptions
from vibes_pipelines.stages.kept_out import without_erased
from vibes_pipelines.stages.landing import CONTACTS, PERSONS
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.reconciling import subscriptions_of
from vibes_pipelines.store.inbox import Inbox, StoredCallback
from vibes_pipelines.store.realtime import RealtimeBook
from vibes_pipelines.store.records import PERSON_KINDS, Operation
from vibes_pipelines.store.snapshots import Snapshot
from vibes_pipelines.vibes.callback_facts import person_state
from vibes_pipelines.vibes.callbacks import CallbackError

PERSON_EVENTS = ("person_added", "person_updated")

_MOST_OTHERS = 10_000
"""Landed records that a slice may have beside those of its contacts; a reconcile of so many takes
about a second."""
_OWN_PERSONS = 2
"""What a contact may add to them by itself: its person, and one more."""

_SUBSCRIPTIONS = pa.schema(
    [
        (name, pa.string())
        for name in ("person_key", "subscription_list_id", "opt_in_date", "opt_out_date")
    ]
)
_SAID = pa.schema(
    [("contact", pa.string()), ("field", pa.string()), ("value", pa.string()), ("told", pa.int64())]
)


@dataclass(frozen=True)
class Slice:
    """What is to be done about some contacts, and how large the sides are that caps refer to.

    Invitations and numbers in place of others are the daily job's. `present` are those of the
    contacts that the CRM has; `left` those of which no more than opt-outs is told, because too many
    records share their identifiers. `joined_by` says when the newest join, by callback, of the
    person of an opt-out (by its contact and list) arrived.
    """

    persons: tuple[Operation, ...]
    opt_outs: tuple[Operation, ...]
    crm: tuple[Operation, ...]
    share_as_of: datetime
    contacts_landed: int
    persons_landed: int
    present: frozenset[str] = frozenset()
    left: frozenset[str] = frozenset()
    joined_by: Mapping[tuple[str | None, str | None], datetime] = field(default_factory=dict)


def held(project: Project) -> str | None:
    """Why nothing may be carried in real time yet; None when it may.

    A first diff set and a changed mapping need an approval, which their delivery shows.
    """
    delivered = project.ledger.last_delivered()
    if delivered is None:
        return "first run: no diff set was approved and delivered yet"
    if delivered.mapping_hash != project.config.mapping_hash:
        return "the mapping changed since the last delivery; approve and deliver its diff set first"
    if project.config.engine == "snowflake":
        return "engine: snowflake: landed persons hold only those that differ"
    if _newest_day(project) is None:
        return "no day with all its sources is landed"
    return None


def reconcile_slice(project: Project, contacts: Collection[str], name: str) -> Slice:
    """Compares these contacts with their persons; `name` tells one slice from another.

    The same name and content give the same operation ids.

    Raises:
        CrmError: the CRM cannot be read.
        NotLandedError: no day is landed; ask `held` first.
    """
    day = _newest_day(project) or ""
    contacts = without_erased(project.settings, contacts)
    persons = _snapshot(project, PERSONS, day)
    landed = _snapshot(project, CONTACTS, day)
    with tempfile.TemporaryDirectory(prefix="slice-") as workspace:
        folder = Path(workspace)
        fresh = folder / "fresh.parquet"
        copy_crm_contacts(project, fresh, contacts)
        said = _said(project, day, contacts, persons.manifest.as_of)
        is_whole = _gather(project, day, contacts, folder, said)
        gathered = folder / "persons.parquet"
        whose = Whose(contacts, _numbers(project, fresh))
        heard = heard_subscriptions(project, persons.manifest.as_of, whose, _known(gathered))
        pq.write_table(pa.Table.from_pylist(heard.stays, _SUBSCRIPTIONS), folder / "heard.parquet")
        inputs = Inputs(
            contacts=folder / "contacts.parquet",
            persons=gathered,
            subscriptions=(folder / "subscriptions.parquet", folder / "heard.parquet"),
            base=base_of(project, day),
            pending=_pending(project, day, folder),
            as_of=persons.manifest.as_of,
            until=max(persons.manifest.as_of, datetime.now(UTC)),  # heard is what came since
            relative_guards=False,
        )
        reconcile(project.config, inputs, folder / "out", Limits(threads=1))
        found = _slice(folder / "out", day, set(contacts), name, (landed, persons))
        if heard.persons:
            # Of these nothing but consent is known: what else differs is not told by this look.
            _add_persons(gathered, heard.persons)
            reconcile(project.config, inputs, folder / "known", Limits(threads=1))
            known = _slice(folder / "known", day, set(contacts), name, (landed, persons))
            found = replace(found, opt_outs=_united(known.opt_outs, found.opt_outs))
        opt_outs = (_surely_named(one, heard) for one in found.opt_outs)
        found = replace(
            found,
            opt_outs=tuple(opt_outs),
            present=_keys_in(fresh, project.config.contacts.key),
            joined_by=dict(_joined_by(found.opt_outs, heard)),
        )
        return found if is_whole else _opt_outs_alone(found)


def _opt_outs_alone(found: Slice) -> Slice:
    """Of a group that is not whole: who is in doubt may not be seen, but a no is carried anyway."""
    left = {operation.external_person_id or "" for operation in (*found.persons, *found.crm)}
    return replace(found, persons=(), crm=(), left=frozenset(left))


def _numbers(project: Project, fresh: Path) -> set[str]:
    """The numbers of the contacts as they are now, E.164."""
    mapped = project.config.contacts.mdn
    if mapped is None:
        return set()
    texts = map(as_text, pq.read_table(fresh, columns=[mapped.column])[mapped.column].to_pylist())
    numbers = (to_e164(text, mapped.default_region) for text in texts if text)
    return {number for number in numbers if number}


def _known(persons: Path) -> list[KnownPerson]:
    rows = pq.read_table(persons, columns=["person_key", "external_person_id", "mdn"]).to_pylist()
    return [KnownPerson(**row) for row in rows if row["person_key"]]


def _add_persons(persons: Path, heard: Sequence[KnownPerson]) -> None:
    """Puts persons who are not landed beside the gathered ones; all else of them is unknown."""
    landed = pq.read_table(persons)
    schema = pa.schema([column.with_nullable(nullable=True) for column in landed.schema])
    told = pa.Table.from_pylist([asdict(person) for person in heard], schema)
    pq.write_table(pa.concat_tables([landed.cast(schema), told]), persons)


def _united(first: Sequence[Operation], others: Sequence[Operation]) -> tuple[Operation, ...]:
    """The first ones, and those of the others that are of another contact or list."""
    known = {(one.external_person_id, one.subscription_list_id) for one in first}
    more = (o for o in others if (o.external_person_id, o.subscription_list_id) not in known)
    return (*first, *more)


def _joined_by(
    opt_outs: Sequence[Operation], heard: Heard
) -> Iterator[tuple[tuple[str | None, str | None], datetime]]:
    for one in opt_outs:
        at = heard.joined_by.get(((one.person_key or "").lower(), one.subscription_list_id))
        if at is not None:
            yield (one.external_person_id, one.subscription_list_id), at


def _surely_named(opt_out: Operation, heard: Heard) -> Operation:
    """Names the person by the external id alone where the key is no name at the platform."""
    return replace(opt_out, person_key=None) if opt_out.person_key in heard.unsure_keys else opt_out


def _keys_in(fresh: Path, key: str) -> frozenset[str]:
    column = pq.read_table(fresh, columns=[key])[key]
    texts = (trimmed(as_text(value) or "") for value in column.to_pylist())
    return frozenset(text for text in texts if text is not None)


def _slice(
    out: Path,
    day: str,
    contacts: Collection[str],
    name: str,
    landed: tuple[Snapshot, Snapshot],
) -> Slice:
    origin = Origin(name, day, datetime.now(UTC), out)

    def ours(operations: Iterator[Operation]) -> tuple[Operation, ...]:
        return tuple(o for o in operations if o.external_person_id in contacts)

    return Slice(
        ours(o for o in person_intents(origin) if o.kind in PERSON_KINDS),
        ours(o for o in opt_out_intents(origin) if o.kind == "opt_out"),
        ours(crm_intents(origin)),
        landed[1].manifest.as_of,
        landed[0].manifest.rows,
        landed[1].manifest.rows,
    )


def _newest_day(project: Project) -> str | None:
    """The newest day of which every source is landed."""
    feeds = (PERSONS, CONTACTS, "share/subscriptions", "extract/subscriptions")
    days = [set(project.snapshots.days(feed)) for feed in feeds]
    return max(set.intersection(*days), default=None)


def _snapshot(project: Project, feed: str, day: str) -> Snapshot:
    found = project.snapshots.find(feed, day)
    if found is None:
        msg = f"{feed} of {day} is gone; land it again"
        raise FileNotFoundError(msg)
    return found


def _gather(
    project: Project, day: str, contacts: Collection[str], folder: Path, said: pa.Table
) -> bool:
    """Writes contacts, persons and subscriptions of the group of these contacts.

    Returns whether the group is whole.
    """
    config, since = project.config, _may_be_invisible_since(project, day)
    landed = [_snapshot(project, feed, day) for feed in (CONTACTS, PERSONS)]
    subscriptions = [snapshot.data for snapshot in subscriptions_of(project, day)]
    with engine_of(Limits(threads=1), folder) as engine, _book(project) as book:
        fresh, contact, person = (
            open_source(engine, role, path, folder)
            for role, path in (
                ("contacts", folder / "fresh.parquet"),
                ("contacts", landed[0].folder),
                ("persons", landed[1].folder),
            )
        )
        numbers = [
            row["value"] for row in said.to_pylist() if row["field"] == "mdn" and row["value"]
        ]
        sought = Sought(fresh, contacts, book.adopted(since, contacts=contacts), numbers)
        most = _MOST_OTHERS + _OWN_PERSONS * len(contacts)
        is_whole = gather_group(engine, config, sought, contact, person, most)
        engine.execute(
            f"""
            CREATE TABLE contact AS
            SELECT * FROM {parquet(folder / "fresh.parquet")}
            UNION ALL BY NAME {_rows_of(landed[0], "group_contact")}"""
        )
        engine.execute(f"CREATE TABLE person AS {_rows_of(landed[1], 'group_person')}")
        _lay_adoptions(engine, book, since)
        _overlay(engine, said)
        engine.execute(
            f"""
            CREATE TABLE subscription AS
            {" UNION ALL ".join(_stays(path) for path in subscriptions)}"""
        )
        for table in ("contact", "person", "subscription"):
            target = literal(str(folder / f"{table}s.parquet"))
            engine.execute(f"COPY {table} TO {target} (FORMAT parquet)")
    return is_whole


def _rows_of(landed: Snapshot, group: str) -> str:
    numbered = parquet(landed.data, file_row_number=True)
    return (
        f"SELECT * EXCLUDE ({ROW}) FROM {numbered} WHERE {ROW} IN (SELECT row_number FROM {group})"
    )


def _lay_adoptions(engine: duckdb.DuckDBPyConnection, book: RealtimeBook, since: datetime) -> None:
    """Gives persons the external ids that they were sent, by whichever contact, since the share."""
    external = clean("CAST(external_person_id AS VARCHAR)")
    without_id = f"SELECT person_key FROM person WHERE {external} IS NULL"
    keys = [key.lower() for (key,) in engine.execute(without_id).fetchall() if key]
    for person_key, contact in book.adopted(since, person_keys=keys).items():
        engine.execute(
            "UPDATE person SET external_person_id = $1 WHERE lower(person_key) = $2",
            [contact, person_key],
        )


def _stays(path: Path) -> str:
    columns = ", ".join(f"CAST({name} AS VARCHAR) AS {name}" for name in _SUBSCRIPTIONS.names)
    return (
        f"SELECT {columns} FROM {parquet(path)}"
        " WHERE lower(person_key) IN (SELECT lower(person_key) FROM person)"
    )


def _overlay(engine: duckdb.DuckDBPyConnection, said: pa.Table) -> None:
    """Puts the newest value that was said of each person and field over the landed one."""
    engine.register("said_table", said)
    engine.execute(
        "CREATE TABLE said AS SELECT contact, field, arg_max_null(value, told) AS value,"
        " arg_max(value IS NULL, told) AS is_clear FROM said_table GROUP BY contact, field"
    )
    columns = {
        str(name): str(kind)
        for name, kind, *_ in engine.execute("DESCRIBE person").fetchall()
        if name not in {"person_key", "external_person_id"}
    }
    for name, kind in columns.items():
        # What is no value of the column's type leaves the landed value as it is.
        engine.execute(
            f"""
            UPDATE person SET {ident(name)} = TRY_CAST(said.value AS {kind}) FROM said
            WHERE said.contact = person.external_person_id AND said.field = $1
              AND (said.is_clear OR TRY_CAST(said.value AS {kind}) IS NOT NULL)""",
            [name],
        )


def _said(project: Project, day: str, contacts: Collection[str], since: datetime) -> pa.Table:
    """What was sent of these contacts, and what the platform told of them, since the share."""
    rows = [*_sent(project, day, contacts), *_heard_persons(project, contacts, since)]
    return pa.Table.from_pylist(rows, _SAID)


def _sent(project: Project, day: str, contacts: Collection[str]) -> Iterator[dict[str, Any]]:
    wanted = set(contacts)
    for row in _under_way(project, day).to_pylist():
        if row["external_person_id"] in wanted:
            at = row["accepted_at"].replace(tzinfo=UTC)
            yield _word(row["external_person_id"], row["field"], row["value"], at)


def _heard_persons(
    project: Project, contacts: Collection[str], since: datetime
) -> Iterator[dict[str, Any]]:
    newest: dict[str, tuple[StoredCallback, Mapping[str, str | None]]] = {}
    for callback, body in _heard(project, since, contacts):
        with suppress(CallbackError):  # the drain parks it
            newest[callback.external_person_id or ""] = (callback, person_state(body))
    for contact, (callback, state) in newest.items():
        identity = {"mdn": callback.mdn} if callback.mdn else {}
        times = {"updated_at": callback.event_at.isoformat()} if callback.event_at else {}
        for name, value in {**state, **identity, **times}.items():
            yield _word(contact, name, value, callback.received_at)


def _heard(
    project: Project, since: datetime, contacts: Collection[str]
) -> Iterator[tuple[StoredCallback, bytes]]:
    with closing(Inbox(project.settings.ledger_url)) as inbox:
        found = inbox.heard(PERSON_EVENTS, since, contacts)
        bodies = inbox.bodies([callback.id for callback in found])
    for callback in found:
        yield callback, bodies[callback.id]


def _pending(project: Project, day: str, folder: Path) -> Path:
    path = folder / "pending.parquet"
    pq.write_table(_under_way(project, day), path)
    return path


def _under_way(project: Project, day: str) -> pa.Table:
    """What was sent until now, by the daily job and in real time, and may not be visible yet."""
    following = (datetime.fromisoformat(day) + timedelta(days=1)).date().isoformat()
    with _book(project) as book:
        prompt = book.pending(_may_be_invisible_since(project, day))
    daily = project.ledger.pending(following, project.config.config_hash)
    return pa.concat_tables([daily, prompt])


def _may_be_invisible_since(project: Project, day: str) -> datetime:
    """From when on the persons landed for a day may not show what was sent."""
    lag = timedelta(hours=project.config.policies.visibility_lag_h)
    return datetime.fromisoformat(day).replace(tzinfo=UTC) - lag


def _book(project: Project) -> closing[RealtimeBook]:
    return closing(RealtimeBook(project.settings.ledger_url))


def _word(contact: str, field: str, value: str | None, at: datetime) -> dict[str, Any]:
    return {"contact": contact, "field": field, "value": value, "told": int(at.timestamp() * 1e6)}
