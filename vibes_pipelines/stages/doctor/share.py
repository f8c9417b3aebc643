"""Checks of the Snowflake share: login, objects, columns, age, option keys, clock."""

import re
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from vibes_pipelines.stages.doctor.bench import Bench
from vibes_pipelines.stages.doctor.clock import of_clocks
from vibes_pipelines.stages.doctor.findings import Check, Finding, fail, of_error, ok, warn
from vibes_pipelines.stages.preview_samples import shape
from vibes_pipelines.stages.project import WrongDayError, check_age
from vibes_pipelines.store.snapshots import Source
from vibes_pipelines.sync_config import SELECT_TYPES, MappedField, SyncConfig
from vibes_pipelines.sync_config.feeds import SHARE_FEEDS
from vibes_pipelines.vibes.share import check_feed, column_of, object_of, shown_instant
from vibes_pipelines.vibes.share_catalogue import values_in_use
from vibes_pipelines.vibes.share_errors import ShareError, share_errors

PERSONS, _, REFRESHES = SHARE_FEEDS
MOST_KEYS = 1_000
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,40}")


def _login(bench: Bench) -> Iterator[Finding]:
    account = bench.settings.share
    _ = _value(bench, "SELECT 1")
    role = f"role {account.role}" if account.role else "its default role"
    yield ok(f"{account.user} is logged in at {account.account} with {role}")
    if account.warehouse is None:
        cure = "set SNOWFLAKE_WAREHOUSE, or give the user a default warehouse"
        yield warn("no warehouse is set: reading needs one", cure)


def _value(bench: Bench, statement: str) -> Any:
    with share_errors("asking for the session"), bench.share.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()[0][0]


def _objects(bench: Bench) -> Iterator[Finding]:
    """Each feed's object, with all its columns, by asking for no row of it."""
    for feed in SHARE_FEEDS:
        if feed == REFRESHES and feed not in bench.config.feeds:
            continue
        try:
            check_feed(bench.share, bench.config, feed)
        except ShareError as refused:
            yield of_error(refused)
        else:
            yield ok(f"{feed}: {object_of(bench.config, feed)} has every column that is read")


def _age(bench: Bench) -> Iterator[Finding]:
    shown = shown_instant(bench.share, bench.config)
    limit = timedelta(hours=bench.config.policies.max_age_h)
    try:
        check_age(Source("the share", shown), bench.day, limit)
    except WrongDayError as wrong:
        yield of_error(wrong)
        return
    yield ok(f"the share shows {shown:%Y-%m-%d %H:%M} UTC")


def _option_keys(bench: Bench) -> Iterator[Finding]:
    """Option keys of sync.yaml against those in use at the platform.

    Keys are case-sensitive (the Vibes documentation, Custom Fields). That a key is nowhere in use
    proves nothing, for no call lists the options that a field allows.
    """
    looked_at = 0
    for field in bench.config.fields:
        if field.type not in SELECT_TYPES or field.options is None:
            continue
        seen = _keys_in_use(bench, bench.config, field)
        if seen is None:
            told = f"{field.to} has more than {MOST_KEYS} values at the platform"
            yield warn(told, f"is it really a {field.type}? Correct type in fields of sync.yaml")
            continue
        looked_at += 1
        yield from _of_keys(field, field.options.values(), seen)
    if looked_at:
        yield ok(f"the option keys of {looked_at} fields were looked for at the platform")


def _of_keys(field: MappedField, mapped: Collection[str], seen: set[str]) -> Iterator[Finding]:
    by_lower = {key.lower(): key for key in seen}
    for key in sorted(set(mapped) - seen):
        meant = by_lower.get(key.lower())
        place = f"fields: to: {field.to}: options: {key!r}"
        if meant is not None:
            yield fail(f"{place} is {meant!r} at the platform", "write the key as it is there")
        elif seen:
            shown = _shown(seen, seen, mapped)
            cure = f"look the key up at the platform, where these are in use: {shown}"
            yield warn(f"{place} is no key of any person", cure)
    unmapped = sorted(seen - set(mapped))
    if unmapped:
        told = f"fields: to: {field.to}: {len(unmapped)} keys in use are in no option"
        yield warn(told, f"map them if the CRM knows them: {_shown(unmapped, seen, mapped)}")


def _shown(values: Collection[str], seen: set[str], mapped: Collection[str]) -> str:
    """Some of the platform's values: keys as they are, anything else by its shape.

    A wrong mapping makes a select of a field with names, in which no mapped key is in use.
    """
    is_select = not {one.lower() for one in mapped}.isdisjoint(one.lower() for one in seen)
    shown = {one if is_select and _KEY.fullmatch(one) else shape(one) for one in values}
    return ", ".join(sorted(shown)[:10])


def _keys_in_use(bench: Bench, config: SyncConfig, field: MappedField) -> set[str] | None:
    column = column_of(config, PERSONS, field.to)
    found = values_in_use(bench.share, object_of(config, PERSONS), column, MOST_KEYS)
    if found is None:
        return None
    parts = "|" if field.type == "multi_select" else None
    return {key for value in found for key in (value.split(parts) if parts else [value])}


def _clock(bench: Bench) -> Iterator[Finding]:
    theirs = _value(bench, "SELECT CURRENT_TIMESTAMP()")
    if isinstance(theirs, datetime):
        yield of_clocks("Snowflake", theirs.astimezone(UTC), bench.now())


_LOGGED_IN = ("files/sync.yaml", "share/login")

CHECKS = (
    Check(
        "share/login",
        "Snowflake lets us in, with the role that is set",
        _login,
        ("settings/share",),
    ),
    Check("share/objects", "every object and column of the feeds is granted", _objects, _LOGGED_IN),
    Check(
        "share/age", "the share is fresh enough to be landed", _age, (*_LOGGED_IN, "share/objects")
    ),
    Check(
        "share/option keys",
        "mapped option keys are in use at the platform",
        _option_keys,
        (*_LOGGED_IN, "share/objects"),
    ),
    Check("share/clock", "Snowflake's clock agrees with this machine's", _clock, ("share/login",)),
)
