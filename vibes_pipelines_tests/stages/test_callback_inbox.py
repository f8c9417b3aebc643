"""The drain: an opt-out at the platform reaches the CRM unless newer evidence is against it."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from vibes_pipelines.callbacks.intake import posted, read_arrival
from vibes_pipelines.crm import database
from vibes_pipelines.crm.database import CrmError
from vibes_pipelines.settings import Settings
from vibes_pipelines.stages.inbox import Drained, drain, newest_waiting
from vibes_pipelines.stages.project import Project, end_of_day, open_project
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines.store.snapshots import DATA, Source
from vibes_pipelines_tests.support.callbacks import (
    ADDED,
    REMOVED,
    as_bytes,
    stored_rows,
    subscription_body,
)
from vibes_pipelines_tests.support.examples import examples
from vibes_pipelines_tests.support.loop import EXAMPLE

DAY = "2026-01-02"
BEFORE = "2026-01-01T00:00:00Z"
AT, LATER = "2026-01-02T03:04:05Z", "2026-01-02T04:00:00Z"
MDN, OTHER_MDN = "+13125550142", "+13125550143"


@dataclass(frozen=True)
class Desk:
    """A project with a CRM of three contacts, all opted in before, and its inbox."""

    project: Project
    crm_url: str
    environment: dict[str, str]

    @property
    def ledger_url(self) -> str:
        return self.project.settings.ledger_url

    def receive(self, *bodies: dict[str, Any] | bytes) -> None:
        raw = [body if isinstance(body, bytes) else as_bytes(body) for body in bodies]
        with closing(Inbox(self.ledger_url)) as inbox:
            for body in raw:
                inbox.store([read_arrival(posted("127.0.0.1", "/callbacks", body))])

    def drain(self) -> Drained:
        return drain(self.project, dry_run=False)

    def ends(self) -> list[tuple[str, str | None]]:
        return [(row["status"], row["reason"]) for row in stored_rows(self.ledger_url)]

    def contacts(self) -> dict[str, tuple[str, str]]:
        query = "SELECT contact_id, sms_opt_in, sms_opt_in_at FROM contacts"
        return {key: (state, at) for key, state, at in self.crm(query)}

    def crm(self, statement: str) -> Sequence[Any]:
        engine = sa.create_engine(self.crm_url)
        try:
            with engine.begin() as connection:
                result = connection.exec_driver_sql(statement)
                return result.all() if result.returns_rows else []
        finally:
            engine.dispose()

    def land_persons(self, *rows: tuple[str | None, str | None, str | None]) -> None:
        names = ("person_key", "external_person_id", "mdn")
        schema = pa.schema([(name, pa.string()) for name in names])
        records = [dict(zip(names, row, strict=True)) for row in rows]

        def write(folder: Path) -> Source:
            pq.write_table(pa.Table.from_pylist(records, schema), folder / DATA)
            return Source("a test", end_of_day(DAY))

        self.project.snapshots.land("share/persons", DAY, write)


@contextmanager
def opened_desk(folder: Path, ledger_url: str = "", crm_url: str = "") -> Iterator[Desk]:
    crm_url = crm_url or f"sqlite:///{folder / 'crm.db'}"
    environment = {
        "VIBES_HOME": str(folder / "data"),
        "VIBES_LEDGER_URL": ledger_url,
        "VIBES_SYNC_CONFIG": str(EXAMPLE),
        "CRM_URL": crm_url,
    }
    with open_project(Settings(environment)) as project:
        desk = Desk(project, crm_url, environment)
        desk.crm(
            "CREATE TABLE contacts (contact_id TEXT PRIMARY KEY, sms_opt_in TEXT, "
            "sms_opt_in_at TEXT)"
        )
        desk.crm(
            f"INSERT INTO contacts VALUES ('C1', 'Y', '{BEFORE}'), ('C2', 'Y', '{BEFORE}'), "
            f"('C3', 'N', '{BEFORE}')"
        )
        yield desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with opened_desk(tmp_path) as opened:
        yield opened


IN, OUT = ("Y", BEFORE), ("N", AT)


def removed(event_id: str = "R1", at: str = AT, **person: Any) -> dict[str, Any]:
    return subscription_body(REMOVED, event_id, at, **(person or {"external_person_id": "C1"}))


def added(event_id: str = "A1", at: str = LATER, **person: Any) -> dict[str, Any]:
    return subscription_body(ADDED, event_id, at, **(person or {"external_person_id": "C1"}))


class TestOptOuts:
    @pytest.mark.postgresql
    def test_it_reaches_the_contact_with_the_time_of_the_event(
        self, tmp_path: Path, postgresql_url: str
    ) -> None:
        for name, ledger_url in (("lite", ""), ("post", postgresql_url)):
            (tmp_path / name).mkdir()
            with opened_desk(tmp_path / name, ledger_url) as desk:
                desk.receive(removed())
                assert desk.drain() == Drained(dry_run=False, applied=1, reasons={"opted_out": 1})
                assert desk.contacts() == {"C1": OUT, "C2": IN, "C3": ("N", BEFORE)}
                assert desk.ends() == [("applied", "opted_out")]
                assert newest_waiting(desk.project) is None

    def test_its_time_is_that_of_the_opt_out_not_of_the_message(self, desk: Desk) -> None:
        desk.receive(removed() | {"event_date": "2026-01-03T00:00:00Z"})
        desk.drain()
        assert desk.contacts()["C1"] == OUT

    @pytest.mark.parametrize("at", ["soon", "2026-01-02", "2026-01-02T05:00Z"])
    def test_without_any_exact_time_that_of_the_arrival_is_the_evidence(
        self, desk: Desk, at: str
    ) -> None:
        desk.crm(f"UPDATE contacts SET sms_opt_in_at = '{LATER}' WHERE contact_id = 'C1'")
        desk.receive(removed(at=at))
        desk.drain()
        [row] = stored_rows(desk.ledger_url)
        assert desk.contacts()["C1"] == ("N", f"{row['received_at']:%Y-%m-%dT%H:%M:%SZ}")

    def test_a_contact_that_is_out_keeps_its_earlier_time(self, desk: Desk) -> None:
        desk.receive(removed(external_person_id="C3"))
        assert desk.drain().applied == 1
        assert desk.contacts()["C3"] == ("N", BEFORE)

    def test_a_newer_word_of_the_crm_stands(self, desk: Desk) -> None:
        desk.crm(f"UPDATE contacts SET sms_opt_in_at = '{LATER}' WHERE contact_id = 'C1'")
        desk.receive(removed())
        desk.drain()
        assert desk.ends() == [("ignored", "crm_is_newer")]
        assert desk.contacts()["C1"] == ("Y", LATER)

    def test_a_contact_that_the_crm_refuses_to_change_holds_back_no_other(self, desk: Desk) -> None:
        desk.crm(
            "CREATE TRIGGER closed BEFORE UPDATE ON contacts WHEN old.contact_id = 'C1'"
            " BEGIN SELECT raise(ABORT, 'closed'); END"
        )
        desk.receive(removed(), removed("R2", external_person_id="C2"))
        desk.drain()
        assert desk.ends() == [("parked", "refused_by_crm"), ("applied", "opted_out")]
        assert (desk.contacts()["C1"], desk.contacts()["C2"]) == (IN, OUT)

    @pytest.mark.postgresql
    def test_one_whose_contact_is_locked_waits_and_holds_back_no_other(
        self, tmp_path: Path, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(database, "LOCK_WAIT_S", 0.2)
        with (
            opened_desk(tmp_path, crm_url=postgresql_url) as desk,
            closing(psycopg.connect(desk.crm_url.replace("+psycopg", ""))) as session,
        ):
            session.execute("SELECT * FROM contacts WHERE contact_id = 'C1' FOR UPDATE")
            desk.receive(removed(), removed("R2", external_person_id="C2"))
            assert desk.drain().reasons == {"locked_in_crm": 1, "opted_out": 1}
            assert desk.ends() == [("stored", None), ("applied", "opted_out")]
            assert (desk.contacts()["C1"], desk.contacts()["C2"]) == (IN, OUT)
            session.rollback()
            assert desk.drain().reasons == {"opted_out": 1}
            assert desk.contacts()["C1"] == OUT

    def test_a_dry_run_says_what_it_would_do_and_does_nothing(self, desk: Desk) -> None:
        desk.receive(removed(), added(external_person_id="C2"), removed("R2", mdn=MDN))
        reasons = {"opt_in_not_carried": 1, "opted_out": 1, "unknown_person": 1}
        would = drain(desk.project)
        assert would == Drained(dry_run=True, applied=1, ignored=1, parked=1, reasons=reasons)
        assert would.sentence.startswith("dry run: applied 1, ignored 1, parked 1 (")
        assert desk.contacts()["C1"] == IN
        assert {status for status, _ in desk.ends()} == {"stored"}

    def test_an_empty_inbox_has_nothing_to_do(self, desk: Desk) -> None:
        assert desk.drain() == Drained(dry_run=False)


class TestWhatHasNoEffect:
    @pytest.mark.parametrize(
        ("body", "end"),
        [
            (added(), ("ignored", "opt_in_not_carried")),
            (
                removed() | dict.fromkeys(("callback_type", "event_type"), "person_updated"),
                ("ignored", "recorded only"),
            ),
            ({"callback_type": "coupon_eaten"}, ("ignored", "recorded only")),
            (
                subscription_body(REMOVED, "R1", AT, list_id="9", external_person_id="C1"),
                ("ignored", "list_not_mapped"),
            ),
            (removed(external_person_id="C9"), ("parked", "unknown_person")),
            (b"garbage", ("parked", "the body is not JSON: line 1, column 1")),
        ],
    )
    def test_it_ends_with_its_reason(
        self, desk: Desk, body: dict[str, Any] | bytes, end: tuple[str, str]
    ) -> None:
        desk.receive(body)
        desk.drain()
        assert desk.ends() == [end]
        assert desk.contacts()["C1"] == IN

    def test_a_list_of_another_company_is_parked(self, desk: Desk) -> None:
        body = removed()
        body["subscription"]["subscription_list"]["url"] = "/companies/Zz9/mobiledb/lists/1234"
        desk.receive(body)
        desk.drain()
        assert desk.ends() == [("parked", "other_company")]
        assert desk.contacts()["C1"] == IN

    def test_a_conflict_is_parked_and_the_first_one_counts(self, desk: Desk) -> None:
        desk.receive(removed(), removed(external_person_id="C2"))
        desk.drain()
        assert [status for status, _ in desk.ends()] == ["applied", "parked"]
        assert (desk.contacts()["C1"], desk.contacts()["C2"]) == (OUT, IN)


class TestSupersession:
    def test_an_older_removal_gives_way_to_a_later_add(self, desk: Desk) -> None:
        desk.receive(added(), removed())
        desk.drain()
        assert desk.ends() == [("ignored", "opt_in_not_carried"), ("ignored", "superseded")]
        assert desk.contacts()["C1"] == IN

    def test_also_when_the_add_was_finished_before_the_removal_came(self, desk: Desk) -> None:
        desk.receive(added())
        desk.drain()
        desk.receive(removed())
        desk.drain()
        assert desk.ends()[1] == ("ignored", "superseded")
        assert desk.contacts()["C1"] == IN

    @pytest.mark.parametrize(
        "other",
        [
            added(at=AT),  # at the same instant the opt-out wins
            added(at="soon"),  # undated, no evidence
            added(at=BEFORE),
            added(external_person_id="C2"),
            subscription_body(ADDED, "A1", LATER, list_id="9", external_person_id="C1"),
        ],
    )
    def test_any_other_add_leaves_the_opt_out_standing(
        self, desk: Desk, other: dict[str, Any]
    ) -> None:
        if other["event_date"] == "soon":
            other = other | {"event_date": None}
        desk.receive(other, removed())
        desk.drain()
        assert desk.ends()[1] == ("applied", "opted_out")

    @pytest.mark.parametrize(
        ("of_removal", "of_add", "is_superseded"),
        [
            ({"external_person_id": "C1", "person_key": "k1"}, {"person_key": "k1"}, True),
            ({"external_person_id": "C1", "id": "P1"}, {"id": "P1", "person_key": "k1"}, True),
            (
                {"external_person_id": "C1", "person_key": "k1"},
                {"external_person_id": "C1", "person_key": "k2"},
                False,
            ),
            # A number that was passed on carries no consent with it.
            (
                {"external_person_id": "C1", "mdn": MDN},
                {"external_person_id": "C2", "mdn": MDN},
                False,
            ),
            ({"external_person_id": "C1", "mdn": MDN}, {"mdn": MDN}, False),
        ],
    )
    def test_only_the_same_person_counts(
        self, desk: Desk, of_removal: Any, of_add: Any, is_superseded: bool
    ) -> None:
        desk.receive(removed(**of_removal), added(**of_add))
        desk.drain()
        expected = ("ignored", "superseded") if is_superseded else ("applied", "opted_out")
        assert desk.ends()[0] == expected


class TestWhomItMeans:
    @pytest.mark.parametrize(
        ("person", "landed", "contact"),
        [
            ({"person_key": "K1"}, [("k1", "C1", MDN)], "C1"),
            ({"mdn": MDN}, [("k1", "C1", MDN), ("k2", "C2", None)], "C1"),
            ({"person_key": "k1", "external_person_id": "old"}, [("k1", "C1", None)], "C1"),
            # Not uniquely, or not at all:
            ({"person_key": "k1"}, [], None),
            ({"person_key": "k1"}, [("k1", None, None)], None),
            ({"person_key": "k1"}, [("k1", "C1", None), ("k1", "C2", None)], None),
            ({"person_key": "k1"}, [("k1", "C1", None), ("k2", "C1", None)], None),
            ({"mdn": MDN}, [("k1", "C1", MDN), ("k2", "C2", MDN)], None),
            ({"mdn": MDN}, [("k1", "C1", OTHER_MDN)], None),
            # The number has another holder now.
            ({"person_key": "k9", "mdn": MDN}, [("k1", "C1", MDN)], None),
            ({"external_person_id": "C9", "mdn": MDN}, [("k1", "C1", MDN)], None),
            ({"id": "P1"}, [("k1", "C1", MDN)], None),
        ],
    )
    def test_the_newest_persons_say_it_or_nobody_does(
        self, desk: Desk, person: Any, landed: Any, contact: str | None
    ) -> None:
        if landed:
            desk.land_persons(*landed)
        desk.receive(removed(**person))
        desk.drain()
        if contact is None:
            assert desk.ends() == [("parked", "unknown_person")]
            assert desk.contacts()["C1"] == desk.contacts()["C2"] == IN
        else:
            assert desk.ends() == [("applied", "opted_out")]
            assert desk.contacts()[contact] == OUT


class TestHistories:
    events = st.lists(
        st.tuples(st.sampled_from([ADDED, REMOVED]), st.integers(0, 5)), min_size=1, max_size=6
    )

    @settings(max_examples=examples(25), deadline=None)
    @given(data=st.data(), events=events)
    def test_duplicates_late_and_out_of_order_events_end_as_their_order_says(
        self, data: st.DataObject, events: list[tuple[str, int]]
    ) -> None:
        start = datetime(2026, 1, 2, tzinfo=UTC)
        bodies = [
            subscription_body(
                kind, f"E{n}", f"{start + timedelta(hours=at):%FT%TZ}", external_person_id="C1"
            )
            for n, (kind, at) in enumerate(events)
        ]
        sent = data.draw(st.permutations(bodies + data.draw(st.lists(st.sampled_from(bodies)))))
        pauses = data.draw(st.sets(st.integers(0, len(sent) - 1)))
        removals = [at for kind, at in events if kind == REMOVED]
        additions = [at for kind, at in events if kind == ADDED]
        ends_out = bool(removals) and max(removals) >= max(additions, default=-1)
        with (
            tempfile.TemporaryDirectory() as folder,
            opened_desk(Path(folder)) as desk,
        ):
            was_out = False
            for n, body in enumerate(sent):
                desk.receive(body)
                if n in pauses:
                    desk.drain()
                    is_out = desk.contacts()["C1"][0] == "N"
                    assert is_out or not was_out  # never opted in again from here
                    was_out = is_out
            desk.drain()
            settled = desk.contacts()
            assert len(desk.ends()) == len(bodies)
            assert {status for status, _ in desk.ends()} <= {"applied", "ignored"}
            if ends_out or not pauses:
                assert (settled["C1"][0] == "N") == ends_out
            assert desk.drain() == Drained(dry_run=False)
            assert desk.contacts() == settled
            assert settled["C2"] == IN


KILLED_BEFORE_ITS_MARK = """
import os, signal
from vibes_pipelines.stages.inbox import drain
from vibes_pipelines.stages.project import open_project
from vibes_pipelines.store.inbox import Inbox

Inbox.finish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
with open_project() as project:
    drain(project, dry_run=False)
"""


class TestCrashes:
    def test_killed_between_effect_and_mark_it_ends_as_if_it_had_not_been(self, desk: Desk) -> None:
        desk.receive(removed(), removed("R2", external_person_id="C2"), added())
        process = subprocess.run(
            [sys.executable, "-c", KILLED_BEFORE_ITS_MARK],
            env={**os.environ, **desk.environment},
            check=False,
        )
        assert process.returncode == -signal.SIGKILL
        assert desk.contacts()["C2"] == OUT  # the effect is there
        assert {status for status, _ in desk.ends()} == {"stored"}  # and nothing says so
        before = desk.contacts()
        assert desk.drain().applied == 1
        assert desk.contacts() == before
        assert desk.drain() == Drained(dry_run=False)

    def test_a_crm_that_is_away_leaves_everything_waiting(self, desk: Desk) -> None:
        desk.receive(removed(), added(external_person_id="C2"))
        desk.crm("ALTER TABLE contacts RENAME TO away")
        with pytest.raises(CrmError, match="no table contacts"):
            desk.drain()
        assert {status for status, _ in desk.ends()} == {"stored"}
        desk.crm("ALTER TABLE away RENAME TO contacts")
        assert desk.drain().applied == 1

    def test_two_drains_at_once_have_one_effect(self, desk: Desk) -> None:
        desk.receive(*(removed(f"R{n}") for n in range(5)))
        code = KILLED_BEFORE_ITS_MARK.partition("Inbox.finish")
        command = [sys.executable, "-c", code[0] + code[2].partition("\n")[2]]
        environment = {**os.environ, **desk.environment}
        started = [subprocess.Popen(command, env=environment) for _ in range(2)]
        assert [process.wait(60) for process in started] == [0, 0]
        assert desk.contacts()["C1"] == OUT
        assert desk.ends() == [("applied", "opted_out")] * 5
