"""Running a reconcile: opens the inputs, runs the phases on DuckDB, writes the diff set.

The order of the phases is the meaning: identity, values, changes, what is under way, consent,
outputs, guards. Nothing reads the clock except the timings, which stay in run.json.
"""

import json
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb

from vibes_pipelines.reconcile.agreement import write_agreement
from vibes_pipelines.reconcile.base import Base, open_base
from vibes_pipelines.reconcile.cases import build_cases, write_cases
from vibes_pipelines.reconcile.changes import build_proposal
from vibes_pipelines.reconcile.conditions import count_unreadable
from vibes_pipelines.reconcile.consent import build_subscription_change
from vibes_pipelines.reconcile.counts import Counts, read_counts
from vibes_pipelines.reconcile.decisions import read_decisions
from vibes_pipelines.reconcile.destinations import VIBES, Destination
from vibes_pipelines.reconcile.earlier_opt_outs import carry_opt_outs_on
from vibes_pipelines.reconcile.engine import Limits, engine
from vibes_pipelines.reconcile.findings import create_finding, tell_why_mdns_are_refused
from vibes_pipelines.reconcile.guards import Workload, check_guards
from vibes_pipelines.reconcile.identifiers import (
    HashCollision,
    contact_identifiers,
    person_identifiers,
)
from vibes_pipelines.reconcile.identity import build_match
from vibes_pipelines.reconcile.invites import build_invites
from vibes_pipelines.reconcile.landed import are_hashed, join_hashes
from vibes_pipelines.reconcile.narrow import region_of
from vibes_pipelines.reconcile.opt_ins import build_opt_ins, end_with_addresses
from vibes_pipelines.reconcile.outputs import write_outputs
from vibes_pipelines.reconcile.payload import build_values
from vibes_pipelines.reconcile.periods import build_periods
from vibes_pipelines.reconcile.scan import Sides, scan_sides
from vibes_pipelines.reconcile.settle import build_outcome
from vibes_pipelines.reconcile.sources import Source, open_source, told_encoding
from vibes_pipelines.reconcile.summary import SUMMARY, Summary
from vibes_pipelines.reconcile.unmatched import build_unmatched
from vibes_pipelines.sync_config import SyncConfig


@dataclass(frozen=True)
class Inputs:
    """What a reconcile reads: each a .parquet or .csv file, or a landed snapshot folder.

    `base` is a folder with persons.parquet, or one of the daily job. `as_of` defaults to the newest
    as-of of the landed inputs, and `until` to that: an opt-in later than `until` is still to come.
    `accepted_rows` are the rows of the last accepted `contacts` and `persons`. `decisions` has the
    columns of `decisions.COLUMNS`, `earlier_opt_outs` those of `earlier_opt_outs.COLUMNS`. With
    `for_next_base` agreement.parquet and cases.parquet are written too, no part of the diff set.
    `destination` is where the persons are.
    """

    contacts: Path
    persons: Path
    subscriptions: tuple[Path, ...] = ()
    base: Path | None = None
    pending: Path | None = None
    blocked: Path | None = None
    decisions: Path | None = None
    earlier_opt_outs: Path | None = None
    as_of: datetime | None = None
    until: datetime | None = None
    accepted_rows: dict[str, int] | None = None
    relative_guards: bool = True
    for_next_base: bool = False
    destination: Destination = VIBES


@dataclass(frozen=True)
class _Sources:
    contacts: Source
    persons: Source
    subscriptions: tuple[Source, ...]
    base: Base | None
    pending: Source | None
    blocked: Source | None
    decisions: Source | None
    earlier_opt_outs: Source | None

    def as_of(self) -> datetime | None:
        known = (self.contacts, self.persons, *self.subscriptions)
        return max((source.as_of for source in known if source.as_of), default=None)


@dataclass
class _Stopwatch:
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 4)


_SALTS = 8
"""Runs with other hashes after a collision, of which even a first is not to be expected."""


def reconcile(config: SyncConfig, inputs: Inputs, out: Path, limits: Limits = Limits()) -> Summary:
    """Compares both sides and writes the diff set into `out`; returns its summary.

    Raises:
        ReconcileError: for an input that cannot be used, or a result that does not add up.
    """
    for salt in range(_SALTS):
        try:
            with told_encoding():
                return _reconcile(config, inputs, out, limits, salt)
        except HashCollision:
            continue
    raise AssertionError("two identifiers of one hash with every salt: a fault of the program")


def _reconcile(config: SyncConfig, inputs: Inputs, out: Path, limits: Limits, salt: int) -> Summary:
    watch = _Stopwatch()
    with (
        tempfile.TemporaryDirectory(prefix="reconcile-", dir=limits.temp_dir) as workspace,
        engine(limits, Path(workspace)) as connection,
    ):
        with watch.phase("open"):
            sources = _open_all(connection, inputs, Path(workspace))
        as_of = _utc(inputs.as_of) if inputs.as_of else sources.as_of()
        sides = _sides(connection, config, sources, salt)
        _run_phases(connection, config, inputs, sources, sides, as_of, watch)
        if inputs.destination.opt_in == "direct":
            build_opt_ins(connection, config, sources.subscriptions, as_of)
            end_with_addresses(connection, inputs.destination.ends_with)
        if sources.earlier_opt_outs and sources.subscriptions and config.consents:
            carry_opt_outs_on(connection, config, sources.earlier_opt_outs, salt, as_of)
        with watch.phase("outputs"):
            build_cases(connection, config, sides.contacts)
            counts = read_counts(connection)
            content_hashes = write_outputs(connection, out)
            if inputs.for_next_base:
                write_agreement(connection, config, sources.persons, out)
                write_cases(connection, out)
    summary = _summarise(config, inputs, counts, as_of, content_hashes)
    (out / SUMMARY).write_text(summary.to_json(), encoding="utf-8")
    (out / "run.json").write_text(
        _run_document(watch, counts, is_landed=sides.is_landed), encoding="utf-8"
    )
    return summary


def _run_phases(
    connection: duckdb.DuckDBPyConnection,
    config: SyncConfig,
    inputs: Inputs,
    sources: _Sources,
    sides: Sides,
    as_of: datetime | None,
    watch: _Stopwatch,
) -> None:
    deletes = inputs.destination.can_delete and inputs.destination.deletes_unmatched
    until = inputs.until or as_of
    create_finding(connection)
    read_decisions(connection, sources.decisions)
    with watch.phase("scan"):
        if sides.is_landed:
            join_hashes(connection, config, sources.contacts, sources.persons)
        else:
            scan_sides(connection, config, sides)
    with watch.phase("identity"):
        count_unreadable(connection, config, sides.contacts)
        build_match(
            connection,
            is_landed=sides.is_landed,
            replaces_numbers=config.replaces_numbers,
            salt=sides.salt,
        )
        build_periods(connection, config, sides, sources.base, as_of)
    with watch.phase("values"):
        build_values(connection, config, sides)
        tell_why_mdns_are_refused(connection, region_of(config))
    with watch.phase("changes"):
        build_unmatched(connection, config, sides, sources.base, deletes=deletes)
        build_proposal(connection, config, sides, sources.base)
        lag = timedelta(hours=config.policies.visibility_lag_h)
        build_outcome(connection, sources.pending, sources.blocked, as_of - lag if as_of else None)
    with watch.phase("consent"):
        build_subscription_change(connection, config, sources.subscriptions, sides.salt, until)
        build_invites(connection, config, sources.subscriptions, sources.pending, as_of)


def _open_all(connection: duckdb.DuckDBPyConnection, inputs: Inputs, workspace: Path) -> _Sources:
    def opened(role: str, path: Path) -> Source:
        return open_source(connection, role, path, workspace)

    return _Sources(
        contacts=opened("contacts", inputs.contacts),
        persons=opened("persons", inputs.persons),
        subscriptions=tuple(
            opened(f"subscriptions {number}" if number else "subscriptions", path)
            for number, path in enumerate(inputs.subscriptions)
        ),
        base=open_base(connection, inputs.base, workspace) if inputs.base else None,
        pending=opened("pending", inputs.pending) if inputs.pending else None,
        blocked=opened("blocked", inputs.blocked) if inputs.blocked else None,
        decisions=opened("decisions", inputs.decisions) if inputs.decisions else None,
        earlier_opt_outs=(
            opened("earlier opt-outs", inputs.earlier_opt_outs) if inputs.earlier_opt_outs else None
        ),
    )


def _sides(
    connection: duckdb.DuckDBPyConnection, config: SyncConfig, sources: _Sources, salt: int
) -> Sides:
    """Landed hashes know one salt only: after a collision the data is scanned."""
    return Sides(
        sources.contacts,
        sources.persons,
        contact_identifiers(config, sources.contacts),
        person_identifiers(config, sources.persons),
        salt,
        is_landed=not salt and are_hashed(connection, config, sources.contacts, sources.persons),
    )


def _utc(instant: datetime) -> datetime:
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def _summarise(
    config: SyncConfig,
    inputs: Inputs,
    counts: Counts,
    as_of: datetime | None,
    content_hashes: dict[str, str],
) -> Summary:
    work = Workload(
        contacts=counts.contacts,
        persons=counts.persons,
        adds=counts.status("added"),
        updates=counts.status("updated") + counts.filtered_updated,
        clears=counts.clears,
        crm_updates=counts.crm_updates,
        crm_clears=counts.crm_clears,
        opt_outs_to_platform=counts.opt_outs_to_platform,
        opt_outs_to_crm=counts.opt_outs_to_crm,
        invites=counts.invites,
    )
    breaches = check_guards(
        config.guards, work, inputs.accepted_rows, relative=inputs.relative_guards
    )
    return Summary(
        contacts=counts.contacts,
        persons=counts.persons,
        added=counts.status("added"),
        updated=counts.status("updated"),
        unchanged=counts.status("unchanged"),
        filtered=counts.status("filtered"),
        quarantined=counts.status("quarantined"),
        quarantined_persons=counts.quarantined_persons,
        pending=counts.status("pending"),
        blocked=counts.status("blocked"),
        persons_only=counts.persons_only,
        clears=counts.clears,
        subscription_changes=(
            counts.opt_outs_to_platform + counts.opt_outs_to_crm + counts.invites
        ),
        opt_outs_to_platform=counts.opt_outs_to_platform,
        opt_outs_to_crm=counts.opt_outs_to_crm,
        crm_changes=counts.crm_changes,
        quarantine_kinds=counts.quarantine_kinds,
        breaches=breaches,
        as_of=as_of,
        config_hash=config.config_hash,
        mapping_hash=config.mapping_hash,
        content_hashes=content_hashes,
        filtered_updated=counts.filtered_updated,
        invites=counts.invites,
        drift=counts.drift,
        unreadable_conditions=counts.unreadable_conditions,
    )


def _run_document(watch: _Stopwatch, counts: Counts, *, is_landed: bool) -> str:
    document = {
        "engine": f"duckdb {duckdb.__version__}",
        "plan": "landed hashes" if is_landed else "scan",
        "candidates": counts.candidates,
        "seconds": watch.seconds,
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    return json.dumps(document, sort_keys=True, indent=2) + "\n"
