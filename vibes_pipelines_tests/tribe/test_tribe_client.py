"""The client against a Tribe over real HTTP: what is read, what is written, what is refused."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest

from vibes_pipelines.sandbox import tribe_sandbox
from vibes_pipelines.sandbox.faults import Fault, Faults
from vibes_pipelines.sandbox.tribe_population import NEWS_SMS, OFFERS
from vibes_pipelines.sandbox.tribe_sandbox import TribeSandbox
from vibes_pipelines.sandbox.tribe_switches import TribeSwitches
from vibes_pipelines.tribe import clock
from vibes_pipelines.tribe.api import Patience
from vibes_pipelines.tribe.client import TribeClient
from vibes_pipelines.tribe.errors import (
    TribeAnswerError,
    TribeAuthError,
    TribeError,
    TribeFieldError,
    TribeLabelError,
    TribeRefusedError,
    TribeUnavailableError,
)
from vibes_pipelines.tribe.labels import label_id_of
from vibes_pipelines_tests.support.tribe import tribe_client
from vibes_pipelines_tests.support.virtual_time import SetClock

T = TypeVar("T")
FAST = 200.0
PEOPLE = 230


@pytest.fixture(scope="module")
def tribe() -> Iterator[TribeSandbox]:
    with TribeSandbox.of_people(PEOPLE, speed=FAST) as running:
        yield running


def ask(
    tribe: TribeSandbox, question: Callable[[TribeClient], Awaitable[T]], **environment: str
) -> T:
    async def asking() -> T:
        async with tribe_client(tribe, FAST, Patience(backoff_s=0.1), **environment) as client:
            return await question(client)

    return asyncio.run(asking())


async def everybody(client: TribeClient, **options: Any) -> list[dict[str, Any]]:
    return [person async for page in client.persons(**options) for person in page]


def first(tribe: TribeSandbox) -> str:
    return str(next(tribe.world.persons())["ID"])


def labels_of(tribe: TribeSandbox, person_id: str) -> set[str]:
    person = tribe.world.find("Relation_Person", person_id)
    assert person is not None
    return {label["Name"] for label in person["Labels"]}


@contextmanager
def labelled(switches: TribeSwitches | None = None) -> Iterator[tuple[TribeSandbox, str]]:
    """A Tribe with a person who has two labels that matter here, and not a third."""
    with TribeSandbox.of_people(30, switches or TribeSwitches(), speed=FAST) as tribe:
        person, world = first(tribe), tribe.world
        for name in {OFFERS, "VIP"} - labels_of(tribe, person):
            world.attach(person, world.label_id(name))
        if NEWS_SMS in labels_of(tribe, person):
            world.detach(person, world.label_id(NEWS_SMS))
        tribe.audit.clear()
        yield tribe, person


def after_first(tribe: TribeSandbox, method: str, then: Callable[[], None]) -> None:
    """Does something once, right after Tribe's first answer about one person."""
    done: list[bool] = []

    def listen(entries: Any) -> None:
        for entry in entries:
            is_meant = entry.get("method") == method and "Relation_Person" in entry["route"]
            if is_meant and not done:
                done.append(True)
                then()

    tribe.audit.log = listen


READINGS = [
    TribeSwitches(),
    TribeSwitches(count="ignored"),
    TribeSwitches(top_over_100="refuse", guid_order="last_bytes_first"),
    TribeSwitches(next_link=True),
    TribeSwitches(next_link=True, page_rows=40, count="ignored"),
    TribeSwitches(page_rows=40),
]


class TestReading:
    @pytest.mark.parametrize("switches", READINGS, ids=range(len(READINGS)))
    def test_every_person_comes_once_under_either_reading(self, switches: TribeSwitches) -> None:
        with TribeSandbox.of_people(PEOPLE, switches, speed=FAST) as tribe:
            found = ask(tribe, lambda client: everybody(client, select=["LastName"]))
            assert sorted(one["ID"] for one in found) == sorted(
                one["ID"] for one in tribe.world.persons()
            )

    @pytest.mark.parametrize("people", [1, 99, 100, 101, 198, 199, 200])
    def test_no_size_loses_or_repeats_the_persons_at_the_border_of_pages(self, people: int) -> None:
        with TribeSandbox([], speed=FAST) as tribe:
            with tribe.world.quietly():
                for number in range(people):
                    tribe.world.create("Relation_Person", {"LastName": f"Person {number}"})
            found = ask(tribe, everybody)
        assert len({one["ID"] for one in found}) == len(found) == people

    def test_only_what_was_selected_comes_with_id_and_labels(self, tribe: TribeSandbox) -> None:
        [person, *_] = ask(
            tribe,
            lambda c: everybody(c, select=["FirstName", "Address/City", "Address/Country/Code"]),
        )
        assert set(person) == {"ID", "FirstName", "Address", "Labels"}
        assert person["Address"]["Country"]["Code"] in {"NL", "SE", "DK"}
        assert all(set(label) == {"ID", "Name"} for label in person["Labels"])

    @pytest.mark.parametrize("untouched", ["null", "created"])
    def test_an_incremental_read_finds_created_and_changed_persons(self, untouched: Any) -> None:
        switches = TribeSwitches(untouched_mutation=untouched)
        with TribeSandbox.of_people(50, switches, speed=FAST) as tribe:
            since = datetime.fromisoformat(tribe.world._stamp()).astimezone(UTC)
            changed = first(tribe)
            tribe.world.update("Relation_Person", changed, {"FirstName": "Another"})
            created = tribe.world.create("Relation_Person", {"LastName": "New"})["ID"]
            found = ask(tribe, lambda client: everybody(client, since=since))
            assert {one["ID"] for one in found} >= {changed, created}
            assert len(found) < 50

    def test_one_person_or_none(self, tribe: TribeSandbox) -> None:
        one = ask(tribe, lambda client: client.person(first(tribe), ["LastName"]))
        assert one is not None
        assert one["ID"] == first(tribe)
        gone = "00000000-0000-4000-8000-000000000000"
        assert ask(tribe, lambda client: client.person(gone)) is None

    def test_persons_are_found_by_a_text_field_with_any_character(
        self, tribe: TribeSandbox
    ) -> None:
        name = "O'Neill & Söhne + 100 %"
        person = tribe.world.create("Relation_Person", {"LastName": name})
        try:
            [found] = ask(tribe, lambda c: c.find("LastName", [name, "Nobody"], ["LastName"]))
            assert found["ID"] == person["ID"]
        finally:
            tribe.world.delete("Relation_Person", person["ID"])

    def test_metadata_tells_types_and_names_near_misses(self, tribe: TribeSandbox) -> None:
        metadata = ask(tribe, lambda client: client.metadata())
        assert metadata.type_of("BirthDate") == "Edm.Date"
        assert metadata.type_of("Address/Country/Name") == "Edm.String"
        with pytest.raises(TribeFieldError, match=r"fields\[2\].from.*'firstname'.*FirstName"):
            metadata.type_of("firstname", "fields[2].from")
        with pytest.raises(TribeFieldError, match="Country"):
            metadata.type_of("Address/Contry/Name")

    def test_a_label_is_found_by_name_or_named_nearly(self, tribe: TribeSandbox) -> None:
        labels = ask(tribe, lambda client: client.labels())
        assert label_id_of(labels, OFFERS) == tribe.world.label_id(OFFERS)
        with pytest.raises(TribeFieldError, match="did you mean Offers by SMS"):
            label_id_of(labels, "Offer by SMS")

    def test_a_person_without_its_labels_is_an_error_not_an_opt_out(self) -> None:
        with TribeSandbox.of_people(20, speed=FAST) as tribe:
            for person in tribe.world.persons():
                person["Labels"] = None
            with pytest.raises(TribeAnswerError, match="without all of its Labels"):
                ask(tribe, everybody)


class TestWriting:
    @pytest.mark.parametrize(
        "readings",
        [
            ("adds", "served", "one"),
            ("replaces", "served", "one"),
            ("replaces", "refused", "replace"),
        ],
        ids="-".join,
    )
    def test_a_label_is_taken_off_and_all_others_stay(self, readings: Any) -> None:
        put, ref, write = readings
        with labelled(TribeSwitches(label_put=put, label_ref=ref)) as (tribe, person):
            held, offers = labels_of(tribe, person), tribe.world.label_id(OFFERS)
            for _ in range(2):
                assert ask(tribe, lambda c: c.remove_label(person, offers), TRIBE_LABEL_WRITE=write)
                assert labels_of(tribe, person) == held - {OFFERS}
            assert tribe.audit.effects("labels") == 1

    @pytest.mark.parametrize(("write", "cure"), [("one", "replace"), ("replace", "one")])
    def test_the_wrong_reading_is_noticed_and_said(self, write: str, cure: str) -> None:
        switches = TribeSwitches(label_put="adds", label_ref="refused")
        with labelled(switches) as (tribe, person):
            label = tribe.world.label_id(OFFERS)
            with pytest.raises(TribeLabelError, match=f"TRIBE_LABEL_WRITE={cure}"):
                ask(tribe, lambda c: c.remove_label(person, label), TRIBE_LABEL_WRITE=write)

    @pytest.mark.parametrize("moment", ["GET", "DELETE"])
    def test_what_a_user_does_to_other_labels_meanwhile_stands(self, moment: str) -> None:
        with labelled() as (tribe, person):
            world, held = tribe.world, labels_of(tribe, person)

            def change() -> None:
                world.attach(person, world.label_id(NEWS_SMS))
                world.detach(person, world.label_id("VIP"))

            after_first(tribe, moment, change)
            assert ask(tribe, lambda c: c.remove_label(person, world.label_id(OFFERS)))
            assert labels_of(tribe, person) == held - {OFFERS, "VIP"} | {NEWS_SMS}

    def test_a_label_that_is_gone_from_a_written_list_is_told(self) -> None:
        with labelled() as (tribe, person):
            label, vip = (tribe.world.label_id(name) for name in (OFFERS, "VIP"))
            after_first(tribe, "PUT", lambda: tribe.world.detach(person, vip))
            with pytest.raises(TribeLabelError, match="a user took them off meanwhile"):
                ask(tribe, lambda c: c.remove_label(person, label), TRIBE_LABEL_WRITE="replace")

    @pytest.mark.parametrize("status", [429, 503])
    def test_a_list_that_was_not_taken_is_made_anew_before_it_is_written_again(
        self, status: int
    ) -> None:
        with labelled() as (tribe, person):
            held, label = labels_of(tribe, person), tribe.world.label_id(OFFERS)
            tribe.faults.replace((Fault("status", status=status, method="PUT", times=1),))
            vip = tribe.world.label_id("VIP")
            after_first(tribe, "PUT", lambda: tribe.world.detach(person, vip))
            assert ask(tribe, lambda c: c.remove_label(person, label), TRIBE_LABEL_WRITE="replace")
            assert labels_of(tribe, person) == held - {OFFERS, "VIP"}

    @pytest.mark.parametrize("answer", ["entity", "nothing"])
    def test_fields_are_written_and_a_person_who_is_gone_is_told(self, answer: Any) -> None:
        with TribeSandbox.of_people(5, TribeSwitches(put_answer=answer), speed=FAST) as tribe:
            person = first(tribe)
            assert ask(tribe, lambda client: client.update(person, {"FirstName": "Ann"}))
            assert tribe.world.find("Relation_Person", person)["FirstName"] == "Ann"  # type: ignore[index]
            tribe.world.delete("Relation_Person", person)
            assert not ask(tribe, lambda client: client.update(person, {"FirstName": "Ann"}))
            assert not ask(tribe, lambda client: client.remove_label(person, person))

    def test_a_refusal_names_path_and_cure_and_no_value(self, tribe: TribeSandbox) -> None:
        with pytest.raises(TribeRefusedError) as refused:
            ask(tribe, lambda client: client.update(first(tribe), {"lastName": "Secret"}))
        assert "Relation_Person:" in str(refused.value)
        assert first(tribe) not in str(refused.value)
        assert "sync.yaml" in str(refused.value)
        assert "Secret" not in str(refused.value)

    def test_an_identifier_that_is_none_never_becomes_a_path(self, tribe: TribeSandbox) -> None:
        with pytest.raises(TribeFieldError, match="GUID"):
            ask(tribe, lambda client: client.person("x)/Labels"))


class TestToken:
    def test_a_token_is_renewed_before_it_ends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        machine = SetClock()
        for module in (clock, tribe_sandbox):
            monkeypatch.setattr(module, "monotonic", machine)
        with TribeSandbox.of_people(3, TribeSwitches(token_ttl_s=130), speed=FAST) as tribe:

            async def twice(client: TribeClient) -> None:
                await client.labels()
                machine.now += 75 / FAST  # 55 of its seconds are left
                await client.labels()

            ask(tribe, twice)
            assert requests(tribe, "/oauth2/token") == {200: 2}
            assert 401 not in requests(tribe, "/v1/odata/Label")

    @pytest.mark.parametrize("switch", [TribeSwitches(expires_in="absent"), TribeSwitches()])
    def test_a_token_that_tribe_took_back_is_asked_for_again_once(
        self, switch: TribeSwitches
    ) -> None:
        with TribeSandbox.of_people(3, switch, speed=FAST) as tribe:

            async def revoked(client: TribeClient) -> None:
                await client.labels()
                tribe.tokens.revoke()
                await client.labels()

            ask(tribe, revoked)
            assert requests(tribe, "/v1/odata/Label") == {200: 2, 401: 1}

    def test_a_token_that_is_always_refused_is_an_error(self) -> None:
        faults = Faults((Fault("status", status=401, method="GET"),))
        with (
            TribeSandbox.of_people(3, faults=faults, speed=FAST) as tribe,
            pytest.raises(TribeAuthError, match="TRIBE_CLIENT_SECRET"),
        ):
            ask(tribe, lambda client: client.labels())

    @pytest.mark.parametrize(
        "environment", [{"TRIBE_CLIENT_SECRET": "wrong"}, {"TRIBE_CLIENT_ID": "nobody"}]
    )
    def test_wrong_credentials_are_said_without_showing_them(
        self, tribe: TribeSandbox, environment: dict[str, str]
    ) -> None:
        with pytest.raises(TribeAuthError, match="client authentication failed") as refused:
            ask(tribe, lambda client: client.labels(), **environment)
        assert "wrong" not in str(refused.value)

    def test_the_organization_is_named_where_tribe_wants_it(self) -> None:
        with TribeSandbox.of_people(3, TribeSwitches(organization_id="42"), speed=FAST) as tribe:
            assert ask(tribe, lambda client: client.labels())
            with pytest.raises(TribeAuthError, match="TRIBE_ORGANIZATION_ID"):
                ask(tribe, lambda client: client.labels(), TRIBE_ORGANIZATION_ID="")

    def test_a_token_endpoint_that_is_down_is_asked_again(self) -> None:
        faults = Faults((Fault("status", status=503, method="POST", times=2),))
        with TribeSandbox.of_people(3, faults=faults, speed=FAST) as tribe:
            assert ask(tribe, lambda client: client.labels())


class TestFaults:
    @pytest.mark.parametrize(
        "fault",
        [
            Fault("status", status=500, method="GET", times=2),
            Fault("reset", method="GET", times=2),
            Fault("partial", when="after", method="GET", times=2),
            Fault("status", status=429, method="GET", times=2),
        ],
        ids=["500", "reset", "half an answer", "429"],
    )
    def test_a_read_outlives_a_short_disturbance(self, fault: Fault) -> None:
        with TribeSandbox.of_people(30, faults=Faults((fault,)), speed=FAST) as tribe:
            assert len(ask(tribe, everybody)) == len(list(tribe.world.persons()))

    def test_a_label_is_taken_off_once_though_the_answer_was_lost(self) -> None:
        faults = Faults((Fault("reset", when="after", method="DELETE", times=1),))
        with TribeSandbox.of_people(30, faults=faults, speed=FAST) as tribe:
            person, label = first(tribe), tribe.world.label_id("VIP")
            if "VIP" not in labels_of(tribe, person):
                tribe.world.attach(person, label)
            tribe.audit.clear()
            assert ask(tribe, lambda client: client.remove_label(person, label))
            assert tribe.audit.effects("labels") == 1

    def test_a_write_that_is_never_answered_ends_and_a_read_is_not_repeated_for_it(self) -> None:
        with labelled() as (tribe, person):
            label = tribe.world.label_id(OFFERS)
            for method in ("DELETE", "GET"):
                tribe.audit.clear()
                fault = Fault("status", re.compile("Relation_Person"), method, status=503)
                tribe.faults.replace((fault,))
                with pytest.raises(TribeUnavailableError):
                    ask(tribe, lambda c: c.remove_label(person, label))
                sent = tribe.audit.as_dict()["requests"]
                assert isinstance(sent, list)
                assert sum(one["count"] for one in sent if one["status"] == 503) == 5

    def test_a_disturbance_that_stays_is_an_error_that_names_the_path(self) -> None:
        faults = Faults((Fault("status", status=503, method="GET"),))
        with (
            TribeSandbox.of_people(3, faults=faults, speed=FAST) as tribe,
            pytest.raises(TribeUnavailableError, match="/v1/odata/Label: HTTP 503"),
        ):
            ask(tribe, lambda client: client.labels())

    def test_no_error_shows_which_person_it_is_about(self) -> None:
        with labelled() as (tribe, person):
            label = tribe.world.label_id(OFFERS)
            for method, status in (("DELETE", 503), ("DELETE", 400), ("DELETE", 403), ("GET", 503)):
                fault = Fault("status", re.compile("Relation_Person"), method, status=status)
                tribe.faults.replace((fault,))
                with pytest.raises(TribeError, match="Relation_Person") as told:
                    ask(tribe, lambda c: c.remove_label(person, label))
                assert person not in str(told.value)
                assert label not in str(told.value)


def requests(tribe: TribeSandbox, route: str) -> dict[int, int]:
    """How often a route was answered, by status."""
    counted = tribe.audit.as_dict()["requests"]
    assert isinstance(counted, list)
    return {one["status"]: one["count"] for one in counted if one["route"] == route}
