"""Reads what was decided at the quarantine desk about one person, from the ledger."""

from collections.abc import Collection, Iterator

import sqlalchemy as sa

from vibes_pipelines.reconcile.cases import record_of
from vibes_pipelines.report.explain_facts import DecisionFact
from vibes_pipelines.report.explain_texts import instant_text
from vibes_pipelines.store.models import case_decisions


def decisions_of(
    ledger: sa.Connection,
    external: str | None,
    person_keys: Collection[str],
    mdns: Collection[str],
) -> Iterator[DecisionFact]:
    """Every decision about a case of this person, or that links somebody to it, oldest first."""
    records = {record_of("contact", external, None, None)}
    records |= {record_of("person", None, key, None) for key in person_keys}
    records |= {record_of("contact", None, None, mdn) for mdn in mdns}
    table = case_decisions.c
    query = (
        sa.select(case_decisions)
        .where(
            sa.or_(
                table.record.in_(sorted(record for record in records if record)),
                table.target.in_(sorted(person_keys)),
            )
        )
        .order_by(table.id)
    )
    for row in ledger.execute(query):
        yield DecisionFact(
            case_id=row.case_id,
            kind=row.kind,
            action=row.action,
            person_key=row.target,
            reason=row.reason,
            decided_by=row.decided_by,
            decided_at=instant_text(row.decided_at) or "",
            after_day=row.after_day,
        )
