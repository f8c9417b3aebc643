"""The state of an APSIS One stand-in as JSON: profiles, their keys and consents, locked keys."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from vibes_pipelines.sandbox.apsis_account import ApsisAccount
from vibes_pipelines.sandbox.apsis_records import ConsentState, Profile


class SavedApsis:
    """One account. Imports that are under way are not of it, nor limits and tokens."""

    def __init__(self, account: ApsisAccount) -> None:
        self._account = account

    def saved(self) -> dict[str, Any]:
        """Everything, as plain JSON values."""
        account = self._account
        with account.lock:
            return {
                "made": account.made,
                "locked": sorted(account.locked),
                "profiles": [_plain(profile) for profile in account.profiles()],
                "keys": [[*pair, profile.uid] for pair, profile in account.by_key.items()],
            }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Takes the place of the profiles that are there."""
        profiles = {one["uid"]: _profile(one) for one in saved["profiles"]}
        account = self._account
        with account.lock:
            account.made = saved["made"]
            account.locked = {(keyspace, key) for keyspace, key in saved["locked"]}
            account.by_key = {
                (keyspace, key): profiles[uid] for keyspace, key, uid in saved["keys"]
            }


def _plain(profile: Profile) -> dict[str, Any]:
    return {
        "uid": profile.uid,
        "keys": profile.keys,
        "attributes": profile.attributes,
        "tags": {section: sorted(tags) for section, tags in profile.tags.items()},
        "consents": [
            [*at, state.type, state.reason, state.source, state.at.isoformat()]
            for at, state in profile.consents.items()
        ],
    }


def _profile(plain: Mapping[str, Any]) -> Profile:
    return Profile(
        plain["uid"],
        dict(plain["keys"]),
        {section: dict(values) for section, values in plain["attributes"].items()},
        {section: set(tags) for section, tags in plain["tags"].items()},
        {
            (section, topic, channel): ConsentState(
                kind, reason, source, datetime.fromisoformat(at)
            )
            for section, topic, channel, kind, reason, source, at in plain["consents"]
        },
    )
