"""The certificate reads the landed snapshots back: every send is seen, explained or escalated."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vibes_pipelines.delivery.certificate import (
    DOCUMENT,
    PARQUET,
    Certificate,
    Landed,
    certify,
    load_certificate,
)
from vibes_pipelines.reconcile.errors import ReconcileError
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.realtime import RealtimeBook
from vibes_pipelines.store.records import Change, Lane, Operation, Receipt, Route
from vibes_pipelines.sync_config import Consent
from vibes_pipelines_tests.support.deliveries import (
    CONFIG,
    add,
    change,
    noon,
    opt_out,
    planned,
    update,
)

FIRST, SECOND, THIRD, FOURTH = "2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"
ROADS: tuple[tuple[Lane, Route], ...] = (
    ("opt_outs", "api"),
    ("persons", "api"),
    ("opt_outs", "crm"),
    ("crm", "crm"),
)
PERSON_COLUMNS = (
    "person_key",
    "external_person_id",
    "mdn",
    "first_name",
    "birthdate",
    "tier",
    "updated_at",
    "interests",
)
CONTACT_COLUMNS = ("contact_id", "mobile", "first", "born", "level", "likes", "sms", "sms_at")


class Loop:
    """Sends diff sets and certifies days, one ledger and one folder of snapshots."""

    def __init__(self, ledger: Ledger, folder: Path) -> None:
        self.ledger = ledger
        self.folder = folder

    def send(
        self,
        day: str = FIRST,
        receipt: str | None = "accepted",
        error_class: str | None = None,
        **rows: Any,
    ) -> None:
        """Plans a diff set and sends all of it; `receipt` None: nothing was heard of it."""
        planned(self.ledger, self.folder / "diff" / day, diff_set=day, day=day, **rows)
        for lane, route in ROADS:
            ids = [o.operation_id for o in self.ledger.open_operations(day, lane, route)]
            self.ledger.mark_sent(ids)
            if receipt is not None:
                receipts = [Receipt(one, receipt, error_class) for one in ids]  # type: ignore[arg-type]
                self.ledger.record(receipts, day)

    def send_in_real_time(self, changed: dict[str, str | None], at: datetime) -> None:
        """Sends one field of C1 at this instant, which is accepted at once."""
        operation = Operation(
            operation_id="realtime",
            diff_set="realtime",
            day=at.date().isoformat(),
            as_of=at,
            lane="persons",
            route="api",
            route_reason="in real time",
            kind="update",
            external_person_id="C1",
            person_key="key-c1",
            mdn=None,
            subscription_list_id=None,
            changes=(Change.from_json(changed),),
        )
        with RealtimeBook(f"sqlite:///{self.folder / 'ledger.db'}", clock=lambda: at) as book:
            book.plan([operation])
            book.mark_sent([operation.operation_id])
            book.record([Receipt(operation.operation_id, "accepted")])

    def certify(
        self,
        day: str = SECOND,
        persons: list[dict[str, Any]] | None = None,
        subscriptions: list[dict[str, Any]] | None = None,
        contacts: list[dict[str, Any]] | None = None,
    ) -> Certificate:
        """Lands the day and asks for its certificate."""
        landed = self.folder / "landed" / day
        landed.mkdir(parents=True, exist_ok=True)
        write(landed / "persons.parquet", persons or [], PERSON_COLUMNS)
        write(landed / "contacts.parquet", contacts or [], CONTACT_COLUMNS)
        rows = [{"opt_out_date": None, **row} for row in subscriptions or []]
        names = ("person_key", "subscription_list_id", "opt_in_date", "opt_out_date")
        write(landed / "subscriptions.parquet", rows, names)
        return certify(
            self.ledger,
            day,
            Landed(
                landed / "persons.parquet",
                (landed / "subscriptions.parquet",),
                landed / "contacts.parquet",
            ),
            CONFIG,
            noon(day),
            self.out(day),
        )

    def out(self, day: str) -> Path:
        return self.folder / "certificates" / day

    def evidence(self, day: str = SECOND) -> list[tuple[str, str, str]]:
        table = pq.read_table(self.out(day) / PARQUET).to_pylist()
        return [(row["kind"], row["outcome"], row["evidence"]) for row in table]


def write(path: Path, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    schema = pa.schema([(name, pa.string()) for name in columns])
    complete = [{name: row.get(name) for name in columns} for row in rows]
    pq.write_table(pa.Table.from_pylist(complete, schema), path)


@pytest.fixture
def loop(ledger: Ledger, tmp_path: Path) -> Loop:
    return Loop(ledger, tmp_path)


ADA = {"person_key": "KEY-C1", "external_person_id": "C1", "mdn": "+13125550142"}


class TestPersons:
    def test_visible_values_are_confirmed(self, loop: Loop) -> None:
        loop.send(persons=[update("C1", change("first_name", "Ada"), change("tier", None, "gold"))])
        certificate = loop.certify(persons=[{**ADA, "first_name": "Ada"}])
        assert (certificate.confirmed, certificate.operations) == (1, 1)
        assert loop.evidence() == [("update", "confirmed", "share")]

    def test_values_are_compared_as_canonical_text(self, loop: Loop) -> None:
        changes = (change("birthdate", "1990-12-01"), change("interests", "golf|ski"))
        loop.send(persons=[update("C1", *changes)])
        landed = {**ADA, "birthdate": "1990-12-01 00:00:00 -0000", "interests": " ski|golf"}
        assert loop.certify(persons=[landed]).confirmed == 1

    def test_an_add_is_confirmed_with_its_number_and_every_field(self, loop: Loop) -> None:
        rows = [add("C1", change("first_name", "Ada"), mdn="+13125550142")]
        loop.send(persons=rows)
        assert loop.certify(persons=[]).pending == 1
        assert loop.certify(THIRD, persons=[{**ADA, "mdn": None, "first_name": "Ada"}]).pending == 0
        assert loop.evidence(THIRD) == [("add", "unexplained", "receipt")]

    def test_an_added_person_is_found_by_external_id(self, loop: Loop) -> None:
        loop.send(persons=[add("C1", change("first_name", "Ada"), mdn="+13125550142")])
        assert loop.certify(persons=[{**ADA, "first_name": "Ada"}]).confirmed == 1

    def test_an_adoption_is_confirmed_when_the_person_has_the_id(self, loop: Loop) -> None:
        loop.send(persons=[update("C1", change("external_person_id", "C1"))])
        assert loop.certify(persons=[{**ADA, "external_person_id": None}]).pending == 1
        assert loop.certify(THIRD, persons=[ADA]).confirmed == 1

    def test_a_clear_of_a_person_that_is_gone_is_not_confirmed(self, loop: Loop) -> None:
        loop.send(persons=[update("C1", change("tier", None, "gold"))])
        assert loop.certify(persons=[]).confirmed == 0

    def test_an_unknown_answer_is_confirmed_by_what_is_seen(self, loop: Loop) -> None:
        loop.send(receipt="unknown", persons=[update("C1", change("first_name", "Ada"))])
        assert loop.certify(persons=[{**ADA, "first_name": "Ada"}]).confirmed == 1

    @pytest.mark.parametrize(
        ("receipt", "evidence"), [("accepted", "receipt"), ("unknown", "none"), (None, "none")]
    )
    def test_not_visible_is_pending_until_the_lag_has_passed_and_then_unexplained(
        self, loop: Loop, receipt: str | None, evidence: str
    ) -> None:
        loop.send(receipt=receipt, persons=[update("C1", change("first_name", "Ada", "Eda"))])
        landed = [{**ADA, "first_name": "Eda"}]
        assert loop.certify(SECOND, persons=landed).pending == 1
        assert loop.certify(THIRD, persons=landed).unexplained == 1
        assert loop.certify(FOURTH, persons=landed).operations == 0
        assert loop.evidence(THIRD) == [("update", "unexplained", evidence)]

    def test_a_rejection_is_reported_once(self, loop: Loop) -> None:
        loop.send(
            receipt="rejected",
            error_class="HTTP 409",
            persons=[update("C1", change("first_name", "Ada"))],
        )
        second = loop.certify(SECOND, persons=[ADA])
        assert (second.rejected, second.error_classes) == (1, {"HTTP 409": 1})
        assert loop.certify(THIRD, persons=[ADA]).operations == 0

    def test_a_value_that_is_neither_old_nor_new_superseded_ours(self, loop: Loop) -> None:
        loop.send(persons=[update("C1", change("first_name", "Ada", "Eda"))])
        assert loop.certify(persons=[{**ADA, "first_name": "Ida"}]).superseded == 1
        assert loop.evidence() == [("update", "superseded", "share")]

    @pytest.mark.parametrize(
        ("changed", "verdict"),
        [("2999-01-01T00:00:00Z", "superseded"), ("2026-01-01T23:00:00Z", "pending")],
    )
    def test_an_old_value_was_set_back_if_the_person_changed_after_our_last_answer(
        self, loop: Loop, changed: str, verdict: str
    ) -> None:
        name = change("first_name", "Ada", "Eda")
        loop.send(persons=[update("C1", name, change("tier", "gold"))])
        landed = {**ADA, "first_name": "Eda", "tier": "gold", "updated_at": changed}
        assert getattr(loop.certify(persons=[landed]), verdict) == 1
        loop.send(SECOND, receipt=None, persons=[update("C1", name)])  # may have changed it
        assert loop.certify(THIRD, persons=[landed]).pending == 1

    def test_a_value_that_is_lost_day_after_day_is_set_back_but_once(self, loop: Loop) -> None:
        name = change("first_name", "Ada", "Eda")
        landed = {**ADA, "first_name": "Eda", "updated_at": "2999-01-01T00:00:00Z"}
        loop.send(FIRST, persons=[update("C1", name)])
        first = loop.certify(SECOND, persons=[landed])
        assert (first.superseded, first.person_changed) == (1, 1)
        assert loop.evidence() == [("update", "superseded", "person_changed")]
        assert loop.certify(SECOND, persons=[landed]) == first
        loop.send(SECOND, persons=[update("C1", name)])
        assert loop.certify(THIRD, persons=[landed]).pending == 1
        assert loop.certify(FOURTH, persons=[landed]).unexplained == 1

    def test_a_real_time_send_of_another_field_is_no_change_by_the_platform(
        self, loop: Loop
    ) -> None:
        now = [noon(FIRST)]
        loop.ledger._clock = lambda: now[0]
        loop.send(FIRST, persons=[update("C1", change("first_name", "Ada", "Eda"))])
        at = datetime(2026, 1, 2, 3, tzinfo=UTC)
        loop.send_in_real_time(change("tier", "gold"), at)
        landed = {**ADA, "first_name": "Eda", "tier": "gold", "updated_at": f"{SECOND}T03:01:00Z"}
        assert loop.certify(persons=[landed]).pending == 1
        landed["updated_at"] = f"{SECOND}T09:00:00Z"
        assert loop.certify(persons=[landed]).superseded == 1

    def test_of_one_day_the_send_that_was_decided_on_later_is_the_later_one(
        self, loop: Loop
    ) -> None:
        loop.send_in_real_time(change("first_name", "Bea", "Eda"), noon(FIRST) - timedelta(hours=9))
        loop.send(FIRST, persons=[update("C1", change("first_name", "Ada", "Bea"))])
        loop.certify(THIRD, persons=[{**ADA, "first_name": "Bea"}])
        assert ("update", "unexplained", "receipt") in loop.evidence(THIRD)

    def test_an_earlier_value_of_ours_that_becomes_visible_supersedes_nothing(
        self, loop: Loop
    ) -> None:
        """With a share that is behind, two sends become visible one after the other."""
        loop.send(FIRST, persons=[add("C1", change("first_name", "Ada"))])
        assert loop.certify(SECOND, persons=[]).pending == 1
        loop.send(SECOND, persons=[add("C1", change("first_name", "Ida"))])
        loop.certify(THIRD, persons=[{**ADA, "first_name": "Ada"}])
        assert ("add", "pending", "receipt") in loop.evidence(THIRD)
        loop.certify(FOURTH, persons=[{**ADA, "first_name": "Ida"}])
        assert ("add", "confirmed", "share") in loop.evidence(FOURTH)

    def test_a_later_send_of_the_field_supersedes_the_earlier(self, loop: Loop) -> None:
        loop.send(FIRST, persons=[update("C1", change("first_name", "Ada", "Eda"))])
        loop.send(SECOND, persons=[update("C1", change("first_name", "Adah", "Eda"))])
        certificate = loop.certify(THIRD, persons=[{**ADA, "first_name": "Eda"}])
        assert (certificate.superseded, certificate.pending) == (1, 1)

    def test_one_field_still_waiting_keeps_the_whole_operation_open(self, loop: Loop) -> None:
        rows = [update("C1", change("first_name", "Ada", "Eda"), change("tier", "gold"))]
        loop.send(persons=rows)
        assert loop.certify(persons=[{**ADA, "first_name": "Eda", "tier": "silver"}]).pending == 1

    def test_what_was_planned_and_never_sent_ends_with_its_diff_set(self, loop: Loop) -> None:
        rows = [update("C1", change("first_name", "Ada", "Eda"))]
        planned(loop.ledger, loop.folder / "diff", diff_set="held", day=FIRST, persons=rows)
        assert loop.certify(SECOND, persons=[{**ADA, "first_name": "Ada"}]).operations == 0
        planned(loop.ledger, loop.folder / "next", diff_set="next", day=SECOND)
        assert loop.certify(THIRD, persons=[{**ADA, "first_name": "Ada"}]).superseded == 1
        assert loop.evidence(THIRD) == [("update", "superseded", "diff_set")]

    def test_a_text_like_the_name_of_a_state_is_only_a_text(self, loop: Loop) -> None:
        loop.send(persons=[update("C1", change("first_name", "unmapped"))])
        assert loop.certify(persons=[{**ADA, "first_name": "unmapped"}]).confirmed == 1

    def test_a_field_no_longer_mapped_ends_its_operation(self, loop: Loop) -> None:
        rows = [update("C1", change("tier", "gold"))]
        loop.send(persons=rows)
        config = CONFIG.model_copy(update={"fields": CONFIG.fields[:2]})
        persons = loop.folder / "persons.parquet"
        write(persons, [ADA], PERSON_COLUMNS)
        out = loop.out(SECOND)
        certificate = certify(loop.ledger, SECOND, Landed(persons), config, noon(SECOND), out)
        assert certificate.superseded == 1
        assert loop.evidence() == [("update", "superseded", "no_longer_mapped")]


class TestConsent:
    ACTIVE = {  # noqa: RUF012 - never changed
        "person_key": "key-c1",
        "subscription_list_id": "1234",
        "opt_in_date": "2025-06-01 10:00:00 -0600",
    }

    def test_an_opt_out_is_confirmed_when_no_subscription_is_active(self, loop: Loop) -> None:
        loop.send(subscriptions=[opt_out("C1")])
        ended = {**self.ACTIVE, "opt_out_date": "2026-01-01T13:00:00Z"}
        assert loop.certify(subscriptions=[ended]).confirmed == 1
        assert loop.evidence() == [("opt_out", "confirmed", "share")]

    def test_an_opt_in_that_is_still_to_come_hides_no_opt_out(self, loop: Loop) -> None:
        loop.send(subscriptions=[opt_out("C1")])
        ended = {"opt_in_date": "2062-01-01T10:00:00Z", "opt_out_date": "2026-01-01T13:00:00Z"}
        assert loop.certify(subscriptions=[self.ACTIVE | ended]).confirmed == 1

    def test_an_active_one_is_pending_then_unexplained(self, loop: Loop) -> None:
        loop.send(subscriptions=[opt_out("C1")])
        assert loop.certify(SECOND, subscriptions=[self.ACTIVE]).pending == 1
        assert loop.certify(THIRD, subscriptions=[self.ACTIVE]).unexplained == 1

    @pytest.mark.parametrize(
        ("receipt", "persons", "confirmed"),
        [("accepted", [ADA], 1), ("accepted", [], 0), ("unknown", [ADA], 0), (None, [], 0)],
    )
    def test_that_nothing_is_landed_of_it_confirms_only_what_was_accepted_of_a_known_person(
        self, loop: Loop, receipt: str | None, persons: list[dict[str, Any]], confirmed: int
    ) -> None:
        loop.send(receipt=receipt, subscriptions=[opt_out("C1")])
        other = {**self.ACTIVE, "person_key": "key-c9"}
        assert loop.certify(persons=persons, subscriptions=[other]).confirmed == confirmed

    @pytest.mark.parametrize(
        ("receipt", "verdict"),
        [
            ("accepted", ("superseded", "person_gone")),
            ("unknown", ("unexplained", "none")),
        ],
    )
    def test_an_accepted_one_of_somebody_who_is_gone_says_so_once_all_could_be_visible(
        self, loop: Loop, receipt: str, verdict: tuple[str, str]
    ) -> None:
        loop.send(receipt=receipt, subscriptions=[opt_out("C1")])
        other = {**self.ACTIVE, "person_key": "key-c9"}
        assert loop.certify(SECOND, subscriptions=[other]).pending == 1
        loop.certify(THIRD, subscriptions=[other])
        assert loop.evidence(THIRD) == [("opt_out", *verdict)]

    def test_a_person_made_anew_that_subscribes_still_is_not_confirmed(self, loop: Loop) -> None:
        """The key that was opted out was merged away, which the platform answers as not there."""
        loop.send(subscriptions=[opt_out("C1")])
        anew = {**ADA, "person_key": "key-c7"}
        stays = [{**self.ACTIVE, "person_key": "key-c7"}]
        assert loop.certify(SECOND, persons=[anew], subscriptions=stays).pending == 1
        ended = [{**stays[0], "opt_out_date": "2026-01-02T13:00:00Z"}]
        assert loop.certify(THIRD, persons=[anew], subscriptions=ended).confirmed == 1

    def test_a_newer_opt_in_supersedes_the_opt_out(self, loop: Loop) -> None:
        loop.send(subscriptions=[opt_out("C1")])
        rejoined = {**self.ACTIVE, "opt_in_date": "2026-01-01T20:00:00Z"}
        ended = {**self.ACTIVE, "opt_out_date": "2026-01-01T13:00:00Z"}
        assert loop.certify(subscriptions=[ended, rejoined]).superseded == 1

    def test_without_a_subscriptions_feed_nothing_is_claimed(self, loop: Loop) -> None:
        loop.send(subscriptions=[opt_out("C1")])
        persons = loop.folder / "persons.parquet"
        write(persons, [ADA], PERSON_COLUMNS)
        landed = Landed(persons)
        certificate = certify(loop.ledger, SECOND, landed, CONFIG, noon(SECOND), loop.out(SECOND))
        assert certificate.pending == 1

    @pytest.mark.parametrize(
        ("contact", "outcome"),
        [
            ({"sms": "No"}, "confirmed"),
            ({"sms": "yes", "sms_at": "2025-01-01"}, "pending"),
            ({"sms": "yes", "sms_at": "2026-01-01T18:00:00Z"}, "superseded"),
        ],
    )
    def test_an_opt_out_of_the_crm_is_looked_for_in_the_contacts(
        self, loop: Loop, contact: dict[str, str], outcome: str
    ) -> None:
        loop.send(subscriptions=[opt_out("C1", side="crm")])
        certificate = loop.certify(contacts=[{"contact_id": "C1", **contact}])
        assert getattr(certificate, outcome) == 1

    @pytest.mark.parametrize(
        ("sms_at", "outcome"),
        [(FIRST, "superseded"), (None, "unexplained"), ("2062-01-02", "unexplained")],
    )
    def test_an_opt_in_that_is_newer_than_the_opt_out_supersedes_it(
        self, loop: Loop, sms_at: str | None, outcome: str
    ) -> None:
        """As in the reconcile, which asks for it no more: a day counts from its beginning."""
        stopped = noon(FIRST) - timedelta(hours=14)
        loop.send(subscriptions=[opt_out("C1", side="crm", evidence_at=stopped)])
        contact = {"contact_id": "C1", "sms": "yes", "sms_at": sms_at}
        assert getattr(loop.certify(FOURTH, contacts=[contact]), outcome) == 1

    @pytest.mark.parametrize(
        ("receipt", "verdict"),
        [("accepted", ("superseded", "contact_gone")), ("unknown", ("unexplained", "none"))],
    )
    def test_a_contact_that_was_deleted_ends_what_the_crm_accepted(
        self, loop: Loop, receipt: str, verdict: tuple[str, str]
    ) -> None:
        loop.send(receipt=receipt, subscriptions=[opt_out("C1", side="crm")])
        loop.certify(FOURTH, contacts=[{"contact_id": "C2"}])
        assert loop.evidence(FOURTH) == [("crm_opt_out", *verdict)]

    @pytest.mark.parametrize(
        ("receipt", "outcome"),
        [("accepted", ("superseded", "no_longer_mapped")), ("unknown", ("unexplained", "none"))],
    )
    @pytest.mark.parametrize("left", [[], [{"from": "sms", "list": "5678", "channel": "sms"}]])
    def test_a_list_no_longer_mapped_ends_what_the_crm_accepted(
        self, loop: Loop, receipt: str, outcome: tuple[str, str], left: list[dict[str, str]]
    ) -> None:
        loop.send(receipt=receipt, subscriptions=[opt_out("C1", side="crm")])
        consents = tuple(Consent.model_validate(one) for one in left)
        config = CONFIG.model_copy(update={"consents": consents})
        persons, contacts = loop.folder / "persons.parquet", loop.folder / "contacts.parquet"
        write(persons, [ADA], PERSON_COLUMNS)
        write(contacts, [{"contact_id": "C1", "sms": "false"}], CONTACT_COLUMNS)
        landed = Landed(persons, (), contacts)
        certify(loop.ledger, FOURTH, landed, config, noon(FOURTH), loop.out(FOURTH))
        assert loop.evidence(FOURTH) == [("crm_opt_out", *outcome)]

    def test_a_field_of_the_crm_is_looked_for_in_the_contacts(self, loop: Loop) -> None:
        row = {"contact_id": "C1", "field": "birthdate", "before": None, "after": "1990-12-01"}
        loop.send(crm=[row])
        contact = {"contact_id": "C1", "born": "1990-12-01T00:00Z"}
        assert loop.certify(contacts=[contact]).confirmed == 1
        assert loop.evidence() == [("crm_update", "confirmed", "crm")]

    @pytest.mark.parametrize(
        ("receipt", "verdict"),
        [("accepted", ("superseded", "contact_gone")), ("unknown", ("unexplained", "none"))],
    )
    def test_a_contact_that_was_deleted_ends_a_field_that_the_crm_accepted(
        self, loop: Loop, receipt: str, verdict: tuple[str, str]
    ) -> None:
        row = {"contact_id": "C1", "field": "birthdate", "before": None, "after": "1990-12-01"}
        loop.send(receipt=receipt, crm=[row])
        loop.certify(FOURTH, contacts=[{"contact_id": "C2"}])
        assert loop.evidence(FOURTH) == [("crm_update", *verdict)]


class TestAsking:
    ROWS = (
        update("C1", change("first_name", "Ada", "Eda")),
        update("C2", change("first_name", "Bob")),
        add("C3", change("first_name", "Cy")),
    )
    LANDED = (
        {**ADA, "first_name": "Ada"},
        {"person_key": "key-c2", "external_person_id": "C2", "first_name": "Rob"},
    )

    def test_a_day_again_gives_the_same_bytes(self, loop: Loop) -> None:
        loop.send(persons=self.ROWS)
        answers = []
        for _ in range(2):
            certificate = loop.certify(persons=list(self.LANDED))
            files = [(loop.out(SECOND) / name).read_bytes() for name in (PARQUET, DOCUMENT)]
            answers.append((certificate, files))
        assert answers[0] == answers[1]
        counts = answers[0][0]
        assert (counts.confirmed, counts.superseded, counts.pending) == (1, 1, 1)

    def test_a_past_day_again_does_not_undo_a_later_verdict(self, loop: Loop) -> None:
        loop.send(persons=[self.ROWS[0]])
        loop.certify(SECOND, persons=[{**ADA, "first_name": "Eda"}])
        loop.certify(THIRD, persons=[{**ADA, "first_name": "Ada"}])
        assert loop.certify(SECOND, persons=[{**ADA, "first_name": "Eda"}]).pending == 1
        assert loop.certify(FOURTH, persons=[ADA]).operations == 0

    def test_every_operation_gets_exactly_one_verdict(self, loop: Loop) -> None:
        """Law: every operation ends with a receipt or an open, visible state."""
        loop.send(persons=self.ROWS, subscriptions=[opt_out("C1"), opt_out("C2", side="crm")])
        certificate = loop.certify(persons=list(self.LANDED))
        assert certificate.operations == 5
        assert pq.read_table(loop.out(SECOND) / PARQUET).num_rows == 5
        assert sum(sum(lane.values()) for lane in certificate.by_lane.values()) == 5

    def test_it_can_be_read_back(self, loop: Loop) -> None:
        loop.send(persons=self.ROWS)
        certificate = loop.certify(persons=list(self.LANDED))
        assert load_certificate(loop.out(SECOND)) == certificate

    def test_a_missing_column_is_named(self, loop: Loop) -> None:
        loop.send(persons=self.ROWS)
        persons = loop.folder / "persons.parquet"
        write(persons, [ADA], PERSON_COLUMNS[:-1])
        with pytest.raises(ReconcileError, match="no column 'interests'"):
            certify(loop.ledger, SECOND, Landed(persons), CONFIG, noon(SECOND), loop.out(SECOND))

    def test_pending_ends_exactly_with_the_lag(self, loop: Loop) -> None:
        loop.send(persons=[self.ROWS[0]])
        persons = loop.folder / "persons.parquet"
        write(persons, [], PERSON_COLUMNS)
        end = noon(FIRST) + timedelta(hours=CONFIG.policies.visibility_lag_h)

        def at(instant: datetime) -> Certificate:
            landed = Landed(persons)
            return certify(loop.ledger, THIRD, landed, CONFIG, instant, loop.out(THIRD))

        assert at(end - timedelta(seconds=1)).pending == 1
        assert at(end.astimezone(UTC)).unexplained == 1

    def test_works_on_postgresql_too(self, ledger_url: str, tmp_path: Path) -> None:
        with Ledger(ledger_url) as ledger:
            loop = Loop(ledger, tmp_path)
            loop.send(persons=self.ROWS, subscriptions=[opt_out("C1")])
            assert loop.certify(persons=list(self.LANDED)).operations == 4
            assert ledger.pending(SECOND).num_rows > 0
