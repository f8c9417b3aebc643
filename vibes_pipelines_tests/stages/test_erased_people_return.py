"""Who was erased and comes back: under the old key, another key, or in a line that is no row."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vibes_pipelines.callbacks.intake import posted, read_arrival
from vibes_pipelines.reconcile.values import as_text
from vibes_pipelines.stages.erased_opt_outs import OPTED_OUT_ONCE, opted_out_before
from vibes_pipelines.stages.erasing import erase
from vibes_pipelines.stages.erasing_parquet import plain
from vibes_pipelines.stages.kept_out import ERASED_SINCE, named_erased
from vibes_pipelines.stages.masking import hash_key
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.pseudonyms import pseudonym
from vibes_pipelines.stages.quarantine_desk import list_cases, resolve, undo
from vibes_pipelines.stages.reconciling import reconcile_day
from vibes_pipelines.store.erasures import Erasures
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines.store.records import Change, Kind, Operation
from vibes_pipelines.store.snapshots import DATA, Reject, Source, write_rejects
from vibes_pipelines_tests.support.callbacks import REMOVED, as_bytes, subscription_body
from vibes_pipelines_tests.support.examples import examples
from vibes_pipelines_tests.support.landed_days import (
    COLUMNS,
    SYNC,
    Row,
    land,
    landed_project,
    reconciled,
)

DAYS = [f"2026-01-{number:02}" for number in range(1, 6)]
KEY, NUMBER = "abc-1001", "+13125550042"
BEA: Row = {"id": "B-1000001", "phone": "+13125550001", "name": "Bea", "level": "Gold"}
QUENTIN: Row = {"id": KEY, "phone": "(312) 555-0042", "name": "Quentin", "level": "Gold"}
PERSONS: list[Row] = [
    {"person_key": "p-000001", "external_person_id": BEA["id"], "mdn": "+13125550001"},
    {"person_key": "p-00004A", "external_person_id": KEY, "mdn": NUMBER},
]
BY_CALLBACK = datetime(2026, 1, 3, 10, tzinfo=UTC)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """One reconciled day."""
    sync = SYNC.replace("max_age_h: 300", "max_age_h: 300, erasure: none")
    with landed_project(tmp_path, monkeypatch, sync) as opened:
        reconciled(opened, DAYS[0], [BEA, QUENTIN], PERSONS)
        yield opened


def opt_out_by_callback(project: Project) -> None:
    body = subscription_body(
        REMOVED, "so1", "2026-01-03 10:00:00 +0000", external_person_id=KEY, mdn=NUMBER
    )
    with closing(Inbox(project.settings.ledger_url)) as inbox:
        inbox.store([read_arrival(posted("127.0.0.1", "/callbacks", as_bytes(body)))])


def operation(
    kind: Kind, contact: str, *, said_yes: str = "2026-01-03T09:00:00+00:00", listed: str = "1234"
) -> Operation:
    return Operation(
        operation_id="o1",
        diff_set="d",
        day=DAYS[3],
        as_of=datetime(2026, 1, 4, tzinfo=UTC),
        lane="invites",
        route="api",
        route_reason="the only road",
        kind=kind,
        external_person_id=contact,
        person_key="p-000099",
        mdn=NUMBER,
        subscription_list_id=listed,
        changes=(Change("evidence_at", "set", None, said_yes, "crm_opted_in"),),
    )


def test_an_opt_out_outlives_the_erasure_of_who_said_it(project: Project) -> None:
    opt_out_by_callback(project)
    settings = project.settings
    assert opted_out_before(settings, [operation("invite", "NEW-1001")]) == {}
    erase(project, KEY, "asked for", "ann")
    refused = {"o1": OPTED_OUT_ONCE}
    assert opted_out_before(settings, [operation("invite", "NEW-1001")]) == refused
    same_instant = operation("invite", "NEW-1001", said_yes=BY_CALLBACK.isoformat())
    assert opted_out_before(settings, [same_instant]) == refused
    newer = operation("invite", "NEW-1001", said_yes="2026-01-03T10:00:01+00:00")
    assert opted_out_before(settings, [newer]) == {}
    assert opted_out_before(settings, [operation("invite", "NEW-1001", listed="9")]) == {}


def test_an_opt_out_that_arrives_after_the_erasure_is_remembered_by_erasing_again(
    project: Project,
) -> None:
    erase(project, KEY, "asked for", "ann")
    asked = operation("invite", "NEW-1001")
    assert opted_out_before(project.settings, [asked]) == {}
    opt_out_by_callback(project)
    erase(project, KEY, "asked for", "ann")
    assert opted_out_before(project.settings, [asked]) == {"o1": OPTED_OUT_ONCE}


def test_opt_outs_of_the_platform_and_of_the_crm_are_remembered_too(project: Project) -> None:
    land_two = [BEA, QUENTIN | {"sms": "false", "sms_at": "2026-01-02 08:00:00"}]
    ended: Row = {
        "person_key": "P-00004a",
        "subscription_list_id": "77",
        "opt_in_date": "2025-01-01",
    }
    reconciled(
        project, DAYS[1], land_two, PERSONS, [ended | {"opt_out_date": "2026-01-02 09:00:00"}]
    )
    erase(project, KEY, "asked for", "ann")
    for listed, at in (("1234", "2026-01-02T08:00:00+00:00"), ("77", "2026-01-02T09:00:00+00:00")):
        asked = operation("invite", "NEW-1001", said_yes=at, listed=listed)
        assert opted_out_before(project.settings, [asked]) == {"o1": OPTED_OUT_ONCE}
        later = operation("invite", "NEW-1001", said_yes="2026-01-02T09:00:01+00:00", listed=listed)
        assert opted_out_before(project.settings, [later]) == {}


def test_what_was_planned_for_an_erased_person_does_not_leave_but_opt_outs_do(
    project: Project,
) -> None:
    assert named_erased(project.settings, [operation("update", KEY)]) == {}
    erase(project, KEY, "asked for", "ann")
    assert named_erased(project.settings, [operation("update", KEY)]) == {"o1": ERASED_SINCE}
    assert named_erased(project.settings, [operation("opt_out", KEY)]) == {}
    assert named_erased(project.settings, [operation("update", BEA["id"])]) == {}


def test_a_new_contact_with_an_erased_number_waits_for_a_person(project: Project) -> None:
    erase(project, KEY, "asked for", "ann")
    returned = [BEA, QUENTIN | {"id": "NEW-1001"}]
    summary = reconciled(project, DAYS[1], returned, PERSONS[:1])
    assert summary.quarantine_kinds == {"erased_number": 1}
    assert summary.added == 0
    assert reconcile_day(project, DAYS[0]).quarantine_kinds == {"erased": 2}
    reconcile_day(project, DAYS[1])
    [case] = list_cases(project, "erased_number")
    resolve(project, case.case_id, "new-person", "she is her sister", "ann")
    assert reconciled(project, DAYS[2], returned, PERSONS[:1]).added == 1


@pytest.mark.slow
def test_who_was_let_in_again_is_not_in_doubt_and_the_opt_out_stays(project: Project) -> None:
    opt_out_by_callback(project)
    erase(project, KEY, "asked for", "ann")
    reconciled(project, DAYS[1], [BEA, QUENTIN], PERSONS[:1])
    [case] = list_cases(project, "erased")
    undo(project, case.case_id, "came back by herself", "bob")
    summary = reconciled(project, DAYS[2], [BEA, QUENTIN], PERSONS[:1])
    assert summary.quarantine_kinds == {}
    assert opted_out_before(project.settings, [operation("invite", KEY)]) == {"o1": OPTED_OUT_ONCE}


def test_a_rejected_line_about_an_erased_person_is_blank(project: Project) -> None:
    erase(project, KEY, "asked for", "ann")
    lines = [f"{KEY},{NUMBER},too,many", f'"{KEY}"|x', "x;P-00004a;y", "B-1000001,stays"]

    def write(folder: Path) -> Source:
        schema = pa.schema([(name, pa.string()) for name in COLUMNS["extract/subscriptions"]])
        pq.write_table(pa.Table.from_pylist([], schema), folder / DATA)
        write_rejects(folder, [Reject(n, raw, "no row") for n, raw in enumerate(lines, 2)])
        return Source("extract", datetime.fromisoformat(f"{DAYS[1]}T06:00:00+00:00"))

    snapshot, _ = project.snapshots.land("extract/subscriptions", DAYS[1], write)
    rejected = pq.read_table(snapshot.rejects).column("raw").to_pylist()
    assert rejected == ["erased", "erased", "erased", "B-1000001,stays"]
    assert snapshot.manifest.rejected == 4


def test_a_stranger_whose_key_differs_in_case_only_stays(project: Project) -> None:
    """Contact keys are compared as they are spelt; a person_key in any case."""
    erase(project, KEY, "asked for", "ann")
    land(project, DAYS[1], "crm/contacts", [QUENTIN | {"id": KEY.upper()}, QUENTIN])
    land(project, DAYS[1], "share/persons", [PERSONS[1] | {"external_person_id": KEY.upper()}])
    found = project.snapshots.find("crm/contacts", DAYS[1])
    assert found is not None
    assert [row["name"] for row in pq.read_table(found.data).to_pylist()] == ["Quentin", None]
    persons = project.snapshots.find("share/persons", DAYS[1])
    assert persons is not None
    assert persons.manifest.erased == 1


TYPED_KEYS = [
    pa.float64(),
    pa.decimal128(12, 2),
    pa.decimal128(30, 4),
    pa.int64(),
    pa.date32(),
    pa.timestamp("us"),
    pa.timestamp("us", "UTC"),
    pa.binary(),
]
A_DAY = "2026-01-02"


def _land_typed(project: Project, day: str, key_type: pa.DataType, rows: list[Row]) -> Path:
    """Contacts whose keys, given as texts, are landed as values of another type."""

    def write(folder: Path) -> Source:
        schema = pa.schema([(column, pa.string()) for column in COLUMNS["crm/contacts"]])
        table = pa.Table.from_pylist(rows, schema)
        keys = pa.array([_typed(key_type, row["id"]) for row in rows], key_type)
        pq.write_table(table.set_column(0, "id", keys), folder / DATA)
        return Source("contacts", datetime.fromisoformat(f"{day}T06:00:00+00:00"))

    return project.snapshots.land("crm/contacts", day, write)[0].data


def _typed(key_type: pa.DataType, text: str) -> object:
    if pa.types.is_binary(key_type):
        return text.encode()
    if pa.types.is_temporal(key_type):
        instant = datetime.fromisoformat(text)
        return instant.date() if pa.types.is_date(key_type) else instant
    return Decimal(text) if pa.types.is_decimal(key_type) else float(text)


@pytest.mark.parametrize("key_type", TYPED_KEYS, ids=str)
def test_who_was_erased_is_known_by_a_key_of_any_type(
    project: Project, key_type: pa.DataType
) -> None:
    is_temporal = pa.types.is_temporal(key_type)
    bea, quentin = ("2026-01-01", A_DAY) if is_temporal else ("1000000000", "2000000000")
    rows = [BEA | {"id": bea}, QUENTIN | {"id": quentin}]
    before = _land_typed(project, DAYS[1], key_type, rows)
    erase(project, quentin, "asked for", "ann")
    after = _land_typed(project, DAYS[2], key_type, rows)
    for data in (before, after):
        kept, gone = pq.read_table(data).to_pylist()
        assert (kept["id"], kept["name"]) == (bea, "Bea")
        assert gone["id"].startswith("erased-")
        assert (gone["name"], gone["phone"]) == (None, None)


@pytest.mark.parametrize("spelt", ["rene\u0301", "C9\u2003"])
def test_an_erasure_of_an_earlier_release_knows_a_key_as_it_was_spelt(
    project: Project, spelt: str
) -> None:
    name = pseudonym(spelt.strip(), hash_key(project.settings.keys_home))
    with closing(Erasures(project.settings.inbox_url)) as book:
        book.begin(name, [name], "asked for", "ann")
    land(project, DAYS[2], "crm/contacts", [BEA, QUENTIN | {"id": spelt}])
    landed = project.snapshots.find("crm/contacts", DAYS[2])
    assert landed is not None
    kept, gone = pq.read_table(landed.data).to_pylist()
    assert (kept["name"], gone["id"], gone["name"]) == ("Bea", name, None)


def _agree(engine: duckdb.DuckDBPyConnection, column: pa.Array) -> None:
    engine.register("landed", pa.table({"key": column}))
    [(kind,)] = engine.execute("SELECT typeof(key) FROM landed LIMIT 1").fetchall()
    found = engine.execute(f"SELECT {as_text('key', kind)} FROM landed").fetchall()
    assert [plain(value) for value in column.to_pylist()] == [text for (text,) in found]


finite = st.floats(allow_nan=False)
decimals = st.tuples(
    st.integers(min_value=-(10**38) + 1, max_value=10**38 - 1),
    st.integers(min_value=0, max_value=38),
)


@given(
    st.lists(finite | st.integers(-(10**15), 10**15).map(float), min_size=1),
    st.lists(decimals, min_size=1),
    st.lists(st.booleans(), min_size=1),
    st.lists(st.dates(), min_size=1),
    st.lists(st.datetimes(), min_size=1),
)
@settings(max_examples=examples(40), deadline=None)
def test_a_cell_is_the_text_that_the_reconcile_makes_of_it(
    floats: list[float],
    scaled: list[tuple[int, int]],
    flags: list[bool],
    dates: list[date],
    instants: list[datetime],
) -> None:
    with duckdb.connect() as engine:
        engine.execute("SET TimeZone = 'UTC'")
        _agree(engine, pa.array(floats))
        for digits, scale in scaled:
            for precision in {38, max(len(str(abs(digits))), scale)}:
                value = Decimal((int(digits < 0), tuple(map(int, str(abs(digits)))), -scale))
                _agree(engine, pa.array([value], pa.decimal128(precision, scale)))
        _agree(engine, pa.array(flags))
        _agree(engine, pa.array(dates))
        _agree(engine, pa.array(instants, pa.timestamp("us")))
        _agree(engine, pa.array(instants, pa.timestamp("us", "UTC")))
