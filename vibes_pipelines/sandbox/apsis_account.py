"""The profiles of an APSIS One stand-in, and every change of them; knows no HTTP.

Whatever changes a profile is counted in the audit: an effect, or a repeat when nothing changed.
"""

from collections.abc import Mapping
from threading import RLock
from typing import Any

from vibes_pipelines.sandbox.apsis_clock import RunningClock
from vibes_pipelines.sandbox.apsis_records import (
    Attribute,
    Catalogue,
    KeyPair,
    Keyspace,
    ProblemError,
    Profile,
    Value,
)
from vibes_pipelines.sandbox.apsis_switches import ApsisSwitches
from vibes_pipelines.sandbox.apsis_values import read_cell, read_json
from vibes_pipelines.sandbox.audit import Audit


class ApsisAccount:
    """One account; callers hold `lock` around whatever belongs together."""

    def __init__(self, catalogue: Catalogue, switches: ApsisSwitches, clock: RunningClock) -> None:
        self.catalogue = catalogue
        self.switches = switches
        self.clock = clock
        self.audit = Audit()
        self.lock = RLock()
        self.by_key: dict[KeyPair, Profile] = {}
        self.locked: set[KeyPair] = set()
        self.made = 0

    def find(self, keyspace: str, key: str) -> Profile:
        """A profile; raises ProblemError for a locked (410) or missing (404) one."""
        profile = self.peek(keyspace, key)
        if profile is None:
            raise ProblemError(404, "Not Found", "there is no such profile")
        return profile

    def peek(self, keyspace: str, key: str) -> Profile | None:
        """A profile or nothing; raises ProblemError for a locked one (410)."""
        if (keyspace, key) in self.locked:
            raise ProblemError(410, "Gone", "the profile is locked")
        return self.by_key.get((keyspace, key))

    def profiles(self) -> list[Profile]:
        """All profiles, each once."""
        return list({profile.uid: profile for profile in self.by_key.values()}.values())

    def create(self, keyspace: Keyspace, key: str, section: str) -> Profile:
        """A new profile with one key; raises ProblemError for a key that is locked or unfit."""
        self.peek(keyspace.discriminator, key)
        mapped: dict[str, Value] = {}
        if keyspace.attribute:
            mapped[keyspace.attribute] = read_cell(self.catalogue.by_name(keyspace.attribute), key)
        self.made += 1
        profile = Profile(f"P{self.made:06d}", {keyspace.discriminator: key})
        self.by_key[keyspace.discriminator, key] = profile
        if mapped:
            profile.attributes[section] = mapped
        self.audit.effect("profile_created", profile.uid)
        return profile

    def set_values(
        self, profile: Profile, section: str, values: Mapping[str, Value | None], kind: str
    ) -> bool:
        """Set and, with None, erase values by discriminator; True when anything changed."""
        before = profile.values(section)
        after = {name: v for name, v in {**before, **values}.items() if v is not None}
        is_changed = after != before
        profile.attributes[section] = after
        self.count(kind, profile, is_changed=is_changed)
        return is_changed

    def count(self, kind: str, profile: Profile, *, is_changed: bool) -> None:
        """Count a write: an effect, or a repeat."""
        (self.audit.effect if is_changed else self.audit.repeat)(kind, profile.uid)

    def patch_v1(self, keyspace: Keyspace, key: str, section: str, body: Mapping[str, Any]) -> None:
        """Version 1: by version id, creates; leaves keys alone. Raises ProblemError."""
        wanted = {self.catalogue.by_version(name): value for name, value in body.items()}
        if None in wanted.values():
            raise ProblemError(400, "Bad Request", "null clears in version 2 only")
        values = self._checked(keyspace, wanted)
        profile = self.peek(keyspace.discriminator, key) or self.create(keyspace, key, section)
        self.set_values(profile, section, values, "attributes")

    def patch_v2(self, keyspace: Keyspace, key: str, section: str, body: Mapping[str, Any]) -> None:
        """Version 2: by discriminator, null clears, moves keys; creates nothing."""
        wanted = {self.catalogue.by_name(name): value for name, value in body.items()}
        values = self._checked(keyspace, wanted)
        profile = self.find(keyspace.discriminator, key)
        for moving in self.catalogue.keyspaces:
            if moving.attribute in values:
                self._move_key(profile, moving.discriminator, values[moving.attribute])
        self.set_values(profile, section, values, "attributes")

    def _checked(
        self, keyspace: Keyspace, wanted: Mapping[Attribute, Any]
    ) -> dict[str, Value | None]:
        """Values by discriminator; raises ProblemError for bad ones and missing permissions."""
        self.permit(keyspace, *(attribute.discriminator for attribute in wanted))
        return {
            attribute.discriminator: None if value is None else read_json(attribute, value)
            for attribute, value in wanted.items()
        }

    def permit(self, keyspace: Keyspace, *names: str) -> None:
        """Raise ProblemError unless attributes and tags may be written through a keyspace."""
        denied = keyspace.denied & set(names)
        if denied or not keyspace.is_writable:
            which = ", ".join(sorted(denied)) or "anything"
            raise ProblemError(403, "Forbidden", f"this keyspace cannot write {which}")

    def _move_key(self, profile: Profile, keyspace: str, value: Value | None) -> None:
        """Let a profile's key follow its attribute; raises ProblemError."""
        former = profile.keys.get(keyspace)
        key = None if value is None else str(value)
        if former == key or (former is None and self.switches.mapped_key == "moved"):
            return
        if key is None:
            if len(profile.keys) == 1:
                raise ProblemError(400, "Bad Request", "the only key cannot be cleared")
        else:
            owner = self.peek(keyspace, key)
            if owner is not None:
                self._meet(profile, owner)
        if former is not None:
            self.by_key.pop((keyspace, former), None)
            profile.keys.pop(keyspace, None)
        if key is not None:
            profile.keys[keyspace] = key
            self.by_key[keyspace, key] = profile

    def _meet(self, profile: Profile, owner: Profile) -> None:
        """A new key belongs to another profile: what happens then nobody documents."""
        if self.switches.key_of_another == "conflict":
            raise ProblemError(409, "Conflict", "the key belongs to another profile")
        self._unite(profile, owner)

    def merge(self, first: KeyPair, second: KeyPair, section: str) -> None:
        """Make two profiles one; missing ones are created. Raises ProblemError."""
        pair = []
        for keyspace, key in (first, second):
            space = self.catalogue.keyspace(keyspace)
            pair.append(self.peek(keyspace, key) or self.create(space, key, section))
        one, other = pair
        if one is other:
            self.audit.repeat("merge", one.uid)
            if self.switches.merge_of_one == "conflict":
                raise ProblemError(409, "Conflict", "the two are one profile already")
            return
        if any(one.keys[space] != other.keys[space] for space in one.keys.keys() & other.keys):
            raise ProblemError(409, "Conflict", "both have a key in the same keyspace")
        self._unite(one, other)
        self.audit.effect("merge", one.uid)

    def _unite(self, kept: Profile, gone: Profile) -> None:
        """All that a profile has goes to another one."""
        is_first = self.switches.merge_wins == "first"
        for section, values in gone.attributes.items():
            own = kept.values(section)
            kept.attributes[section] = {**values, **own} if is_first else {**own, **values}
        for section, tags in gone.tags.items():
            kept.tags.setdefault(section, set()).update(tags)
        for consent, state in gone.consents.items():
            wins = state.type == "opt-out" and self.switches.merged_consents == "opt_outs"
            if wins or consent not in kept.consents:
                kept.consents[consent] = state
        for keyspace, key in gone.keys.items():
            kept.keys.setdefault(keyspace, key)
            self.by_key[keyspace, key] = kept

    def switch_key(self, old: KeyPair, new: KeyPair) -> None:
        """Give a profile another key; raises ProblemError when it exists anywhere."""
        profile = self.find(*old)
        self.catalogue.keyspace(new[0])
        if self.peek(*new) is not None:
            raise ProblemError(409, "Conflict", "the new identifier exists")
        del self.by_key[old]
        del profile.keys[old[0]]
        profile.keys[new[0]] = new[1]
        self.by_key[new] = profile
        self.audit.effect("key_switch", profile.uid)

    def delete(self, keyspace: str, key: str) -> None:
        """Delete a profile with all that belongs to it; raises ProblemError."""
        profile = self.find(keyspace, key)
        for pair in self._pairs(profile):
            del self.by_key[pair]
        self.audit.effect("profile_deleted", profile.uid)

    def lock_profile(self, keyspace: str, key: str) -> None:
        """Erase a profile and bar all its keys for ever; a person at APSIS One does that."""
        profile = self.find(keyspace, key)
        pairs = self._pairs(profile)
        self.delete(keyspace, key)
        self.locked.update(pairs)

    def _pairs(self, profile: Profile) -> list[KeyPair]:
        """All keys that lead to a profile; after a merge there may be two in one keyspace."""
        return [pair for pair, owner in self.by_key.items() if owner is profile]
