"""A SQL CRM into APSIS One: typed columns there and opt-outs back, by the same sync."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from vibes_pipelines.stages.full_sync import full_sync
from vibes_pipelines.stages.tribe_messages import apply_messages
from vibes_pipelines_tests.full_sync.sync_parts import EMAIL, FIRST_NAME, NEWS, World, world_at

BIRTH_DATE = "com.apsis1.attributes.birthdate"
MOBILE = "com.apsis1.attributes.mobile"
SCORE = "usercreated.attributes.score-w2j5"
BALANCE = "usercreated.attributes.balance-r7c1"
VIP = "usercreated.attributes.vip-h6t3"
COUNTRY = "usercreated.attributes.country-z9d2"
TABLE = sa.Table(
    "contacts",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("mail", sa.Text),
    sa.Column("first", sa.Text),
    sa.Column("mobile", sa.Text),
    sa.Column("born", sa.Date),
    sa.Column("score", sa.Integer),
    sa.Column("balance", sa.Numeric(12, 2)),
    sa.Column("vip", sa.Boolean),
    sa.Column("country", sa.Text),
    sa.Column("news", sa.Text),
    sa.Column("news_sms", sa.Text),
)
SECTION: dict[str, Any] = {
    "email": "mail",
    "default_region": "SE",
    "fields": [
        {"from": "first", "to": FIRST_NAME},
        {"from": "mobile", "to": MOBILE, "type": "mobile"},
        {"from": "born", "to": BIRTH_DATE, "type": "date"},
        {"from": "score", "to": SCORE, "type": "integer"},
        {"from": "balance", "to": BALANCE, "type": "decimal", "when_null": "clear"},
        {"from": "vip", "to": VIP, "type": "boolean"},
        {"from": "country", "to": COUNTRY, "type": "country"},
    ],
    "consents": [
        {"from": "news", "topic": NEWS, "channel": "email"},
        {"from": "news_sms", "topic": NEWS, "channel": "sms"},
    ],
}
ADA = (
    "INSERT INTO contacts VALUES (7, 'ada@example.org', 'Ada', '070-123 45 67', '1990-12-01', 12,"
    " 10.5, 1, 'se', 'yes', NULL)"
)
BO = "INSERT INTO contacts (id, mail, first, news) VALUES (8, 'bo@example.org', 'Bo', 'no')"


class Crm:
    """The database, changed by its users."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def run(self, statement: str) -> list[Any]:
        with self._engine.begin() as connection:
            result = connection.exec_driver_sql(statement)
            return list(result.all()) if result.returns_rows else []

    def news(self, contact: int) -> str | None:
        [(found,)] = self.run(f"SELECT news FROM contacts WHERE id = {contact:d}")
        return str(found) if found is not None else None


@contextmanager
def crm_world(folder: Path) -> Iterator[tuple[World, Crm]]:
    url = f"sqlite:///{folder}/crm.db"
    engine = sa.create_engine(url)
    TABLE.metadata.create_all(engine)
    with world_at(folder / "home") as world:
        world.overrides = {"CRM_URL": url}
        world.extra = {
            "contacts": {"key": "id"},
            "fields": [{"from": "first", "to": "first_name", "type": "string"}],
        }
        world.configure(**SECTION)
        yield world, Crm(engine)
    engine.dispose()


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[World, Crm]]:
    with crm_world(tmp_path) as running:
        yield running


@pytest.mark.slow
def test_typed_columns_become_attributes_and_a_second_sync_writes_nothing(
    both: tuple[World, Crm],
) -> None:
    world, crm = both
    crm.run(ADA)
    crm.run(BO)
    first = world.sync()
    assert (first.state, first.results.created, first.results.failed) == ("finished", 2, {})
    assert world.profile("7") == {
        "com.apsis1.attributes.crmid": "7",
        EMAIL: "ada@example.org",
        FIRST_NAME: "Ada",
        MOBILE: 46701234567,
        BIRTH_DATE: "1990-12-01",
        SCORE: 12,
        BALANCE: 10.5,
        VIP: True,
        COUNTRY: "SE",
    }
    assert (world.consent("7"), world.consent("8")) == ("opt-in", None)
    writes = world.writes()
    assert world.sync().state == "finished"
    world.clock.next_day()
    assert world.sync().state == "finished"
    assert world.writes() == writes


def test_consents_go_both_ways_and_a_blank_cell_says_nothing(both: tuple[World, Crm]) -> None:
    world, crm = both
    crm.run(ADA)
    crm.run(BO.replace("'no'", "'yes'"))
    world.sync()
    world.at_apsis("7", "opt-out")
    crm.run("UPDATE contacts SET news = 'no', balance = NULL WHERE id = 8")
    world.sync()
    assert crm.news(7) == "no"
    assert (world.consent("7"), world.consent("8")) == ("opt-out", "opt-out")
    crm.run("UPDATE contacts SET news = NULL WHERE id = 8")
    world.sync()
    assert world.consent("8") == "opt-out"
    crm.run("UPDATE contacts SET news = 'yes', balance = NULL WHERE id = 7")
    world.clock.next_day()
    world.sync()
    assert world.consent("7") == "opt-in"
    assert BALANCE not in (world.profile("7") or {})


def test_who_says_no_in_the_table_while_it_was_held_is_not_opted_in(
    both: tuple[World, Crm],
) -> None:
    world, crm = both
    crm.run(ADA)
    crm.run(BO.replace("'no'", "'yes'"))
    with world.open() as sync:
        assert full_sync(sync).state == "held"
        crm.run("UPDATE contacts SET news = NULL WHERE id = 7")
        world.approve(sync)
        assert full_sync(sync, resume=True).results.opted_in == 1
    assert (world.consent("7"), world.consent("8")) == (None, "opt-in")


@pytest.mark.slow
def test_conditions_and_messages_of_another_crm_change_nothing(both: tuple[World, Crm]) -> None:
    world, crm = both
    crm.run(ADA)
    crm.run(BO)
    world.configure(conditions=[{"column": "country", "equals": "se"}])
    world.sync()
    assert world.profile("7")
    assert world.profile("8") is None
    with world.open() as sync:
        assert apply_messages(sync).messages == 0
        assert full_sync(sync, dry_run=True).results.skipped == 1
