"""`explain` over days that are landed by hand: what is not sent, not stored, or not there."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from vibes_pipelines.cli.main import main
from vibes_pipelines.delivery.plan import plan
from vibes_pipelines.reconcile.destinations import VIBES
from vibes_pipelines.report.explain import UnknownDayError, UnknownFieldError, explain
from vibes_pipelines.report.explain_facts import DayFacts
from vibes_pipelines.report.explain_landed import LandedRows
from vibes_pipelines.report.explain_ledger import operations_query
from vibes_pipelines.report.explain_person import AmbiguousPersonError, UnknownPersonError
from vibes_pipelines.settings import Settings
from vibes_pipelines.stages.certifying import certify_day
from vibes_pipelines.stages.project import Project, open_project
from vibes_pipelines.stages.reconciling import reconcile_day
from vibes_pipelines.store.records import Receipt
from vibes_pipelines.store.snapshots import DATA, Source
from vibes_pipelines_tests.support.loop import edited_sync_config

CONTACTS, PERSONS, SUBSCRIPTIONS = (
    VIBES.feeds.contacts,
    VIBES.feeds.persons,
    VIBES.feeds.subscriptions,
)
DAYS = ("2026-01-01", "2026-01-02", "2026-01-03")
CONTACT = {
    "contact_id": "C1",
    "mobile": "(312) 555-2671",
    "first_name": " Ada",
    "last_name": "One",
    "birth_date": "1990-12-01",
    "score": "12.50",
    "tier": "Gold",
    "interests": None,
    "zip": "02134",
    "customer_type": "A",
    "sms_opt_in": "false",
    "sms_opt_in_at": "2025-12-01 10:00:00",
}
PERSON = {
    "person_key": "k1",
    "external_person_id": "C1",
    "mdn": "+13125552671",
    "first_name": "Ada",
    "last_name": "One",
    "birthdate": "1990-12-01",
    "score": "99",
    "tier": "silver",
    "interests": "golf",
    "zip_code": "02134",
}
STAY = {
    "person_key": "k1",
    "subscription_list_id": "1234",
    "opt_in_date": "2025-01-01 00:00:00",
    "opt_out_date": None,
    "opt_out_reason": None,
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """`tier` is the platform's; caps that three people do not breach."""
    config = edited_sync_config(
        tmp_path,
        (
            "to: tier,       type: single_select,",
            "to: tier,       type: single_select, authority: platform,",
        ),
        ("max_share: 0.20", "max_share: 1.0"),
        ("max_share: 0.05", "max_share: 1.0"),
    )
    environment = {"VIBES_HOME": str(tmp_path / "data"), "VIBES_SYNC_CONFIG": str(config)}
    monkeypatch.delenv("VIBES_LEDGER_URL", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with open_project(Settings(environment)) as opened:
        yield opened


def writer(name: str, day: str, rows: Sequence[dict[str, Any]]) -> Callable[[Path], Source]:
    def write(folder: Path) -> Source:
        schema = pa.schema([(column, pa.string()) for column in rows[0]])
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), folder / DATA)
        return Source(name, datetime.fromisoformat(f"{day}T06:00:00+00:00"))

    return write


def land(
    project: Project,
    day: str,
    contacts: Sequence[dict[str, Any]] = (CONTACT,),
    persons: Sequence[dict[str, Any]] = (PERSON,),
    stays: Sequence[dict[str, Any]] = (STAY,),
) -> None:
    sides = {CONTACTS: contacts, PERSONS: persons, **dict.fromkeys(SUBSCRIPTIONS, stays)}
    for feed, rows in sides.items():
        project.snapshots.land(feed, day, writer(f"{feed} table", day, rows))


def run(project: Project, day: str, *, accept: bool = True) -> str:
    """Reconciles and plans a landed day; everything sent is accepted."""
    certify_day(project, day)
    summary = reconcile_day(project, day)
    if accept:
        ledger = project.ledger
        plan(summary.diff_set, project.diff_set_folder(day), project.config, ledger)
        roads = (("persons", "api"), ("opt_outs", "api"), ("opt_outs", "crm"), ("crm", "crm"))
        for lane, route in roads:
            ids = [o.operation_id for o in ledger.open_operations(summary.diff_set, lane, route)]  # type: ignore[arg-type]
            ledger.mark_sent(ids)
            ledger.record([Receipt(one, "accepted") for one in ids], day)
        ledger.mark_delivered(summary.diff_set)
    return summary.diff_set


def only(project: Project, person: str, day: str) -> DayFacts:
    [facts] = explain(project, person, day=day).days
    return facts


def test_an_opt_out_under_way_is_deferred_and_says_so(project: Project) -> None:
    for day in DAYS[:2]:
        land(project, day)
        run(project, day)
    first, second = (only(project, "C1", day) for day in DAYS[:2])
    assert [one.kind for one in first.operations if one.lane == "opt_outs"] == ["opt_out"]
    assert [change.reason for change in second.consents[0].changes] == ["crm_opted_out"]
    [unsent] = [one for one in second.unsent if one.kind == "opt_out"]
    assert unsent.why == "accepted earlier, not yet visible"
    assert unsent.subscription_list_id == "1234"


def test_an_opt_in_that_is_still_to_come_hides_no_opt_out(project: Project) -> None:
    stay = STAY | {"opt_in_date": "2062-01-01 00:00:00", "opt_out_date": "2025-06-01 00:00:00"}
    land(project, DAYS[0], stays=[stay])
    run(project, DAYS[0])
    [consent] = only(project, "C1", DAYS[0]).consents
    assert (consent.platform, consent.why) == ("out", "both sides agree")


def test_a_field_of_the_platform_is_told_as_written_back(project: Project) -> None:
    land(project, DAYS[0])
    run(project, DAYS[0])
    facts = only(project, "C1", DAYS[0])
    fields = {field.field: field for field in facts.fields}
    [change] = fields["tier"].changes
    assert (change.side, change.before, change.after) == ("crm", "gold", "silver")
    assert [one.kind for one in facts.operations if one.lane == "crm"] == ["crm_update"]
    assert fields["score"].why == "authority fill: the platform has a value, which stays"
    assert "when_null keep" in fields["interests"].why
    assert (fields["first_name"].crm[0].raw, fields["first_name"].crm[0].value) == (" Ada", "Ada")
    assert facts.end.status == "unchanged"


@pytest.mark.slow
def test_a_diff_set_that_nobody_delivered_says_so(project: Project) -> None:
    land(project, DAYS[0], [CONTACT | {"last_name": "Two"}])
    run(project, DAYS[0], accept=False)
    told = {one.kind: one.why for one in only(project, "C1", DAYS[0]).unsent}
    assert told.keys() == {"update", "opt_out", "crm_update"}
    assert "first run: nothing was delivered before" in told["update"]
    land(project, DAYS[1], [CONTACT | {"last_name": "Two"}])
    run(project, DAYS[1])
    again = {one.why for one in only(project, "C1", DAYS[0]).unsent}
    assert again == {"a newer diff set took its place before it was planned"}


def test_a_changed_sync_config_is_said_where_the_end_is_worked_out(
    project: Project, tmp_path: Path
) -> None:
    land(project, DAYS[0])
    run(project, DAYS[0])
    text = (tmp_path / "sync.yaml").read_text(encoding="utf-8")
    (tmp_path / "sync.yaml").write_text(
        text.replace("visibility_lag_h: 36", "visibility_lag_h: 35"), encoding="utf-8"
    )
    with open_project(project.settings) as changed:
        facts = only(changed, "C1", DAYS[0])
    assert facts.end.status == "unchanged"
    assert facts.end.why.endswith("today's sync.yaml, which is not the one of that day")
    assert [one.is_under_todays_config for one in facts.diff_sets] == [False]


def test_a_contact_without_key_is_found_by_its_number(project: Project) -> None:
    unkeyed = CONTACT | {"contact_id": " ", "mobile": "312-555-2699"}
    land(project, DAYS[0], [CONTACT, unkeyed])
    run(project, DAYS[0])
    facts = only(project, "+13125552699", DAYS[0])
    assert facts.end.status == "quarantined"
    assert facts.end.why.startswith("missing_contact_key")
    assert [row.place.row for row in facts.contacts] == [2]


def test_what_was_landed_is_told_before_it_is_reconciled(project: Project) -> None:
    land(project, DAYS[0])
    facts = only(project, "C1", DAYS[0])
    assert (facts.end.status, facts.end.how) == ("not reconciled", "not recorded")
    assert [row.place.source for row in facts.persons] == ["share/persons table"]


def test_a_landing_that_is_gone_is_not_recorded_any_more(project: Project) -> None:
    land(project, DAYS[0])
    run(project, DAYS[0])
    landed = project.snapshots.find(CONTACTS, DAYS[0])
    assert landed is not None
    (landed.folder / "manifest.json").unlink()
    facts = only(project, "C1", DAYS[0])
    assert facts.contacts == ()
    assert [one.kind for one in facts.operations] == ["crm_update", "opt_out"]


def test_an_unknown_person_is_told_what_was_searched(project: Project) -> None:
    land(project, DAYS[0])
    run(project, DAYS[0])
    with pytest.raises(UnknownPersonError, match=r"contact key and external_person_id.*person_key"):
        explain(project, "nobody")
    with pytest.raises(UnknownPersonError, match="as an mdn"):
        explain(project, "+13125550000")
    with pytest.raises(UnknownFieldError, match=r"'colour' is not mapped in sync\.yaml; one of"):
        explain(project, "C1", field="colour")
    with pytest.raises(UnknownDayError, match="2025-12-31; days with a diff set"):
        explain(project, "C1", day="2025-12-31")


def test_a_number_that_two_persons_have_is_ambiguous(project: Project) -> None:
    other = PERSON | {"person_key": "k2", "external_person_id": None}
    third = other | {"person_key": "k3", "mdn": "+13125552672"}
    land(project, DAYS[0], [CONTACT], [PERSON, other, third, third | {"person_key": "k4"}])
    run(project, DAYS[0])
    with pytest.raises(AmbiguousPersonError, match="leads to 2 people: k3, k4"):
        explain(project, "+13125552672")
    assert explain(project, "+13125552671").who.external_person_id == "C1"


def test_callbacks_of_the_inbox_are_told_where_there_is_one(project: Project) -> None:
    land(project, DAYS[0])
    run(project, DAYS[0])
    engine = sa.create_engine(project.settings.ledger_url)
    try:
        has_inbox = sa.inspect(engine).has_table("callbacks")
    finally:
        engine.dispose()
    assert explain(project, "C1").callbacks == ()
    if not has_inbox:
        pytest.skip("this ledger keeps no inbox")
    at = datetime.fromisoformat("2026-01-01T05:00:00+00:00")
    put_callback(project, at)
    [callback] = explain(project, "C1").callbacks
    assert (callback.event_type, callback.status) == ("subscription_removed", "applied")
    assert callback.received_at == "2026-01-01T05:00:00Z"


def put_callback(project: Project, at: datetime) -> None:
    from vibes_pipelines.store import models  # noqa: PLC0415 - the table may not be there

    table = models.metadata.tables["callbacks"]
    values: dict[str, Any] = {
        "received_at": at,
        "order_at": at,
        "event_at": at,
        "event_type": "subscription_removed",
        "subscription_list_id": "1234",
        "person_key": "k1",
        "status": "applied",
    }
    for column in table.columns:
        if column.name not in values and not column.nullable and not column.primary_key:
            values[column.name] = b"" if isinstance(column.type, sa.LargeBinary) else "0"
            if isinstance(column.type, sa.Integer | sa.BigInteger):
                values[column.name] = 0
    engine = sa.create_engine(project.settings.ledger_url)
    try:
        with engine.begin() as connection:
            connection.execute(sa.insert(table).values(values))
    finally:
        engine.dispose()


# How it is read: what bounds the work does not depend on how much is stored.


def test_a_scan_reads_mapped_columns_only_and_filters_while_it_reads(
    project: Project, tmp_path: Path
) -> None:
    wide = CONTACT | {f"unmapped_{number}": "x" for number in range(5)}
    for day in DAYS:
        land(project, day, [wide])
    with closing(duckdb.connect()) as connection:
        rows = LandedRows(connection, project.config, project.snapshots, tmp_path)
        asked = {
            CONTACTS: list(rows.contact_queries(DAYS, "C1")),
            PERSONS: list(rows.person_queries(DAYS, ["C1"], ["k1"], ["+13125552671"])),
            SUBSCRIPTIONS: list(rows.subscription_queries(DAYS, ["k1"])),
        }
        assert {feed: len(queries) for feed, queries in asked.items()} == {
            CONTACTS: 1,
            PERSONS: 1,
            SUBSCRIPTIONS: 2,
        }
        for feed, queries in asked.items():
            for query in queries:
                [[_, text]] = connection.execute(
                    f"EXPLAIN ANALYZE {query.sql}", list(query.values)
                ).fetchall()
                assert text.count("READ_PARQUET") == 1
                assert feed == PERSONS or "Filters:" in text  # any of three columns may name one
                assert "Total Files Read: 3" in text
                assert "unmapped" not in text


def test_days_of_other_columns_are_read_apart_and_told_together(project: Project) -> None:
    land(project, DAYS[0], [{k: v for k, v in CONTACT.items() if k != "zip"}])
    land(project, DAYS[1])
    for day in DAYS[:2]:
        facts = only(project, "C1", day)
        cells = {field.field: field.crm for field in facts.fields}
        assert len(cells["zip_code"]) == (day == DAYS[1])
        assert cells["last_name"][0].value == "One"


@pytest.mark.parametrize("column", ["external_person_id", "person_key"])
def test_operations_are_sought_by_an_index(project: Project, column: str) -> None:
    engine = sa.create_engine(project.settings.ledger_url)
    try:
        query = operations_query(column, ["C1"]).compile(
            engine, compile_kwargs={"literal_binds": True}
        )
        with engine.begin() as connection:
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}").fetchall()
    finally:
        engine.dispose()
    steps = [row[3] for row in rows]
    assert any(f"ix_operations_{column}" in step for step in steps), steps
    assert not any(step.startswith("SCAN") for step in steps), steps


# The command


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["explain", *arguments])


FACTS = set(
    "day end contacts persons fields consents doubts diff_sets operations unsent".split()  # noqa: SIM905
)


def test_the_command_prints_text_or_one_json_object(project: Project) -> None:
    land(project, DAYS[0], [CONTACT | {"last_name": "Two"}])
    diff_set = run(project, DAYS[0])
    text = invoke("C1", "--field", "last_name")
    assert text.exit_code == 0, text.output
    assert "set at the platform: 'One' → 'Two', no_base" in text.stdout
    assert f"{diff_set[:12]}, delivered" in text.stdout

    told = invoke("k1", "--day", DAYS[0], "--json")
    assert told.exit_code == 0, told.output
    document = json.loads(told.stdout)
    assert document.keys() == {
        *("who", "field", "days", "older_days", "callbacks", "decisions"),
    }
    [facts] = document["days"]
    assert facts.keys() == FACTS
    assert document["who"] == {
        "asked": "k1",
        "found_as": "person_key",
        "external_person_id": "C1",
        "person_keys": ["k1"],
        "mdns": ["+13125552671"],
    }
    assert facts["end"]["status"] == "updated"
    assert {one["kind"] for one in facts["operations"]} == {"update", "opt_out", "crm_update"}


def test_the_exit_codes_tell_an_unknown_person_from_wrong_usage(project: Project) -> None:
    nothing = invoke("C1")
    assert nothing.exit_code == 1
    assert "nothing is landed and nothing reconciled yet" in nothing.stderr
    land(project, DAYS[0])
    run(project, DAYS[0])
    assert invoke("C1").exit_code == 0
    unknown = invoke("C2")
    assert unknown.exit_code == 1
    assert "nobody is known as 'C2'" in unknown.stderr
    for usage in (("C1", "--day", "yesterday"), ("C1", "--field", "colour"), ()):
        assert invoke(*usage).exit_code == 2


def test_the_help_says_that_personal_values_are_shown() -> None:
    told = " ".join(invoke("--help").stdout.split())
    assert "Personal values are printed in clear" in told
    assert "Nothing is logged" in told
