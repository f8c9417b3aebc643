"""What the right answers to the analyst's questions are, read past the report that gives them.

Landed snapshots, the ledger and the summary of the diff set tell; the page must show the same.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import duckdb

from vibes_pipelines.report.account import account_of
from vibes_pipelines.settings import Settings
from vibes_pipelines.stages.project import Project, open_project
from vibes_pipelines.stages.reconciling import read_summary, snapshot_of
from vibes_pipelines.store.snapshots import Snapshot

Cells = Sequence[Mapping[str, str]]
"""A table of the page, each row by its headings."""

HASH_SHOWN = 8


def right_answer(
    question: str, environment: Mapping[str, str], day: str
) -> Callable[[Cells, str], str | None]:
    """A judge of the table and the page that answer `question`: None, or what they should say."""

    def judge(rows: Cells, page: str) -> str | None:
        with open_project(Settings(environment)) as project:
            return _JUDGES[question](project, day, rows, page)

    return judge


def opt_ins(project: Project, day: str) -> int:
    """The subscriptions that began between the refresh of the share before the day's and that."""
    now = snapshot_of(project, "share/subscriptions", day)
    days = [one for one in project.snapshots.days(now.manifest.feed) if one < day]
    before = snapshot_of(project, now.manifest.feed, days[-1])
    return _begun(now, before.manifest.as_of)


def _begun(share: Snapshot, since: datetime) -> int:
    with duckdb.connect() as engine:
        engine.execute("SET TimeZone = 'UTC'")
        [(rows,)] = engine.execute(
            "SELECT count(*) FROM read_parquet(?) WHERE opt_in_date::TIMESTAMPTZ > ?"
            " AND opt_in_date::TIMESTAMPTZ <= ?",
            [str(share.data), since, share.manifest.as_of],
        ).fetchall()
    return int(rows)


def _opt_ins(project: Project, day: str, rows: Cells, _page: str) -> str | None:
    expected = opt_ins(project, day)
    shown = sum(_number(row["Opt-ins"]) for row in rows)
    return None if shown == expected else f"{expected} opt-ins, not {shown}"


def _files(project: Project, day: str, rows: Cells, page: str) -> str | None:
    columns = {row["Field at the platform"]: row["CRM column"] for row in rows}
    expected = {field.to: field.from_ for field in project.config.fields}
    if {name: columns.get(name) for name in expected} != expected:
        return f"the fields {expected}, not {columns}"
    for feed in ("crm/contacts", "share/persons"):
        begins = snapshot_of(project, feed, day).manifest.content_hash[:HASH_SHOWN]
        if begins not in page:
            return f"the file {feed} {begins}"
    return None


def _pending(project: Project, day: str, rows: Cells, _page: str) -> str | None:
    account = account_of(project, day)
    sent = sum(account.delivered.values()) + account.opt_outs_to_platform + account.opt_outs_to_crm
    expected = sent - account.rejected + account.not_yet
    shown = sum(_number(row["Operations"]) for row in rows)
    return None if shown == expected else f"{expected} operations under way, not {shown}"


def _plan(project: Project, day: str, rows: Cells, _page: str) -> str | None:
    summary = read_summary(project, day)
    expected = summary.added + summary.updated + summary.subscription_changes
    shown = sum(_number(row["Rows"]) for row in rows)
    return None if shown == expected else f"{expected} rows to send, not {shown}"


def _number(cell: str) -> int:
    return int(cell.replace(",", ""))


_JUDGES: Mapping[str, Callable[[Project, str, Cells, str], str | None]] = {
    "Why did opt-ins fall yesterday?": _opt_ins,
    "Which file did this value come from?": _files,
    "What is still pending?": _pending,
    "What would today's run send?": _plan,
}
