"""Write-backs speak the CRM's own spelling, change nothing twice, and answer row by row."""

import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from vibes_pipelines.crm import database
from vibes_pipelines.crm.database import CrmError
from vibes_pipelines.crm.write_back import CrmTable, WriteBack
from vibes_pipelines.sync_config import SyncConfig

ACCEPTED = WriteBack("accepted")
NOT_FOUND = WriteBack("rejected", "ContactNotFound")
CHANGED = WriteBack("rejected", "ChangedMeanwhile")
UNFIT = WriteBack("rejected", "ValueDoesNotFit")
REFUSED = WriteBack("rejected", "RefusedByCrm")
LOCKED = WriteBack("rejected", "LockedInCrm")
EVIDENCE = datetime(2026, 1, 2, 5, tzinfo=UTC)
BEFORE = datetime(2025, 6, 1, tzinfo=UTC)


@dataclass(frozen=True)
class OptOutRow:
    contact_id: str
    list: str = "1"
    evidence_at: datetime | None = EVIDENCE


@dataclass(frozen=True)
class FieldRow:
    contact_id: str
    field: str
    after: str | None
    before: str | None = None


def build_config(**consent: Any) -> SyncConfig:
    return SyncConfig.model_validate(
        {
            "version": 1,
            "company_key": "A1b2C3",
            "contacts": {"key": "contact_id"},
            "fields": [
                {"from": "name", "to": "first_name", "type": "string"},
                {"from": "score", "to": "score", "type": "number"},
                {"from": "born", "to": "birthdate", "type": "date"},
                {
                    "from": "tier",
                    "to": "tier",
                    "type": "single_select",
                    "options": {"Gold": "gold", "GOLD": "gold"},
                },
                {"from": "interests", "to": "interests", "type": "multi_select", "separator": ","},
            ],
            "consents": [{"from": "sms", "list": "1", "changed_at": "sms_at"} | consent],
        }
    )


class Crm:
    """A CRM table of two contacts, 1 and 2, with typed columns."""

    def __init__(self, url: str, sms: sa.types.TypeEngine[Any], in_use: tuple[Any, Any]) -> None:
        self.url = url
        exact: sa.types.TypeEngine[Any] = sa.Numeric(12, 3)
        self.table = sa.Table(
            "contacts",
            sa.MetaData(),
            sa.Column("contact_id", sa.Integer, primary_key=True),
            sa.Column("name", sa.Text),
            sa.Column("score", exact if url.startswith("postgresql") else sa.Float()),
            sa.Column("born", sa.Date),
            sa.Column("tier", sa.Text),
            sa.Column("interests", sa.Text),
            sa.Column("sms", sms),
            sa.Column("sms_at", sa.DateTime(timezone=url.startswith("postgresql"))),
        )
        self.engine = sa.create_engine(url)
        with self.engine.begin() as connection:
            self.table.create(connection)
            for key, value in enumerate(in_use, start=1):
                row = {"contact_id": key, "name": "Ada", "sms": value, "sms_at": self.at(BEFORE)}
                connection.execute(sa.insert(self.table), [row])

    def at(self, instant: datetime) -> datetime:
        return instant if self.url.startswith("postgresql") else instant.replace(tzinfo=None)

    def column(self, name: str) -> list[Any]:
        with self.engine.connect() as connection:
            statement = sa.select(self.table.c[name]).order_by(self.table.c.contact_id)
            return list(connection.scalars(statement))


@pytest.fixture
def crms() -> Iterator[list[Crm]]:
    opened: list[Crm] = []
    yield opened
    for crm in opened:
        crm.engine.dispose()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'crm.db'}"
    found: str = request.getfixturevalue("postgresql_url")
    return found


@pytest.mark.parametrize(
    ("column_type", "in_use", "consent", "expected"),
    [
        (sa.Boolean(), (True, True), {}, False),
        (sa.Boolean(), (False, False), {"opted_in": ["false"], "opted_out": ["true"]}, True),
        (sa.Integer(), (1, 1), {}, 0),
        (sa.Text(), ("Y", None), {}, "false"),
        (sa.Text(), ("Yes", "No"), {}, "No"),
        (sa.Text(), ("Ja", "Avbo\u0308jd"), {"opted_out": ["avb\u00f6jd"]}, "Avbo\u0308jd"),
        (sa.Text(), ("IN", "IN"), {"opted_in": ["in"], "opted_out": ["OUT"]}, "OUT"),
        (sa.Text(), ("IN", "IN"), {"opted_in": ["in"], "opted_out": [" ", "OUT"]}, "OUT"),
        (sa.CHAR(1), ("Y", "Y"), {"opted_out": ["false", "n"]}, {"postgresql": "n"}),
        (sa.VARCHAR(3), ("Yes", "Yes"), {"opted_out": ["false", "no"]}, {"postgresql": "no"}),
        (sa.Enum("Yes", "No", name="yes_no"), ("Yes", "Yes"), {}, {"postgresql": "No"}),
    ],
)
def test_an_opt_out_is_spelled_as_the_column_holds_it(
    url: str,
    crms: list[Crm],
    column_type: sa.types.TypeEngine[Any],
    in_use: tuple[Any, Any],
    consent: dict[str, Any],
    expected: Any,
) -> None:
    crms.append(crm := Crm(url, column_type, in_use))
    answers = CrmTable(url, build_config(**consent)).apply_opt_outs([OptOutRow("1")])
    assert answers == [ACCEPTED]
    if isinstance(expected, dict):  # SQLite keeps to no length and to no enumeration
        crm.table.c.sms.type = sa.Text()
        expected = expected.get(crm.engine.dialect.name, "false")
    assert crm.column("sms") == [expected, in_use[1]]
    assert crm.column("sms_at") == [crm.at(EVIDENCE), crm.at(BEFORE)]


def test_the_same_opt_out_again_changes_nothing(url: str, crms: list[Crm]) -> None:
    crms.append(crm := Crm(url, sa.Text(), ("Y", "N")))
    table = CrmTable(url, build_config())
    for evidence in (EVIDENCE, datetime(2026, 1, 3, tzinfo=UTC)):
        rows = [OptOutRow("1", evidence_at=evidence), OptOutRow("2", evidence_at=evidence)]
        assert table.apply_opt_outs(rows) == [ACCEPTED, ACCEPTED]
    assert crm.column("sms") == ["N", "N"]
    assert crm.column("sms_at") == [crm.at(EVIDENCE), crm.at(BEFORE)]


def test_a_contact_that_the_crm_changed_after_the_opt_out_is_left_alone(
    url: str, crms: list[Crm]
) -> None:
    crms.append(crm := Crm(url, sa.Text(), ("Y", "N")))
    older = datetime(2025, 5, 31, 23, 59, 59, tzinfo=UTC)
    rows = [OptOutRow("1", evidence_at=older), OptOutRow("2", evidence_at=older)]
    table = CrmTable(url, build_config())
    assert table.apply_opt_outs(rows) == [CHANGED, ACCEPTED]  # the second one is out already
    assert crm.column("sms") == ["Y", "N"]
    assert table.apply_opt_outs([OptOutRow("1", evidence_at=BEFORE)]) == [ACCEPTED]
    unmapped = CrmTable(url, build_config(changed_at=None))
    assert unmapped.apply_opt_outs(rows) == [ACCEPTED, ACCEPTED]


def refuse_to_change(crm: Crm, contact: int, *, at_the_end: bool = False) -> None:
    """The CRM closes one contact's record, as CRMs do with a trigger."""
    statements = [
        f"CREATE TRIGGER closed BEFORE UPDATE ON contacts WHEN old.contact_id = {contact}"
        " BEGIN SELECT raise(ABORT, 'Xylophonius is closed'); END"
    ]
    if crm.url.startswith("postgresql"):
        when = "CONSTRAINT TRIGGER closed AFTER" if at_the_end else "TRIGGER closed BEFORE"
        deferred = "DEFERRABLE INITIALLY DEFERRED" if at_the_end else ""
        statements = [
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE 'Xylophonius is closed'; END $$",
            f"CREATE {when} UPDATE ON contacts {deferred} FOR EACH ROW"
            f" WHEN (old.contact_id = {contact}) EXECUTE FUNCTION refuse()",
        ]
    with crm.engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


@pytest.mark.parametrize("at_the_end", [False, True])
def test_a_contact_that_the_crm_refuses_to_change_holds_back_no_other(
    url: str, crms: list[Crm], at_the_end: bool
) -> None:
    crms.append(crm := Crm(url, sa.Text(), ("Y", "Y")))
    refuse_to_change(crm, 1, at_the_end=at_the_end)
    table = CrmTable(url, build_config())
    rows = [OptOutRow("1"), OptOutRow("2"), OptOutRow("9")]
    assert table.apply_opt_outs(rows) == [REFUSED, ACCEPTED, NOT_FOUND]
    assert crm.column("sms") == ["Y", "false"]
    assert table.apply_opt_outs(rows[:1]) == [REFUSED]
    names = [FieldRow("2", "first_name", "Zoë"), FieldRow("1", "first_name", "Zoë")]
    assert table.apply_fields(names) == [ACCEPTED, REFUSED]
    assert crm.column("name") == ["Ada", "Zoë"]


@pytest.mark.postgresql
@pytest.mark.parametrize(
    ("change", "field", "after", "answer"),
    [
        ("ADD CHECK (name <> 'Xylophonius')", "first_name", "Xylophonius", REFUSED),
        ("ALTER name SET NOT NULL", "first_name", None, REFUSED),
        ("ALTER name TYPE VARCHAR(10)", "first_name", "Xylophonius", UNFIT),
        ("ALTER score TYPE NUMERIC(4, 2)", "score", "3000000000", UNFIT),
        ("ALTER score TYPE INTEGER", "score", "3000000000", UNFIT),
        ("ALTER name TYPE TEXT", "first_name", "A\0da", UNFIT),
        ("ALTER name TYPE TEXT", "first_name", "\ud83d", UNFIT),
    ],
)
def test_what_the_database_refuses_is_of_that_row_alone(
    postgresql_url: str,
    crms: list[Crm],
    change: str,
    field: str,
    after: str | None,
    answer: WriteBack,
) -> None:
    crms.append(crm := Crm(postgresql_url, sa.Text(), ("Y", "N")))
    with crm.engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER TABLE contacts {change}")
    rows = [FieldRow("1", field, after), FieldRow("2", "first_name", "Zoë")]
    assert CrmTable(postgresql_url, build_config()).apply_fields(rows) == [answer, ACCEPTED]
    assert crm.column("name") == ["Ada", "Zoë"]


@pytest.mark.postgresql
def test_a_contact_that_another_session_has_locked_holds_back_no_other(
    postgresql_url: str, crms: list[Crm], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LOCK_WAIT_S", 0.2)
    crms.append(crm := Crm(postgresql_url, sa.Text(), ("Y", "Y")))
    table = CrmTable(postgresql_url, build_config())
    with crm.engine.begin() as session:
        session.execute(sa.update(crm.table).where(crm.table.c.contact_id == 2).values(name="Zoë"))
        assert table.apply_opt_outs([OptOutRow("2"), OptOutRow("1")]) == [LOCKED, ACCEPTED]
        assert table.apply_fields([FieldRow("2", "score", "7")]) == [LOCKED]
        assert crm.column("sms") == ["false", "Y"]
    assert table.apply_opt_outs([OptOutRow("2")]) == [ACCEPTED]
    assert crm.column("name") == ["Ada", "Zoë"]


@pytest.mark.postgresql
def test_a_table_that_is_locked_as_a_whole_is_not_waited_for_row_by_row(
    postgresql_url: str, crms: list[Crm], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LOCK_WAIT_S", 0.2)
    crms.append(crm := Crm(postgresql_url, sa.Text(), ("Y", "Y")))
    rows = [OptOutRow("1"), OptOutRow("2")] * 20
    with crm.engine.begin() as session:
        session.exec_driver_sql(f"LOCK TABLE {crm.table.name} IN EXCLUSIVE MODE")
        began = time.monotonic()
        assert CrmTable(postgresql_url, build_config()).apply_opt_outs(rows) == [LOCKED] * len(rows)
    assert time.monotonic() - began < len(rows) * 0.1


@pytest.mark.postgresql
def test_an_error_of_every_row_tells_its_code_and_no_value(
    postgresql_url: str, crms: list[Crm]
) -> None:
    crms.append(crm := Crm(postgresql_url, sa.Text(), ("Y", "N")))
    with crm.engine.begin() as connection:
        connection.exec_driver_sql("DROP ROLE IF EXISTS looker")
        connection.exec_driver_sql("CREATE ROLE looker LOGIN PASSWORD 'looker'")
        connection.exec_driver_sql("GRANT SELECT ON contacts TO looker")
    looker = sa.make_url(postgresql_url).set(username="looker", password="looker")
    table = CrmTable(looker.render_as_string(hide_password=False), build_config())
    rows = [FieldRow("2", "first_name", "Xylophonius"), FieldRow("9", "first_name", "Zoë")]
    with pytest.raises(CrmError, match="ProgrammingError, SQLSTATE 42501") as refused:
        table.apply_fields(rows)
    assert "Xylophonius" not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize("cell", [None, " ", "perhaps"])
def test_only_an_opt_in_stands_against_an_older_opt_out(
    url: str, crms: list[Crm], cell: str | None
) -> None:
    crms.append(crm := Crm(url, sa.Text(), (cell, " YES\u00a0")))
    older = datetime(2025, 5, 1, 12, tzinfo=UTC)
    rows = [OptOutRow("1", evidence_at=older), OptOutRow("2", evidence_at=older)]
    assert CrmTable(url, build_config()).apply_opt_outs(rows) == [ACCEPTED, CHANGED]
    assert crm.column("sms")[0] == "false"


def test_an_opt_in_that_is_still_to_come_does_not_stand(url: str, crms: list[Crm]) -> None:
    """The time of a broken clock, other than one that may be local."""
    crms.append(crm := Crm(url, sa.Text(), ("Y", "Y")))
    now = datetime.now(UTC)
    rows = [OptOutRow("1", evidence_at=now - timedelta(days=9))]
    for ahead, answer in ((timedelta(hours=14), CHANGED), (timedelta(days=9_000), ACCEPTED)):
        with crm.engine.begin() as connection:
            connection.execute(sa.update(crm.table).values(sms_at=crm.at(now + ahead)))
        assert CrmTable(url, build_config()).apply_opt_outs(rows) == [answer]


def test_an_opt_out_of_which_only_the_day_is_known_may_be_of_its_end(
    url: str, crms: list[Crm]
) -> None:
    crms.append(crm := Crm(url, sa.Text(), ("Y", "Y")))
    day = datetime(2025, 6, 1, tzinfo=UTC)
    in_it = [crm.at(day + timedelta(hours=hours)) for hours in (10, 24)]
    later = crm.at(day + timedelta(hours=24, seconds=1))
    for at, answer in ((in_it[0], ACCEPTED), (in_it[1], ACCEPTED), (later, CHANGED)):
        with crm.engine.begin() as connection:
            connection.execute(sa.update(crm.table).values(sms="Y", sms_at=at))
        rows = [OptOutRow("1", evidence_at=day)]
        assert CrmTable(url, build_config()).apply_opt_outs(rows) == [answer]


def test_an_opt_out_without_a_time_keeps_the_old_one(url: str, crms: list[Crm]) -> None:
    crms.append(crm := Crm(url, sa.Text(), (None, "Y")))
    table = CrmTable(url, build_config())
    assert table.apply_opt_outs([OptOutRow("1", evidence_at=None)]) == [ACCEPTED]
    assert crm.column("sms") == ["false", "Y"]
    assert crm.column("sms_at")[0] == crm.at(BEFORE)


def test_answers_come_row_by_row_in_order(url: str, crms: list[Crm]) -> None:
    crms.append(crm := Crm(url, sa.Boolean(), (True, True)))
    rows = [OptOutRow("9"), OptOutRow("1"), OptOutRow("C-1"), OptOutRow("2")]
    answers = CrmTable(url, build_config()).apply_opt_outs(rows)
    assert answers == [NOT_FOUND, ACCEPTED, NOT_FOUND, ACCEPTED]
    assert crm.column("sms") == [False, False]


def test_fields_take_the_form_of_their_columns(url: str, crms: list[Crm]) -> None:
    crms.append(crm := Crm(url, sa.Boolean(), (True, True)))
    rows = [
        FieldRow("1", "first_name", "Zoë"),
        FieldRow("1", "score", "12.5"),
        FieldRow("1", "birthdate", "1990-12-01"),
        FieldRow("1", "tier", "gold"),
        FieldRow("1", "interests", "golf|hockey"),
        FieldRow("2", "first_name", None),
    ]
    table = CrmTable(url, build_config())
    for _ in range(2):
        assert table.apply_fields(rows) == [ACCEPTED] * 6
    assert crm.column("name") == ["Zoë", None]
    assert crm.column("score")[0] == Decimal("12.5")
    assert crm.column("born")[0] == date(1990, 12, 1)
    assert crm.column("tier")[0] == "Gold"
    assert crm.column("interests")[0] == "golf,hockey"


@pytest.mark.postgresql
def test_a_set_is_written_into_an_array_item_by_item(postgresql_url: str) -> None:
    url, said = postgresql_url, FieldRow("1", "interests", "a,b|golf")
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        statement = "CREATE TABLE contacts (contact_id int PRIMARY KEY, interests varchar(4)[])"
        connection.exec_driver_sql(statement)
        connection.exec_driver_sql("INSERT INTO contacts VALUES (1), (2)")
    rows = [said, FieldRow("2", "interests", "golf|hockey")]
    assert CrmTable(url, build_config()).apply_fields(rows) == [ACCEPTED, UNFIT]
    with engine.connect() as connection:
        held = connection.exec_driver_sql("SELECT interests FROM contacts ORDER BY contact_id")
        assert held.scalars().all() == [["a,b", "golf"], None]


@pytest.mark.parametrize(
    ("field", "after"), [("tier", "silver"), ("birthdate", "soon"), ("score", "many")]
)
def test_a_value_the_column_cannot_hold_is_rejected_alone(
    url: str, crms: list[Crm], field: str, after: str
) -> None:
    crms.append(crm := Crm(url, sa.Boolean(), (True, True)))
    rows = [FieldRow("1", field, after), FieldRow("2", "first_name", "Zoë")]
    assert CrmTable(url, build_config()).apply_fields(rows) == [UNFIT, ACCEPTED]
    assert crm.column("name") == ["Ada", "Zoë"]


@pytest.mark.parametrize(
    ("field", "cell", "seen", "after"),
    [
        ("first_name", " Ada\u00a0", "Ada", "Zoë"),
        ("first_name", None, None, "Zoë"),
        ("first_name", "Ada", "Ada", None),
        ("score", Decimal("12.500"), "12.5", "13"),
        ("birthdate", date(1990, 12, 1), "1990-12-01", "1991-01-01"),
        ("tier", "GOLD ", "gold", None),
        ("interests", "hockey, golf", "golf|hockey", "chess"),
        ("interests", "", None, "chess"),
    ],
)
def test_where_the_newer_side_decides_a_later_edit_of_the_crm_stands(
    url: str, crms: list[Crm], field: str, cell: Any, seen: str | None, after: str | None
) -> None:
    crms.append(crm := Crm(url, sa.Boolean(), (True, True)))
    document = build_config().model_dump(by_alias=True)
    for mapped in document["fields"]:
        mapped |= {"authority": "newest", "changed_at": "sms_at"}
    config = SyncConfig.model_validate(document)
    [column] = [one.from_ for one in config.fields if one.to == field]
    with crm.engine.begin() as connection:
        connection.execute(sa.update(crm.table).values({column: cell}))
    table = CrmTable(url, config)
    assert table.apply_fields([FieldRow("1", field, "7", before="1999")]) == [CHANGED]
    assert crm.column(column)[0] == cell
    for _ in range(2):  # the same again changes nothing
        assert table.apply_fields([FieldRow("1", field, after, before=seen)]) == [ACCEPTED]
    assert crm.column(column) != [cell, cell]


def test_one_call_is_one_transaction(url: str, crms: list[Crm]) -> None:
    crms.append(crm := Crm(url, sa.Boolean(), (True, True)))
    rows = [FieldRow("1", "first_name", "Zoë"), FieldRow("1", "nickname", "Z")]
    with pytest.raises(CrmError, match=r"sync\.yaml: fields: no entry with to: nickname"):
        CrmTable(url, build_config()).apply_fields(rows)
    assert crm.column("name") == ["Ada", "Ada"]


@pytest.mark.parametrize(
    ("config", "rows", "message"),
    [
        (build_config(), [OptOutRow("1", "7")], "consents: no entry for list 7; map it"),
        (build_config(**{"from": "text_ok"}), [OptOutRow("1")], "contacts has no column 'text_ok'"),
        (build_config(opted_out=["stop"]), [OptOutRow("1")], None),
    ],
)
def test_what_sync_yaml_does_not_map_is_named(
    url: str, crms: list[Crm], config: SyncConfig, rows: list[OptOutRow], message: str | None
) -> None:
    crms.append(Crm(url, sa.Boolean(), (True, True)))
    if message is None:
        assert CrmTable(url, config).apply_opt_outs(rows) == [UNFIT]
        return
    with pytest.raises(CrmError, match=message):
        CrmTable(url, config).apply_opt_outs(rows)


@pytest.mark.parametrize("cell", ["01/03/2023", "20260110", "2026-01-02T05:00:00.9Z"])
def test_a_time_that_the_reconcile_reads_as_none_or_no_newer_keeps_no_opt_out_away(
    tmp_path: Path, cell: str
) -> None:
    url = f"sqlite:///{tmp_path / 'crm.db'}"
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE contacts (contact_id TEXT, sms TEXT, sms_at DATETIME)"
        )
        connection.exec_driver_sql("INSERT INTO contacts VALUES ('C-1', '1', ?)", (cell,))
    assert CrmTable(url, build_config()).apply_opt_outs([OptOutRow("C-1")]) == [ACCEPTED]
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT sms FROM contacts").scalar_one() == "false"
    engine.dispose()


def test_a_text_column_gets_the_time_as_iso_text(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'crm.db'}"
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE contacts (contact_id TEXT, sms TEXT, sms_at TEXT)")
        connection.exec_driver_sql("INSERT INTO contacts VALUES ('C-1', '1', NULL)")
    assert CrmTable(url, build_config()).apply_opt_outs([OptOutRow("C-1")]) == [ACCEPTED]
    with engine.connect() as connection:
        row = connection.exec_driver_sql("SELECT sms, sms_at FROM contacts").one()
    engine.dispose()
    assert tuple(row) == ("false", "2026-01-02T05:00:00Z")


@pytest.mark.parametrize(
    "cell",
    [
        "2017-04-05 14:30:00 UTC",
        "2017-04-05 08:30:00 -0600",
        "2017-04-05T14:30Z",
        "2017-04-05 14:30",
    ],
)
def test_a_text_date_is_read_in_every_spelling_that_the_reconcile_reads(
    tmp_path: Path, cell: str
) -> None:
    url = f"sqlite:///{tmp_path / 'crm.db'}"
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE contacts (contact_id TEXT, born TEXT, at TEXT)")
        connection.exec_driver_sql("INSERT INTO contacts VALUES ('1', ?, NULL)", (cell,))
    document = build_config().model_dump(by_alias=True)
    newest = {"type": "date", "authority": "newest", "changed_at": "at"}
    document["fields"] = [{"from": "born", "to": "birthdate"} | newest]
    table = CrmTable(url, SyncConfig.model_validate(document))
    seen = "2017-04-05T14:30:00Z"
    assert table.apply_fields([FieldRow("1", "birthdate", "2018-01-01", before=seen)]) == [ACCEPTED]
    engine.dispose()
