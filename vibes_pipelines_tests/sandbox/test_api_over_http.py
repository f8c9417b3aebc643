"""The stand-in API over real HTTP: every call it knows, and how it refuses all others."""

from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import pytest

from vibes_pipelines.sandbox.api_limits import Credentials, RateLimit
from vibes_pipelines_tests.sandbox.stand_in import (
    ADA_KEY,
    ADA_MDN,
    BEA_KEY,
    BEA_MDN,
    CAL_KEY,
    LANDLINE,
    NEW_MDN,
    StandIn,
    served_platform,
)

PERSONS = "/mobiledb/persons"
LISTS = "/mobiledb/subscription_lists"
ADA_BY_MDN = f"{PERSONS}?mdn=%2B13125550142"


def test_a_person_shows_every_custom_field_set_or_not(api: StandIn) -> None:
    reply = api.call("GET", f"{PERSONS}/{ADA_KEY}")
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    assert reply.body == {
        "person_id": "11",
        "person_key": ADA_KEY,
        "external_person_id": "CRM-1",
        "mobile_phone": {"mdn": ADA_MDN, "carrier_code": "104"},
        "custom_fields": {
            "first_name": "Ada",
            "nickname": None,
            "birthdate": None,
            "score": None,
            "tier": {"id": "1", "name": "Gold", "option_key": "gold"},
            "interests": [
                {"id": "1", "name": "Golf", "option_key": "golf"},
                {"id": "3", "name": "Music", "option_key": "music"},
            ],
            "zip_code": None,
        },
        "created_at": "2025-03-01T12:30Z",
        "updated_at": "2025-03-01T12:30Z",
        "url": f"/companies/A1b2C3/mobiledb/persons/{ADA_KEY}",
    }


@pytest.mark.parametrize(
    "path",
    [
        f"{PERSONS}/{ADA_KEY}",
        f"{PERSONS}/{ADA_KEY}/",
        f"{PERSONS}/11",
        f"{PERSONS}/external/CRM-1",
        f"{PERSONS}/external/CRM%2D1/",
        ADA_BY_MDN,
        f"{PERSONS}/?mdn=%2B13125550142",
    ],
)
def test_one_person_by_every_road_with_and_without_the_trailing_slash(
    api: StandIn, path: str
) -> None:
    reply = api.call("GET", path)
    assert (reply.status, reply.body["person_key"]) == (200, ADA_KEY)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{PERSONS}/{ADA_KEY.upper()}", 404),
        (f"{PERSONS}/external/crm-1", 404),
        (f"{PERSONS}/99", 404),
        (PERSONS, 404),
        (f"{PERSONS}?mdn=%2B13125550188", 404),
        (f"{PERSONS}?mdn=+13125550142", 400),
        (f"{PERSONS}?mdn=3125550142", 400),
        (f"{PERSONS}?mdn=", 400),
        ("/mobiledb/people", 404),
        (f"{PERSONS}/{ADA_KEY}/push_devices/1/2", 404),
        (f"{PERSONS}//", 404),
        ("", 404),
    ],
)
def test_look_ups_that_find_nothing(api: StandIn, path: str, status: int) -> None:
    reply = api.call("GET", path)
    assert reply.status == status
    assert isinstance(reply.body["errors"][0]["code"], int)


def test_a_number_in_the_wrong_form_is_named_as_the_documentation_does(api: StandIn) -> None:
    assert "countrynotsupported" in api.call("GET", f"{PERSONS}?mdn=3125550142").messages


def test_without_a_version_header_the_api_is_version_1(api: StandIn) -> None:
    found = api.call("GET", f"{PERSONS}?mdn=3125550142", X_API_Version=None)
    assert found.body["mobile_phone"]["mdn"] == "3125550142"
    assert api.call("GET", ADA_BY_MDN, X_API_Version=None).status == 400
    body = {"mobile_phone": {"mdn": NEW_MDN}}
    assert api.call("POST", f"{PERSONS}/", body, X_API_Version="1").status == 422
    assert api.call("POST", f"{PERSONS}/", body, X_API_Version="3").status == 400


def test_add_answers_201_for_a_new_and_200_for_a_known_person(api: StandIn) -> None:
    body = {
        "external_person_id": "CRM-9",
        "mobile_phone": {"mdn": NEW_MDN},
        "custom_fields": {"tier": "gold", "interests": ["golf"], "score": 1.25},
    }
    created = api.call("POST", f"{PERSONS}/", body)
    again = api.call("POST", PERSONS, body)
    assert (created.status, again.status) == (201, 200)
    assert created.body["custom_fields"]["score"] == "1.25"
    assert created.body["person_key"] == again.body["person_key"]
    assert created.body["person_key"].islower()
    assert api.platform.audit.effects("api_add") == 1
    assert api.platform.audit.repeats("api_update") == 1


def test_an_update_replaces_what_it_mentions_clears_nulls_and_keeps_the_rest(api: StandIn) -> None:
    changes: dict[str, object] = {"tier": None, "interests": [], "zip_code": "60601"}
    reply = api.call("PUT", f"{PERSONS}/{ADA_KEY}", {"custom_fields": changes})
    fields = reply.body["custom_fields"]
    shown = {name: fields[name] for name in ("tier", "interests", "zip_code", "first_name")}
    assert shown == {"tier": None, "interests": [], "zip_code": "60601", "first_name": "Ada"}


def test_an_update_by_legacy_id_is_not_offered(api: StandIn) -> None:
    assert api.call("PUT", f"{PERSONS}/11", {}).status == 404


@pytest.mark.parametrize(("length", "status"), [(128, 201), (129, 422)])
def test_an_external_id_in_a_path_is_as_long_as_in_a_body(
    api: StandIn, length: int, status: int
) -> None:
    key = "x" * length
    assert api.call("PUT", f"{PERSONS}/external/{key}", {}).status == status
    assert api.call("POST", f"{PERSONS}/", {"external_person_id": key}).status in {200, status}


def test_upsert_by_external_id_answers_201_then_200(api: StandIn) -> None:
    body = {"mobile_phone": {"mdn": NEW_MDN}}
    statuses = [api.call("PUT", f"{PERSONS}/external/a%2Fb", body).status for _ in range(2)]
    assert statuses == [201, 200]
    found = api.call("GET", f"{PERSONS}/external/a%2Fb").body
    assert found["external_person_id"] == "a/b"


def test_fields_that_the_platform_sets_itself_are_ignored(api: StandIn) -> None:
    body = {
        "person_id": "77",
        "timezone_source": "area_code",
        "created_at": "2001-01-01T00:00Z",
        "updated_at": None,
        "mobile_phone": {"carrier_code": "999"},
    }
    reply = api.call("PUT", f"{PERSONS}/{ADA_KEY}", body)
    assert (reply.status, reply.body["person_id"]) == (200, "11")
    assert reply.body["mobile_phone"] == {"mdn": ADA_MDN, "carrier_code": "104"}
    assert api.platform.audit.effects() == 0


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"custom_fields": {"shoe_size": 43}}, "shoe_size"),
        ({"custom_fields": {"First_Name": "Ada"}}, "First_Name"),
        ({"custom_fields": {"tier": "platinum"}}, "tier"),
        ({"custom_fields": {"birthdate": "1990-12-01"}}, "birthdate"),
        ({"custom_fields": []}, "custom_fields"),
        ({"first_name": "Ada"}, "first_name"),
        ({"mobile_phone": "+13125550199"}, "mobile_phone"),
        ({"mobile_phone": {"number": NEW_MDN}}, "number"),
        ({"mobile_phone": {"mdn": 13125550199}}, "mdn"),
        ({"mobile_phone": {"mdn": "3125550199"}}, "countrynotsupported"),
        ({"external_person_id": 7}, "external_person_id"),
        ({"external_person_id": ""}, "external_person_id"),
        ({"external_person_id": "x" * 129}, "external_person_id"),
        ({"external_person_id": "CRM-3"}, "EXTERNALPERSONIDMISMATCH"),
        ([], "JSON object"),
    ],
)
def test_bodies_that_cannot_be_processed(api: StandIn, body: object, message: str) -> None:
    reply = api.call("PUT", f"{PERSONS}/{ADA_KEY}", body)
    assert reply.status == 422
    assert message in reply.messages
    assert api.platform.audit.effects() == 0


def test_all_faults_of_a_body_come_together(api: StandIn) -> None:
    body = {"custom_fields": {"tier": "x", "score": "y"}, "mobile_phone": {"mdn": "z"}}
    assert len(api.call("PUT", f"{PERSONS}/{ADA_KEY}", body).body["errors"]) == 3


@pytest.mark.parametrize("raw", [b"{", b"", b"\xff", b'{"a": NaN}', b"[" * 100_000])
def test_bodies_that_are_not_json(api: StandIn, raw: bytes) -> None:
    assert api.call("PUT", f"{PERSONS}/{ADA_KEY}", raw).status == 400


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PUT", f"{PERSONS}/{ADA_KEY}", {"mobile_phone": {"mdn": NEW_MDN}}, 409),
        ("PUT", f"{PERSONS}/{CAL_KEY}", {"mobile_phone": {"mdn": ADA_MDN}}, 409),
        ("PUT", f"{PERSONS}/external/CRM-3", {"mobile_phone": {"mdn": ADA_MDN}}, 409),
        ("PUT", f"{PERSONS}/{CAL_KEY}", {"mobile_phone": {"mdn": LANDLINE}}, 422),
        ("PUT", f"{PERSONS}/nobody", {}, 404),
        (
            "POST",
            PERSONS,
            {"external_person_id": "CRM-1", "mobile_phone": {"mdn": BEA_MDN}},
            409,
        ),
        ("POST", PERSONS, {"custom_fields": {}}, 422),
        ("POST", PERSONS, {"mobile_phone": {"mdn": LANDLINE}}, 422),
    ],
)
def test_identity_rules_by_status(
    api: StandIn, method: str, path: str, body: object, status: int
) -> None:
    assert api.call(method, path, body).status == status


def test_a_number_changes_by_removing_and_setting(api: StandIn) -> None:
    path = f"{PERSONS}/{ADA_KEY}"
    assert api.call("PUT", path, {"mobile_phone": {"mdn": None}}).body["mobile_phone"] is None
    assert api.call("GET", f"{path}/subscriptions").body == []
    body = {"mobile_phone": {"mdn": NEW_MDN}}
    assert api.call("PUT", path, body).body["mobile_phone"]["mdn"] == NEW_MDN


def test_subscriptions_of_a_person(api: StandIn) -> None:
    path = f"{PERSONS}/{ADA_KEY}/subscriptions"
    (active,) = api.call("GET", path).body
    assert active == {
        "person": {"id": "11", "url": "/companies/A1b2C3/mobiledb/persons/11"},
        "subscription_list": {
            "id": "1234",
            "url": "/companies/A1b2C3/mobiledb/subscription_lists/1234",
        },
        "opt_in_date": "2025-03-10T12:30:00Z",
        "url": "/companies/A1b2C3/mobiledb/persons/11/subscriptions/1234",
    }
    for road in (path, f"{PERSONS}/external/CRM-1/subscriptions/"):
        ended, _ = api.call("GET", f"{road}?active_only=false").body
        assert ended["opt_out_date"] == "2025-03-02T12:30:00Z"
        assert ended["opt_out_reason"] == "user_opt_out"
    assert api.call("GET", f"{path}?active_only=no").status == 400
    assert api.call("GET", f"{PERSONS}/nobody/subscriptions").status == 404


@pytest.mark.parametrize("road", [f"{PERSONS}/{ADA_KEY}", f"{PERSONS}/external/CRM-1"])
def test_unsubscribing_answers_204_once_then_404(api: StandIn, road: str) -> None:
    path = f"{road}/subscriptions/1234"
    assert [row["opt_in_date"] for row in api.call("GET", path).body] == ["2025-03-10T12:30:00Z"]
    for method in ("GET", "DELETE"):
        assert api.call(method, f"{road}/subscriptions/1235").status == 404, "another list"
    first, second = (api.call("DELETE", path) for _ in range(2))
    assert (first.status, first.raw, second.status) == (204, b"", 404)
    assert api.call("GET", path).status == 404
    audit = api.platform.audit
    assert (audit.effects("api_unsubscribe"), audit.repeats("api_unsubscribe")) == (1, 1)


def test_subscription_lists_and_their_subscribers(api: StandIn) -> None:
    url = "/companies/A1b2C3/mobiledb/subscription_lists/1234"
    offers = {
        "id": "1234",
        "name": "Offers",
        "url": url,
        "subscribers_url": f"{url}/subscribers",
        "acquisition_campaigns_url": f"{url}/acquisition_campaigns",
    }
    assert api.call("GET", f"{LISTS}/").body[0] == api.call("GET", f"{LISTS}/1234").body == offers
    assert api.call("GET", f"{LISTS}/9").status == 404
    for query in (
        "mdn=%2B13125550142",
        f"person_key={ADA_KEY}",
        "external_person_id=CRM-1",
        "person_id=11",
    ):
        found = api.call("GET", f"{LISTS}/1234/subscribers?{query}")
        assert found.body["person_key"] == ADA_KEY
    for query in (f"person_key={BEA_KEY}", "person_key=nobody", ""):
        assert api.call("GET", f"{LISTS}/1234/subscribers?{query}").status == 404
    assert api.call("GET", f"{LISTS}/1235/subscribers?person_id=11").status == 404


@pytest.mark.parametrize(
    "authorization", [None, Credentials("sandbox@localhost", "wrong").header(), "Bearer abc"]
)
def test_wrong_credentials_get_401(api: StandIn, authorization: str | None) -> None:
    reply = api.call("GET", f"{PERSONS}/{ADA_KEY}", Authorization=authorization)
    assert (reply.status, len(reply.body["errors"])) == (401, 1)
    assert reply.headers["www-authenticate"].startswith("Basic")


def test_credentials_do_not_show_in_a_representation() -> None:
    assert "hunter2" not in repr(Credentials("u", "hunter2"))


def test_calls_that_the_contract_does_not_know_are_refused(api: StandIn) -> None:
    path = f"{PERSONS}/{ADA_KEY}"
    assert api.call("DELETE", path).status == 405
    assert api.call("PATCH", path, {}).status == 405
    assert api.call("POST", f"{path}/subscriptions", {}).status == 405
    assert api.call("PUT", path, b"{}", Content_Type="text/plain").status == 415
    assert api.call("PUT", path, b"{}", Content_Type=None).status == 415
    assert (
        api.call("PUT", path, b"{}", Content_Type="application/json; charset=utf-8").status == 200
    )


def test_another_company_and_paths_outside_the_api_are_not_found(api: StandIn) -> None:
    connection = HTTPConnection("127.0.0.1", api.client.port, timeout=60)
    try:
        for path in (f"/companies/Zzz999{PERSONS}/{ADA_KEY}", "/", "/companies"):
            connection.request("GET", path, headers=dict(api.client.headers))
            response = connection.getresponse()
            assert (response.status, b'"errors"' in response.read()) == (404, True)
    finally:
        connection.close()


def test_requests_are_counted_by_method_route_and_status(api: StandIn) -> None:
    api.call("GET", f"{PERSONS}/{ADA_KEY}")
    api.call("GET", f"{PERSONS}/nobody/")
    api.call("GET", "/nowhere")
    assert api.platform.audit.as_dict()["requests"] == [
        {"method": "GET", "route": "/mobiledb/persons/*", "status": 200, "count": 1},
        {"method": "GET", "route": "/mobiledb/persons/*", "status": 404, "count": 1},
        {"method": "GET", "route": "unknown", "status": 404, "count": 1},
    ]


def test_more_than_the_rate_gets_429_without_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RateLimit.__init__, "__defaults__", (100, lambda: 0.0))  # one second
    with served_platform(rate_per_s=5) as api, ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: api.call("GET", f"{PERSONS}/11"), range(8)))
    refused = [reply for reply in replies if reply.status == 429]
    assert len(refused) == 3
    assert all("retry-after" not in map(str.lower, reply.headers) for reply in refused)


def test_the_rate_window_slides() -> None:
    clock = iter([0.0, 0.9, 0.95, 1.05, 1.06, 1.95])
    limit = RateLimit(2, now_s=lambda: next(clock))
    assert [limit.admit() for _ in range(6)] == [True, True, False, True, False, True]


def test_find_by_mdn_may_answer_a_list() -> None:
    with served_platform(find_by_mdn_body="array") as api:
        assert [person["person_key"] for person in api.call("GET", ADA_BY_MDN).body] == [ADA_KEY]
        assert api.call("GET", f"{PERSONS}?mdn=%2B13125550188").status == 404


def test_an_unset_identifier_is_null_or_left_out(api: StandIn) -> None:
    assert api.call("GET", f"{PERSONS}/{BEA_KEY}").body["external_person_id"] is None
    assert api.call("GET", f"{PERSONS}/{CAL_KEY}").body["mobile_phone"] is None
    with served_platform(unset_identifiers="absent") as other:
        assert "external_person_id" not in other.call("GET", f"{PERSONS}/{BEA_KEY}").body
        assert "mobile_phone" not in other.call("GET", f"{PERSONS}/{CAL_KEY}").body


def test_refusals_of_person_calls_may_come_without_a_body() -> None:
    with served_platform(empty_error_body=True) as api:
        not_found = api.call("GET", f"{PERSONS}/nobody")
        conflict = api.call("PUT", f"{PERSONS}/{ADA_KEY}", {"mobile_phone": {"mdn": NEW_MDN}})
        assert (not_found.status, not_found.raw) == (404, b"")
        assert (conflict.status, conflict.raw) == (409, b"")
        assert api.call("PUT", f"{PERSONS}/{ADA_KEY}", {"nonsense": 1}).messages
        assert api.call("GET", f"{LISTS}/9").messages


@pytest.mark.parametrize(("reading", "status"), [("merge", 200), ("conflict", 409)])
def test_adding_a_known_mdn_under_another_external_id(reading: str, status: int) -> None:
    body = {"external_person_id": "CRM-7", "mobile_phone": {"mdn": ADA_MDN}}
    with served_platform(post_existing_mdn=reading) as api:
        assert api.call("POST", PERSONS, body).status == status


@pytest.mark.parametrize(("reading", "status"), [("create", 201), ("not_found", 404)])
def test_updating_an_unknown_external_id(reading: str, status: int) -> None:
    with served_platform(put_external_unknown=reading) as api:
        assert api.call("PUT", f"{PERSONS}/external/CRM-9", {}).status == status


def test_unsubscribing_may_answer_200_with_nothing() -> None:
    with served_platform(delete_status=200) as api:
        reply = api.call("DELETE", f"{PERSONS}/{ADA_KEY}/subscriptions/1234")
        assert (reply.status, reply.raw) == (200, b"")
