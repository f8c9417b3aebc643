"""What a label says of a consent: present is a yes, absent only sometimes a no."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vibes_pipelines.stages.tribe_labels import ABSENT, PRESENT, KnownLabels, Seen
from vibes_pipelines.sync_config.tribe import label_of

BEFORE, NOW = datetime(2026, 1, 1, 6, tzinfo=UTC), datetime(2026, 1, 2, 6, tzinfo=UTC)
LABEL, CONTACT, LONG_AGO = "Offers", "C1", "2025-05-05T05:05:05Z"


def known(state: str | None, since: str | None = None) -> KnownLabels:
    return KnownLabels(BEFORE, {LABEL: {CONTACT: Seen(state, since, BEFORE)}})


def now(
    known: KnownLabels,
    *,
    is_present: bool,
    if_never: str | None = None,
    created_at: datetime | None = None,
) -> tuple[str | None, str | None]:
    return known.state(LABEL, CONTACT, NOW, created_at, is_present=is_present, if_never=if_never)


def test_present_is_opted_in_and_keeps_its_time() -> None:
    assert now(known(PRESENT, LONG_AGO), is_present=True) == (PRESENT, LONG_AGO)


def test_a_label_of_the_first_day_has_no_time_because_nobody_knows_it() -> None:
    assert now(KnownLabels(), is_present=True) == (PRESENT, None)


@pytest.mark.parametrize("before", [None, ABSENT])
def test_a_new_label_is_certain_only_to_be_younger_than_the_day_before(before: str | None) -> None:
    assert now(known(before), is_present=True) == (PRESENT, "2026-01-01T06:00:00Z")


def test_absent_and_never_seen_is_unknown_unless_the_config_says_otherwise() -> None:
    assert now(known(None), is_present=False) == (None, None)
    assert now(known(None), is_present=False, if_never=ABSENT) == (ABSENT, None)


def test_absent_after_it_was_seen_is_opted_out_as_of_now_and_stays_so() -> None:
    assert now(known(PRESENT, LONG_AGO), is_present=False) == (ABSENT, "2026-01-02T06:00:00Z")
    assert now(known(ABSENT, LONG_AGO), is_present=False) == (ABSENT, LONG_AGO)


def test_a_label_put_on_after_it_was_taken_off_is_younger_than_that() -> None:
    taken_off = known(ABSENT, LONG_AGO)
    assert now(taken_off, is_present=True) == (PRESENT, "2026-01-01T06:00:00Z")


@pytest.mark.parametrize(
    ("created_at", "since"),
    [(None, None), (BEFORE - timedelta(days=900), None), (NOW, "2026-01-01T06:00:00Z")],
)
def test_of_whom_nobody_looked_at_only_a_new_person_has_a_new_label(
    created_at: datetime | None, since: str | None
) -> None:
    nobody = KnownLabels(BEFORE, {LABEL: {}})
    assert now(nobody, is_present=False, created_at=created_at) == (None, None)
    assert now(nobody, is_present=True, created_at=created_at) == (PRESENT, since)
    assert now(KnownLabels(), is_present=True, created_at=created_at) == (PRESENT, None)


@given(st.sampled_from([None, PRESENT, ABSENT]), st.booleans())
def test_nobody_is_opted_out_whose_label_is_there_or_was_never_seen(
    before: str | None, is_present: bool
) -> None:
    state = now(known(before), is_present=is_present)[0]
    if is_present or before is None:
        assert state != ABSENT


def test_columns_that_stand_for_labels() -> None:
    assert (
        label_of("label:Offers by SMS") == label_of("label_since:Offers by SMS") == "Offers by SMS"
    )
    assert label_of("FirstName") is None
