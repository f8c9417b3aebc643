"""Consent in detail: how a cell is read, and what a row says of the opt-out it carries."""

from collections.abc import Iterator
from pathlib import Path
from unicodedata import normalize

import duckdb
import pyarrow as pa
import pytest

from vibes_pipelines.reconcile.consent import (
    OPTED_IN,
    OPTED_OUT,
    UNKNOWN,
    UNREADABLE,
    changed_at_columns,
    state_column,
)
from vibes_pipelines.reconcile.errors import ReconcileError
from vibes_pipelines.reconcile.sources import Source
from vibes_pipelines.reconcile.sql import clean
from vibes_pipelines.sync_config import Consent
from vibes_pipelines.sync_config.spellings import as_compared

OLD, NEW = "2026-01-01 00:00:00 +0000", "2026-01-05T00:00:00Z"
MDN = ["+13125550100", "+13125550101", "+13125550102"]


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    connected = duckdb.connect()
    connected.execute("SET TimeZone = 'UTC'")
    yield connected
    connected.close()


def consent(**more):
    return Consent.model_validate({"from": "sms", "list": "77", "changed_at": "at"} | more)


def contacts(**types):
    columns = {name: (f'"{name}"', column_type) for name, column_type in types.items()}
    return Source("contacts", Path("c.parquet"), "given", columns, None)


@pytest.mark.parametrize(
    "spelling",
    [
        "avb\u00f6jd",
        "Avbo\u0308jd",
        "\ufeffAVB\u00d6JD\u00a0",
        "\u0130ptal",
        "\u039f\u03a7\u0399\u03a3",
    ],
)
def test_a_spelling_is_read_in_every_form_that_it_may_have(connection, spelling):
    sql = state_column(consent(opted_out=[spelling]), contacts(sms="VARCHAR"))
    for text in (spelling, normalize("NFC", spelling), normalize("NFD", spelling), f" {spelling}"):
        assert said(connection, sql, "sms", text, "VARCHAR") == (OPTED_OUT,)


def test_letters_are_compared_as_the_engine_lowers_them(connection):
    letters = [chr(code) for code in range(1, 0x10000) if not 0xD800 <= code < 0xE000]
    connection.register("letters", pa.table({"one": letters}))
    texts = connection.execute(f"SELECT lower({clean('one')}) FROM letters").fetchall()
    assert [as_compared(one) for one in letters] == [text or "" for (text,) in texts]


def said(connection, sql, column, text, column_type):
    given = f'(SELECT CAST(?::VARCHAR AS {column_type}) AS "{column}")'
    [row] = connection.execute(f"SELECT {sql} FROM {given}", [text]).fetchall()
    return row


SPELT = {"opted_in": ("Ja", " j "), "opted_out": ("Nein", "n", "\u00d6FF")}


@pytest.mark.parametrize(
    ("text", "more", "state"),
    [
        ("true", {}, OPTED_IN),
        (" YES ", {}, OPTED_IN),
        ("1", {}, OPTED_IN),
        ("y", {}, OPTED_IN),
        ("false", {}, OPTED_OUT),
        ("No", {}, OPTED_OUT),
        ("0", {}, OPTED_OUT),
        ("n\t", {}, OPTED_OUT),
        (None, {}, UNKNOWN),
        ("", {}, UNKNOWN),
        (" \u00a0", {}, UNKNOWN),
        ("maybe", {}, UNREADABLE),
        ("yes.", {}, UNREADABLE),
        ("JA", SPELT, OPTED_IN),
        ("j", SPELT, OPTED_IN),
        ("nein", SPELT, OPTED_OUT),
        ("N", SPELT, OPTED_OUT),
        ("\u00f6ff", SPELT, OPTED_OUT),
        ("yes", SPELT, UNREADABLE),
    ],
)
def test_a_cell_has_one_of_four_states(connection, text, more, state):
    sql = state_column(consent(**more), contacts(sms="VARCHAR"))
    assert said(connection, sql, "sms", text, "VARCHAR") == (state,)


@pytest.mark.parametrize(
    ("text", "column_type", "state"),
    [
        ("true", "BOOLEAN", OPTED_IN),
        ("false", "BOOLEAN", OPTED_OUT),
        (None, "BOOLEAN", UNKNOWN),
        ("1", "BIGINT", OPTED_IN),
        ("0", "BIGINT", OPTED_OUT),
        ("2", "BIGINT", UNREADABLE),
    ],
)
def test_a_cell_may_be_of_another_type_than_text(connection, text, column_type, state):
    sql = state_column(consent(), contacts(sms=column_type))
    assert said(connection, sql, "sms", text, column_type) == (state,)


@pytest.mark.parametrize("text", ["", " ", None])
def test_a_blank_is_unknown_whatever_the_sync_config_accepts(connection, text):
    accepts_blanks = consent(opted_in=("yes", " "), opted_out=("no", "\t"))
    sql = state_column(accepts_blanks, contacts(sms="VARCHAR"))
    assert said(connection, sql, "sms", text, "VARCHAR") == (UNKNOWN,)


def test_four_states_are_four():
    assert len({OPTED_IN, OPTED_OUT, UNKNOWN, UNREADABLE}) == 4


@pytest.mark.parametrize(
    ("text", "column_type", "instant", "is_unreadable"),
    [
        ("2026-01-05T10:00:00Z", "VARCHAR", "2026-01-05 10:00:00", False),
        ("yesterday", "VARCHAR", None, True),
        ("", "VARCHAR", None, False),
        (" ", "VARCHAR", None, False),
        (None, "VARCHAR", None, False),
        ("2026-01-05", "DATE", "2026-01-05 00:00:00", False),
        ("infinity", "TIMESTAMP", None, True),
        (None, "TIMESTAMP", None, False),
    ],
)
def test_when_a_cell_changed_is_read_or_told_as_unreadable(
    connection, text, column_type, instant, is_unreadable
):
    columns = changed_at_columns(consent(), contacts(at=column_type))
    read, unreadable = said(connection, ", ".join(columns), "at", text, column_type)
    assert (str(read) if read else None, unreadable) == (instant, is_unreadable)


def test_without_a_column_for_it_nobody_knows_when_a_cell_changed(connection):
    columns = changed_at_columns(consent(changed_at=None), contacts())
    assert said(connection, ", ".join(columns), "x", None, "VARCHAR") == (None, False)


def test_a_missing_column_is_told_by_the_entry_that_wants_it():
    with pytest.raises(ReconcileError, match=r"no column 'sms', wanted by consents.from: sms"):
        state_column(consent(), contacts())
    with pytest.raises(ReconcileError, match=r"no column 'at', wanted by consents.changed_at: at"):
        changed_at_columns(consent(), contacts(sms="VARCHAR"))


CONSENTS = [{"from": "sms", "list": " 77 ", "changed_at": "at"}]


def subscribed(opt_in=OLD, opt_out=None, key="K1", listed="77"):
    return {
        "person_key": key,
        "subscription_list_id": listed,
        "opt_in_date": opt_in,
        "opt_out_date": opt_out,
    }


def person(number, mdn=None, external=True):
    key = f"C{number}" if external else None
    return {"person_key": f"k{number}", "external_person_id": key, "mdn": mdn}


def carried(run, config, contact_rows, persons, subscriptions):
    done = run(config, contact_rows, persons, subscriptions=subscriptions)
    return [
        {**row, "evidence_at": str(row["evidence_at"]) if row["evidence_at"] else None}
        for row in done.rows("subscription_changes")
    ]


def test_an_opt_out_for_the_platform_names_the_person_and_the_time_of_the_no(run, make_config):
    contact = {"id": "C1", "sms": "no", "at": NEW, "phone": MDN[0]}
    assert carried(
        run, make_config(consents=CONSENTS), [contact], [person(1, MDN[0])], [subscribed()]
    ) == [
        {
            "side": "platform",
            "action": "opt_out",
            "external_person_id": "C1",
            "person_key": "k1",
            "mdn": MDN[0],
            "subscription_list_id": "77",
            "evidence_at": "2026-01-05 00:00:00",
            "reason": "crm_opted_out",
        }
    ]


@pytest.mark.parametrize(
    ("phone", "mdn", "shown"),
    [
        ("(312) 555-0101", None, MDN[1]),
        (None, MDN[0], MDN[0]),
        ("12", None, None),
        ("12", MDN[0], MDN[0]),
        (None, None, None),
    ],
)
def test_the_number_is_the_persons_or_the_contacts_own(run, make_config, phone, mdn, shown):
    contact = {"id": "C1", "sms": "no", "phone": phone}
    config = make_config(consents=CONSENTS)
    [row] = carried(run, config, [contact], [person(1, mdn)], [subscribed()])
    assert row["mdn"] == shown


def test_of_two_that_say_no_the_earlier_is_the_evidence(run, make_config):
    pair = {"key": "id", "person_key": "pk", "mdn": {"column": "phone", "default_region": "US"}}
    config = make_config(contacts=pair, consents=CONSENTS)
    rows = [
        {"id": "C7", "pk": "k1", "sms": "no", "at": None},
        {"id": "C8", "pk": "k1", "sms": "no", "at": NEW},
        {"id": "C1", "pk": "k1", "sms": "no", "at": "2026-01-03T00:00:00Z"},
    ]
    told = carried(run, config, rows, [person(1)], [subscribed()])
    assert [(row["person_key"], row["evidence_at"]) for row in told] == [
        ("k1", "2026-01-03 00:00:00")
    ]


@pytest.mark.parametrize(
    "persons",
    [
        [person(1, MDN[0]), {"person_key": "k2", "external_person_id": "C1", "mdn": MDN[1]}],
        [person(1, MDN[0]), {"person_key": "K1", "external_person_id": "C2", "mdn": MDN[1]}],
    ],
)
def test_a_key_that_names_two_persons_opts_out_neither(run, make_config, persons):
    contact = {"id": "C1", "sms": "no"}
    config = make_config(consents=CONSENTS)
    subscriptions = [subscribed(), subscribed(key="k2")]
    assert carried(run, config, [contact], persons, subscriptions) == []


def test_each_list_is_told_for_itself(run, make_config):
    both = [*CONSENTS, {"from": "news", "list": "78", "changed_at": "at"}]
    contact = {"id": "C1", "sms": "no", "news": "yes"}
    rows = [subscribed(), subscribed(OLD, NEW, listed="78"), subscribed(listed="79")]
    told = carried(run, make_config(consents=both), [contact], [person(1)], rows)
    assert {(row["side"], row["subscription_list_id"]) for row in told} == {
        ("platform", "77"),
        ("crm", "78"),
    }


def test_a_subscription_of_nobody_says_nothing(run, make_config):
    contact = {"id": "C1", "sms": "no"}
    config = make_config(consents=CONSENTS)
    strangers = [subscribed(key=None), subscribed(key="k9")]
    assert carried(run, config, [contact], [person(1)], strangers) == []


def test_an_opt_in_and_an_opt_out_of_one_instant_are_an_opt_out(run, make_config):
    contact = {"id": "C1", "sms": "yes", "at": NEW}
    config = make_config(consents=CONSENTS)
    [row] = carried(run, config, [contact], [person(1)], [subscribed(NEW, NEW)])
    assert (row["side"], row["evidence_at"]) == ("crm", "2026-01-05 00:00:00")


@pytest.mark.parametrize("dates", [("soon", None), (OLD, "soon"), ("soon", "later")])
def test_unreadable_dates_are_counted_by_person_and_list(run, make_config, dates):
    contact = {"id": "C1", "sms": "no"}
    rows = [subscribed(*dates), subscribed(*dates), subscribed(*dates, key="K2")]
    with pytest.raises(ReconcileError, match=r"subscriptions\.parquet: 2 \(person, list\) with"):
        carried(run, make_config(consents=CONSENTS), [contact], [person(1)], rows)


def test_dates_of_other_lists_may_be_what_they_are(run, make_config):
    contact = {"id": "C1", "sms": "no"}
    rows = [subscribed(), subscribed("soon", listed="78")]
    assert carried(run, make_config(consents=CONSENTS), [contact], [person(1)], rows)
