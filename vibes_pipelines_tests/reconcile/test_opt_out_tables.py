"""Opt-outs on tables made by hand: whose no reaches whom, by which evidence, and in whose name."""

from datetime import datetime

import pytest

from vibes_pipelines.reconcile.consent import (
    OPTED_IN,
    OPTED_OUT,
    UNKNOWN,
    UNREADABLE,
    build_subscription_change,
)
from vibes_pipelines.reconcile.errors import ReconcileError
from vibes_pipelines.reconcile.findings import create_finding
from vibes_pipelines.reconcile.identifiers import HashCollision, hashed
from vibes_pipelines_tests.reconcile.conftest import build_config
from vibes_pipelines_tests.reconcile.tables import TEXT

SUBSCRIPTION = ("person_key", "subscription_list_id", "opt_in_date", "opt_out_date")
JOINED, LATER, LAST = "2026-01-01T10:00:00Z", "2026-01-03T10:00:00Z", "2026-01-05T10:00:00Z"


def subscribed(opt_in=JOINED, opt_out=None, person="K0", listed="77"):
    return person, listed, opt_in, opt_out


def at(text):
    return datetime.fromisoformat(text.removesuffix("Z")) if text else None


@pytest.fixture
def carried(tables):
    """Carries opt-outs between persons k0, k1 ... and contacts C0, C1 ... of the same rows.

    `cells` has per contact the state and the time of each consent; returns (side, contact row,
    person row, list, evidence, reason) of every opt-out.
    """

    def carried(
        cells,
        *inputs,
        pairs=((0, 0),),
        linked=(),
        finding=(),
        unmatched=(),
        policy="keep",
        consents=("77",),
        people=None,
        names=None,
        salt=0,
    ):
        contacts = {"key": "id", "when_unmatched": policy}
        mapped = [{"from": f"sms_{n}", "list": name} for n, name in enumerate(consents)]
        config = build_config(contacts=contacts, consents=mapped)
        columns = "".join(
            f", state_{n} INTEGER, changed_at_{n} TIMESTAMP" for n in range(len(consents))
        )
        rows = [
            (n, *(at(c) if isinstance(c, str) else c for c in row)) for n, row in enumerate(cells)
        ]
        tables.create("contact", f"row_number BIGINT{columns}", rows)
        named = people or [(n, f"C{n}", f"k{n}", f"+{n}", False) for n in range(3)]
        tables.create("person_text", TEXT, named)
        tables.create(
            "contact_text", TEXT, names or [(n, f"C{n}", None, f"+9{n}", False) for n in range(3)]
        )
        tables.create("key", "row_number BIGINT, text VARCHAR", [(n, f"k{n}") for n in range(3)])
        tables.connection.execute(
            "CREATE TEMP TABLE person AS"
            f" SELECT row_number, {hashed('text', salt)} AS person_key FROM key"
        )
        tables.create("recognised", "contact_row BIGINT, person_row BIGINT", pairs)
        tables.create("linked", "contact_row BIGINT, person_row BIGINT", linked)
        tables.create("unmatched", "contact_row BIGINT, person_row BIGINT", unmatched)
        create_finding(tables.connection)
        for source, number, kind in finding:
            tables.connection.execute(
                f"INSERT INTO finding VALUES ('{source}', {number}, '{kind}', '')"
            )
        sources = [
            tables.source(f"subscriptions {n}", dict.fromkeys(SUBSCRIPTION, "VARCHAR"), rows)
            for n, rows in enumerate(inputs)
        ]
        build_subscription_change(tables.connection, config, sources, salt, None)
        told = tables.rows(
            "SELECT side, contact_row, person_row, list, evidence_at, reason FROM opt_out"
            " ORDER BY ALL"
        )
        said = {(person, listed) for _, _, person, listed, *_ in told}
        assert len(tables.rows("SELECT * FROM subscription_change")) == len(said)
        return told

    return carried


def to_platform(time=None, contact=0, person=0, listed="77", reason="crm_opted_out"):
    return [("platform", contact, person, listed, at(time), reason)]


def to_crm(time, contact=0, person=0):
    return [("crm", contact, person, "77", at(time), "platform_opted_out")]


NO, YES = (OPTED_OUT, None), (OPTED_IN, None)


def test_the_change_names_both_sides(carried, tables):
    carried([(OPTED_OUT, LAST)], [subscribed()])
    assert tables.rows("SELECT * FROM subscription_change") == [
        ("platform", "opt_out", "C0", "k0", "+0", "77", at(LAST), "crm_opted_out")
    ]


@pytest.mark.parametrize(
    ("mdn", "own", "is_bad", "shown"),
    [("+1", "+2", False, "+1"), (None, "+2", False, "+2"), (None, "12", True, None)],
)
def test_its_number_is_the_persons_or_a_good_one_of_the_contact(
    carried, tables, mdn, own, is_bad, shown
):
    people, names = [(0, "C0", "k0", mdn, False)], [(0, "C0", None, own, is_bad)]
    carried([NO], [subscribed()], people=people, names=names)
    assert tables.rows("SELECT mdn FROM subscription_change") == [(shown,)]


@pytest.mark.parametrize("salt", [0, 3])
def test_persons_are_found_by_the_hash_of_their_key(carried, salt):
    assert carried([NO], [subscribed()], salt=salt) == to_platform()


@pytest.mark.parametrize(
    ("people", "names"),
    [
        ([(0, "C0", "another key", None, False)], None),
        ([(0, "C0", "k0", None, False)], [(0, "another key", None, None, False)]),
    ],
)
def test_texts_that_only_share_a_hash_are_a_collision(carried, people, names):
    with pytest.raises(HashCollision):
        carried([NO], [subscribed()], people=people, names=names)


def test_a_person_without_the_contacts_key_is_none(carried, tables):
    carried([NO], [subscribed()], people=[(0, None, "k0", "+0", False)])
    assert tables.rows("SELECT external_person_id FROM subscription_change") == [("C0",)]


@pytest.mark.parametrize("inputs", [(), ([],)])
def test_where_no_subscription_is_known_nobody_opts_out(carried, inputs):
    assert carried([NO], *inputs) == []


def test_all_inputs_are_one(carried):
    parts = [subscribed(JOINED, LATER)], [subscribed(LAST)]
    assert carried([NO], *parts) == to_platform()


@pytest.mark.parametrize("order", [1, -1])
def test_the_last_opt_in_and_the_last_opt_out_of_a_list_count(carried, order):
    rows = [subscribed(JOINED, LATER), subscribed(LATER, LAST), subscribed(JOINED, None)]
    assert carried([YES], rows[::order]) == to_crm(LAST)


@pytest.mark.parametrize("order", [1, -1])
def test_who_came_back_is_active(carried, order):
    rows = [subscribed(JOINED, LATER), subscribed(LAST), subscribed(JOINED)]
    assert carried([NO], rows[::order]) == to_platform()


def test_an_opt_out_without_an_opt_in_is_one(carried):
    assert carried([YES], [subscribed(None, LATER)]) == to_crm(LATER)


def test_an_opt_in_of_the_instant_of_the_opt_out_does_not_end_it(carried):
    assert carried([YES], [subscribed(LAST, LAST)]) == to_crm(LAST)


def test_of_the_dates_that_cannot_be_read_the_first_input_is_told(carried):
    parts = [subscribed("soon")], [subscribed(JOINED, "later"), subscribed(JOINED, "?", "K1")]
    with pytest.raises(
        ReconcileError, match=r"subscriptions 0\.parquet: 1 \(person, list\) with an unreadable"
    ):
        carried([NO], *parts)


@pytest.mark.parametrize("column", SUBSCRIPTION)
def test_a_missing_column_is_told(tables, column):
    kept = {name: "VARCHAR" for name in SUBSCRIPTION if name != column}
    wanted = f"no column '{column}', wanted by the consents \\(subscriptions input\\)"
    config = build_config(consents=[{"from": "sms", "list": "77"}])
    with pytest.raises(ReconcileError, match=wanted):
        build_subscription_change(tables.connection, config, [tables.source("s", kept)], 0, None)


@pytest.mark.parametrize(
    ("changed_at", "opt_in", "is_newer"),
    [
        (LATER, LATER, False),
        (LATER, "2026-01-03T10:00:01Z", True),
        ("2026-01-05", "2026-01-05T23:59:59Z", False),
        ("2026-01-05", "2026-01-06T00:00:00Z", False),
        ("2026-01-05", "2026-01-06T00:00:01Z", True),
        (None, LAST, False),
        (LATER, None, False),
    ],
)
def test_a_no_gives_way_to_a_strictly_newer_opt_in(carried, changed_at, opt_in, is_newer):
    expected = [] if is_newer else to_platform(changed_at)
    assert carried([(OPTED_OUT, changed_at)], [subscribed(opt_in)]) == expected


@pytest.mark.parametrize(
    ("state", "changed_at", "opt_out", "is_newer"),
    [
        (OPTED_IN, LATER, LATER, False),
        (OPTED_IN, "2026-01-03T10:00:01Z", LATER, True),
        (OPTED_IN, "2026-01-06T00:00:00Z", "2026-01-05", False),
        (OPTED_IN, "2026-01-06T00:00:01Z", "2026-01-05", True),
        (OPTED_IN, None, LATER, False),
        (UNKNOWN, LAST, LATER, False),
        (UNREADABLE, LAST, LATER, False),
    ],
)
def test_a_no_at_vibes_gives_way_to_a_strictly_newer_yes(
    carried, state, changed_at, opt_out, is_newer
):
    expected = [] if is_newer else to_crm(opt_out)
    assert carried([(state, changed_at)], [subscribed(JOINED, opt_out)]) == expected


@pytest.mark.parametrize("state", [UNKNOWN, OPTED_IN, UNREADABLE])
def test_only_a_no_reaches_the_platform(carried, state):
    assert carried([(state, LAST)], [subscribed()]) == []


def test_who_said_no_on_both_sides_is_not_told_again(carried):
    assert carried([(OPTED_OUT, LAST)], [subscribed(JOINED, LATER)]) == []


TWINS = [(n, None, f"k{n}", None, False) for n in range(3)]
"""Persons without a contact's key, so that several contacts may be one of them."""


def test_of_equal_evidence_one_change_is_told(carried):
    cells = [(OPTED_OUT, LAST), (OPTED_OUT, LATER), (OPTED_OUT, LATER)]
    pairs = [(2, 0), (0, 0), (1, 0)]
    told = carried(cells, [subscribed()], pairs=pairs, people=TWINS)
    assert told == [*to_platform(LATER, 1), *to_platform(LATER, 2)]


def test_a_no_with_a_time_goes_before_one_without(carried):
    cells = [NO, (OPTED_OUT, LAST)]
    assert carried(cells, [subscribed()], pairs=[(0, 0), (1, 0)], people=TWINS) == to_platform(
        LAST, 1
    )


def test_a_contact_in_doubt_still_opts_out_the_person_of_its_key(carried):
    assert carried([NO], [subscribed()], pairs=[], linked=[(0, 0)]) == to_platform()


def test_such_a_contact_learns_of_nothing(carried):
    assert carried([YES], [subscribed(JOINED, LATER)], pairs=[], linked=[(0, 0)]) == []


def test_who_is_recognised_is_not_asked_again_by_its_key(carried):
    opted_out = carried(
        [NO], [subscribed(), subscribed(person="k1")], pairs=[(0, 1)], linked=[(0, 0)], people=TWINS
    )
    assert opted_out == to_platform(person=1)


def test_a_link_to_nobody_opts_nobody_out(carried):
    assert carried([NO], [subscribed()], pairs=[], linked=[(0, None)]) == []


@pytest.mark.parametrize(
    ("source", "row", "kind", "is_doubted"),
    [
        ("person", 0, "duplicate_external_id", True),
        ("person", 0, "duplicate_person_key", True),
        ("person", 0, "shared_mdn", False),
        ("person", 1, "duplicate_external_id", False),
        ("contact", 0, "duplicate_external_id", False),
    ],
)
def test_unless_the_key_names_several_persons(carried, source, row, kind, is_doubted):
    doubt = [(source, row, kind)]
    told = carried([NO], [subscribed()], pairs=[], linked=[(0, 0)], finding=doubt)
    assert told == ([] if is_doubted else to_platform())


LEFT = {"policy": "opt_out", "unmatched": [(0, 0)]}


def test_an_unmatched_contact_is_opted_out_without_evidence(carried):
    assert carried([YES], [subscribed()], **LEFT) == to_platform(reason="unmatched")


def test_of_each_mapped_list_it_is_by_its_own_no_where_there_is_one(carried):
    rows = [subscribed(listed=name) for name in ("77", "78", "79")]
    cell = (OPTED_OUT, LAST, UNKNOWN, None)
    assert carried([cell], rows, consents=("77", " 78"), **LEFT) == [
        *to_platform(LAST),
        *to_platform(listed="78", reason="unmatched"),
    ]


def test_the_no_of_another_person_is_not_its_own(carried):
    rows = [subscribed(), subscribed(person="k1")]
    assert carried([YES, NO], rows, pairs=[(0, 0), (1, 1)], **LEFT) == [
        *to_platform(reason="unmatched"),
        *to_platform(contact=1, person=1),
    ]


def test_each_list_is_judged_by_its_own_column(carried):
    rows = [subscribed(), subscribed(listed="78")]
    cell = (OPTED_IN, LAST, OPTED_OUT, LATER)
    told = carried([cell], rows, consents=("77", "78"))
    assert told == to_platform(LATER, listed="78")


def test_who_is_not_active_or_not_unmatched_is_not_opted_out(carried):
    rows = [subscribed(JOINED, LATER), subscribed(person="k1")]
    told = carried([YES, YES], rows, pairs=[(0, 0), (1, 1)], **LEFT)
    assert told == to_crm(LATER)


@pytest.mark.parametrize("policy", ["keep", "clear"])
def test_only_by_the_policy_opt_out(carried, policy):
    assert carried([YES], [subscribed()], **LEFT | {"policy": policy}) == []
