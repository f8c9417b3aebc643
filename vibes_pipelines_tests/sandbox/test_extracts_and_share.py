"""What leaves the platform each morning: extract files and the share's tables."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vibes_pipelines.sandbox.clock import SandboxClock, midnight, morning
from vibes_pipelines.sandbox.extracts import CURRENT_SUBSCRIBERS, SUBSCRIPTIONS, ExtractDrop
from vibes_pipelines.sandbox.platform import Person, Platform, Subscription
from vibes_pipelines.sandbox.share_tables import ShareHistory, share_tables
from vibes_pipelines.sandbox.world import CUSTOM_FIELDS, OFFERS

DAY = date(2026, 1, 1)
SINCE = datetime(2025, 6, 1, 12, 30, tzinfo=UTC)


def person(number: int, **changes: object) -> Person:
    values: dict[str, object] = {
        "person_key": f"key-{number}",
        "person_id": str(number),
        "external_person_id": f"C{number}",
        "mdn": f"+1312920{number:04d}",
        "carrier_code": "104",
        "custom": {field.name: None for field in CUSTOM_FIELDS},
        "created_at": SINCE,
        "updated_at": SINCE,
    }
    return Person(**(values | changes))  # type: ignore[arg-type]


def naive(instant: datetime) -> datetime:
    """An instant as TIMESTAMP_NTZ shows it."""
    return instant.replace(tzinfo=None)


def build_platform(persons: list[Person], subscriptions: list[Subscription]) -> Platform:
    platform = Platform("A1b2C3", CUSTOM_FIELDS, [OFFERS], SandboxClock(midnight(DAY)))
    platform.load(persons, subscriptions)
    return platform


def lines(folder: Path, kind: str, day: date = DAY) -> list[dict[str, str]]:
    header, *rows = (folder / f"{kind}_A1b2C3_{day}.txt").read_text("utf-8").splitlines()
    return [dict(zip(header.split("\t"), row.split("\t"), strict=True)) for row in rows]


def test_current_subscribers_are_the_active_ones_with_a_number(tmp_path: Path) -> None:
    platform = build_platform(
        [person(1), person(2), person(3, mdn=None, carrier_code=None)],
        [
            Subscription("key-1", "1234", SINCE),
            Subscription("key-2", "1234", SINCE, SINCE + timedelta(days=1), "user_opt_out"),
            Subscription("key-3", "1234", SINCE),
        ],
    )
    ExtractDrop(tmp_path).drop(platform, DAY, morning(DAY))
    assert lines(tmp_path, CURRENT_SUBSCRIBERS) == [
        {
            "mdn": "3129200001",
            "person_id": "key-1",
            "external_person_id": "C1",
            "carrier_code": "104",
            "mdn_e164_format": "+13129200001",
            "country_code": "US",
            "subscription_list_id": "1234",
        }
    ]


def test_a_finished_stay_is_two_events(tmp_path: Path) -> None:
    stay = Subscription("key-1", "1234", SINCE, SINCE + timedelta(days=1), "user_opt_out")
    platform = build_platform([person(1)], [stay])
    ExtractDrop(tmp_path).drop(platform, DAY, morning(DAY))
    opt_in, opt_out = lines(tmp_path, SUBSCRIPTIONS)
    assert (opt_in["subscription_event"], opt_in["opt_out_date"], opt_in["opt_out_reason"]) == (
        "OPT_IN",
        "",
        "",
    )
    assert opt_in["opt_in_date"] == "2025-06-01 06:30:00 -0600"
    assert opt_out["subscription_event"] == "OPT_OUT"
    assert opt_out["opt_out_date"] == "2025-06-02 06:30:00 -0600"
    assert opt_out["opt_out_reason"] == "USER_OPT_OUT"
    assert opt_out["company_id"] == "A1b2C3"
    assert opt_out["subscription_list_name"] == "Offers"


def test_what_would_break_a_row_is_replaced_by_a_blank(tmp_path: Path) -> None:
    platform = build_platform(
        [person(1, external_person_id="C\t1\n2")], [Subscription("key-1", "1234", SINCE)]
    )
    ExtractDrop(tmp_path).drop(platform, DAY, morning(DAY))
    assert lines(tmp_path, CURRENT_SUBSCRIBERS)[0]["external_person_id"] == "C 1 2"


def test_numbers_from_abroad_name_their_country(tmp_path: Path) -> None:
    platform = build_platform(
        [person(1, mdn="+31612345678"), person(2, mdn="+14165550123")],
        [Subscription("key-1", "1234", SINCE), Subscription("key-2", "1234", SINCE)],
    )
    ExtractDrop(tmp_path).drop(platform, DAY, morning(DAY))
    found = [row["country_code"] for row in lines(tmp_path, CURRENT_SUBSCRIBERS)]
    assert found == ["NL", "CA"]


@given(seconds=st.lists(st.integers(0, 4 * 86_400), max_size=12))
def test_every_event_is_told_exactly_once(
    seconds: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("extracts")
    platform = build_platform([person(n) for n in range(len(seconds))], [])
    drop, told = ExtractDrop(folder), []
    for day_number in range(6):
        day = DAY + timedelta(days=day_number)
        for number, offset in enumerate(seconds):
            at = midnight(DAY) + timedelta(seconds=offset)
            if morning(day) - timedelta(days=1) <= at < morning(day):
                platform.subscribe(f"key-{number}", "1234", at)
        drop.drop(platform, day, morning(day))
        told += [row["person_id"] for row in lines(folder, SUBSCRIPTIONS, day)]
    assert sorted(told) == sorted(f"key-{number}" for number in range(len(seconds)))


def test_an_event_at_the_very_moment_of_the_drop_belongs_to_the_next_day(tmp_path: Path) -> None:
    platform = build_platform([person(1)], [Subscription("key-1", "1234", morning(DAY))])
    drop, next_day = ExtractDrop(tmp_path), DAY + timedelta(days=1)
    drop.drop(platform, DAY, morning(DAY))
    drop.drop(platform, next_day, morning(next_day))
    assert lines(tmp_path, SUBSCRIPTIONS, DAY) == []
    assert len(lines(tmp_path, SUBSCRIPTIONS, next_day)) == 1


def test_share_tables_have_the_documented_shape() -> None:
    birthdate = datetime(1990, 12, 1, tzinfo=UTC)
    custom = {
        "first_name": "Ada",
        "last_name": None,
        "birthdate": birthdate,
        "score": Decimal("12.5000"),
        "tier": "gold",
        "interests": ("golf", "music"),
        "zip_code": "60601",
    }
    platform = build_platform(
        [person(1, custom=custom), person(2)], [Subscription("key-1", "1234", SINCE)]
    )
    tables = share_tables(platform, morning(DAY))

    assert sorted(tables) == ["PERSONS", "REFRESHES", "SUBSCRIPTIONS"]
    ada, other = tables["PERSONS"].to_pylist()
    naive_since = naive(SINCE)
    assert ada == {
        "PERSON_KEY": "key-1",
        "EXTERNAL_PERSON_ID": "C1",
        "MDN": "+13129200001",
        "CARRIER_CODE": "104",
        "FIRST_NAME": "Ada",
        "LAST_NAME": None,
        "BIRTHDATE": naive(birthdate),
        "SCORE": Decimal("12.5000"),
        "TIER": "gold",
        "INTERESTS": "golf|music",
        "ZIP_CODE": "60601",
        "CREATED_AT": naive_since,
        "UPDATED_AT": naive_since,
    }
    assert other["INTERESTS"] is None
    assert tables["PERSONS"].schema.field("SCORE").type == pa.decimal128(18, 4)
    assert tables["SUBSCRIPTIONS"].to_pylist() == [
        {
            "PERSON_KEY": "key-1",
            "SUBSCRIPTION_LIST_ID": "1234",
            "OPT_IN_DATE": naive_since,
            "OPT_OUT_DATE": None,
            "OPT_OUT_REASON": None,
        }
    ]
    assert tables["REFRESHES"].to_pylist() == [{"AS_OF": naive(morning(DAY))}]


def test_an_empty_platform_still_has_typed_tables() -> None:
    tables = share_tables(build_platform([], []), morning(DAY))
    assert tables["PERSONS"].num_rows == tables["SUBSCRIPTIONS"].num_rows == 0
    assert tables["PERSONS"].schema.field("BIRTHDATE").type == pa.timestamp("us")


@given(lag_h=st.integers(0, 60), hours=st.lists(st.integers(1, 30), min_size=1, max_size=8))
def test_a_lagging_share_shows_the_newest_state_that_is_old_enough(
    lag_h: int, hours: list[int]
) -> None:
    history, now, instants = ShareHistory(timedelta(hours=lag_h)), morning(DAY), []
    for step in hours:
        now += timedelta(hours=step)
        instants.append(now)
        history.record(now, {"AT": pa.table({"at": [now]})})
        old_enough = [at for at in instants if at <= now - history.lag]
        shown = history.shown(now)["AT"].to_pylist()[0]["at"]
        assert shown == (old_enough[-1] if old_enough else instants[0])
