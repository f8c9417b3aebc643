"""`$metadata`: which fields Tribe's entities have, to check the names that sync.yaml maps."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from vibes_pipelines.tribe.errors import TribeAnswerError, TribeFieldError
from vibes_pipelines.tribe.odata import PERSONS


@dataclass(frozen=True, slots=True)
class EntityFields:
    """One entity. `fields`: name → type, e.g. `Edm.String`; `links`: name → entity set's type."""

    fields: Mapping[str, str]
    links: Mapping[str, str]


@dataclass(frozen=True)
class Metadata:
    """The entities of one Tribe environment, by the name of their entity set and of their type."""

    entities: Mapping[str, EntityFields]

    def of(self, entity_set: str = PERSONS) -> EntityFields:
        """The fields of an entity set.

        Raises:
            TribeAnswerError: Tribe describes no such set.
        """
        if entity_set not in self.entities:
            msg = f"Tribe $metadata: describes no {entity_set}; check TRIBE_API_URL"
            raise TribeAnswerError(msg)
        return self.entities[entity_set]

    def type_of(self, name: str, entry: str = "select", entity_set: str = PERSONS) -> str:
        """The type of a field, `Address/City` that of what a person refers to.

        `entry` of sync.yaml names it.

        Raises:
            TribeFieldError: there is no such field; names near ones.
        """
        *heads, last = name.split("/")
        fields = self.of(entity_set)
        for head in heads:
            if head not in fields.links or fields.links[head] not in self.entities:
                raise _unknown(entry, name, head, fields.links)
            fields = self.entities[fields.links[head]]
        if last not in fields.fields:
            raise _unknown(entry, name, last, [*fields.fields, *fields.links])
        return fields.fields[last]

    def require(self, names: Mapping[str, str]) -> None:
        """Checks fields, each with the entry of sync.yaml that names it.

        Raises:
            TribeFieldError: for the first one that a person does not have.
        """
        for name, entry in names.items():
            self.type_of(name, entry)


def near(name: str, existing: Iterable[str]) -> str:
    """A hint at names that look alike: `; did you mean FirstName?`, or nothing."""
    by_lower = {one.lower(): one for one in existing}
    found = difflib.get_close_matches(name.lower(), list(by_lower), n=3, cutoff=0.6)
    return f"; did you mean {', '.join(by_lower[one] for one in found)}?" if found else ""


def _unknown(entry: str, name: str, part: str, existing: Iterable[str]) -> TribeFieldError:
    return TribeFieldError(
        f"sync.yaml: {entry}: Tribe's persons have no field {name!r}{near(part, existing)} "
        "(names are in PascalCase; a custom field is its API name, _ in front and __ for -)"
    )


def read_metadata(content: bytes) -> Metadata:
    """Reads the XML.

    Raises:
        TribeAnswerError: it is none, or describes no entity.
    """
    try:
        root = ET.fromstring(content)  # noqa: S314 - expat stops entities that grow without end
    except ET.ParseError as malformed:
        msg = "Tribe /v1/odata/$metadata: the answer is no XML; check TRIBE_API_URL"
        raise TribeAnswerError(msg) from malformed
    types: dict[str, ET.Element] = {}
    for schema in _named(root.iter(), "Schema"):
        for kind in ("EntityType", "ComplexType"):
            for element in _named(schema, kind):
                types[f"{schema.get('Namespace')}.{element.get('Name')}"] = element
    read = {name: _fields(name, types) for name in types}
    entities = dict(read)
    for element in _named(root.iter(), "EntitySet"):
        entities[element.get("Name", "")] = read.get(
            element.get("EntityType", ""), EntityFields({}, {})
        )
    if not entities:
        msg = "Tribe /v1/odata/$metadata: describes no entity; check TRIBE_API_URL"
        raise TribeAnswerError(msg)
    return Metadata(entities)


def _fields(name: str, types: Mapping[str, ET.Element]) -> EntityFields:
    fields: dict[str, str] = {}
    links: dict[str, str] = {}
    passed: set[str] = set()
    at = name
    while at in types and at not in passed:
        passed.add(at)
        for element in _named(types[at], "Property"):
            fields.setdefault(element.get("Name", ""), element.get("Type", ""))
        for element in _named(types[at], "NavigationProperty"):
            target = element.get("Type", "").removeprefix("Collection(").removesuffix(")")
            links.setdefault(element.get("Name", ""), target)
        at = types[at].get("BaseType", "")
    return EntityFields(fields, links)


def _named(elements: Iterable[ET.Element], name: str) -> Iterator[ET.Element]:
    """Elements of this name, whatever version of EDMX their namespace says."""
    return (element for element in elements if element.tag.rpartition("}")[2] == name)
