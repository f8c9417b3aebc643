"""Checks of APSIS One, where `destinations.apsis` is set: login, tokens, names, rights, columns."""

from collections.abc import Callable, Iterable, Iterator

from vibes_pipelines.apsis.definitions import Wanted
from vibes_pipelines.apsis.errors import ApsisUnavailable
from vibes_pipelines.crm.contacts import column_names, place_of
from vibes_pipelines.crm.database import CrmError
from vibes_pipelines.stages.apsis_names import (
    missing_in_database,
    missing_in_tribe,
    named_columns,
)
from vibes_pipelines.stages.doctor.bench import Bench
from vibes_pipelines.stages.doctor.findings import Check, Finding, fail, ok, warn
from vibes_pipelines.stages.doctor.tribe import ask_tribe
from vibes_pipelines.sync_config.apsis import Apsis
from vibes_pipelines.sync_config.apsis_view import apsis_view, landing_view

SHORT_S = 15 * 60
"""Tokens that last no longer than this use up the ten a minute when several processes run."""
DOCUMENTED_LIFETIME_S = 86_400


def _columns(bench: Bench) -> Iterator[Finding]:
    """Every contact column of the section, in whatever the contacts come from."""
    section = bench.config.destinations.apsis
    if section is None:
        return
    view = landing_view(apsis_view(bench.config))
    named = named_columns(view, section)
    if view.contacts.source == "tribe":
        metadata = ask_tribe(bench, lambda client: client.metadata())
        labels = ask_tribe(bench, lambda client: client.labels())
        missing = missing_in_tribe(named, metadata, labels)
    else:
        try:
            with bench.crm() as connection:
                existing = column_names(connection, view)
        except CrmError:  # crm/connection or crm/columns tells it
            yield Finding("not checked", "waits for crm/connection")
            return
        missing = missing_in_database(named, place_of(view), existing)
    for column, told in missing.items():
        yield fail(told, f"correct {named[column]} in sync.yaml, or make it in the CRM")
    if not missing:
        yield ok(f"the contacts have all {len(named)} columns for APSIS One")


def _account(bench: Bench) -> Iterator[Finding]:
    if bench.config.destinations.apsis is None:
        return
    url = bench.settings.apsis.url
    if not url.startswith("https://") and "//127.0.0.1" not in url and "//localhost" not in url:
        yield fail(f"{url} would show the API key to the network", "begin it with https://")
        return
    try:
        found = bench.apsis.definitions
    except ApsisUnavailable as unavailable:
        if unavailable.status != 429:
            raise
        told = f"{url}: HTTP 429, the limits of the account are used up"
        cure = (
            "wait a minute; where it lasts, other processes or systems with keys of this account "
            "take the 100 calls a second or the 10 tokens a minute: let them run one after the "
            "other, and each keep its token"
        )
        yield fail(told, cure)
        return
    yield ok(f"{url} lets us in, and shows {len(found.sections)} sections")


def _token(bench: Bench) -> Iterator[Finding]:
    """How long a token can be used: ten are given a minute, for all processes together."""
    if bench.config.destinations.apsis is None:
        return
    lasts_s = bench.apsis.token_lasts_s
    if lasts_s <= 0:
        told = "a new token is over, or nearly, by this machine's clock"
        cure = (
            "set this machine's clock by NTP; every call would fetch a token, and ten are given a "
            "minute"
        )
        yield fail(told, cure)
    elif lasts_s < SHORT_S:
        told = f"a token lasts {lasts_s / 60:,.0f} minutes; ten are given a minute"
        yield warn(told, "let few processes run at once, or ask APSIS One for longer ones")
    elif lasts_s > DOCUMENTED_LIFETIME_S + SHORT_S:
        told = f"a token lasts {lasts_s / 3600:,.1f} h by this machine's clock, 24 h are documented"
        yield warn(told, "set this machine's clock by NTP: it is behind, and tokens end early")
    else:
        yield ok(f"a token lasts {lasts_s / 3600:,.1f} h; one was taken of ten a minute")


def _place(bench: Bench) -> Iterator[Finding]:
    yield from _lacking(bench, lambda _: Wanted(), "section and keyspace are there")


def _attributes(bench: Bench) -> Iterator[Finding]:
    yield from _lacking(
        bench,
        lambda section: Wanted(attributes=[field.to for field in section.all_fields]),
        "every attribute is there, with a version in force",
    )


def _consents(bench: Bench) -> Iterator[Finding]:
    section = bench.config.destinations.apsis
    if section is not None and section.consents:
        yield from _lacking(
            bench,
            lambda one: Wanted(consents=[(c.topic, c.channel_discriminator) for c in one.consents]),
            "every topic and channel is there, and the keyspace may set consents",
        )


def _tags(bench: Bench) -> Iterator[Finding]:
    section = bench.config.destinations.apsis
    if section is not None and section.overviews:
        yield from _lacking(
            bench,
            lambda one: Wanted(tags=[overview.tag for overview in one.overviews]),
            "every tag of an overview is there",
        )


def _lacking(bench: Bench, wanted: Callable[[Apsis], Wanted], well: str) -> Iterable[Finding]:
    section = bench.config.destinations.apsis
    if section is None:
        return []
    lacks = [one.partition("; ") for one in bench.apsis.definitions.check(wanted(section))]
    return [fail(told, cure) for told, _, cure in lacks] or [ok(well)]


def _deletion(bench: Bench) -> Iterator[Finding]:
    """What is for ever is said before it is done."""
    section = bench.config.destinations.apsis
    if section is not None and section.when_unmatched == "delete":
        cap = section.guards.deletes
        told = (
            "when_unmatched: delete: profiles whose contact stopped meeting the conditions are "
            f"deleted for ever once approved, at most {cap.max_rows} a day"
        )
        yield warn(told, "leave it out to keep them, which is the default")


_SET = ("files/sync.yaml", "apsis/account")
_PLACED = (*_SET, "apsis/place")

CHECKS = (
    Check(
        "apsis/columns",
        "every contact column of `destinations.apsis` is there (only where that is set)",
        _columns,
        ("files/sync.yaml", "tribe/application"),
    ),
    Check(
        "apsis/account",
        "the API key is right, the address answers, the limits are not used up",
        _account,
        ("files/sync.yaml",),
    ),
    Check("apsis/token", "a token lasts, by this machine's clock", _token, _SET),
    Check("apsis/place", "section and keyspace are there", _place, _SET),
    Check("apsis/attributes", "every attribute is there and in force", _attributes, _PLACED),
    Check(
        "apsis/consents",
        "topics and channels are there, and the keyspace may set consents",
        _consents,
        _PLACED,
    ),
    Check("apsis/tags", "the tags of overviews are there", _tags, _PLACED),
    Check(
        "apsis/deletion", "whether profiles are deleted for ever", _deletion, ("files/sync.yaml",)
    ),
)
