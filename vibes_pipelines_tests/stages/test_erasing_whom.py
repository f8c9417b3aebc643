"""Whom an erasure reaches: all of the person, nobody else, and no opt-out that has not left."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from vibes_pipelines.callbacks.intake import posted, read_arrival
from vibes_pipelines.cli.main import main
from vibes_pipelines.delivery.file_import import Folders, deliver_files
from vibes_pipelines.delivery.plan import plan
from vibes_pipelines.delivery.ports import FileSession
from vibes_pipelines.stages.erasing import erase
from vibes_pipelines.stages.erasing_open import require_nothing_open
from vibes_pipelines.stages.erasing_subject import ErasureError, find_subject
from vibes_pipelines.stages.last_look import LastLook
from vibes_pipelines.stages.masking import hash_key
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.pseudonyms import pseudonym
from vibes_pipelines.store.erasures import Erasures
from vibes_pipelines.store.events import Events, PlannedEvent
from vibes_pipelines.store.inbox import Finished, Inbox
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.models import case_decisions, realtime_operations
from vibes_pipelines_tests.support.callbacks import (
    REMOVED,
    as_bytes,
    stored_rows,
    subscription_body,
)
from vibes_pipelines_tests.support.deliveries import BY_API, BY_FILE
from vibes_pipelines_tests.support.landed_days import SYNC, Row, land, landed_project, reconciled

DAY, NEXT_DAY = "2026-01-01", "2026-01-02"
KEY, PERSON_KEY, NUMBER, FORMER = "Quentin-42", "c0ffee-42", "+13125550042", "+13125550049"
CONTACTS: list[Row] = [
    {"id": "B1", "phone": "+13125550001", "name": "Bea"},
    {"id": KEY, "phone": "(312) 555-0042", "name": "Quentinius"},
    {"id": "B2", "phone": "+13125550002", "name": "Ben"},
]
PERSONS: list[Row] = [
    {"person_key": "p1", "external_person_id": "B1", "mdn": "+13125550001"},
    {"person_key": PERSON_KEY, "external_person_id": KEY, "mdn": NUMBER},
    {"person_key": "p2", "external_person_id": "B2", "mdn": "+13125550002"},
]
BY_NUMBER = [row | {"external_person_id": None} if row["mdn"] == NUMBER else row for row in PERSONS]
STAYS: list[Row] = [
    {"person_key": p["person_key"], "subscription_list_id": "1234", "opt_in_date": "2025-01-01"}
    for p in PERSONS
]
OUT = [row | {"sms": "false"} for row in CONTACTS]
ALONE = SYNC.replace("max_age_h: 300", "max_age_h: 300, erasure: none")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    with landed_project(tmp_path, monkeypatch, ALONE) as opened:
        yield opened


def arrives(project: Project, event_id: str, **person: str) -> None:
    body = subscription_body(REMOVED, event_id, "2026-01-03 10:00:00 +0000", **person)
    with closing(Inbox(project.settings.ledger_url)) as inbox:
        inbox.store([read_arrival(posted("127.0.0.1", "/callbacks", as_bytes(body)))])


def callbacks_by_event(project: Project) -> dict[str, Row]:
    return {row["event_id"]: dict(row) for row in stored_rows(project.settings.ledger_url)}


def planned(project: Project, contacts: list[Row], road: object = BY_API) -> str:
    summary = reconciled(project, DAY, contacts, PERSONS, STAYS)
    folder = project.diff_set_folder(DAY)
    plan(summary.diff_set, folder, project.config, project.ledger, road)  # type: ignore[arg-type]
    return summary.diff_set


def test_what_names_somebody_else_is_somebody_elses(project: Project) -> None:
    """An opt-out of whoever has the number by now is acted on as if nothing had been erased."""
    reconciled(project, NEXT_DAY, CONTACTS, PERSONS, STAYS)
    arrives(project, "of-ben", external_person_id="B2", person_key="p2", mdn=NUMBER)
    arrives(project, "own", external_person_id=KEY, person_key=PERSON_KEY, mdn=NUMBER)
    arrives(project, "own-number", mdn=NUMBER)
    data: dict[str, Row] = {
        "of-ben": {"external_person_id": "B2", "mdn": NUMBER},
        "own": {"who": {"mdn": NUMBER}},
    }
    with closing(Events(project.settings.ledger_url)) as events:
        events.plan(PlannedEvent(name, "s", "t", told) for name, told in data.items())
        before = callbacks_by_event(project)
        erase(project, KEY, "asked for", "ann")
        after = callbacks_by_event(project)
        assert [events.planned(name).event_data for name in data] == [data["of-ben"], {}]  # type: ignore[union-attr]
    assert after["of-ben"] == before["of-ben"]
    assert after["of-ben"]["status"] == "stored"
    for name in ("own", "own-number"):
        assert (after[name]["status"], after[name]["body"]) == ("dropped", b"")


def test_a_callback_of_a_former_number_is_acted_on_first(project: Project) -> None:
    """It may be the opt-out of whoever has the number by now."""
    land(project, DAY, "share/persons", [PERSONS[1] | {"mdn": FORMER}])
    reconciled(project, NEXT_DAY, CONTACTS, PERSONS, STAYS)
    arrives(project, "of-whom", mdn=FORMER)
    with pytest.raises(ErasureError, match="1 callbacks wait that tell nothing but a number"):
        erase(project, KEY, "asked for", "ann")
    with closing(Inbox(project.settings.ledger_url)) as inbox:
        inbox.finish([Finished(1, "applied", "opted_out")])
    erase(project, KEY, "asked for", "ann")
    assert callbacks_by_event(project)["of-whom"]["body"] == b""


def test_another_persons_body_loses_the_key_and_nothing_else(project: Project) -> None:
    reconciled(project, DAY, CONTACTS, PERSONS, STAYS)
    arrives(project, "of-ben", person_key="p2", id=KEY)  # a field that names nobody
    arrives(project, "mentions", external_person_id="B2", mdn=NUMBER, friend=PERSON_KEY)
    before = callbacks_by_event(project)
    erase(project, KEY, "asked for", "ann")
    after = callbacks_by_event(project)
    hidden = pseudonym(PERSON_KEY, hash_key(project.settings.home)).encode()
    assert before["mentions"]["body"] != after["mentions"]["body"]
    assert hidden in after["mentions"]["body"]
    for name in ("of-ben", "mentions"):
        assert after[name] | {"body": b""} == before[name] | {"body": b""}


def test_a_file_loses_the_row_and_the_others_leave(project: Project, tmp_path: Path) -> None:
    diff_set = planned(project, CONTACTS, BY_FILE)
    [before] = project.ledger.batches(diff_set=diff_set)
    erase(project, KEY, "asked for", "ann")
    [batch] = project.ledger.batches(diff_set=diff_set)
    assert (before.rows, batch.rows, batch.status) == (3, 2, "planned")
    seated = project.ledger.batch_operations(batch.batch_id)
    assert [(op.external_person_id, op.row_number) for op in seated] in (
        [("B1", 1), ("B2", 2)],
        [("B2", 1), ("B1", 2)],
    )
    server = FakeServer()
    types = {field.to: field.type for field in project.config.fields}
    done = deliver_files(
        [batch],
        server.open,
        Folders("/imports", "/reports"),
        project.ledger,
        types,
        tmp_path / "work",
        dry_run=False,
    )
    assert (done.files, done.rows) == (1, 2)
    assert "Bea" in server.uploaded[0]
    assert "Ben" in server.uploaded[0]
    assert "Quentin" not in server.uploaded[0]


def test_a_file_of_nobody_else_never_leaves(project: Project) -> None:
    known = [row | {"first_name": c["name"]} for c, row in zip(CONTACTS, PERSONS, strict=True)]
    known[1]["first_name"] = "Quentinella"
    summary = reconciled(project, DAY, CONTACTS, known, STAYS)
    folder = project.diff_set_folder(DAY)
    plan(summary.diff_set, folder, project.config, project.ledger, BY_FILE)
    erase(project, KEY, "asked for", "ann")
    [batch] = project.ledger.batches(diff_set=summary.diff_set)
    assert (batch.rows, batch.status) == (0, "done")


class FakeServer:
    """An SFTP server that takes every file."""

    def __init__(self) -> None:
        self.uploaded: list[str] = []

    @contextmanager
    def open(self) -> Iterator[FileSession]:
        yield self  # type: ignore[misc]

    def list(self, _directory: str) -> list[str]:
        return []

    def upload(self, path: Path, _directory: str, _name: str) -> None:
        self.uploaded.append(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("is_planned", [True, False])
def test_an_opt_out_that_nothing_replaces_leaves_first(
    project: Project, monkeypatch: pytest.MonkeyPatch, *, is_planned: bool
) -> None:
    """Where the platform is asked to forget the person, its own opt-outs need not leave."""
    if is_planned:
        planned(project, OUT)
    else:
        reconciled(project, DAY, OUT, PERSONS, STAYS)
    with pytest.raises(ErasureError, match="1 opt-outs of this person have not left yet"):
        erase(project, KEY, "asked for", "ann", dry_run=True)
    subject = find_subject(project, KEY)
    assert subject is not None
    monkeypatch.setattr(
        type(project.config.policies), "erasure", property(lambda _: "api"), raising=False
    )
    require_nothing_open(project, subject)


@pytest.mark.parametrize("ledger", ["real time", "apsis"])
def test_an_answer_that_is_awaited_comes_first(project: Project, ledger: str) -> None:
    """Whichever ledger awaits it."""
    reconciled(project, DAY, CONTACTS, PERSONS, STAYS)
    url = project.settings.ledger_url
    if ledger == "apsis":
        elsewhere = project.settings.of_destination("apsis")
        elsewhere.home.mkdir()
        url = elsewhere.ledger_url
        with Ledger(url):
            pass  # its tables are made
    now = datetime.now(UTC)
    row = {"operation_id": "o1", "diff_set": "d", "day": DAY, "as_of": now, "lane": "persons"}
    row |= {"route": "api", "route_reason": "r", "kind": "update", "external_person_id": KEY}
    row |= {"changes": [], "status": "unknown", "retry_later": False, "attempts": 1}
    run(url, sa.insert(realtime_operations).values(row))
    with pytest.raises(ErasureError, match="sent in real time without an answer"):
        erase(project, KEY, "asked for", "ann")


def run(url: str, statement: sa.Insert) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(statement)
    engine.dispose()


def test_a_person_linked_by_its_number_goes_with_its_contact(project: Project) -> None:
    """As the diff set says, and where there is none yet, as it would."""
    land(project, DAY, "crm/contacts", CONTACTS)
    land(project, DAY, "share/persons", BY_NUMBER)
    subject = find_subject(project, KEY)
    assert subject is not None
    assert (subject.person_keys, subject.newest_mdns) == ((PERSON_KEY,), (NUMBER,))
    reconciled(project, NEXT_DAY, CONTACTS, BY_NUMBER, STAYS)
    land(project, "2026-01-03", "share/persons", [row | {"mdn": None} for row in BY_NUMBER])
    assert find_subject(project, PERSON_KEY) == find_subject(project, KEY)
    erase(project, KEY, "asked for", "ann")
    landed = project.snapshots.find("share/persons", NEXT_DAY)
    assert landed is not None
    assert {row["person_key"] for row in pq.read_table(landed.data).to_pylist()} == {
        *("p1", "p2", pseudonym(PERSON_KEY, hash_key(project.settings.home))),
    }


def test_a_decided_link_tells_the_person(project: Project) -> None:
    land(project, DAY, "crm/contacts", [row | {"phone": None} for row in CONTACTS])
    land(project, DAY, "share/persons", BY_NUMBER)
    texts = {"case_id": "c", "kind": "k", "source": "contacts", "action": "link"}
    texts |= {"record": f"key {KEY}", "target": PERSON_KEY, "reason": "known", "decided_by": "ann"}
    decided = texts | {"decided_at": datetime.now(UTC), "after_day": DAY}
    run(project.settings.ledger_url, sa.insert(case_decisions).values(decided))
    subject = find_subject(project, KEY)
    assert subject is not None
    assert subject.person_keys == (PERSON_KEY,)


def test_nobody_known_at_the_platform_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number that two contacts have links nobody, so the command says what it could not do."""
    with landed_project(tmp_path, monkeypatch, SYNC) as project:
        twin = CONTACTS[2] | {"phone": "3125550042"}
        land(project, DAY, "crm/contacts", [CONTACTS[1], twin])
        land(project, DAY, "share/persons", BY_NUMBER)
    result = CliRunner().invoke(main, ["erase", KEY, "--reason", "asked for"])
    assert result.exit_code == 1
    assert "nobody was erased there" in result.stderr


def test_a_callback_that_comes_later_is_erased_by_the_same_command(project: Project) -> None:
    """And the person stays known by every identifier that it had."""
    reconciled(project, DAY, CONTACTS, PERSONS, STAYS)
    erase(project, KEY, "asked for", "ann")
    arrives(project, "late", person_key=PERSON_KEY)
    assert erase(project, KEY, "asked for", "ann").ledger["callbacks"] == 1
    row = callbacks_by_event(project)["late"]
    assert (row["body"], row["status"]) == (b"", "dropped")
    arrives(project, "later", external_person_id=KEY)
    erase(project, PERSON_KEY.upper(), "asked for", "ann")
    assert callbacks_by_event(project)["later"]["body"] == b""
    key = hash_key(project.settings.home)
    with closing(Erasures(project.settings.inbox_url)) as book:
        for one in book.all():
            assert set(one.pseudonyms) == {pseudonym(KEY, key), pseudonym(PERSON_KEY, key)}
    with pytest.raises(ErasureError, match="nobody has this contact key"):
        erase(project, "somebody-else", "asked for", "ann")


def test_a_planned_file_is_looked_at_once_more_before_it_leaves(
    project: Project, tmp_path: Path
) -> None:
    """An erasure that died right after its beginning has blanked nothing yet."""
    diff_set = planned(project, CONTACTS, BY_FILE)
    key = hash_key(project.settings.home)
    with (
        closing(Erasures(project.settings.inbox_url)) as book,
        closing(Inbox(project.settings.inbox_url)) as inbox,
    ):
        book.begin(pseudonym(KEY, key), [pseudonym(KEY, key)], "asked for", "ann")
        server = FakeServer()
        done = deliver_files(
            project.ledger.batches(diff_set=diff_set),
            server.open,
            Folders("/imports", "/reports"),
            project.ledger,
            {field.to: field.type for field in project.config.fields},
            tmp_path / "work",
            watch=LastLook(project, inbox),
            dry_run=False,
        )
    assert (done.files, done.rows, done.withdrawn) == (1, 2, 1)
    assert "Quentin" not in server.uploaded[0]
