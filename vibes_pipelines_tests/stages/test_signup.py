"""Web sign-up: every documented answer has its result, and no number is invited without a wish."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from vibes_pipelines.callbacks.signup import ANSWERS, SignupAnswer
from vibes_pipelines.stages.signup import LIMITS, SignupRegistrar, Wish, read_form
from vibes_pipelines.store.models import signups
from vibes_pipelines.store.signups import IN_FLIGHT, Signups
from vibes_pipelines.sync_config.outreach import FormField, Signup
from vibes_pipelines.vibes.vibes_api import VibesApi
from vibes_pipelines_tests.vibes.answering import COMPANY, FakePlatform, ask_vibes, refusal

MDN = "+13125550142"
HERE = "192.0.2.7"
PARTICIPANTS = f"{COMPANY}/campaigns/acquisition/777/participants"
SIGNUP = Signup(
    campaign="777",
    list="1234",
    fields=(
        FormField(from_="name", to="first_name", required=True),
        FormField(from_="born", to="birthdate", type="date"),
        FormField(from_="visits", to="visits", type="number"),
        FormField(from_="plan", to="tier", type="single_select", options={"Gold": "gold"}),
    ),
    max_per_mdn_per_day=2,
    max_per_address_per_hour=3,
)
FORM = {"mdn": "(312) 555-0142", "name": " Ada "}
PENDING = {"status": "PENDING", "person": {"person_key": "p1"}}
INVITED = web.json_response(PENDING, status=201)
NOBODY = web.json_response([])
NOT_FOUND = refusal(404)


@dataclass
class Clock:
    now: datetime = datetime(2026, 1, 2, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Desk:
    """A registrar over a ledger; each `sign_up` is answered by a platform of its own."""

    url: str
    clock: Clock = field(default_factory=Clock)

    def sign_up(
        self,
        platform: FakePlatform,
        form: Mapping[str, object] | None = None,
        address: str = HERE,
        signup: Signup = SIGNUP,
    ) -> SignupAnswer:
        async def talk(api: VibesApi) -> SignupAnswer:
            with Signups(self.url, self.clock) as store:
                registrar = SignupRegistrar(signup, api.campaigns, store)
                return await registrar.sign_up(FORM if form is None else form, address)

        return ask_vibes(platform, talk, max_attempts=2)

    def results(self) -> list[str | None]:
        with Signups(self.url) as store, store._engine.connect() as connection:
            query = sa.select(signups.c.result).order_by(signups.c.id)
            return list(connection.execute(query).scalars())


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Desk:
    if request.param == "sqlite":
        return Desk(f"sqlite:///{tmp_path / 'ledger.db'}")
    return Desk(str(request.getfixturevalue("postgresql_url")))


@pytest.fixture
def lite(tmp_path: Path) -> Desk:
    return Desk(f"sqlite:///{tmp_path / 'ledger.db'}")


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (INVITED, "confirm"),
        (web.json_response(PENDING | {"status": "SUBSCRIBED"}, status=201), "subscribed"),
        (web.json_response(PENDING, status=200), "pending"),
        (refusal(400, "The MDN is malformed"), "invalid_number"),
        (refusal(409, "already subscribed"), "already_subscribed"),
        (refusal(422, "MDNHASCONFIRMATIONBLOCK"), "blocked"),
        (refusal(422, "number has no provisioned carrier"), "no_mobile_number"),
        (refusal(422, "EXTERNALPERSONIDMISMATCH"), "number_in_conflict"),
        (refusal(422, "UNPROCESSABLE ENTITY"), "refused"),
        (refusal(422, "unknown custom field: shoe"), "refused"),
        (refusal(401), "unavailable"),
    ],
)
def test_every_documented_answer_has_a_result(
    lite: Desk, answer: web.Response, result: str
) -> None:
    platform = FakePlatform([answer])
    assert lite.sign_up(platform).result == result
    assert platform.calls == [("POST", PARTICIPANTS)]  # a participant, and never a subscription
    assert lite.results() == [result]
    assert result in ANSWERS


def test_the_participant_is_the_number_and_the_declared_fields(lite: Desk) -> None:
    platform = FakePlatform([INVITED])
    form = FORM | {"name": "Ada\u3000", "born": "1990-02-03", "visits": 7, "plan": "Gold"}
    assert lite.sign_up(platform, form).result == "confirm"
    assert platform.requests[0].body == {
        "mobile_phone": {"mdn": MDN},
        "custom_fields": {
            "first_name": "Ada",
            "birthdate": "1990-02-03T00:00:00Z",
            "visits": "7",
            "tier": "gold",
        },
    }


@pytest.mark.parametrize(
    ("change", "result", "place"),
    [
        ({"mdn": ""}, "invalid_number", "mdn"),
        ({"mdn": "0123"}, "invalid_number", "mdn"),
        ({"mdn": 13125550142}, "invalid_number", "mdn"),
        ({"mdn": None}, "invalid_number", "mdn"),
        ({"name": "  "}, "invalid_form", "name"),
        ({"name": None}, "invalid_form", "name"),
        ({"name": ["Ada"]}, "invalid_form", "name"),
        ({"name": "A\0da"}, "invalid_form", "name"),
        ({"name": "A" * 256}, "invalid_form", "name"),
        ({"born": "3.2.1990"}, "invalid_form", "born"),
        ({"visits": "many"}, "invalid_form", "visits"),
        ({"visits": "NaN"}, "invalid_form", "visits"),
        ({"visits": "1e999999"}, "invalid_form", "visits"),
        ({"plan": "gold"}, "invalid_form", "plan"),
        ({"score": "9"}, "invalid_form", "a field that is not declared"),
        ({"external_person_id": "C1"}, "invalid_form", "a field that is not declared"),
    ],
)
def test_a_form_with_anything_else_is_refused_before_it_costs_anything(
    lite: Desk, change: dict[str, object], result: str, place: str
) -> None:
    platform = FakePlatform([INVITED])
    answer = lite.sign_up(platform, FORM | change)
    assert (answer.result, answer.place) == (result, place)
    assert platform.calls == []
    assert lite.results() == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(
        st.sampled_from(["mdn", "name", "born", "visits", "plan"]) | st.text(max_size=5),
        json_values | st.just("+13125550142"),
        max_size=6,
    )
)
def test_no_form_makes_the_reading_fail(form: dict[str, object]) -> None:
    wish = read_form(SIGNUP, form)
    if isinstance(wish, Wish):
        assert wish.mdn.startswith("+")
        assert set(wish.custom_fields) <= {"first_name", "birthdate", "visits", "tier"}
        assert None not in wish.custom_fields.values()  # which would clear


class TestAnAnswerThatNeverCame:
    @pytest.mark.parametrize("lost", ["reset", "hang", web.Response(status=502)])
    def test_it_is_looked_for_and_found(self, lite: Desk, lost: web.Response | str) -> None:
        platform = FakePlatform([lost, web.json_response([PENDING])])
        assert lite.sign_up(platform).result == "pending"
        assert [method for method, _ in platform.calls] == ["POST", "GET"]

    def test_one_that_is_not_found_is_unconfirmed_and_not_sent_again(self, lite: Desk) -> None:
        platform = FakePlatform(["reset", NOBODY, NOT_FOUND])
        assert lite.sign_up(platform).result == "unconfirmed"
        assert [method for method, _ in platform.calls] == ["POST", "GET", "GET"]
        assert lite.results() == ["unconfirmed"]

    def test_the_next_wish_looks_before_it_sends(self, desk: Desk) -> None:
        desk.sign_up(FakePlatform(["reset", NOBODY, NOT_FOUND]))
        arrived = FakePlatform([web.json_response([PENDING])])
        assert desk.sign_up(arrived).result == "pending"
        assert [method for method, _ in arrived.calls] == ["GET"]
        assert desk.results() == ["unconfirmed", "pending"]

    def test_and_sends_when_nothing_is_there(self, lite: Desk) -> None:
        lite.sign_up(FakePlatform(["reset", NOBODY, NOT_FOUND]))
        absent = FakePlatform([NOBODY, NOT_FOUND, INVITED])
        assert lite.sign_up(absent).result == "confirm"
        assert [method for method, _ in absent.calls] == ["GET", "GET", "POST"]

    def test_what_cannot_be_looked_for_is_not_sent(self, lite: Desk) -> None:
        lite.sign_up(FakePlatform(["reset", NOBODY, NOT_FOUND]))
        away = FakePlatform([web.Response(status=500)])
        assert lite.sign_up(away).result == "unavailable"
        assert {method for method, _ in away.calls} == {"GET"}
        assert lite.results() == ["unconfirmed", "unconfirmed"]

    def test_a_kill_between_sending_and_answer_is_looked_for_later(self, desk: Desk) -> None:
        with Signups(desk.url, desk.clock) as store:
            registrar = SignupRegistrar(SIGNUP, None, store)  # type: ignore[arg-type]
            wish = read_form(SIGNUP, FORM)
            assert isinstance(wish, Wish)
            assert registrar._claim(wish, HERE).number
        still = FakePlatform([INVITED])
        assert desk.sign_up(still).result == "unconfirmed"
        assert still.calls == []
        desk.clock.now += IN_FLIGHT
        later = FakePlatform([web.json_response([PENDING])])
        assert desk.sign_up(later).result == "pending"
        assert [method for method, _ in later.calls] == ["GET"]

    def test_no_call_lasts_longer_than_it_is_waited_for(self) -> None:
        requests = 1 + 2 * LIMITS.max_attempts  # the invitation, and both look-ups
        assert requests * (LIMITS.timeout_s + LIMITS.backoff_s) < IN_FLIGHT.total_seconds()


class TestLimits:
    def test_a_number_is_invited_so_often_a_day(self, desk: Desk) -> None:
        for address in ("192.0.2.1", "192.0.2.2"):
            assert desk.sign_up(FakePlatform([INVITED]), address=address).result == "confirm"
        desk.clock.now += timedelta(hours=6)
        platform = FakePlatform([INVITED])
        answer = desk.sign_up(platform, address="192.0.2.3")
        assert (answer.result, answer.retry_after_s) == ("too_many", 18 * 3600)
        assert platform.calls == []
        desk.clock.now += timedelta(hours=18)
        assert desk.sign_up(platform, address="192.0.2.3").result == "confirm"

    def test_an_address_signs_up_so_many_an_hour(self, lite: Desk) -> None:
        for number in range(3):
            form = FORM | {"mdn": f"+1312555020{number}"}
            assert lite.sign_up(FakePlatform([INVITED]), form).result == "confirm"
        form = FORM | {"mdn": "+13125550299"}
        assert lite.sign_up(FakePlatform([INVITED]), form).retry_after_s == 3600
        assert lite.sign_up(FakePlatform([INVITED]), form, "192.0.2.8").result == "confirm"

    def test_what_certainly_was_not_sent_counts_for_nothing(self, lite: Desk) -> None:
        for _ in range(4):
            assert lite.sign_up(FakePlatform([refusal(401)])).result == "unavailable"
        assert lite.sign_up(FakePlatform([INVITED])).result == "confirm"

    def test_of_two_wishes_at_once_one_is_sent(self, desk: Desk) -> None:
        platform = FakePlatform(["hang", NOBODY, NOT_FOUND])

        async def talk(api: VibesApi) -> list[SignupAnswer]:
            with Signups(desk.url, desk.clock) as store:
                registrar = SignupRegistrar(SIGNUP, api.campaigns, store)
                both = (registrar.sign_up(FORM, HERE) for _ in range(2))
                return list(await asyncio.gather(*both))

        answers = ask_vibes(platform, talk, max_attempts=2)
        assert {answer.result for answer in answers} == {"unconfirmed"}
        assert [method for method, _ in platform.calls].count("POST") == 1


def test_a_result_that_cannot_be_kept_is_told_all_the_same(
    lite: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_: object) -> None:
        raise sa.exc.OperationalError("statement", {"mdn": MDN}, Exception("away"))

    monkeypatch.setattr(Signups, "finish", away)
    assert lite.sign_up(FakePlatform([INVITED])).result == "confirm"
    assert "was not kept" in caplog.text
    assert MDN not in caplog.text
    assert lite.results() == [None]
