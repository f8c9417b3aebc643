"""The entities that a stand-in of Tribe has: their fields, and `$metadata` as XML.

Names and types: Tribe documentation, Persons and Labels; custom fields have their API name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.sax.saxutils import quoteattr

CUSTOM = {
    "score": "_5d0c3b1e__7f0a__4c55__9b1f__0a6c2e9d4f10",
    "tier": "_a1f7c2d4__0b3e__4d8a__8c6f__1e2d3c4b5a60",
    "interests": "_c93b8e70__5a41__4f3b__b2d7__6f5e4d3c2b10",
    "zip": "_e47d9a12__3c68__4b0e__a5f9__9a8b7c6d5e40",
    "customer_type": "_f05e6b38__1d97__4a2c__93e8__2b3c4d5e6f70",
}
"""What the environment's custom fields mean; Tribe shows their names only to its users."""

_EVERY = {
    "ID": "Edm.Guid",
    "_Type": "Edm.String",
    "_Name": "Edm.String",
    "CreationDate": "Edm.DateTimeOffset",
    "LastMutationDate": "Edm.DateTimeOffset",
}

READ_ONLY = frozenset(_EVERY)


@dataclass(frozen=True)
class Entity:
    """One entity. `links`: navigation → entity, those in `many` to several."""

    type_name: str
    fields: Mapping[str, str]
    links: Mapping[str, str] = field(default_factory=dict)
    many: frozenset[str] = frozenset()
    required: tuple[str, ...] = ()


_TEXTS = (
    *("FirstName", "MiddleName", "LastName", "Initials", "Title", "Suffix", "PhoneNumber"),
    *("MobilePhoneNumber", "EmailAddress", "ImportId"),
)

ENTITIES: Mapping[str, Entity] = {
    "Relation_Person": Entity(
        "Relation.Person",
        {
            **_EVERY,
            **dict.fromkeys(_TEXTS, "Edm.String"),
            "BirthDate": "Edm.Date",
            **dict.fromkeys(CUSTOM.values(), "Edm.String"),
            CUSTOM["score"]: "Edm.Double",
        },
        {"Address": "Address", "Gender": "Datastore_Gender", "Labels": "Label"},
        frozenset({"Labels"}),
        ("LastName",),
    ),
    "Label": Entity(
        "Label",
        {**_EVERY, "Name": "Edm.String", "IsInactive": "Edm.Boolean"},
        {"LabelCategory": "LabelCategory"},
        required=("Name",),
    ),
    "Relationship_Person_Contact_Standard": Entity(
        "Relationship.Person.Contact.Standard",
        {**_EVERY, "EmailAddress": "Edm.String", "Department": "Edm.String"},
        {"Person": "Relation_Person"},
    ),
    "Address": Entity(
        "Address",
        {
            "ID": "Edm.Guid",
            "Street": "Edm.String",
            "City": "Edm.String",
            "PostalCode": "Edm.String",
        },
        {"Country": "Datastore_Country"},
    ),
    "Datastore_Country": Entity(
        "Datastore.Country", {"ID": "Edm.Guid", "Name": "Edm.String", "Code": "Edm.String"}
    ),
    "Datastore_Gender": Entity(
        "Datastore.Gender", {"ID": "Edm.Guid", "Name": "Edm.String", "Code": "Edm.String"}
    ),
    "LabelCategory": Entity("LabelCategory", {"ID": "Edm.Guid", "Name": "Edm.String"}),
}

SERVED = ("Relation_Person", "Label", "Relationship_Person_Contact_Standard")
"""The sets that can be read by themselves; the others only by `$expand`."""

_NAMESPACE = "Tribe"


def metadata_xml() -> bytes:
    """The document of `$metadata`."""
    types = "".join(_type_xml(name, entity) for name, entity in ENTITIES.items())
    sets = "".join(
        f'<EntitySet Name="{name}" EntityType="{_NAMESPACE}.{name}"/>' for name in SERVED
    )
    text = (
        '<?xml version="1.0" encoding="utf-8"?>'
        '<edmx:Edmx Version="4.0" xmlns:edmx="http://docs.oasis-open.org/odata/ns/edmx">'
        "<edmx:DataServices>"
        f'<Schema Namespace="{_NAMESPACE}" xmlns="http://docs.oasis-open.org/odata/ns/edm">'
        f'{types}<EntityContainer Name="Container">{sets}</EntityContainer></Schema>'
        "</edmx:DataServices></edmx:Edmx>"
    )
    return text.encode()


def _type_xml(name: str, entity: Entity) -> str:
    fields = "".join(
        f"<Property Name={quoteattr(one)} Type={quoteattr(edm)}/>"
        for one, edm in entity.fields.items()
    )
    links = "".join(
        f"<NavigationProperty Name={quoteattr(one)} Type={quoteattr(_target(entity, one, to))}/>"
        for one, to in entity.links.items()
    )
    return (
        f'<EntityType Name="{name}"><Key><PropertyRef Name="ID"/></Key>{fields}{links}</EntityType>'
    )


def _target(entity: Entity, link: str, to: str) -> str:
    whole = f"{_NAMESPACE}.{to}"
    return f"Collection({whole})" if link in entity.many else whole
