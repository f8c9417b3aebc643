"""What a stand-in of Tribe holds: persons, labels and relationships, and every change of them.

Whoever sets `told` hears of every change as a mutation; nothing of HTTP belongs here.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from random import Random
from threading import RLock
from typing import Any, Literal
from uuid import UUID

from vibes_pipelines.sandbox.audit import Audit
from vibes_pipelines.sandbox.tribe_schema import ENTITIES, READ_ONLY
from vibes_pipelines.sandbox.tribe_switches import TribeSwitches

Record = dict[str, Any]
Set = Literal["Relation_Person", "Label", "Relationship_Person_Contact_Standard"]

_PYTHON: Mapping[str, tuple[type, ...]] = {
    "Edm.String": (str,),
    "Edm.Double": (int, float),
    "Edm.Boolean": (bool,),
    "Edm.Date": (str,),
}


class WorldError(ValueError):
    """A change that Tribe refuses; the message names the property."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """One change that webhooks tell of."""

    kind: Literal[
        "EntityCreationMutation",
        "EntityUpdateMutation",
        "EntityDeletionMutation",
        "RelationshipCreationMutation",
        "RelationshipUpdateMutation",
        "RelationshipDeletionMutation",
    ]
    entity_type: str
    id: str

    @property
    def is_relationship(self) -> bool:
        """Whether the id is one of a relationship."""
        return self.kind.startswith("Relationship")


class TribeWorld:
    """The records of one environment; safe for threads. `now` stamps every change."""

    def __init__(
        self, now: Callable[[], datetime], switches: TribeSwitches, audit: Audit, seed: int = 0
    ) -> None:
        self.lock = RLock()
        self.audit = audit
        self.told: Callable[[Mutation], None] = lambda _: None
        self._now = now
        self._switches = switches
        self.random = Random(f"tribe:{seed}")  # noqa: S311 - repeatable, not secret
        self.sets: dict[str, dict[str, Record]] = {name: {} for name in ENTITIES}
        self._sorted: dict[str, list[Record]] = {}

    def load(self, name: Set, records: Iterable[Record]) -> None:
        """Put records there that have always been there: nobody is told."""
        with self.lock:
            self.sets[name] |= {record["ID"]: record for record in records}
            self._sorted.pop(name, None)

    def replace(self, sets: dict[str, dict[str, Record]]) -> None:
        """Put other records in the place of all; nobody is told."""
        with self.lock:
            self.sets = {name: sets.get(name, {}) for name in ENTITIES}
            self._sorted = {}

    def rows(self, name: str) -> Sequence[Record]:
        """Every record of a set, in the order of its identifiers."""
        with self.lock:
            if name not in self._sorted:
                self._sorted[name] = sorted(self.sets[name].values(), key=self._by_id)
            return self._sorted[name]

    def find(self, name: str, identifier: str) -> Record | None:
        """One record."""
        return self.sets[name].get(identifier.lower())

    def persons(self) -> Iterator[Record]:
        """Every person."""
        return iter(self.rows("Relation_Person"))

    def label_id(self, name: str) -> str:
        """The label with this name; raises KeyError."""
        for label in self.rows("Label"):
            if label["Name"] == name:
                return str(label["ID"])
        raise KeyError(f"there is no label {name!r}")

    def new_id(self) -> str:
        """An identifier nobody has."""
        return str(UUID(int=self.random.getrandbits(128), version=4))

    def create(self, name: Set, values: Mapping[str, Any]) -> Record:
        """Add a record; raises WorldError."""
        with self.lock:
            self._check(name, values, is_new=True)
            stamp = self._stamp()
            entity = ENTITIES[name]
            record: Record = dict.fromkeys(entity.fields) | {
                "ID": self.new_id(),
                "_Type": entity.type_name,
                "CreationDate": stamp,
                "LastMutationDate": self._untouched(stamp),
            }
            record |= {link: [] if link in entity.many else None for link in entity.links}
            record |= {key: value for key, value in values.items() if key in entity.fields}
            if "Labels" in values:
                record["Labels"] = self._labels(values["Labels"])
            self.sets[name][record["ID"]] = record
            self._sorted.pop(name, None)
            self._name(record)
            self.audit.effect("create", record["ID"])
            self.told(Mutation("EntityCreationMutation", entity.type_name, record["ID"]))
            return record

    def update(self, name: Set, identifier: str, values: Mapping[str, Any]) -> Record:
        """Change some properties; the same values again are counted apart. Raises WorldError."""
        with self.lock:
            record = self.sets[name][identifier.lower()]
            self._check(name, values, is_new=False)
            changed = {key: value for key, value in values.items() if key in ENTITIES[name].fields}
            changed = {key: value for key, value in changed.items() if record[key] != value}
            if "Labels" in values:
                self._put_labels(record, values["Labels"])
            if changed:
                record |= changed
                record["LastMutationDate"] = self._stamp()
                self._name(record)
                self.audit.effect("update", record["ID"])
                self.told(Mutation("EntityUpdateMutation", ENTITIES[name].type_name, record["ID"]))
            elif "Labels" not in values:
                self.audit.repeat("update", record["ID"])
            return record

    def delete(self, name: Set, identifier: str) -> None:
        """Take a record away; raises KeyError."""
        with self.lock:
            record = self.sets[name].pop(identifier.lower())
            self._sorted.pop(name, None)
            if name == "Label":
                for person in self.persons():
                    person["Labels"] = [one for one in person["Labels"] if one is not record]
            self.audit.effect("delete", record["ID"])
            self.told(Mutation("EntityDeletionMutation", ENTITIES[name].type_name, record["ID"]))

    def attach(self, person_id: str, label_id: str) -> None:
        """Put a label on a person, as a user of Tribe does."""
        with self.lock:
            person, label = self.sets["Relation_Person"][person_id], self.sets["Label"][label_id]
            self._set_labels(person, [*person["Labels"], label])

    def detach(self, person_id: str, label_id: str) -> None:
        """Take a label off a person, as a user of Tribe does."""
        with self.lock:
            person = self.sets["Relation_Person"][person_id.lower()]
            kept = [one for one in person["Labels"] if one["ID"] != label_id.lower()]
            self._set_labels(person, kept)

    def relate(self, person_id: str) -> Record:
        """Make a person a contact of somebody: a relationship begins, the person stays as it is."""
        with self.lock:
            name: Set = "Relationship_Person_Contact_Standard"
            record: Record = dict.fromkeys(ENTITIES[name].fields) | {
                "ID": self.new_id(),
                "_Type": ENTITIES[name].type_name,
                "CreationDate": self._stamp(),
                "Person": self.sets["Relation_Person"][person_id],
            }
            self.sets[name][record["ID"]] = record
            self._sorted.pop(name, None)
            self.told(
                Mutation("RelationshipCreationMutation", ENTITIES[name].type_name, record["ID"])
            )
            return record

    @contextmanager
    def quietly(self) -> Iterator[None]:
        """Changes inside are told to nobody."""
        with self.lock:
            told, self.told = self.told, lambda _: None
            try:
                yield
            finally:
                self.told = told

    def _put_labels(self, record: Record, given: object) -> None:
        labels = self._labels(given)
        if self._switches.label_put == "adds":
            held = record["Labels"]
            labels = [*held, *(label for label in labels if label not in held)]
        self._set_labels(record, labels)

    def _set_labels(self, record: Record, labels: list[Record]) -> None:
        if {label["ID"] for label in labels} == {label["ID"] for label in record["Labels"]}:
            self.audit.repeat("labels", record["ID"])
            return
        record["Labels"] = labels
        self.audit.effect("labels", record["ID"])
        if self._switches.labels_touch:
            record["LastMutationDate"] = self._stamp()
        match self._switches.label_mutation:
            case "entity":
                self.told(Mutation("EntityUpdateMutation", "Relation.Person", record["ID"]))
            case "relationship":
                self.told(Mutation("RelationshipUpdateMutation", "Label", self.new_id()))
            case "none":
                pass

    def _labels(self, given: object) -> list[Record]:
        if not isinstance(given, list):
            raise WorldError("Labels takes a list of objects with an ID")
        found = []
        for one in given:
            if not isinstance(one, dict) or set(one) != {"ID"}:
                raise WorldError("each of Labels takes an ID and nothing else")
            label = self.find("Label", str(one["ID"]))
            if label is None:
                raise WorldError("Labels names a label that does not exist")
            found.append(label)
        return found

    def _check(self, name: str, values: Mapping[str, Any], *, is_new: bool) -> None:
        entity = ENTITIES[name]
        for key, value in values.items():
            if key == "Labels" and key in entity.links:
                continue
            if key not in entity.fields or key in READ_ONLY:
                raise WorldError(f"{name} has no property {key!r} that can be written")
            if key in entity.required and not value:
                raise WorldError(f"{key} is required")
            if value is None:
                continue
            kind = entity.fields[key]
            is_number = isinstance(value, bool) and kind != "Edm.Boolean"
            if not isinstance(value, _PYTHON.get(kind, ())) or is_number:
                raise WorldError(f"{key} is of type {kind}")
            if kind == "Edm.Date" and not _is_day(str(value)):
                raise WorldError(f"{key} takes a day as YYYY-MM-DD")
        missing = [key for key in entity.required if is_new and not values.get(key)]
        if missing:
            raise WorldError(f"{missing[0]} is required")

    def _stamp(self) -> str:
        return self._now().isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def _untouched(self, created: str) -> str | None:
        return created if self._switches.untouched_mutation == "created" else None

    def _by_id(self, record: Record) -> tuple[str, ...]:
        text: str = record["ID"]
        if self._switches.guid_order == "text":
            return (text,)
        return tuple(reversed(text.split("-")))

    @staticmethod
    def _name(record: Record) -> None:
        parts = (record.get(key) for key in ("FirstName", "MiddleName", "LastName", "Name"))
        record["_Name"] = " ".join(part for part in parts if part) or None


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False
