"""Callbacks that tell nothing but a number: of who had it when they happened."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from vibes_pipelines.callbacks.intake import posted, read_arrival
from vibes_pipelines.stages.erased_opt_outs import OPTED_OUT_ONCE, opted_out_before
from vibes_pipelines.stages.erasing import erase
from vibes_pipelines.stages.erasing_subject import ErasureError
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.inbox import Finished, Inbox
from vibes_pipelines.store.records import Change, Operation
from vibes_pipelines_tests.support.callbacks import (
    REMOVED,
    as_bytes,
    stored_rows,
    subscription_body,
)
from vibes_pipelines_tests.support.landed_days import SYNC, Row, land, landed_project

DAYS = ("2026-01-01", "2026-01-03")
KEY, NUMBER, TOLD = "Quentin-42", "+13125550042", "+13125550077"
BEN: Row = {"person_key": "p2", "external_person_id": "B2", "mdn": "+13125550002"}
QUENTIN: Row = {"person_key": "c0ffee-42", "external_person_id": KEY, "mdn": NUMBER}
ALONE = SYNC.replace("max_age_h: 300", "max_age_h: 300, erasure: none")
BEFORE, FIRST_DAY, BETWEEN, AFTER = (
    f"{at} 10:00:00 +0000" for at in ("2025-12-31", "2026-01-01", "2026-01-02", "2026-01-03")
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    with landed_project(tmp_path, monkeypatch, ALONE) as opened:
        land(opened, DAYS[0], "crm/contacts", [{"id": KEY}, {"id": "B2"}])
        land(opened, DAYS[0], "share/persons", [QUENTIN, BEN])
        yield opened


def next_day(project: Project, quentin: str | None, ben: str | None) -> None:
    """The later day, with the numbers that the two have by then."""
    land(project, DAYS[1], "crm/contacts", [{"id": KEY}, {"id": "B2"}])
    land(project, DAYS[1], "share/persons", [QUENTIN | {"mdn": quentin}, BEN | {"mdn": ben}])


def opts_out(project: Project, event_id: str, at: str, **person: str) -> None:
    body = subscription_body(REMOVED, event_id, at, **person)
    with closing(Inbox(project.settings.ledger_url)) as inbox:
        inbox.store([read_arrival(posted("127.0.0.1", "/callbacks", as_bytes(body)))])


def acted_on(project: Project) -> None:
    with closing(Inbox(project.settings.ledger_url)) as inbox:
        for page in inbox.waiting():
            inbox.finish(Finished(one.id, "applied", "opted_out") for one in page)


def left(project: Project) -> set[str]:
    """The events of which anything can still be read."""
    return {row["event_id"] for row in stored_rows(project.settings.ledger_url) if row["body"]}


def test_after_the_number_moved_they_are_of_whoever_has_it(project: Project) -> None:
    next_day(project, quentin=None, ben=NUMBER)
    for name, at in (("before", BEFORE), ("after", AFTER)):
        opts_out(project, name, at, mdn=NUMBER)
    erase(project, KEY, "asked for", "ann")
    rows = {row["event_id"]: row for row in stored_rows(project.settings.ledger_url)}
    assert {name: row["status"] for name, row in rows.items()} == {
        "before": "dropped",
        "after": "stored",
    }
    assert left(project) == {"after"}


def test_while_it_moved_nobody_knows_and_they_are_acted_on_first(project: Project) -> None:
    next_day(project, quentin=None, ben=NUMBER)
    opts_out(project, "between", BETWEEN, mdn=NUMBER)
    with pytest.raises(ErasureError, match="1 callbacks wait that tell nothing but a number"):
        erase(project, KEY, "asked for", "ann")
    acted_on(project)
    erase(project, KEY, "asked for", "ann")
    assert left(project) == set()


def test_a_number_that_the_crm_says_of_another_contact_is_in_doubt(project: Project) -> None:
    land(project, DAYS[1], "crm/contacts", [{"id": KEY}, {"id": "B2", "phone": "(312) 555-0042"}])
    land(project, DAYS[1], "share/persons", [QUENTIN, BEN])
    opts_out(project, "shared", AFTER, mdn=NUMBER)
    with pytest.raises(ErasureError, match="1 callbacks wait"):
        erase(project, KEY, "asked for", "ann")


def test_before_a_number_was_landed_callbacks_with_a_key_tell_whose_it_is(
    project: Project,
) -> None:
    opts_out(project, "unkeyed", FIRST_DAY, mdn=TOLD)
    opts_out(project, "of-ben", FIRST_DAY, mdn="+13125550078")
    opts_out(project, "keyed", AFTER, external_person_id=KEY, mdn=TOLD)
    erase(project, KEY, "asked for", "ann")
    assert left(project) == {"of-ben"}


def test_a_number_that_came_later_was_the_persons_where_nobody_had_it_before(
    project: Project,
) -> None:
    opts_out(project, "early", BEFORE, mdn=TOLD)
    next_day(project, quentin=TOLD, ben=BEN["mdn"])
    erase(project, KEY, "asked for", "ann")
    assert left(project) == set()


def test_what_comes_after_the_erasure_goes_with_the_same_command(project: Project) -> None:
    """And its opt-out outlives it, like the others."""
    erase(project, KEY, "asked for", "ann")
    opts_out(project, "late", AFTER, mdn=NUMBER)
    opts_out(project, "of-ben", AFTER, mdn=str(BEN["mdn"]))
    assert opted_out_before(project.settings, [an_invitation()]) == {}
    assert erase(project, KEY, "asked for", "ann").ledger == {"callbacks": 1}
    assert left(project) == {"of-ben"}
    assert opted_out_before(project.settings, [an_invitation()]) == {"o1": OPTED_OUT_ONCE}


def test_after_the_erasure_the_number_may_be_somebody_elses(project: Project) -> None:
    erase(project, KEY, "asked for", "ann")
    next_day(project, quentin=None, ben=NUMBER)
    opts_out(project, "of-ben", AFTER, mdn=NUMBER)
    assert erase(project, KEY, "asked for", "ann").ledger == {}
    assert left(project) == {"of-ben"}


def an_invitation() -> Operation:
    return Operation(
        operation_id="o1",
        diff_set="d",
        day=DAYS[1],
        as_of=datetime(2026, 1, 3, tzinfo=UTC),
        lane="invites",
        route="api",
        route_reason="the only road",
        kind="invite",
        external_person_id="NEW-1001",
        person_key=None,
        mdn=NUMBER,
        subscription_list_id="1234",
        changes=(Change("evidence_at", "set", None, "2026-01-02T00:00:00+00:00", "r"),),
    )
