"""The Person API client against a small HTTP server that answers as the documentation says."""

import asyncio
import base64
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from vibes_pipelines.vibes.person_api import (
    Answer,
    PersonApi,
    VibesApiError,
    VibesAuthError,
    VibesUnavailable,
)
from vibes_pipelines_tests.support.real_parts import refusing_port
from vibes_pipelines_tests.vibes.answering import ROOT, FakePlatform, ask, build_api, refusal

Talk = Callable[[PersonApi], Awaitable[Any]]
PERSON = {"person_key": "p1", "external_person_id": "C-1", "brand_new_key": {"any": 1}}
EMAIL = "ada@example.com"


def test_every_request_carries_version_2_and_the_login() -> None:
    platform = FakePlatform([web.json_response(PERSON)])
    ask(platform, lambda api: api.get("p1"))
    headers = platform.requests[0].headers
    assert headers["X-API-Version"] == "2"
    assert headers["Content-Type"] == "application/json"
    assert headers["Authorization"] == "Basic " + base64.b64encode(
        b"ada@example.com:secret"
    ).decode("ascii")


@pytest.mark.parametrize(
    ("talk", "method", "path"),
    [
        (lambda api: api.add({}), "POST", f"{ROOT}/persons/"),
        (lambda api: api.update("p1", {}), "PUT", f"{ROOT}/persons/p1"),
        (lambda api: api.upsert("C-1", {}), "PUT", f"{ROOT}/persons/external/C-1"),
        (lambda api: api.upsert("a/b +ä", {}), "PUT", f"{ROOT}/persons/external/a%2Fb%20%2B%C3%A4"),
        (lambda api: api.get("p1"), "GET", f"{ROOT}/persons/p1"),
        (lambda api: api.get_external("C-1"), "GET", f"{ROOT}/persons/external/C-1"),
        (lambda api: api.find_by_mdn("+1312"), "GET", f"{ROOT}/persons?mdn=%2B1312"),
        (
            lambda api: api.subscriptions(person_key="p1"),
            "GET",
            f"{ROOT}/persons/p1/subscriptions",
        ),
        (
            lambda api: api.subscriptions(external_person_id="C-1", active_only=False),
            "GET",
            f"{ROOT}/persons/external/C-1/subscriptions?active_only=false",
        ),
        (
            lambda api: api.unsubscribe("1234", person_key="p1"),
            "DELETE",
            f"{ROOT}/persons/p1/subscriptions/1234",
        ),
        (
            lambda api: api.unsubscribe("1234", external_person_id="C-1"),
            "DELETE",
            f"{ROOT}/persons/external/C-1/subscriptions/1234",
        ),
        (lambda api: api.lists(), "GET", f"{ROOT}/subscription_lists/"),
    ],
)
def test_routes_are_the_documented_ones(talk: Talk, method: str, path: str) -> None:
    platform = FakePlatform([web.json_response({})])
    ask(platform, talk)
    assert [(seen.method, seen.path) for seen in platform.requests] == [(method, path)]


@pytest.mark.parametrize("status", [200, 201])
def test_any_2xx_accepts_a_write(status: int) -> None:
    platform = FakePlatform([web.json_response(PERSON, status=status)])
    body = {"custom_fields": {"first_name": "Ada", "tier": None}}
    answer = ask(platform, lambda api: api.upsert("C-1", body))
    assert answer == Answer(status, "accepted", body=PERSON)
    assert platform.requests[0].body == body


@pytest.mark.parametrize(
    "text", ["<html>maintenance</html>", '{"person_key": "p', '"x"', "1e999", "[]"]
)
@pytest.mark.parametrize(
    "talk",
    [
        lambda api: api.add({"external_person_id": "C-1"}),
        lambda api: api.upsert("C-1", {}),
        lambda api: api.unsubscribe("1234", person_key="p1"),
    ],
)
def test_a_2xx_with_a_body_that_is_none_of_the_api_is_unknown(talk: Talk, text: str) -> None:
    platform = FakePlatform([web.Response(text=text), web.Response(text="<html>")])
    answer = ask(platform, talk)
    assert (answer.status, answer.outcome, answer.error_class) == (
        200,
        "unknown",
        "UnreadableAnswer",
    )
    assert [seen.method for seen in platform.requests[1:]] in ([], ["GET"])  # an add looks


@pytest.mark.parametrize("text", ["", " \r\n"])
def test_a_2xx_without_a_body_accepts_a_write(text: str) -> None:
    platform = FakePlatform([web.Response(status=201, text=text)])
    assert ask(platform, lambda api: api.upsert("C-1", {})) == Answer(201, "accepted")


@pytest.mark.parametrize("status", [200, 204])
def test_a_subscription_is_ended_by_any_2xx(status: int) -> None:
    platform = FakePlatform([web.Response(status=status)])
    found = ask(platform, lambda api: api.unsubscribe("1234", person_key="p1"))
    assert (found.outcome, found.status) == ("accepted", status)


@pytest.mark.parametrize("missing", [refusal(404), web.Response(status=404)])
@pytest.mark.parametrize(
    ("person", "path"),
    [({"person_key": "p1"}, "p1"), ({"external_person_id": "C-1"}, "external/C-1")],
)
def test_a_subscription_that_a_person_does_not_have_counts_as_ended(
    missing: web.Response, person: dict[str, str], path: str
) -> None:
    platform = FakePlatform([missing, web.json_response(PERSON)])
    found = ask(platform, lambda api: api.unsubscribe("1234", **person))
    assert found == Answer(404, "accepted")
    assert [(seen.method, seen.path) for seen in platform.requests] == [
        ("DELETE", f"{ROOT}/persons/{path}/subscriptions/1234"),
        ("GET", f"{ROOT}/persons/{path}"),
    ]


@pytest.mark.parametrize("read_back", [web.Response(status=404), refusal(400)])
def test_an_opt_out_of_a_person_who_is_not_found_is_refused(read_back: web.Response) -> None:
    """A wrong company key looks the same, and must not pass for an opt-out that was carried out."""
    platform = FakePlatform([refusal(404, "not found"), read_back])
    found = ask(platform, lambda api: api.unsubscribe("1234", person_key="p1"))
    assert found == Answer(404, "rejected", "HTTP 404", "not found")


def test_an_opt_out_whose_person_cannot_be_read_back_is_unknown() -> None:
    platform = FakePlatform([refusal(404), web.Response(status=503)])
    found = ask(platform, lambda api: api.unsubscribe("1234", person_key="p1"))
    assert (found.outcome, found.error_class) == ("unknown", "HTTP 503")


@pytest.mark.parametrize(
    ("refused", "error_class", "message"),
    [
        (web.Response(status=404), "HTTP 404", None),
        (web.Response(status=409), "HTTP 409", None),
        (refusal(409, "in use"), "HTTP 409", "in use"),
        (refusal(422, "EXTERNALPERSONIDMISMATCH"), "EXTERNALPERSONIDMISMATCH", None),
        (refusal(422, "zip must be numeric", "no"), "HTTP 422", "zip must be numeric; no"),
        (web.Response(status=422, text="<html>"), "HTTP 422", None),
        (web.Response(status=422, text='{"a":' * 200_000), "HTTP 422", None),
        (web.json_response(["odd"], status=422), "HTTP 422", None),
        (web.Response(status=301, headers={"Location": "/x"}), "HTTP 301", None),
    ],
)
def test_a_refusal_is_not_tried_again(
    refused: web.Response, error_class: str, message: str | None
) -> None:
    platform = FakePlatform([refused])
    answer = ask(platform, lambda api: api.update("p1", {}))
    assert (answer.outcome, answer.status, answer.error_class) == (
        "rejected",
        refused.status,
        error_class,
    )
    assert answer.message == message or error_class == "EXTERNALPERSONIDMISMATCH"
    assert len(platform.requests) == 1


def test_messages_are_kept_without_personal_data() -> None:
    platform = FakePlatform([refusal(409, "+13125550142 belongs to ada@example.com")])
    answer = ask(platform, lambda api: api.update("p1", {}))
    assert answer.message == "[removed] belongs to [removed]"


GARBLED = {
    "status": "HTTP/1.1 abc\r\n\r\n",
    "page": "<html>502 bad gateway</html>\r\n\r\n",
    "header": f"HTTP/1.1 200 OK\r\nX: {'a' * 20_000}\r\n\r\n",
    "chunk": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    "gzip": "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nabcde",
}
"""Answers that are no HTTP, as a broken proxy gives them."""


@pytest.mark.parametrize(
    "trouble",
    [
        *map(refusal, (408, 425, 429, 500)),
        web.Response(status=503),
        "HTTP/1.1 503 Busy\r\nRetry-After: \u00b2\r\nContent-Length: 0\r\n\r\n",
        "reset",
        *GARBLED.values(),
    ],
    ids=["408", "425", "429", "500", "503", "no seconds", "reset", *GARBLED],
)
def test_trouble_on_the_way_is_tried_again(trouble: web.Response | str) -> None:
    platform = FakePlatform([trouble, trouble, web.json_response(PERSON)])
    answer = ask(platform, lambda api: api.upsert("C-1", {}))
    assert answer.outcome == "accepted"
    assert len(platform.requests) == 3


@pytest.mark.parametrize(
    ("trouble", "status", "error_class"),
    [
        (refusal(503), 503, "HTTP 503"),
        (refusal(429), 429, "HTTP 429"),
        ("reset", None, "ConnectionLost"),
        ("hang", None, "Timeout"),
        (GARBLED["page"], None, "ConnectionLost"),
    ],
)
def test_when_every_attempt_fails_the_outcome_is_unknown(
    trouble: web.Response | str, status: int | None, error_class: str
) -> None:
    platform = FakePlatform([trouble])
    answer = ask(platform, lambda api: api.upsert("C-1", {}), max_attempts=2)
    assert (answer.outcome, answer.status, answer.error_class) == ("unknown", status, error_class)
    assert answer.message == f"Vibes API: {error_class}, at every attempt; try again later"
    # The HTTP library may send an idempotent request once more on its own when a line breaks.
    assert len(platform.requests) == 2 or trouble == "reset"


def test_the_error_of_a_garbled_answer_does_not_tell_whom_it_was_about() -> None:
    platform = FakePlatform([GARBLED["page"]])
    with pytest.raises(VibesUnavailable) as unavailable:
        ask(platform, lambda api: api.get_external(EMAIL), max_attempts=1)
    assert EMAIL not in "".join(traceback.format_exception(unavailable.value)).replace("%40", "@")


def test_an_address_that_is_none_is_said_at_once() -> None:
    async def talk() -> None:
        async with PersonApi("vibes.example.com", "A1b2C3", "ada", "secret") as api:
            await api.get_external("C-1")

    with pytest.raises(VibesApiError, match="check VIBES_API_URL"):
        asyncio.run(talk())


def test_a_platform_that_refuses_connections_leaves_the_outcome_unknown() -> None:
    async def talk(port: int) -> Answer:
        async with build_api(port, max_attempts=2) as api:
            return await api.add({})

    with refusing_port() as port:
        assert asyncio.run(talk(port)).error_class == "ConnectionLost"


def test_retry_after_is_respected() -> None:
    platform = FakePlatform(
        [web.Response(status=429, headers={"Retry-After": "1"}), web.json_response(PERSON)]
    )

    async def timed(api: PersonApi) -> float:
        start = asyncio.get_running_loop().time()
        await api.add({})
        return asyncio.get_running_loop().time() - start

    assert ask(platform, timed) >= 1.0


@pytest.mark.parametrize(
    ("status", "cure"), [(401, "VIBES_API_PASSWORD"), (403, "for the right to it")]
)
def test_a_refused_login_or_right_stops_everything_at_once(status: int, cure: str) -> None:
    platform = FakePlatform([refusal(status, "no")])
    with pytest.raises(VibesAuthError, match=rf"HTTP {status}.* {cure}") as error:
        ask(platform, lambda api: api.add({}))
    assert len(platform.requests) == 1
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("talk", "answer", "expected"),
    [
        (lambda api: api.get("p1"), web.json_response(PERSON), PERSON),
        (lambda api: api.get("p1"), web.Response(status=404), None),
        (lambda api: api.get_external("C-1"), refusal(404, "Person not found"), None),
        (lambda api: api.find_by_mdn("+1312"), web.json_response(PERSON), PERSON),
        (lambda api: api.find_by_mdn("+1312"), web.json_response([PERSON]), PERSON),
        (lambda api: api.find_by_mdn("+1312"), web.json_response([]), None),
        (lambda api: api.find_by_mdn("+1312"), web.Response(status=404), None),
        (lambda api: api.subscriptions(person_key="p1"), web.Response(status=404), None),
        (lambda api: api.subscriptions(person_key="p1"), web.json_response([]), []),
        (lambda api: api.subscriptions(person_key="p1"), web.json_response([PERSON]), [PERSON]),
        (lambda api: api.lists(), web.json_response([{"id": "1234"}]), [{"id": "1234"}]),
    ],
)
def test_reads_accept_every_documented_form(
    talk: Talk, answer: web.Response, expected: Any
) -> None:
    assert ask(FakePlatform([answer]), talk) == expected


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (refusal(422, "countrynotsupported"), "HTTP 422: countrynotsupported"),
        (refusal(400), "HTTP 400: HTTP 400"),
        (web.Response(text="<html>"), "HTTP 200: no JSON"),
        (web.json_response([PERSON, PERSON]), "2 persons have this number; decide"),
        (web.json_response(["p1"]), "JSON that holds no record"),
    ],
)
def test_a_read_that_says_nothing_about_the_person_is_an_error(
    answer: web.Response, message: str
) -> None:
    with pytest.raises(VibesApiError, match=message):
        ask(FakePlatform([answer]), lambda api: api.find_by_mdn("+1312"))


def test_a_read_that_never_succeeds_is_transient() -> None:
    with pytest.raises(VibesUnavailable, match="HTTP 500, at every attempt"):
        ask(FakePlatform([refusal(500)]), lambda api: api.get("p1"), max_attempts=2)


def test_a_person_is_named_by_exactly_one_identifier() -> None:
    platform = FakePlatform([web.json_response({})])
    with pytest.raises(ValueError, match="exactly one of person_key and external_person_id"):
        ask(platform, lambda api: api.unsubscribe("1234"))


def test_no_more_than_the_allowed_requests_are_open_at_once() -> None:
    open_now, most = 0, 0

    class Counting(FakePlatform):
        async def handle(self, request: web.Request) -> web.StreamResponse:
            nonlocal open_now, most
            open_now += 1
            most = max(most, open_now)
            await asyncio.sleep(0.02)
            open_now -= 1
            return await super().handle(request)

    async def many(api: PersonApi) -> None:
        await asyncio.gather(*(api.get("p1") for _ in range(40)))

    ask(Counting([web.json_response(PERSON)]), many, concurrency=4)
    assert most == 4


BODY = {"external_person_id": "C-1", "custom_fields": {"tier": "gold", "tags": ["a", "b"]}}
ADDED = {
    "person_key": "p1",
    "external_person_id": "C-1",
    "custom_fields": {
        "tier": {"id": "7", "name": "Gold", "option_key": "gold"},
        "tags": [{"id": "1", "option_key": "b"}, {"id": "2", "option_key": "a"}],
        "zip": None,
    },
}
LOST: list[web.Response | str] = ["reset", "hang", refusal(500), web.Response(status=503)]


@pytest.mark.parametrize("lost", LOST)
def test_an_add_whose_answer_is_lost_is_read_back_and_not_repeated(
    lost: web.Response | str,
) -> None:
    platform = FakePlatform([lost, web.json_response(ADDED)])
    answer = ask(platform, lambda api: api.add(BODY))
    assert answer == Answer(200, "accepted", body=ADDED, is_repeat=True)
    assert platform.calls == [
        ("POST", f"{ROOT}/persons/"),
        ("GET", f"{ROOT}/persons/external/C-1"),
    ]


@pytest.mark.parametrize(
    "read_back",
    [web.Response(status=404), web.json_response(ADDED | {"custom_fields": {"tier": None}})],
)
def test_an_add_that_left_no_trace_is_sent_again(read_back: web.Response) -> None:
    platform = FakePlatform([refusal(500), read_back, web.json_response(ADDED, status=201)])
    answer = ask(platform, lambda api: api.add(BODY))
    assert (answer.outcome, answer.status) == ("accepted", 201)
    assert [method for method, _ in platform.calls] == ["POST", "GET", "POST"]


def test_an_add_is_read_back_by_number_when_it_has_no_external_id() -> None:
    added = {"mobile_phone": {"mdn": "+13125550142"}}
    platform = FakePlatform(["reset", web.json_response([added])])
    answer = ask(platform, lambda api: api.add(added))
    assert answer.outcome == "accepted"
    assert platform.calls[1] == ("GET", f"{ROOT}/persons?mdn=%2B13125550142")


@pytest.mark.parametrize("read_back", [refusal(400), web.Response(status=503)])
def test_an_add_that_cannot_be_read_back_is_unknown(read_back: web.Response) -> None:
    platform = FakePlatform(["reset", read_back])
    answer = ask(platform, lambda api: api.add(BODY), max_attempts=2)
    assert (answer.outcome, answer.error_class) == ("unknown", "ConnectionLost")
    assert answer.message
    assert "look before it is sent again" in answer.message
    assert [method for method, _ in platform.calls].count("POST") == 1


def test_an_add_that_never_gets_through_ends_unknown() -> None:
    platform = FakePlatform(["reset", web.Response(status=404)] * 3)
    answer = ask(platform, lambda api: api.add(BODY), max_attempts=3)
    assert answer.outcome == "unknown"
    assert [method for method, _ in platform.calls] == ["POST", "GET"] * 2 + ["POST"]


def test_an_add_turned_away_by_the_rate_limit_is_sent_again_without_a_look() -> None:
    platform = FakePlatform([refusal(429), web.json_response(ADDED)])
    answer = ask(platform, lambda api: api.add(BODY))
    assert (answer.outcome, answer.is_repeat) == ("accepted", False)
    assert [method for method, _ in platform.calls] == ["POST", "POST"]
