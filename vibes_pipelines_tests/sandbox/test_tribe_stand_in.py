"""The stand-in of Tribe over HTTP: what the documentation says, and nothing beyond it."""

import http.client
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vibes_pipelines.sandbox import tribe_sandbox
from vibes_pipelines.sandbox.tribe_filter import FilterError, read_filter
from vibes_pipelines.sandbox.tribe_population import LABELS
from vibes_pipelines.sandbox.tribe_sandbox import TribeSandbox
from vibes_pipelines.sandbox.tribe_switches import TribeSwitches
from vibes_pipelines_tests.support.virtual_time import SetClock

SET = "/v1/odata/Relation_Person"
HOOK = {"url": "http://127.0.0.1:1/", "entityType": "Relation.Person"}
NOBODY = "00000000-0000-4000-8000-000000000000"


class Caller:
    """Somebody with a token."""

    def __init__(self, tribe: TribeSandbox, scope: str = "read write") -> None:
        self.tribe = tribe
        self.port = int(tribe.environment()["TRIBE_API_URL"].rsplit(":", 1)[1])
        _, answer = self.token(scope=scope)
        self.headers = {"Authorization": f"Bearer {answer['access_token']}"}

    def token(self, **form: str) -> tuple[int, Any]:
        application = self.tribe.application
        whole = {
            "grant_type": "client_credentials",
            "client_id": application.client_id,
            "client_secret": application.client_secret,
            "scope": "read write offline",
        }
        body = urlencode({k: v for k, v in {**whole, **form}.items() if v}).encode()
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.send("POST", "/oauth2/token", body, kind)

    def send(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        return answer.status, json.loads(content) if content[:1] in b"{[" and content else content

    def call(self, method: str, path: str, document: Any = None) -> tuple[int, Any]:
        body = None if document is None else json.dumps(document).encode()
        kind = {} if body is None else {"Content-Type": "application/json"}
        return self.send(method, path, body, {**self.headers, **kind})

    def read(self, **options: str) -> tuple[int, Any]:
        query = "&".join(f"${name}={quote(value)}" for name, value in options.items())
        return self.call("GET", f"{SET}?{query}")


@pytest.fixture(scope="module")
def tribe() -> Iterator[TribeSandbox]:
    with TribeSandbox.of_people(240) as running:
        yield running


@pytest.fixture(scope="module")
def caller(tribe: TribeSandbox) -> Caller:
    return Caller(tribe)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    """The machine's clock, as a Tribe of this test reads it."""
    clock = SetClock()
    monkeypatch.setattr(tribe_sandbox, "monotonic", clock)
    return clock


class TestToken:
    @pytest.mark.parametrize(
        ("form", "status", "error"),
        [
            ({"client_secret": "no"}, 401, "invalid_client"),
            ({"client_id": "no"}, 401, "invalid_client"),
            ({"scope": ""}, 400, "invalid_scope"),
            ({"scope": "admin"}, 400, "invalid_scope"),
            ({"grant_type": "password"}, 400, "unsupported_grant_type"),
            ({"user": "somebody"}, 400, "invalid_request"),
        ],
    )
    def test_a_refusal_says_why(
        self, caller: Caller, form: dict[str, str], status: int, error: str
    ) -> None:
        answered, body = caller.token(**form)
        assert (answered, body["error"]) == (status, error)
        assert body["error_description"]

    def test_a_token_ends_and_gives_only_its_right(self, machine: SetClock) -> None:
        with TribeSandbox.of_people(3, TribeSwitches(token_ttl_s=10)) as tribe:
            caller = Caller(tribe, "read")
            person = next(tribe.world.persons())["ID"]
            assert caller.read()[0] == 200
            assert caller.call("PUT", f"{SET}({person})", {"FirstName": "Ann"})[0] == 403
            machine.now += 11
            assert caller.read()[0] == 401

    def test_nothing_is_told_without_one(self, caller: Caller) -> None:
        assert caller.send("GET", SET, None, {})[0] == 401
        assert caller.send("GET", SET, None, {"Authorization": "Bearer x"})[0] == 401


class TestQueries:
    @pytest.mark.parametrize(
        "options",
        [
            {"filter": "ID in ('a')"},
            {"filter": "Labels has 'x'"},
            {"filter": "firstName eq 'Ann'"},
            {"filter": "FirstName eq Ann"},
            {"filter": "FirstName eq 'Ann"},
            {"filter": "CreationDate gt '2021-05-17T12:43:48Z'"},
            {"filter": "CreationDate gt 2021-05-17"},
            {"filter": "FirstName gt null"},
            {"filter": "tolower(FirstName) eq 'ann'"},
            {"filter": "FirstName eq 'Ann' and"},
            {"filter": "Labels/Name eq 'VIP'"},
            {"filter": "BirthDate eq 2026-02-30"},
            {"filter": "(" * 3_000 + "FirstName eq 'Ann'" + ")" * 3_000},
            {"select": "firstName"},
            {"select": "Address/City"},
            {"expand": "Nothing"},
            {"expand": "Labels($filter=Name eq 'VIP')"},
            {"expand": "Labels("},
            {"orderby": "Nothing"},
            {"orderby": "ID sideways"},
            {"orderby": "ID,"},
            {"top": "-1"},
            {"skip": "x"},
            {"skip": "9" * 5_000},
            {"count": "yes"},
            {"search": "x"},
        ],
    )
    def test_what_tribe_does_not_know_is_refused(
        self, caller: Caller, options: dict[str, str]
    ) -> None:
        status, body = caller.read(**options)
        assert (status, body["error"]["code"]) == (400, "BadRequest")

    def test_a_plus_is_no_blank(self, caller: Caller) -> None:
        assert caller.call("GET", f"{SET}?$filter=FirstName+eq+'Ann'")[0] == 400

    def test_a_page_has_100_records_at_most(self, caller: Caller) -> None:
        assert len(caller.read()[1]["value"]) == 100
        assert len(caller.read(top="500")[1]["value"]) == 100
        with TribeSandbox.of_people(3, TribeSwitches(top_over_100="refuse")) as strict:
            assert Caller(strict).read(top="101")[0] == 400

    def test_skip_top_and_count(self, caller: Caller, tribe: TribeSandbox) -> None:
        _, body = caller.read(orderby="ID", skip="230", top="50", count="true", select="LastName")
        assert body["@odata.count"] == len(list(tribe.world.persons()))
        assert len(body["value"]) == body["@odata.count"] - 230
        assert [set(one) for one in body["value"]] == [{"ID", "LastName"}] * len(body["value"])
        ids = [one["ID"] for one in body["value"]]
        assert ids == sorted(ids)

    def test_functions_do_not_mind_case_and_quotes_are_doubled(self) -> None:
        with TribeSandbox([]) as tribe:
            caller = Caller(tribe)
            caller.call("POST", SET, {"LastName": "O'Neill", "FirstName": "Ann"})
            for where in (
                "contains(LastName,'NEIL')",
                "startswith(LastName,'o''n') and not endswith(FirstName,'x')",
                "LastName eq 'O''Neill' and (FirstName eq 'Ann' or FirstName eq null)",
                "LastMutationDate eq null and CreationDate ge 2026-01-01T00:00:00%2B01:00",
            ):
                status, body = caller.call("GET", f"{SET}?$filter={where.replace(' ', '%20')}")
                assert (status, len(body["value"])) == (200, 1), where

    def test_labels_and_addresses_are_expanded(self, caller: Caller) -> None:
        expand = "Labels($select=ID,Name),Address($select=City;$expand=Country($select=Code))"
        _, body = caller.read(expand=expand, top="100")
        names = {label["Name"] for one in body["value"] for label in one["Labels"]}
        assert names == set(LABELS)
        assert set(body["value"][0]["Address"]) == {"ID", "City", "Country"}

    def test_metadata_is_xml_that_names_every_field(self, caller: Caller) -> None:
        status, content = caller.call("GET", "/v1/odata/$metadata")
        names = {one.get("Name") for one in ET.fromstring(content).iter()}
        assert status == 200
        assert {"Relation_Person", "FirstName", "EmailAddress", "Labels"} <= names


class TestRecords:
    def test_a_person_is_created_changed_and_deleted(self, tribe: TribeSandbox) -> None:
        caller = Caller(tribe)
        status, person = caller.call("POST", SET, {"LastName": "Berg"})
        assert (status, person["LastName"], person["LastMutationDate"]) == (201, "Berg", None)
        one = f"{SET}({person['ID']})"
        status, person = caller.call("PUT", one, {"FirstName": "Ann"})
        assert (status, person["FirstName"], person["LastName"]) == (200, "Ann", "Berg")
        assert datetime.fromisoformat(person["LastMutationDate"]).tzinfo is not None
        status, person = caller.call("POST", SET, {"ID": person["ID"], "FirstName": "Eva"})
        assert (status, person["FirstName"]) == (200, "Eva")
        assert caller.call("DELETE", one)[0] == 204
        assert caller.call("GET", one)[0] == caller.call("DELETE", one)[0] == 404

    @pytest.mark.parametrize(
        ("method", "path", "document", "status"),
        [
            ("POST", SET, {"FirstName": "No last name"}, 400),
            ("POST", SET, {"LastName": "X", "lastName": "X"}, 400),
            ("POST", SET, {"LastName": 1}, 400),
            ("POST", SET, {"ID": NOBODY, "LastName": "X"}, 404),
            ("POST", SET, [1], 400),
            ("POST", "/v1/webhooks", HOOK | {"url": "http://crm.example/"}, 400),
            ("POST", "/v1/webhooks", HOOK | {"headers": ["X-Key"]}, 400),
            ("PUT", SET, {"LastName": "X"}, 405),
            ("PUT", f"{SET}({NOBODY})", {"LastName": "X"}, 404),
            ("GET", f"{SET}('{NOBODY}')", None, 404),
            ("GET", "/v1/odata/Relation", None, 404),
            ("POST", "/v1/odata/Relationship_Person_Contact_Standard", {}, 405),
            ("GET", "/v1/else", None, 404),
        ],
    )
    def test_what_tribe_does_not_take(
        self, caller: Caller, method: str, path: str, document: Any, status: int
    ) -> None:
        assert caller.call(method, path, document)[0] == status

    def test_what_does_not_fit_a_field_is_not_written(self, caller: Caller) -> None:
        person = next(caller.tribe.world.persons())["ID"]
        for document in (
            {"LastName": None},
            {"LastName": ""},
            {"BirthDate": "19901201"},
            {"CreationDate": "2026-01-01T00:00:00Z"},
        ):
            assert caller.call("PUT", f"{SET}({person})", document)[0] == 400
        labels = {"Labels": [{"ID": NOBODY}]}
        assert caller.call("PUT", f"{SET}({person})", labels)[0] == 400

    @pytest.mark.parametrize(("reading", "ref"), [("replaces", "refused"), ("adds", "served")])
    def test_a_written_list_of_labels_replaces_or_adds(self, reading: Any, ref: Any) -> None:
        with TribeSandbox([], TribeSwitches(label_put=reading, label_ref=ref)) as tribe:
            caller = Caller(tribe)
            one, other = (tribe.world.label_id(name) for name in list(LABELS)[:2])
            _, person = caller.call("POST", SET, {"LastName": "Berg", "Labels": [{"ID": one}]})
            path = f"{SET}({person['ID']})"
            caller.call("PUT", path, {"Labels": [{"ID": other}]})
            expanded = f"{path}?$expand=Labels($select=ID)"
            held = {label["ID"] for label in caller.call("GET", expanded)[1]["Labels"]}
            assert held == ({other} if reading == "replaces" else {one, other})
            taken_off = caller.call("DELETE", f"{path}/Labels({other})/$ref")[0]
            assert taken_off == (404 if ref == "refused" else 204)
            _, persons = caller.call("GET", f"/v1/odata/Label({other})/Entities")
            assert len(persons["value"]) == (1 if ref == "refused" else 0)

    @pytest.mark.parametrize("labels_touch", [False, True])
    def test_a_label_moves_the_time_of_change_or_not(self, *, labels_touch: bool) -> None:
        with TribeSandbox([], TribeSwitches(labels_touch=labels_touch)) as tribe:
            person = tribe.world.create("Relation_Person", {"LastName": "Berg"})
            tribe.world.attach(person["ID"], tribe.world.label_id("VIP"))
            assert (person["LastMutationDate"] is not None) == labels_touch


def test_one_call_more_than_the_limit_is_turned_away_until_the_window_moved_on(
    machine: SetClock,
) -> None:
    limit = 30  # 1000 at Tribe's own
    with TribeSandbox([], calls_per_min=limit) as tribe:
        caller = Caller(tribe)
        statuses = [caller.read()[0] for _ in range(limit + 1)]
        assert statuses == [200] * limit + [429]
        machine.now += 61
        assert caller.read()[0] == 200


class TestWebhooks:
    def test_they_are_registered_listed_and_ended(self, caller: Caller) -> None:
        wish = {"url": "http://127.0.0.1:9/x", "entityType": "Relation.Person"}
        status, webhook = caller.call("POST", "/v1/webhooks", wish)
        assert status == 201
        assert webhook["secret"]
        [listed] = caller.call("GET", "/v1/webhooks")[1]
        assert "secret" not in listed
        assert caller.call("DELETE", f"/v1/webhooks/{webhook['id']}")[0] == 204
        assert caller.call("DELETE", f"/v1/webhooks/{webhook['id']}")[0] == 404

    @pytest.mark.parametrize(
        "wish",
        [
            {"url": "https://example.org/x", "entityType": "Relation.Person"},
            {"url": "http://127.0.0.1:9/x", "entityType": "Person"},
            {"url": "http://127.0.0.1:9/x", "entityType": "Relation.Person", "more": 1},
        ],
    )
    def test_nothing_is_sent_beyond_this_machine(self, caller: Caller, wish: Any) -> None:
        assert caller.call("POST", "/v1/webhooks", wish)[0] == 400


@given(st.text(max_size=40))
def test_any_text_is_a_filter_or_a_typed_error(text: str) -> None:
    try:
        test = read_filter(text, "Relation_Person")
    except FilterError:
        return
    assert test({"FirstName": None}) in {True, False}


@given(
    st.datetimes(timezones=st.just(UTC)).map(lambda at: at.replace(microsecond=0)),
    st.datetimes(timezones=st.just(UTC)).map(lambda at: at.replace(microsecond=0)),
)
def test_moments_are_compared_as_moments(one: datetime, other: datetime) -> None:
    if min(one, other).year < 1000:
        return
    test = read_filter(f"CreationDate ge {other:%Y-%m-%dT%H:%M:%SZ}", "Relation_Person")
    assert test({"CreationDate": f"{one:%Y-%m-%dT%H:%M:%S.000Z}"}) == (one >= other)


def test_the_same_people_and_seed_make_the_same_tribe() -> None:
    first, again = (TribeSandbox.of_people(80, seed=4) for _ in range(2))
    assert list(first.world.persons()) == list(again.world.persons())
