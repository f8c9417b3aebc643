"""The whole Vibes sync from Tribe CRM: landed, compared, delivered, written back, and proven."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from vibes_pipelines.callbacks.intake import posted, read_arrival
from vibes_pipelines.crm.database import CrmError
from vibes_pipelines.crm.write_back import (
    CHANGED_MEANWHILE,
    CONTACT_NOT_FOUND,
    REFUSED_BY_CRM,
    VALUE_DOES_NOT_FIT,
)
from vibes_pipelines.delivery.ports import CrmFieldChange, CrmOptOut
from vibes_pipelines.sandbox.faults import Fault
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.sandbox.tribe_population import OFFERS
from vibes_pipelines.sandbox.tribe_sandbox import TribeSandbox
from vibes_pipelines.sandbox.tribe_schema import CUSTOM
from vibes_pipelines.sandbox.tribe_switches import TribeSwitches
from vibes_pipelines.stages.crm_side import copy_crm_contacts, crm_writer
from vibes_pipelines.stages.inbox import drain
from vibes_pipelines.stages.landing import land_contacts
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines.store.snapshots import EmptySource
from vibes_pipelines.sync_config import SyncConfigError, load_sync_config
from vibes_pipelines.tribe.errors import TribeAnswerError, TribeFieldError
from vibes_pipelines_tests.support.callbacks import REMOVED, as_bytes, subscription_body
from vibes_pipelines_tests.support.loop import Loop
from vibes_pipelines_tests.support.tribe import running_tribe_loop, tribe_sync_config

LIST = "1234"
COLUMN, SINCE = f"label:{OFFERS}", f"label_since:{OFFERS}"
OPENING = datetime(2026, 1, 1, tzinfo=UTC)
NIGHT = "2026-01-01T23:59:59Z"
"""When the first day was looked at."""
Both = tuple[Loop, TribeSandbox]


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    with running_tribe_loop(tmp_path, build_world(200, seed=3)) as running:
        yield running


def landed(loop: Loop) -> dict[str, dict[str, Any]]:
    """The day's contacts by key."""
    snapshot = loop.project.snapshots.find("crm/contacts", loop.today)
    assert snapshot is not None
    return {row["ImportId"]: row for row in pq.read_table(snapshot.data).to_pylist()}


def person_of(tribe: TribeSandbox, key: str) -> dict[str, Any]:
    return next(person for person in tribe.world.persons() if person["ImportId"] == key)


def holds(tribe: TribeSandbox, key: str, label: str = OFFERS) -> bool:
    return label in {one["Name"] for one in person_of(tribe, key)["Labels"]}


def text_stop(loop: Loop, key: str) -> bool:
    return loop.sandbox.text("stop", {"external_person_id": key}, LIST)


def hear_stop(loop: Loop, key: str) -> None:
    """A person leaves the list, and the callback that tells so is acted on."""
    assert text_stop(loop, key)
    stop = subscription_body(REMOVED, "E1", "2026-01-01T06:00:00Z", external_person_id=key)
    posting = posted("127.0.0.1", "/callbacks", as_bytes(stop))
    with Inbox(loop.project.settings.inbox_url, lambda: OPENING + timedelta(days=1)) as inbox:
        inbox.store([read_arrival(posting)])
    assert drain(loop.project, dry_run=False).applied == 1


def subscribed(loop: Loop, tribe: TribeSandbox, count: int) -> list[str]:
    """Contacts with the label whose persons at Vibes can leave the list."""
    platform = loop.sandbox.platform
    active = {
        platform.persons[one.person_key].external_person_id
        for one in platform.subscriptions
        if platform.subscriptions_of(one.person_key)
    }
    labelled = {one["ImportId"] for one in tribe.world.persons() if holds(tribe, one["ImportId"])}
    return sorted(key for key in labelled & active if key)[:count]


def test_two_days_from_landing_to_a_day_without_anything_to_do(both: Both) -> None:
    loop, tribe = both
    first = loop.day(approve=True)
    assert first.added > 0
    assert first.updated > 0
    assert first.landed["crm/contacts"] == len(list(tribe.world.persons()))

    never_labelled = {key for key, row in landed(loop).items() if row[COLUMN] is None}
    assert first.opt_outs_to_crm > tribe.audit.effects("labels")
    leaves, left = subscribed(loop, tribe, 2)
    assert text_stop(loop, leaves)
    tribe.world.detach(person_of(tribe, left)["ID"], tribe.world.label_id(OFFERS))
    tribe.world.update("Relation_Person", person_of(tribe, left)["ID"], {"FirstName": "Renamed"})

    loop.sandbox.next_day(edits=False)
    second = loop.day()
    assert (second.unexplained, second.confirmed) == (0, first.confirmed or second.confirmed)
    assert (second.opt_outs_to_platform, second.opt_outs_to_crm, second.updated) == (1, 1, 1)
    assert not holds(tribe, leaves)
    # Those were told to a CRM that keeps no trace of it, and are not told again.
    told = {key for key, row in landed(loop).items() if row[COLUMN] == "false"}
    assert told & never_labelled
    assert landed(loop)[left][COLUMN] == "false"
    assert landed(loop)[leaves][COLUMN] == "true"  # as of the morning

    loop.sandbox.next_day(edits=False)
    written = tribe.audit.effects()
    third = loop.day()
    assert third.unexplained == 0
    nothing = (third.added, third.updated, third.opt_outs_to_platform, third.opt_outs_to_crm)
    assert nothing == (0, 0, 0, 0)
    assert tribe.audit.effects() == written
    assert landed(loop)[leaves][COLUMN] == "false"


def test_nobody_is_opted_out_because_a_page_failed(both: Both) -> None:
    loop, tribe = both
    tribe.faults.replace((Fault("status", status=400, method="GET", times=1),))
    with pytest.raises(Exception, match="HTTP 400"):
        land_contacts(loop.project, loop.today)
    assert loop.project.snapshots.find("crm/contacts", loop.today) is None
    for person in list(tribe.world.persons())[-3:]:
        person["Labels"] = None
    with pytest.raises(TribeAnswerError, match="Labels"):
        land_contacts(loop.project, loop.today)
    assert loop.project.snapshots.find("crm/contacts", loop.today) is None


def test_a_field_or_label_that_tribe_does_not_have_is_named_with_near_ones(
    both: Both, tmp_path: Path
) -> None:
    loop, _ = both
    text = (tmp_path / "sync.yaml").read_text(encoding="utf-8")
    for wrong, right in (("FirstNam", "FirstName"), ("Offer by SMS", OFFERS)):
        other = tmp_path / f"{wrong.split()[0]}.yaml"
        other.write_text(text.replace(right, wrong), encoding="utf-8")
        with (
            loop.changed(VIBES_SYNC_CONFIG=other) as changed,
            pytest.raises(TribeFieldError, match=f"did you mean {right}"),
        ):
            land_contacts(changed.project, changed.today)


def test_a_tribe_without_persons_lands_nothing(both: Both) -> None:
    loop, tribe = both
    for person in list(tribe.world.persons()):
        tribe.world.delete("Relation_Person", person["ID"])
    with pytest.raises(EmptySource):
        land_contacts(loop.project, loop.today)


def test_absence_is_a_no_where_the_config_says_so(tmp_path: Path) -> None:
    world = build_world(60, seed=3)
    extra = ", when_label_absent: opted_out"
    with running_tribe_loop(tmp_path, world, extra=extra) as (loop, _):
        land_contacts(loop.project, loop.today)
        assert {row[COLUMN] for row in landed(loop).values()} == {"true", "false"}
        assert {row[SINCE] for row in landed(loop).values()} == {None}


@pytest.mark.parametrize(("ref", "write"), [("served", "one"), ("refused", "replace")])
def test_write_back_takes_labels_off_and_never_puts_one_on(
    tmp_path: Path, ref: Any, write: str
) -> None:
    switches = TribeSwitches(label_ref=ref)
    with running_tribe_loop(
        tmp_path, build_world(60, seed=3), switches, TRIBE_LABEL_WRITE=write
    ) as (loop, tribe):
        labelled = [
            one["ImportId"] for one in tribe.world.persons() if holds(tribe, one["ImportId"])
        ]
        without = [
            one["ImportId"] for one in tribe.world.persons() if not holds(tribe, one["ImportId"])
        ]
        keys = [labelled[0], without[0], "nobody", "O'Neill"]
        rows = [CrmOptOut(key, LIST, loop.sandbox.now()) for key in keys]
        others = {one["ImportId"]: len(one["Labels"]) for one in tribe.world.persons()}
        for _ in range(2):
            answers = crm_writer(loop.project).apply_opt_outs(rows)
            assert [answer.outcome for answer in answers[:2]] == ["accepted"] * 2
            assert [answer.error_class for answer in answers[2:]] == [CONTACT_NOT_FOUND] * 2
        assert tribe.audit.effects("labels") == 1
        assert not holds(tribe, labelled[0])
        assert all(len(one["Labels"]) <= others[one["ImportId"]] for one in tribe.world.persons())


def test_a_label_that_came_after_the_opt_out_stands(tmp_path: Path) -> None:
    world, extra = build_world(60, seed=3), ", when_label_absent: opted_out"
    with running_tribe_loop(tmp_path, world, extra=extra) as (loop, tribe):
        loop.day(approve=True)
        keys = [one["ImportId"] for one in tribe.world.persons()]
        key = next(key for key in keys if not holds(tribe, key))
        tribe.world.attach(person_of(tribe, key)["ID"], tribe.world.label_id(OFFERS))
        early = CrmOptOut(key, LIST, OPENING + timedelta(seconds=1))
        late = CrmOptOut(key, LIST, OPENING)  # of which only the day is known
        [answer] = crm_writer(loop.project).apply_opt_outs([early])
        assert answer.error_class == CHANGED_MEANWHILE
        assert holds(tribe, key)
        [answer] = crm_writer(loop.project).apply_opt_outs([late])
        assert answer.outcome == "accepted"
        assert not holds(tribe, key)


def test_who_loses_the_label_while_the_first_day_waits_is_opted_out(tmp_path: Path) -> None:
    with running_tribe_loop(tmp_path, build_world(40, seed=3)) as (loop, tribe):
        [left] = subscribed(loop, tribe, 1)
        loop.reconcile()  # nobody approves it
        tribe.world.detach(person_of(tribe, left)["ID"], tribe.world.label_id(OFFERS))
        loop.sandbox.next_day(edits=False)
        assert loop.day(approve=True).opt_outs_to_platform == 1
        assert landed(loop)[left][COLUMN] == "false"
        assert left not in subscribed(loop, tribe, 40)


def test_an_old_label_of_who_has_the_key_of_somebody_gone_is_of_any_age(tmp_path: Path) -> None:
    with running_tribe_loop(tmp_path, build_world(40, seed=3)) as (loop, tribe):
        key, other = subscribed(loop, tribe, 2)
        gone, stays = (person_of(tribe, one)["ID"] for one in (key, other))
        merged = {name: person_of(tribe, key)[name] for name in ("ImportId", "MobilePhoneNumber")}
        tribe.world.update("Relation_Person", stays, {"ImportId": None})
        loop.day(approve=True)
        hear_stop(loop, key)
        tribe.world.delete("Relation_Person", gone)
        loop.sandbox.next_day(edits=False)
        loop.day(approve=True)
        tribe.world.update("Relation_Person", stays, merged)
        loop.sandbox.next_day(edits=False)
        loop.day(approve=True)
        assert [landed(loop)[key][name] for name in (COLUMN, SINCE)] == ["true", None]
        assert not holds(tribe, key)


def test_a_label_is_as_old_as_the_look_without_it_or_the_opt_out_that_ended_it(
    tmp_path: Path,
) -> None:
    with running_tribe_loop(tmp_path, build_world(40, seed=3)) as (loop, tribe):
        platform, label = loop.sandbox.platform, tribe.world.label_id(OFFERS)
        left = {one.person_key for one in platform.subscriptions if one.opt_out_date}
        keys = {platform.persons[one].external_person_id for one in left}
        ids = {p["ImportId"]: p["ID"] for p in tribe.world.persons() if p["ImportId"] in keys}
        back, late = ids = dict(sorted(ids.items())[:2])
        for person in ids.values():
            tribe.world.attach(person, label)
        tribe.world.update("Relation_Person", ids[late], {"ImportId": None})
        [told] = subscribed(loop, tribe, 1)
        loop.day(approve=True)
        assert not holds(tribe, back)
        # A callback takes the label off at once; the last word of that day is a join.
        hear_stop(loop, told)
        assert not holds(tribe, told)
        assert loop.sandbox.text("join", {"external_person_id": told}, LIST)
        tribe.world.attach(ids[back], label)
        tribe.world.update("Relation_Person", ids[late], {"ImportId": late})
        loop.sandbox.next_day(edits=False)
        second = loop.day()
        assert (second.opt_outs_to_crm, second.opt_outs_to_platform) == (1, 0)
        assert {key: landed(loop)[key][SINCE] for key in ids} == {back: NIGHT, late: None}
        assert landed(loop)[told][SINCE] == "2026-01-01T06:00:00Z"
        assert (holds(tribe, back), holds(tribe, late)) == (True, False)


def test_fields_are_written_in_the_form_that_tribe_holds(both: Both) -> None:
    loop, tribe = both
    key = next(tribe.world.persons())["ImportId"]
    rows = [
        CrmFieldChange(key, "first_name", "Ann"),
        CrmFieldChange(key, "score", "12.5"),
        CrmFieldChange(key, "tier", "gold"),
        CrmFieldChange(key, "birthdate", None),
        CrmFieldChange(key, "score", "many"),
        CrmFieldChange("nobody", "first_name", "Ann"),
    ]
    answers = crm_writer(loop.project).apply_fields(rows)
    classes = [answer.error_class for answer in answers]
    assert classes == [None, None, None, None, VALUE_DOES_NOT_FIT, CONTACT_NOT_FOUND]
    person = person_of(tribe, key)
    assert (person["FirstName"], person["BirthDate"]) == ("Ann", None)
    assert (person[CUSTOM["score"]], person[CUSTOM["tier"]]) == (12.5, "Gold")


def test_where_the_newer_side_decides_a_later_edit_of_tribe_stands(both: Both) -> None:
    loop, tribe = both
    newest = {"authority": "newest", "changed_at": "ModifiedOn"}
    fields = tuple(
        one.model_copy(update=newest) if one.to in {"first_name", "birthdate"} else one
        for one in loop.project.config.fields
    )
    config = loop.project.config.model_copy(update={"fields": fields})
    person = next(tribe.world.persons())
    key, named, born = person["ImportId"], person["FirstName"], person["BirthDate"]
    rows = [
        CrmFieldChange(key, "first_name", "Ann", "Somebody else"),
        CrmFieldChange(key, "birthdate", "1990-12-01", "1900-01-01"),
        CrmFieldChange(key, "first_name", "Ann", named),
        CrmFieldChange(key, "birthdate", "1990-12-01", born),
    ]
    crm = crm_writer(replace(loop.project, config=config))
    answers = [crm.apply_fields([row])[0].error_class for row in rows]
    assert answers == [CHANGED_MEANWHILE, CHANGED_MEANWHILE, None, None]
    person = person_of(tribe, key)
    assert (person["FirstName"], person["BirthDate"][:10]) == ("Ann", "1990-12-01")


def test_a_field_that_cannot_be_looked_at_keeps_no_opt_out_away(both: Both) -> None:
    loop, tribe = both
    labelled = {"from_": "label:VIP", "authority": "newest", "changed_at": "label_since:VIP"}
    [first, *rest] = loop.project.config.fields
    fields = (first.model_copy(update=labelled), *rest)
    config = loop.project.config.model_copy(update={"fields": fields})
    key = next(one["ImportId"] for one in tribe.world.persons() if holds(tribe, one["ImportId"]))
    crm = crm_writer(replace(loop.project, config=config))
    assert crm.apply_opt_outs([CrmOptOut(key, LIST, None)])[0].error_class is None
    assert not holds(tribe, key)


def test_a_person_that_tribe_refuses_to_change_holds_back_no_other(both: Both) -> None:
    loop, tribe = both
    locked, free, *_ = (one["ImportId"] for one in tribe.world.persons() if one["Labels"])
    for key in (locked, free):
        if not holds(tribe, key):
            tribe.world.attach(person_of(tribe, key)["ID"], tribe.world.label_id(OFFERS))
    of_one = re.compile(person_of(tribe, locked)["ID"])
    crm, rows = crm_writer(loop.project), [CrmOptOut(key, LIST, None) for key in (locked, free)]
    for status in (422, 400, 403):  # of which the last two may be of everybody
        faults = [Fault("status", of_one, method, status=status) for method in ("DELETE", "PUT")]
        tribe.faults.replace(tuple(faults))
        if status == 422:
            assert crm.apply_opt_outs(rows[:1])[0].error_class == REFUSED_BY_CRM
        else:
            with pytest.raises(CrmError, match=str(status)):
                crm.apply_opt_outs(rows[:1])
        answers = crm.apply_opt_outs(rows)
        assert [answer.error_class for answer in answers] == [REFUSED_BY_CRM, None]
        names = [CrmFieldChange(key, "first_name", f"Ann{status}") for key in (locked, free)]
        answers = crm.apply_fields(names)
        assert [answer.error_class for answer in answers] == [REFUSED_BY_CRM, None]
        assert (holds(tribe, locked), holds(tribe, free)) == (True, False)
        tribe.world.attach(person_of(tribe, free)["ID"], tribe.world.label_id(OFFERS))


def test_a_tribe_that_is_down_is_told_as_the_crm_being_down(both: Both) -> None:
    loop, tribe = both
    tribe.faults.replace((Fault("status", status=403),))
    with pytest.raises(CrmError, match="Tribe"):
        crm_writer(loop.project).apply_opt_outs([CrmOptOut("C1", LIST, None)])


def test_some_contacts_are_read_as_a_landed_day_has_them(both: Both, tmp_path: Path) -> None:
    loop, tribe = both
    land_contacts(loop.project, loop.today)
    keys = [one["ImportId"] for one in list(tribe.world.persons())[:45]]
    path = tmp_path / "some.parquet"
    assert copy_crm_contacts(loop.project, path, [*keys, "nobody"]) >= 45
    whole = landed(loop)
    for row in pq.read_table(path).to_pylist():
        if sum(one["ImportId"] == row["ImportId"] for one in tribe.world.persons()) == 1:
            assert row == whole[row["ImportId"]]


def test_a_key_with_blanks_and_in_another_normal_form_is_found(both: Both, tmp_path: Path) -> None:
    loop, tribe = both
    person = next(one for one in tribe.world.persons() if holds(tribe, one["ImportId"]))
    tribe.world.update("Relation_Person", person["ID"], {"ImportId": " Cafe\u0301"})
    land_contacts(loop.project, loop.today)
    assert copy_crm_contacts(loop.project, tmp_path / "some.parquet", ["Caf\u00e9"]) == 1
    [answer] = crm_writer(loop.project).apply_opt_outs([CrmOptOut("Caf\u00e9", LIST, None)])
    assert answer.outcome == "accepted"
    assert not holds(tribe, " Cafe\u0301")


def test_the_config_says_what_does_not_belong_to_tribe(tmp_path: Path) -> None:
    path = tribe_sync_config(tmp_path)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("  key: ImportId", "  key: ImportId\n  query: SELECT 1"))
    with pytest.raises(SyncConfigError, match="query does not belong to source: tribe"):
        load_sync_config(path)
    path.write_text(text.replace("  source: tribe", "  source: sql"))
    with pytest.raises(SyncConfigError, match="tribe does not belong to source: sql"):
        load_sync_config(path)


def test_a_changed_source_needs_an_approval_and_nothing_else_changes(tmp_path: Path) -> None:
    path = tribe_sync_config(tmp_path)
    text = path.read_text(encoding="utf-8")
    tribe = load_sync_config(path)
    path.write_text(text.replace(", when_label_absent: opted_out", "").replace("[VIP]", "[]"))
    assert load_sync_config(path).mapping_hash != tribe.mapping_hash
