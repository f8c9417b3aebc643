"""Certifying: what was delivered on earlier days is looked for in the day's snapshots."""

import duckdb

from vibes_pipelines.data_files import parquet
from vibes_pipelines.delivery.certificate import (
    PARQUET,
    Certificate,
    Landed,
    certify,
    load_certificate,
)
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.reconciling import snapshot_of, subscriptions_of


def certify_day(project: Project, day: str) -> Certificate:
    """Writes the convergence certificate of `day`; the same day again gives the same answer."""
    feeds = project.destination.feeds
    contacts, persons = (snapshot_of(project, f, day) for f in (feeds.contacts, feeds.persons))
    subscriptions = subscriptions_of(project, day)
    landed = Landed(
        persons=persons.folder,
        subscriptions=[snapshot.folder for snapshot in subscriptions],
        contacts=contacts.folder,
        evidence=project.destination.evidence,
        persons_as_of=persons.manifest.as_of,
    )
    as_of = max(s.manifest.as_of for s in (contacts, persons, *subscriptions))
    folder = project.certificate_folder(day)
    return certify(project.ledger, day, landed, project.config, as_of, folder)


def read_certificate(project: Project, day: str) -> Certificate:
    """The certificate of `day` as written."""
    return load_certificate(project.certificate_folder(day))


def certified_day(project: Project, day: str) -> str | None:
    """The newest day whose sends the certificate of `day` is about; None when there were none."""
    path = project.certificate_folder(day) / PARQUET
    with duckdb.connect() as engine:
        newest_sql = f"SELECT max(day) FROM {parquet(path)}"  # noqa: S608 - our own path
        [(newest,)] = engine.execute(newest_sql).fetchall()
    return None if newest is None else str(newest)
