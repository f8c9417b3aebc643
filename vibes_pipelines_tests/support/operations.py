"""Operations as a plan has them, for rules that need no ledger."""

from datetime import UTC, datetime
from typing import Any

from vibes_pipelines.store.records import Change, Operation

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


def set_to(field: str, after: str, before: str | None = None) -> Change:
    return Change(field, "set", before, after, "crm_changed")


def cleared(field: str, before: str = "x") -> Change:
    return Change(field, "clear", before, None, "clear")


def operation(*changes: Change, **more: Any) -> Operation:
    values: dict[str, Any] = {
        "operation_id": "op-1",
        "diff_set": "d",
        "day": "2026-01-05",
        "as_of": NOON,
        "lane": "persons",
        "route": "file",
        "route_reason": "",
        "kind": "update",
        "external_person_id": "C1",
        "person_key": "k1",
        "mdn": None,
        "subscription_list_id": None,
        "changes": changes,
    }
    return Operation(**(values | more))
