"""The doctor on a real PostgreSQL: rights that are missing, a password that is wrong."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
import sqlalchemy as sa

from vibes_pipelines.orchestration.resources import ShareResource
from vibes_pipelines.stages.doctor.bench import Bench
from vibes_pipelines.stages.doctor.findings import Line
from vibes_pipelines.stages.doctor.run import examine
from vibes_pipelines_tests.support.doctoring import the_failure, with_needs
from vibes_pipelines_tests.support.loop import EXAMPLE

pytestmark = pytest.mark.postgresql

TABLE = """
CREATE TABLE contacts (contact_id text, mobile text, first_name text, last_name text,
    birth_date date, score numeric, tier text, interests text, zip text, customer_type text,
    sms_opt_in boolean, sms_opt_in_at timestamp)"""
ROW = "INSERT INTO contacts (contact_id, sms_opt_in) VALUES ('C1', true)"


@contextmanager
def reader(url: str, *grants: str) -> Iterator[str]:
    """A user with these rights on the table alone; yields its URL."""
    parsed = sa.make_url(url)
    name = f"reader_{parsed.database}"
    address = f"postgresql://{parsed.username}@{parsed.host}:{parsed.port}/{parsed.database}"
    with psycopg.connect(address, autocommit=True) as owner:
        for statement in (TABLE, ROW, f"CREATE ROLE {name} LOGIN"):
            owner.execute(statement)
        for grant in grants:
            owner.execute(f"GRANT {grant} ON contacts TO {name}")
    try:
        yield parsed.set(username=name).render_as_string(hide_password=False)
    finally:
        with psycopg.connect(address, autocommit=True) as owner:
            owner.execute(f"DROP OWNED BY {name}")
            owner.execute(f"DROP ROLE {name}")


def account(url: str, *checks: str) -> list[Line]:
    environment = {"CRM_URL": url, "VIBES_SYNC_CONFIG": str(EXAMPLE)}
    with Bench(environment, ShareResource().connector()) as bench:
        return examine(bench, with_needs(checks))


def test_without_the_right_to_read(postgresql_url: str) -> None:
    with reader(postgresql_url) as url:
        lines = account(url, "crm/key")
    the_failure(lines, "crm/read", "cannot be read .*42501", "GRANT SELECT ON contacts")
    assert {line.check: line.status for line in lines}["crm/key"] == "not checked"


def test_without_the_right_to_write_back(postgresql_url: str) -> None:
    with reader(postgresql_url, "SELECT", "UPDATE (sms_opt_in)") as url:
        lines = account(url, "crm/rights")
    told = "may not update sms_opt_in_at of contacts"
    the_failure(lines, "crm/rights", told, r"GRANT UPDATE \(sms_opt_in_at\) ON contacts")


def test_a_time_without_zone_is_told_and_the_rest_is_well(postgresql_url: str) -> None:
    with reader(postgresql_url, "SELECT", "UPDATE (sms_opt_in, sms_opt_in_at)") as url:
        lines = account(url, "crm/rights", "crm/times", "crm/clock", "crm/consents")
    the_failure(lines, "crm/times", "sms_opt_in_at has no time zone", "convert it")
    assert [line.text for line in lines if line.status == "fail"] == []


def test_a_database_that_is_not_there(postgresql_url: str) -> None:
    url = sa.make_url(postgresql_url).set(database="nowhere", password="hunter2")
    lines = account(url.render_as_string(hide_password=False), "crm/connection")
    the_failure(lines, "crm/connection", r":\*\*\*@", "database, user and password in CRM_URL")
    assert "hunter2" not in " ".join(line.text for line in lines)
