"""Links into the documentation: what a source promises, and what to do when a step or check fails.

The built documentation may be served anywhere (`VIBES_DOCS_URL`); without an address the links lead
to the pages in the project's folder, where this runs from one.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import dagster as dg

from vibes_pipelines.orchestration.keys import (
    CRM_WRITE_BACK,
    FEEDS,
    INVITES,
    OPT_OUTS,
    OUTSIDE,
    QUARANTINE,
)
from vibes_pipelines.orchestration.metadata import Metadata

DOCS_URL = "VIBES_DOCS_URL"
"""The address under which the documentation that `make docs` builds is served."""

FOLDER = Path(__file__).parents[2] / "docs"

CONTRACTS = {
    "share/persons": "sources#share-persons",
    "share/subscriptions": "sources#share-subscriptions",
    "extract/current_subscribers": "sources#extract-current-subscribers",
    "extract/subscriptions": "sources#extract-subscription-events",
    "crm/contacts": "sources#crm-contacts",
    "apsis/profiles": "sources#apsis-one-profiles",
}
"""Per source what it promises: page and heading."""

_HELD, _UNEXPLAINED = "operations#a-held-diff-set", "operations#something-is-unexplained"
_REJECTED, _NOT_AS_EXPECTED = "operations#rejected-rows", "operations#a-source-is-not-as-expected"

RUNBOOKS_OF_GROUPS = {
    "share": "operations#the-share-is-late",
    "extract": "operations#half-an-extract",
    "crm": "operations#the-crm-cannot-be-read",
    "convergence": _UNEXPLAINED,
    "reconcile": _HELD,
    "delivery": _REJECTED,
    "report": "operations#the-newest-day-is-not-there",
    "apsis": "tribe-apsis#the-full-sync",
}
RUNBOOKS_OF_ASSETS = {
    QUARANTINE: "quarantine#decisions",
    OPT_OUTS: "operations#an-opt-out-is-late",
    CRM_WRITE_BACK: "operations#the-crm-cannot-be-read",
    INVITES: _HELD,
}
RUNBOOKS_OF_CHECKS = {
    "columns_as_mapped": _NOT_AS_EXPECTED,
    "primary_key_unique": _NOT_AS_EXPECTED,
    "input_share_within_guard": _NOT_AS_EXPECTED,
    "subscribers_agree_with_share": _NOT_AS_EXPECTED,
    "every_contact_is_accounted_for": _UNEXPLAINED,
    "person_changes_within_guards": _HELD,
    "opt_outs_within_guards": _HELD,
    "nothing_is_unexplained": _UNEXPLAINED,
    "opt_outs_arrive_in_time": "operations#an-opt-out-is-late",
    "newest_day_is_made": "operations#the-newest-day-is-not-there",
    "no_full_sync_needed": "tribe-apsis#which-change-needs-a-full-sync",
}

_CONTRACTS_OF_ASSETS = {
    **{OUTSIDE[feed]: CONTRACTS[feed] for feed in OUTSIDE},
    **{FEEDS[feed]: CONTRACTS[feed] for feed in FEEDS},
    dg.AssetKey(["outside", "apsis_profiles"]): CONTRACTS["apsis/profiles"],
    dg.AssetKey(["apsis", "profiles"]): CONTRACTS["apsis/profiles"],
}


def links_of(key: dg.AssetKey) -> Metadata:
    """What the source promises, and what to do when the step fails."""
    runbook = RUNBOOKS_OF_ASSETS.get(key) or RUNBOOKS_OF_GROUPS.get(key.path[0])
    return {**_link("contract", _CONTRACTS_OF_ASSETS.get(key)), **_link("runbook", runbook)}


def check_link(name: str) -> Metadata:
    """What to do when the check fails."""
    return _link("runbook", RUNBOOKS_OF_CHECKS[name])


def with_links(
    assets: Iterable[dg.AssetsDefinition | dg.AssetSpec],
) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """The same assets, each with its links."""
    return [
        _linked(one) if isinstance(one, dg.AssetSpec) else one.map_asset_specs(_linked)
        for one in assets
    ]


def _linked(spec: dg.AssetSpec) -> dg.AssetSpec:
    return spec.merge_attributes(metadata=links_of(spec.key))


def _link(name: str, place: str | None) -> Metadata:
    address = address_of(place) if place else None
    return {name: dg.MetadataValue.url(address)} if address else {}


def address_of(place: str) -> str | None:
    """The address of `page#heading`; None where there is no documentation to lead to."""
    page, _, heading = place.partition("#")
    served = os.environ.get(DOCS_URL, "").rstrip("/")
    if served:
        return f"{served}/{page}.html#{heading}"
    file = FOLDER / f"{page}.md"
    return f"{file.as_uri()}#{heading}" if file.exists() else None
