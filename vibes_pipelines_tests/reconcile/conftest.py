"""Small worlds for the reconcile: rows as dicts in, the files of the diff set as dicts out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vibes_pipelines.reconcile.decisions import COLUMNS
from vibes_pipelines.reconcile.engine import Limits
from vibes_pipelines.reconcile.run import Inputs, reconcile
from vibes_pipelines.reconcile.summary import Summary
from vibes_pipelines.sync_config import SyncConfig
from vibes_pipelines_tests.reconcile.tables import Tables

Row = Mapping[str, Any]

_ONE_THREAD = Limits(threads=1)

PERSON = ("person_key", "external_person_id", "mdn")
SUBSCRIPTION = (
    "person_key",
    "subscription_list_id",
    "opt_in_date",
    "opt_out_date",
    "opt_out_reason",
)


@dataclass(frozen=True)
class DiffSet:
    """What a reconcile wrote."""

    folder: Path
    summary: Summary

    def rows(self, name: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = pq.read_table(self.folder / f"{name}.parquet").to_pylist()
        return rows

    @property
    def person_changes(self) -> list[dict[str, Any]]:
        return self.rows("person_changes")

    @property
    def quarantine(self) -> set[tuple[str, str, str | None]]:
        return {
            (row["kind"], row["source"], row["external_person_id"] or row["person_key"])
            for row in self.rows("quarantine")
        }

    def changes_of(self, key: str) -> dict[str, tuple[str, str | None, str | None, str]]:
        [row] = [r for r in self.person_changes if r["external_person_id"] == key]
        return {
            c["field"]: (c["action"], c["before"], c["after"], c["reason"]) for c in row["changes"]
        }


def build_config(**sections: Any) -> SyncConfig:
    """A config with one string field `name`, key `id`, phone `phone` and no relative guards."""
    document: dict[str, Any] = {
        "version": 1,
        "company_key": "A1b2C3",
        "contacts": {"key": "id", "mdn": {"column": "phone", "default_region": "US"}},
        "fields": [{"from": "name", "to": "name", "type": "string"}],
    }
    return SyncConfig.model_validate(document | sections)


def write_parquet(path: Path, rows: Sequence[Row], columns: Sequence[str]) -> Path:
    """All-text Parquet with exactly these columns; missing cells are null."""
    data = {
        column: pa.array([row.get(column) for row in rows], type=pa.string()) for column in columns
    }
    pq.write_table(pa.table(data), path)
    return path


def contact_columns(config: SyncConfig) -> list[str]:
    names = [config.contacts.key]
    names += [config.contacts.person_key] if config.contacts.person_key else []
    names += [config.contacts.mdn.column] if config.contacts.mdn else []
    names += [c.column for c in config.contacts.conditions]
    names += [f.from_ for f in config.fields] + [c.from_ for c in config.consents]
    names += [c.changed_at for c in config.consents if c.changed_at]
    names += [f.changed_at for f in config.fields if f.changed_at]
    return list(dict.fromkeys(names))


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., DiffSet]:
    """Reconciles rows given as dicts; each call in a folder of its own."""
    calls: list[int] = []

    def call(
        config: SyncConfig,
        contacts: Sequence[Row],
        persons: Sequence[Row],
        *,
        subscriptions: Sequence[Row] | None = None,
        base: Sequence[Row] | None = None,
        pending: Sequence[Row] | None = None,
        blocked: Sequence[Row] | None = None,
        decisions: Sequence[Row] | None = None,
        as_of: datetime | None = None,
        until: datetime | None = None,
        accepted_rows: dict[str, int] | None = None,
        relative_guards: bool = False,
        limits: Limits = _ONE_THREAD,
    ) -> DiffSet:
        calls.append(1)
        folder = tmp_path / str(len(calls))
        folder.mkdir()
        person_columns = [*PERSON, *(field.to for field in config.fields)]

        def optional(name: str, rows: Sequence[Row] | None, columns: Sequence[str]) -> Path | None:
            return None if rows is None else write_parquet(folder / name, rows, columns)

        blocked_columns = dict.fromkeys(("external_person_id", "field", "value", "error_class"))
        for row in blocked or ():
            blocked_columns |= dict.fromkeys(row)
        subscribed = optional("subscriptions.parquet", subscriptions, SUBSCRIPTION)
        inputs = Inputs(
            contacts=write_parquet(folder / "c.parquet", contacts, contact_columns(config)),
            persons=write_parquet(folder / "persons.parquet", persons, person_columns),
            subscriptions=(subscribed,) if subscribed else (),
            base=optional("base.parquet", base, person_columns),
            pending=optional(
                "pending.parquet", pending, ("external_person_id", "field", "value", "accepted_at")
            ),
            blocked=optional("blocked.parquet", blocked, tuple(blocked_columns)),
            decisions=optional("decisions.parquet", decisions, COLUMNS),
            for_next_base=True,
            as_of=as_of,
            until=until,
            accepted_rows=accepted_rows,
            relative_guards=relative_guards,
        )
        return DiffSet(folder / "out", reconcile(config, inputs, folder / "out", limits))

    return call


@pytest.fixture
def rows_in() -> Callable[[Path, str], list[dict[str, Any]]]:
    """The rows of one file of a diff set."""
    return lambda folder, name: pq.read_table(folder / f"{name}.parquet").to_pylist()


@pytest.fixture
def make_config() -> Callable[..., SyncConfig]:
    return build_config


@pytest.fixture
def tables() -> Iterator[Tables]:
    connection = duckdb.connect(config={"threads": 1})
    yield Tables(connection)
    connection.close()
