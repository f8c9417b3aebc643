"""The convergence certificate: what became of every operation of earlier days, proven by reading.

A day's landed snapshots are compared with the operations in the ledger, and each operation gets one
verdict with its evidence. Asking a day again gives the same answer. Nothing is sent here.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from vibes_pipelines.delivery import certificate_sql as sql
from vibes_pipelines.reconcile.destinations import Evidence
from vibes_pipelines.reconcile.sources import Source, open_source
from vibes_pipelines.reconcile.sql import literal
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.ledger_views import PERSON_CHANGED
from vibes_pipelines.store.placing import put, write_text
from vibes_pipelines.store.records import Outcome
from vibes_pipelines.sync_config import SyncConfig

PARQUET = "certificate.parquet"
DOCUMENT = "certificate.json"

_FETCH_ROWS = 10_000


class UnreadableCertificate(ValueError):  # noqa: N818 - the name says what is wrong
    """A stored certificate is no certificate."""


@dataclass(frozen=True)
class Landed:
    """The landed snapshots of the day, as the reconcile takes them: files or snapshot folders.

    `evidence` is what the persons show: the share, or what the API was asked; `persons_as_of` the
    instant that they show, where it is another than that of all of them.
    """

    persons: Path
    subscriptions: Sequence[Path] = ()
    contacts: Path | None = None
    evidence: Evidence = "share"
    persons_as_of: datetime | None = None


@dataclass(frozen=True)
class Certificate:
    """Operations of earlier days by verdict.

    `confirmed`: every value is visible. `pending`: sent, and the visibility lag has not passed.
    `rejected`: the platform refused, once reported. `superseded`: something newer took its place,
    or it was never sent. `unexplained`: none of these; somebody must look. `by_lane` and
    `error_classes` break the same numbers down. `person_changed` are those of the superseded whose
    old value stands there still, in a person that the platform changed since.
    """

    day: str
    as_of: datetime
    confirmed: int = 0
    pending: int = 0
    rejected: int = 0
    superseded: int = 0
    unexplained: int = 0
    by_lane: dict[str, dict[str, int]] = field(default_factory=dict)
    error_classes: dict[str, int] = field(default_factory=dict)
    person_changed: int = 0

    @property
    def operations(self) -> int:
        """How many operations the certificate is about."""
        return self.confirmed + self.pending + self.rejected + self.superseded + self.unexplained

    def to_json(self) -> str:
        """The certificate as it stands in `certificate.json`."""
        as_of = self.as_of.astimezone(UTC).isoformat().replace("+00:00", "Z")
        document = asdict(self) | {"as_of": as_of, "operations": self.operations}
        return json.dumps(document, indent=2, sort_keys=True) + "\n"


def certify(
    ledger: Ledger, day: str, landed: Landed, config: SyncConfig, as_of: datetime, out: Path
) -> Certificate:
    """Judges every operation of days before `day` that had no final verdict before it.

    Writes `certificate.parquet` (one row per operation, by id) and `certificate.json` into `out`
    and the verdicts into the ledger. To be called before the reconcile of the day, which must not
    wait for what is confirmed or given up. `as_of` is the instant the landed snapshots show.

    Raises:
        ReconcileError: a snapshot cannot be read or lacks a mapped column.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (
        TemporaryDirectory(prefix=".certifying-", dir=out) as workspace,
        duckdb.connect() as connection,
    ):
        connection.execute("SET TimeZone = 'UTC'")
        _load(connection, ledger, day, landed, config, as_of, Path(workspace))
        instant = as_of.astimezone(UTC).replace(tzinfo=None)
        lag = config.policies.visibility_lag_h
        connection.execute(sql.VERDICT, {"lag_h": lag, "as_of": instant})
        draft = Path(workspace) / PARQUET
        _write_parquet(connection, draft)
        put(draft, out / PARQUET)
        ledger.record_outcomes(_outcomes(connection), day)
        certificate = _counts(connection, day, as_of)
    write_text(out / DOCUMENT, certificate.to_json())
    return certificate


def load_certificate(folder: Path) -> Certificate:
    """Reads a certificate that `certify` wrote into `folder`.

    Raises:
        FileNotFoundError: there is none; certify the day first.
        UnreadableCertificate: there is half of one; names it and the cure.
    """
    path = folder / DOCUMENT
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        del document["operations"]
        return Certificate(**document | {"as_of": datetime.fromisoformat(document["as_of"])})
    except (ValueError, KeyError, TypeError) as half:
        raise UnreadableCertificate(unreadable_certificate(path)) from half


def unreadable_certificate(file: Path) -> str:
    """What to say of a file of a day's certificate that cannot be read, and the cure."""
    day = file.parent.name
    return f"{file} cannot be read; materialize convergence/certificate of {day} again"


def _load(
    connection: duckdb.DuckDBPyConnection,
    ledger: Ledger,
    day: str,
    landed: Landed,
    config: SyncConfig,
    as_of: datetime,
    workspace: Path,
) -> None:
    connection.register("operation", ledger.to_certify(day))
    connection.register("rival", ledger.rivals(day, landed.persons_as_of or as_of))
    connection.register("set_back", ledger.set_back(day))
    persons = open_source(connection, "persons", landed.persons, workspace)
    connection.execute(sql.landed_person(config, persons))
    if landed.contacts is not None:
        contacts = open_source(connection, "contacts", landed.contacts, workspace)
        connection.execute(sql.landed_contact(config, contacts))
    sources = [
        _subscriptions(connection, index, path, workspace, landed.evidence)
        for index, path in enumerate(landed.subscriptions)
    ]
    if sources:
        connection.execute(sql.subscription(sources, as_of))
    for statement in sql.finding(
        config,
        contacts_landed=landed.contacts is not None,
        subscriptions_landed=bool(sources),
        as_of=as_of,
        evidence=landed.evidence,
    ):
        connection.execute(statement)


def _subscriptions(
    connection: duckdb.DuckDBPyConnection,
    index: int,
    path: Path,
    workspace: Path,
    evidence: Evidence,
) -> tuple[Source, str]:
    """One subscriptions input and the evidence it stands for: `share`, `extract` or `api`."""
    folder = workspace / str(index)
    folder.mkdir()
    source = open_source(connection, "subscriptions", path, folder)
    manifest = path / "manifest.json"
    if evidence != "share" or not manifest.is_file():
        return source, evidence
    feed = str(json.loads(manifest.read_text(encoding="utf-8"))["feed"])
    return source, feed.partition("/")[0]


def _write_parquet(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    query = "SELECT * FROM verdict ORDER BY operation_id"
    connection.execute(f"COPY ({query}) TO {literal(str(path))} (FORMAT parquet)")


def _outcomes(
    connection: duckdb.DuckDBPyConnection,
) -> Iterator[tuple[str, Outcome, str]]:
    rows = connection.execute(
        "SELECT operation_id, outcome, evidence FROM verdict ORDER BY operation_id"
    )
    while page := rows.fetchmany(_FETCH_ROWS):
        yield from page


def _counts(connection: duckdb.DuckDBPyConnection, day: str, as_of: datetime) -> Certificate:
    totals: dict[str, Any] = {}
    by_lane: dict[str, dict[str, int]] = {}
    counted = connection.execute(
        "SELECT lane, outcome, count(*) FROM verdict GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    for lane, outcome, rows in counted:
        totals[outcome] = totals.get(outcome, 0) + rows
        by_lane.setdefault(lane, {})[outcome] = rows
    classes = connection.execute(
        "SELECT error_class, count(*) FROM verdict"
        " WHERE outcome = 'rejected' AND error_class IS NOT NULL GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    [(changed,)] = connection.execute(
        "SELECT count(*) FROM verdict WHERE outcome = 'superseded' AND evidence = $1",
        [PERSON_CHANGED],
    ).fetchall()
    totals["person_changed"] = changed
    return Certificate(day, as_of, **totals, by_lane=by_lane, error_classes=dict(classes))
