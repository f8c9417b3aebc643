"""Counting a finished reconcile: one status for every contact, and the counts of the rest."""

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb


@dataclass(frozen=True)
class Counts:
    """`statuses` is the number of contacts per status; most other names are those of the summary.

    `crm_updates` and `crm_clears` count contacts with a field written back, or emptied, in the CRM.
    `drift` counts contacts per field and kind; `unreadable_conditions`, per column, those whose
    cell cannot be compared.
    """

    statuses: Mapping[str, int]
    contacts: int
    persons: int
    persons_only: int
    quarantined_persons: int
    quarantine_kinds: Mapping[str, int]
    clears: int
    opt_outs_to_platform: int
    opt_outs_to_crm: int
    invites: int
    crm_changes: int
    crm_updates: int
    crm_clears: int
    filtered_updated: int
    candidates: int
    drift: Mapping[str, Mapping[str, int]]
    unreadable_conditions: Mapping[str, int]

    def status(self, name: str) -> int:
        """The contacts of one status."""
        return self.statuses.get(name, 0)


def read_counts(connection: duckdb.DuckDBPyConnection) -> Counts:
    """Counts the tables of a finished reconcile."""
    statuses = {str(status): int(rows) for status, rows in connection.execute(_STATUS).fetchall()}
    kinds = connection.execute(
        "SELECT kind, count(*) FROM finding GROUP BY kind ORDER BY kind"
    ).fetchall()
    drift: dict[str, dict[str, int]] = {}
    for field, kind, contacts in connection.execute(_DRIFT).fetchall():
        drift.setdefault(field, {})[kind] = contacts
    unreadable = connection.execute(_UNREADABLE).fetchall()
    [row] = connection.execute(_REST).fetchall()
    numbers = dict(zip(_NAMES, map(int, row), strict=True))
    return Counts(
        statuses=statuses,
        quarantine_kinds=dict(kinds),
        drift=drift,
        unreadable_conditions=dict(unreadable),
        **numbers,
    )


_UNREADABLE = """
    SELECT name, max(contacts) FROM unreadable_condition
    WHERE contacts > 0 GROUP BY name ORDER BY name"""

_DRIFT = "SELECT field, kind, contacts FROM drift WHERE contacts > 0 ORDER BY ALL"


# The precedence of the statuses is the order of the parts. A contact that has no outcome counts as
# unchanged only if it was paired with a person of equal values; one that is in no part is missing
# from the sum, which the summary refuses.
_STATUS = """
    WITH quarantined AS (SELECT DISTINCT row_number FROM finding WHERE source = 'contact')
    SELECT 'quarantined', count(*) FROM quarantined
    UNION ALL
    SELECT 'filtered', count(*) FROM contact ANTI JOIN quarantined USING (row_number)
    WHERE NOT passes
    UNION ALL
    SELECT status, count(*) FROM (
        SELECT contact_row, status FROM outcome WHERE NOT is_unmatched
        UNION ALL
        SELECT contact_row, 'unchanged' FROM match WHERE passes AND NOT differs) told
    ANTI JOIN quarantined ON quarantined.row_number = told.contact_row
    GROUP BY status"""

_NAMES = (
    "contacts",
    "persons",
    "persons_only",
    "quarantined_persons",
    "clears",
    "opt_outs_to_platform",
    "opt_outs_to_crm",
    "invites",
    "crm_changes",
    "crm_updates",
    "crm_clears",
    "filtered_updated",
    "candidates",
)

_REST = """
    SELECT (SELECT count(*) FROM contact),
           (SELECT count(*) FROM person),
           (SELECT count(*) FROM unlinked_person p
            ANTI JOIN claim ON claim.person_row = p.row_number
            ANTI JOIN finding ON finding.source = 'person' AND finding.row_number = p.row_number),
           (SELECT count(DISTINCT row_number) FROM finding WHERE source = 'person'),
           (SELECT count(*) FROM outcome WHERE status = 'updated'
            AND len(list_filter(changes, lambda one: one.action = 'clear')) > 0),
           (SELECT count(*) FROM subscription_change
            WHERE side = 'platform' AND action = 'opt_out'),
           (SELECT count(*) FROM subscription_change WHERE side = 'crm'),
           (SELECT count(*) FROM subscription_change WHERE action IN ('invite', 'opt_in')),
           (SELECT coalesce(sum(len(crm_changes)), 0) FROM outcome),
           (SELECT count(*) FROM outcome WHERE len(crm_changes) > 0),
           (SELECT count(*) FROM outcome
            WHERE len(list_filter(crm_changes, lambda one: one.after IS NULL)) > 0),
           (SELECT count(*) FROM outcome WHERE is_unmatched AND status = 'updated'),
           (SELECT count(*) FROM candidate)"""
