"""What is known after a read of APSIS One: when opt-outs were made, and what a read leaves out."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from vibes_pipelines.apsis.consents import Consent
from vibes_pipelines.apsis.errors import (
    ApsisAnswerError,
    ApsisError,
    ApsisLocked,
    ApsisUnavailable,
)
from vibes_pipelines.delivery.intents import EVIDENCE
from vibes_pipelines.reconcile.destinations import APSIS
from vibes_pipelines.reconcile.errors import ReconcileError
from vibes_pipelines.reconcile.run import Inputs, reconcile
from vibes_pipelines.stages.apsis_contacts import write_contacts
from vibes_pipelines.stages.apsis_known import (
    LOCKED,
    NEVER,
    UNREADABLE,
    Known,
    Reader,
    Wanted,
    write_consents,
    write_profiles,
    write_reads,
)
from vibes_pipelines.stages.apsis_opt_out_times import OptOutTimes
from vibes_pipelines.store.models import consent_looks
from vibes_pipelines.store.realtime import Sent
from vibes_pipelines.store.records import Change, Kind, Operation, Status
from vibes_pipelines.sync_config import load_sync_config
from vibes_pipelines.sync_config.apsis_view import apsis_section, apsis_view

AT = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
READ_AT = AT + 10 * HOUR
LIST = "news|mail"
PLACE = ("p1", LIST)
SECTION: Any = SimpleNamespace(all_fields=(), consents=(SimpleNamespace(list=LIST),))


def sent(kind: Kind, status: Status) -> Sent:
    """Of evidence of `AT`, sent an hour later."""
    evidence = Change(EVIDENCE, "set", None, AT.isoformat(), "r")
    operation = Operation(
        *("o1", "d1", "2026-01-01", AT, "opt_outs", "api", "", kind, "p1", None, None, LIST),
        (evidence,),
        status=status,
    )
    return Sent(operation, AT + HOUR)


def known_out(stamp: datetime | None = None) -> dict[str, str]:
    stamped = {} if stamp is None else {"changed_at": stamp.isoformat()}
    return {"type": "opt-out", "out_at": (AT + 2 * HOUR).isoformat(), **stamped}


class TestProfilesOfReads:
    SECTION: Any = SimpleNamespace(all_fields=(SimpleNamespace(to="name"),))

    @pytest.mark.parametrize(
        ("name", "written"),
        [
            ("Ada \ud83d", "Ada "),
            ("\ude00\ud83d\ude00", "\U0001f600"),
            (r"\ud83d", r"\ud83d"),
            ("\\\\\ud83d", "\\\\"),
        ],
    )
    def test_half_a_character_that_was_landed_once_is_left_out(
        self, tmp_path: Path, name: str, written: str
    ) -> None:
        reads, persons = tmp_path / "reads.parquet", tmp_path / "persons.parquet"
        write_reads(None, [Known("p1", READ_AT, True, {"name": name}, {})], reads)
        write_profiles(self.SECTION, reads, persons)
        assert pq.read_table(persons)["name"].to_pylist() == [written]

    def test_attributes_that_are_no_json_are_not_shown(self, tmp_path: Path) -> None:
        reads = tmp_path / "reads.parquet"
        row = Known("p1", READ_AT, True, {}, {}).as_row() | {"attributes": "{'Ada"}
        pq.write_table(pa.Table.from_pylist([row]), reads)
        with pytest.raises(ApsisError, match="are no JSON") as failed:
            write_profiles(self.SECTION, reads, tmp_path / "persons.parquet")
        assert "Ada" not in str(failed.value)


class TestWhenAnOptOutWasMade:
    @pytest.mark.parametrize(
        ("kind", "status", "changed_at", "out_at"),
        [
            ("opt_out", "accepted", None, AT),
            ("opt_out", "accepted", AT + HOUR, AT),
            ("opt_out", "accepted", AT + 9 * HOUR, READ_AT),
            ("opt_out", "rejected", None, READ_AT),
            ("opt_out", "unknown", None, READ_AT),
            ("opt_in", "accepted", None, READ_AT),
            ("crm_opt_out", "accepted", None, AT),
            ("crm_opt_out", "accepted", AT + HOUR, READ_AT),
        ],
    )
    def test_ours_only_where_it_was_taken_and_nothing_contradicts(
        self, kind: Kind, status: Status, changed_at: datetime | None, out_at: datetime
    ) -> None:
        times = OptOutTimes([sent(kind, status)])
        dated = times.dated(PLACE, changed_at, {"type": "opt-in"}, READ_AT)
        assert datetime.fromisoformat(dated["out_at"]) == out_at

    @pytest.mark.parametrize(
        ("before", "changed_at", "out_at"),
        [
            (known_out(), None, AT + 2 * HOUR),
            (known_out(AT), AT, AT + 2 * HOUR),
            (known_out(AT), AT + 3 * HOUR, READ_AT),
            (known_out(), AT + 3 * HOUR, AT + 3 * HOUR),
            (known_out(), AT + HOUR, AT + 2 * HOUR),
        ],
        ids=["no time", "the same", "another one", "a first time", "an older first time"],
    )
    def test_one_seen_twice_keeps_its_time_unless_it_is_another(
        self, before: dict[str, str], changed_at: datetime | None, out_at: datetime
    ) -> None:
        dated = OptOutTimes([]).dated(PLACE, changed_at, before, READ_AT)
        assert datetime.fromisoformat(dated["out_at"]) == out_at

    def test_an_opt_in_that_was_refused_makes_no_opt_out_newer(self) -> None:
        times = OptOutTimes([sent("opt_in", "rejected")])
        assert times.dated(PLACE, None, known_out(), READ_AT) == known_out()


class FakeAccount:
    """Profiles by key: their consents, nothing (None), or what reading them raises."""

    def __init__(self, profiles: dict[str, Any]) -> None:
        self._profiles = profiles

    def _of(self, key: str) -> Any:
        found = self._profiles.get(key)
        if isinstance(found, Exception):
            raise found
        return found

    async def profile(self, key: str) -> Any:
        return None if self._of(key) is None else SimpleNamespace(attributes={})

    async def consents(self, key: str) -> Any:
        return self._of(key)


def before(key: str = "p1") -> Known:
    return Known(key, AT, is_found=True, attributes={"a": "b"}, consents={LIST: known_out()})


def read(
    profiles: dict[str, Any], wanted: Wanted, *known: Known, is_patient: bool = False
) -> tuple[dict[str, Known], Any]:
    reader = Reader(SECTION, FakeAccount(profiles), lambda: READ_AT, is_patient=is_patient)
    found = asyncio.run(reader.read(wanted, {one.key: one for one in known}))
    return {one.key: one for one in found}, reader.troubles


class TestWhatAReadLeavesOut:
    def test_an_opt_out_that_is_not_shown_any_more_is_kept(self) -> None:
        found, _ = read({"p1": ()}, Wanted((), ["p1"]), before())
        assert found["p1"].consents == {LIST: known_out()}

    def test_an_opt_in_that_is_not_shown_any_more_is_not(self) -> None:
        known = Known("p1", AT, is_found=True, attributes={}, consents={LIST: {"type": "opt-in"}})
        assert read({"p1": ()}, Wanted((), ["p1"]), known)[0]["p1"].consents == {}

    def test_a_later_opt_in_there_takes_its_place(self) -> None:
        found, _ = read({"p1": (Consent("news", "mail", "opt-in"),)}, Wanted((), ["p1"]), before())
        assert found["p1"].consents == {LIST: {"type": "opt-in"}}

    @pytest.mark.parametrize("wanted", [Wanted((), ["p1"]), Wanted(["p1"])])
    def test_a_deleted_profile_is_noticed_and_leaves_its_opt_out(self, wanted: Wanted) -> None:
        found, _ = read({}, wanted, before())
        assert not found["p1"].is_found
        assert found["p1"].consents == {LIST: known_out()}

    def test_a_locked_profile_stops_nobody(self) -> None:
        locked = ApsisLocked(410, "", "", "")
        found, troubles = read({"p1": locked, "p2": ()}, Wanted(["p1", "p2"]))
        assert (found["p1"].is_found, found["p2"].is_found) == (False, True)
        assert troubles == {"p1": LOCKED}

    @pytest.mark.parametrize(
        "unread", [ApsisAnswerError("no object"), ApsisUnavailable("HTTP 500", 500)]
    )
    def test_a_profile_that_cannot_be_read_is_as_it_was_and_read_again(
        self, unread: ApsisError
    ) -> None:
        found, troubles = read({"p1": unread, "p2": ()}, Wanted(["p1", "p2"]), before())
        one = found["p1"]
        assert (one.is_found, one.read_at, one.attributes) == (True, NEVER, {"a": "b"})
        assert (one.consents, troubles) == ({LIST: known_out()}, {"p1": UNREADABLE})

    @pytest.mark.parametrize(("bad", "good"), [(1, 0), (11, 30)])
    def test_when_more_than_a_few_cannot_be_read_all_stops(self, bad: int, good: int) -> None:
        profiles: dict[str, Any] = {f"g{i}": () for i in range(good)}
        profiles |= {f"b{i}": ApsisAnswerError("no object") for i in range(bad)}
        with pytest.raises(ApsisAnswerError):
            read(profiles, Wanted(sorted(profiles)))

    @pytest.mark.parametrize(("bad", "good"), [(1, 0), (11, 1)])
    def test_who_is_patient_waits_for_those_alone_that_cannot_be_read(
        self, bad: int, good: int
    ) -> None:
        profiles: dict[str, Any] = {f"b{i}": ApsisAnswerError("no object") for i in range(bad)}
        profiles |= {f"g{i}": () for i in range(good)}
        found, troubles = read(profiles, Wanted(sorted(profiles)), is_patient=True)
        assert {key for key, one in found.items() if one.read_at != NEVER} == {
            f"g{i}" for i in range(good)
        }
        assert len(troubles) == bad

    def test_who_is_patient_sees_that_nobody_can_be_read(self) -> None:
        profiles = {f"b{i}": ApsisUnavailable("HTTP 500", 500) for i in range(11)}
        with pytest.raises(ApsisUnavailable):
            read(profiles, Wanted(sorted(profiles)), is_patient=True)


SYNC_YAML = """
version: 1
company_key: A1b2C3
contacts: {key: contact_id}
fields: [{from: first_name, to: first_name, type: string}]
destinations:
  apsis:
    section: s
    email: email
    fields: [{from: phone, to: mobile, type: mobile}]
    consents: [{from: news, topic: t}, {from: news, topic: t, channel: sms%s}]
"""


class TestContacts:
    def written(
        self,
        folder: Path,
        row: Mapping[str, str | None],
        at: datetime,
        more: str = "",
        url: str | None = None,
    ) -> tuple[dict[str, Any], list[str]]:
        path = folder / "sync.yaml"
        path.write_text(SYNC_YAML % more, encoding="utf-8")
        config = load_sync_config(path)
        url = url or f"sqlite:///{folder / 'ledger.db'}"
        engine = sa.create_engine(url)
        consent_looks.metadata.create_all(engine)
        engine.dispose()
        values = {"contact_id": "p1", "email": "a@example.org", "first_name": "A", "phone": None}
        table = {n: pa.array([v], pa.string()) for n, v in {**values, **row}.items()}
        pq.write_table(pa.table(table), folder / "in.parquet")
        rejects = write_contacts(
            apsis_view(config),
            apsis_section(config),
            folder / "in.parquet",
            folder / "out.parquet",
            looked_at=at,
            ledger_url=url,
        )
        (made,) = pq.read_table(folder / "out.parquet").to_pylist()
        return made, [reject.reason for reject in rejects]

    def test_a_blank_cell_says_nothing_of_a_consent(self, tmp_path: Path) -> None:
        for number, cell in enumerate(("true", None, "true")):
            made, _ = self.written(tmp_path, {"news": cell}, AT + number * HOUR)
        assert (made["news"], made["news@changed"]) == ("true", None)

    @pytest.mark.postgresql
    @pytest.mark.parametrize("key", ["K" * 300, "p\0001"], ids=["long", "NUL"])
    def test_a_key_that_no_ledger_keeps_stops_nobody(
        self, tmp_path: Path, postgresql_url: str, key: str
    ) -> None:
        row = {"contact_id": key, "news": "true"}
        made, _ = self.written(tmp_path, row, AT, url=postgresql_url)
        assert (made["contact_id"], made["news"], made["news@changed"]) == (key, "true", None)

    def test_one_label_of_two_channels_is_one_column(self, tmp_path: Path) -> None:
        made, _ = self.written(tmp_path, {"news": "true"}, AT)
        assert [name for name in made if name.startswith("news")] == ["news", "news@changed"]

    def test_one_column_is_spelt_in_one_way(self, tmp_path: Path) -> None:
        with pytest.raises(ReconcileError, match="spelt in two ways"):
            self.written(tmp_path, {"news": "true"}, AT, ", opted_in: [ja]")

    def test_a_value_without_a_form_is_left_out_and_the_contact_goes(self, tmp_path: Path) -> None:
        row = {"news": "true", "phone": "070-123 45 67"}
        made, reasons = self.written(tmp_path, row, AT)
        assert (made["phone"], made["email"]) == (None, "a@example.org")
        assert len(reasons) == 1
        assert reasons[0].startswith("mobile: ")
        assert "070" not in reasons[0]

    @pytest.mark.parametrize(
        ("label_seen_at", "opt_ins"),
        [
            (None, []),
            (AT, []),
            (AT + 3 * HOUR, ["crm_opted_in_again"]),
            (AT + 99_999 * HOUR, []),
        ],
        ids=["a label without a time", "an older one", "a newer one", "one still to come"],
    )
    def test_who_is_added_again_is_opted_in_only_over_an_older_opt_out(
        self, tmp_path: Path, label_seen_at: datetime | None, opt_ins: list[str]
    ) -> None:
        (tmp_path / "sync.yaml").write_text(SYNC_YAML % "", encoding="utf-8")
        config = load_sync_config(tmp_path / "sync.yaml")
        contact = {
            "contact_id": "p1",
            "email": "a@example.org",
            "phone": None,
            "news": "true",
            "news@changed": label_seen_at and label_seen_at.isoformat(),
        }
        columns = {name: pa.array([value], pa.string()) for name, value in contact.items()}
        pq.write_table(pa.table(columns), tmp_path / "contacts.parquet")
        listed = "t|com.apsis1.channels.email"
        consents = {listed: known_out(), "t|com.apsis1.channels.sms": known_out()}
        gone = Known("p1", READ_AT, is_found=False, attributes={}, consents=consents)
        reads = tmp_path / "reads.parquet"
        write_reads(None, [gone], reads)
        write_profiles(apsis_section(config), reads, tmp_path / "persons.parquet")
        managed = pa.table({n: pa.array([], pa.string()) for n in ("contact", "list")})
        write_consents(reads, managed, tmp_path / "consents.parquet")
        inputs = Inputs(
            contacts=tmp_path / "contacts.parquet",
            persons=tmp_path / "persons.parquet",
            subscriptions=(tmp_path / "consents.parquet",),
            as_of=AT + 4 * HOUR,
            destination=APSIS,
        )
        assert reconcile(apsis_view(config), inputs, tmp_path / "out").added == 1
        rows = pq.read_table(tmp_path / "out" / "subscription_changes.parquet").to_pylist()
        assert [r["reason"] for r in rows if r["subscription_list_id"] == listed] == opt_ins
