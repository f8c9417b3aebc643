"""Checks of the Vibes API: address, login, company, version, rate, lists, campaigns, clock."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from vibes_pipelines.crm.arrow_columns import as_text
from vibes_pipelines.crm.contacts import relation_of
from vibes_pipelines.stages.doctor.bench import API_TIMEOUT_S, Bench
from vibes_pipelines.stages.doctor.clock import of_clocks
from vibes_pipelines.stages.doctor.findings import Check, Finding, fail, ok, warn

if TYPE_CHECKING:
    from vibes_pipelines.vibes.api_calls import Record
    from vibes_pipelines.vibes.vibes_api import VibesApi

DOCUMENTED_RATE_PER_S = 100
_PERSONS_ASKED = 20


def _reachable(bench: Bench) -> Iterator[Finding]:
    """Whether anything answers there, and how its clock stands; any HTTP status will do."""
    url = bench.settings.api.url
    try:
        answered_at = _date_of(url)
    except (OSError, ValueError) as unreachable:
        reason = getattr(unreachable, "reason", None) or unreachable
        told = f"{url} does not answer ({type(reason).__name__})"
        yield fail(told, "check VIBES_API_URL, the network, and a proxy or firewall between")
        return
    if not url.startswith("https://") and "//127.0.0.1" not in url and "//localhost" not in url:
        yield fail(f"{url} would show the password to the network", "begin it with https://")
        return
    yield ok(f"{url} answers")
    if answered_at is not None:
        yield of_clocks("the Vibes API", answered_at, bench.now())


def _date_of(url: str) -> datetime | None:
    request = urllib.request.Request(url, method="GET")  # noqa: S310 - the user's own address
    if request.type not in {"http", "https"}:
        msg = "not an HTTP address"
        raise ValueError(msg)
    try:
        with urllib.request.urlopen(request, timeout=API_TIMEOUT_S) as answer:  # noqa: S310 - as above
            stated = answer.headers.get("Date")
    except urllib.error.HTTPError as refused:
        with refused:
            stated = refused.headers.get("Date")
    return parsedate_to_datetime(stated).astimezone(UTC) if stated else None


def _login(bench: Bench) -> Iterator[Finding]:
    lists = bench.lists
    if not lists:
        company = bench.config.company_key
        told = f"the platform shows no subscription list for company {company}"
        yield fail(told, "correct company_key in sync.yaml; another company's key shows nothing")
        return
    yield ok(f"{bench.settings.api.user} sees company {bench.config.company_key}")


def _version(bench: Bench) -> Iterator[Finding]:
    """Whether the platform answers as version 2, told by how it writes a number.

    The Vibes documentation, Versions and Compatibility: without the header X-API-Version, numbers
    are ten digits.
    """
    key: sa.ColumnElement[Any] = sa.column(bench.config.contacts.key)
    query = sa.select(key).select_from(relation_of(bench.config)).where(key.is_not(None))
    with bench.crm() as connection:
        keys = [as_text(one) for one in connection.scalars(query.limit(_PERSONS_ASKED))]
    found = bench.ask_api(lambda api: _first_number(api, [one for one in keys if one]))
    if found is None:
        told = f"none of the first {len(keys)} contacts is a person with a number there"
        cure = "nothing is wrong on a first day; otherwise look whether contacts.key is the one"
        yield warn(told, cure)
    elif found.startswith("+"):
        yield ok("the API answers as version 2")
    else:
        cure = "let X-API-Version: 2 through in the proxy between, or ask Vibes"
        yield fail("the API answers as version 1 although version 2 is asked for", cure)


async def _first_number(api: "VibesApi", keys: list[str]) -> str | None:
    for key in keys:
        person = await api.persons.get_external(key)
        phone: Any = (person or {}).get("mobile_phone")
        if isinstance(phone, dict) and phone.get("mdn"):
            return str(phone["mdn"])
    return None


def _rate(bench: Bench) -> Iterator[Finding]:
    rate = bench.settings.api.rate_per_s
    if rate == 0:
        yield fail("VIBES_API_RATE_PER_S is 0: nothing would be sent", "set it to 100 or leave it")
    elif rate > DOCUMENTED_RATE_PER_S:
        told = f"VIBES_API_RATE_PER_S is {rate}; the platform allows {DOCUMENTED_RATE_PER_S}"
        yield warn(told, "lower it, unless Vibes granted you more")
    else:
        yield ok(f"at most {rate} calls a second")


def _lists(bench: Bench) -> Iterator[Finding]:
    wanted = {one.list.strip(): f"consents: from: {one.from_}" for one in bench.config.consents}
    if bench.config.callbacks is not None:
        for name in bench.config.callbacks.lists or ():
            wanted.setdefault(name.strip(), "callbacks.lists")
    for name, entry in wanted.items():
        if name in bench.lists:
            yield ok(f"list {name} is {bench.lists[name].get('name', 'there')!r}")
        else:
            yield fail(f"{entry}: there is no list {name}", f"it is one of: {_shown(bench.lists)}")


def _campaigns(bench: Bench) -> Iterator[Finding]:
    """Whether each campaign is there, and feeds the list that it stands beside."""
    wanted = [(c.campaign.strip(), c.list.strip()) for c in bench.config.consents if c.campaign]
    signup = bench.config.signup
    if signup is not None:
        wanted.append((signup.campaign.strip(), signup.list or ""))
    for campaign, listed in dict.fromkeys(wanted):
        yield _of_campaign(bench, campaign, listed)
    if bench.config.callbacks is not None:
        known = {one for one, _ in wanted}
        for campaign in bench.config.callbacks.campaigns:
            if campaign.strip() not in known:
                yield _of_campaign(bench, campaign.strip(), "")


def _of_campaign(bench: Bench, campaign: str, listed: str) -> Finding:
    feeding = bench.ask_api(lambda api: api.subscriptions.campaigns_of(listed)) if listed else []
    found = _by_id(feeding)
    if campaign in found:
        return ok(f"campaign {campaign} feeds list {listed}")
    if bench.ask_api(lambda api: api.campaigns.campaign(campaign)) is None:
        every = _by_id(bench.ask_api(_all_campaigns))
        cure = f"correct campaign in sync.yaml; it is one of: {_shown(every)}"
        return fail(f"there is no acquisition campaign {campaign}", cure)
    if not listed:
        return ok(f"campaign {campaign} is there")
    cure = f"give list {listed} a campaign of its own: {_shown(found)}"
    return fail(f"campaign {campaign} is there but does not feed list {listed}", cure)


async def _all_campaigns(api: "VibesApi") -> "list[Record]":
    return await api.campaigns.campaigns()


def _by_id(campaigns: "list[Record]") -> "dict[str, Record]":
    from vibes_pipelines.vibes.campaign_api import campaign_id_of  # noqa: PLC0415 - slow, HTTP

    return {campaign_id_of(one): one for one in campaigns}


def _shown(records: "dict[str, Record]") -> str:
    named = [
        f"{key} ({one.get('name') or one.get('description', '?')})"
        for key, one in sorted(records.items())
    ]
    return ", ".join(named[:10]) or "none"


_LOGGED_IN = ("files/sync.yaml", "api/login")

CHECKS = (
    Check(
        "api/address",
        "the address answers, safely, by the same clock",
        _reachable,
        ("settings/api",),
    ),
    Check("api/rate", "the rate is within the platform's", _rate, ("settings/api",)),
    Check(
        "api/login", "login and company key are right", _login, ("files/sync.yaml", "api/address")
    ),
    Check("api/version", "it answers as version 2", _version, (*_LOGGED_IN, "crm/read")),
    Check("api/lists", "the lists of sync.yaml are there", _lists, _LOGGED_IN),
    Check("api/campaigns", "the campaigns are there and feed their lists", _campaigns, _LOGGED_IN),
)
