"""Every change of an operation's state is one of the table's, and the table is the docs'."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import pytest

from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.records import Operation, Receipt, Status
from vibes_pipelines.store.states import (
    TRANSITIONS,
    IllegalTransition,
    State,
    sources_of,
)
from vibes_pipelines_tests.support.deliveries import DAY, change, planned, update

DIFF_SET = "d" * 64
STATUSES: tuple[Status, ...] = get_args(Status)
DOCS = Path(__file__).parents[2] / "docs" / "delivery.md"

Act = Callable[[Ledger, str], None]

ACTS: dict[str, Act] = {
    "sent": lambda ledger, one: ledger.mark_sent([one]),
    "accepted": lambda ledger, one: ledger.record([Receipt(one, "accepted")], DAY),
    "rejected": lambda ledger, one: ledger.record([Receipt(one, "rejected", "HTTP 422")], DAY),
    "unknown": lambda ledger, one: ledger.record([Receipt(one, "unknown", "Timeout")], DAY),
    "superseded": lambda ledger, one: ledger.withdraw({one: "opted out"}, DAY),
}
WAYS: dict[Status, tuple[str, ...]] = {
    "planned": (),
    "sent": ("sent",),
    "accepted": ("sent", "accepted"),
    "rejected": ("sent", "rejected"),
    "unknown": ("sent", "unknown"),
    "superseded": ("superseded",),
}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        planned(opened, tmp_path / "out", persons=[update("C1", change("first_name", "Ada"))])
        yield opened


def only(ledger: Ledger) -> Operation:
    (one,) = ledger.open_operations(DIFF_SET, "persons", "api")
    return one


@pytest.mark.parametrize("target", ACTS)
@pytest.mark.parametrize("source", WAYS)
def test_a_status_follows_only_where_the_table_says_so(
    ledger: Ledger, source: Status, target: Status
) -> None:
    operation_id = only(ledger).operation_id
    for step in WAYS[source]:
        ACTS[step](ledger, operation_id)
    if source in sources_of(target):
        ACTS[target](ledger, operation_id)
        expected = target
    else:
        with pytest.raises(IllegalTransition, match=f"is {source} and cannot become {target}"):
            ACTS[target](ledger, operation_id)
        expected = source
    after = ledger.operation(operation_id)
    assert after is not None
    assert after.status == expected


@pytest.mark.parametrize(
    ("status", "sources"),
    [
        ("sent", {"planned", "sent", "unknown"}),
        ("accepted", {"sent", "accepted"}),
        ("rejected", {"sent", "rejected"}),
        ("unknown", {"sent", "unknown"}),
        ("superseded", {"planned", "sent", "unknown", "superseded"}),
        ("planned", {"sent", "planned"}),
    ],
)
def test_where_each_status_may_come_from(status: Status, sources: set[Status]) -> None:
    assert set(sources_of(status)) == sources


def test_a_refused_write_changes_no_operation_of_its_batch(tmp_path: Path) -> None:
    with Ledger(f"sqlite:///{tmp_path / 'two.db'}") as ledger:
        rows = [update(f"C{n}", change("first_name", "Ada")) for n in range(2)]
        planned(ledger, tmp_path / "two", persons=rows)
        one, two = (op.operation_id for op in ledger.open_operations(DIFF_SET, "persons", "api"))
        ledger.mark_sent([one])
        with pytest.raises(IllegalTransition):
            ledger.record([Receipt(one, "accepted"), Receipt(two, "accepted")], DAY)
        counts = ledger.status_counts(DIFF_SET)
        assert {status: rows for (_, _, status), rows in counts.items()} == {
            "sent": 1,
            "planned": 1,
        }


def test_every_state_can_be_reached_and_only_ends_lead_nowhere() -> None:
    reached = {"planned"} | {target for targets in TRANSITIONS.values() for target in targets}
    assert reached == set(TRANSITIONS) == set(get_args(State))
    ends = {state for state, targets in TRANSITIONS.items() if not targets}
    assert ends == {"superseded", "confirmed", "escalated"}


def test_the_docs_show_the_table() -> None:
    rows = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if "→" in line]
    shown = {
        tuple(cell.strip(" `") for cell in line.strip("| ").split("|")[0].split("→")): line
        for line in rows
        if line.startswith("| `")
    }
    wanted = {(a, b): why for a, targets in TRANSITIONS.items() for b, why in targets.items()}
    assert set(shown) == set(wanted)
    assert all(why in shown[pair] for pair, why in wanted.items())
