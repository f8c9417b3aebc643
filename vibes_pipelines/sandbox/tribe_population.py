"""The persons of a stand-in of Tribe: the contacts of a world once more, with labels for consents.

Same contacts and seed, same persons. `ImportId` is the contact's key at the other CRM, so that one
platform can be synchronised from either.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from vibes_pipelines.sandbox.tribe_schema import CUSTOM, ENTITIES
from vibes_pipelines.sandbox.tribe_switches import TribeSwitches
from vibes_pipelines.sandbox.world import ContactRow

OFFERS = "Offers by SMS"
NEWS_MAIL = "Newsletter by e-mail"
NEWS_SMS = "Newsletter by SMS"
LABELS: Mapping[str, float | None] = {OFFERS: None, NEWS_MAIL: 0.6, NEWS_SMS: 0.25, "VIP": 0.05}
"""Labels and the share of persons who have them; the first follows the contact's own consent."""

_RETIRED = "Fair of an earlier year"
_CITIES = (("Utrecht", "NL"), ("Zwolle", "NL"), ("Malmö", "SE"), ("Lund", "SE"), ("Aarhus", "DK"))
_COUNTRIES = {"NL": "Netherlands", "SE": "Sweden", "DK": "Denmark"}
_SHARED_MAIL = 0.004
"""Share of persons who use the e-mail address of the person before."""

Record = dict[str, Any]


def build_labels(created: datetime, seed: int) -> list[Record]:
    """The environment's labels; one of them is used no more."""
    rng = Random(f"tribe-labels:{seed}")  # noqa: S311 - repeatable, not secret
    category = {"ID": _guid(rng), "Name": "Opt-ins"}
    return [
        {
            **_stamped("Label", rng, created),
            "Name": name,
            "_Name": name,
            "IsInactive": name == _RETIRED,
            "LabelCategory": category,
        }
        for name in (*LABELS, _RETIRED)
    ]


def build_persons(
    contacts: Iterable[ContactRow],
    labels: Iterable[Record],
    begin: datetime,
    seed: int,
    switches: TribeSwitches,
) -> Iterator[Record]:
    """One person for each contact, created and changed before `begin`."""
    rng = Random(f"tribe-persons:{seed}")  # noqa: S311 - repeatable, not secret
    by_name = {label["Name"]: label for label in labels}
    places = [_address(rng, city, code) for city, code in _CITIES]
    mail = ""
    for index, row in enumerate(contacts):
        created = begin - timedelta(days=rng.randint(30, 1500), seconds=rng.randint(0, 86_399))
        person = _stamped("Relation_Person", rng, created)
        first, last = _text(row["first_name"]), _text(row["last_name"]) or "-"
        if not mail or rng.random() >= _SHARED_MAIL:
            mail = f"person{index}@example.org"
        held = [by_name[name] for name in LABELS if _has(name, row, rng)]
        if rng.random() < 0.4:
            person["LastMutationDate"] = _moment(begin - timedelta(hours=rng.randint(1, 700)))
        elif switches.untouched_mutation == "created":
            person["LastMutationDate"] = person["CreationDate"]
        yield person | {
            "_Name": f"{first or ''} {last}".strip(),
            "FirstName": first,
            "LastName": last,
            "MobilePhoneNumber": row["mobile"],
            "EmailAddress": mail,
            "ImportId": row["contact_id"],
            "BirthDate": _date(_text(row["birth_date"])),
            CUSTOM["score"]: row["score"],
            CUSTOM["tier"]: row["tier"],
            CUSTOM["interests"]: row["interests"],
            CUSTOM["zip"]: row["zip"],
            CUSTOM["customer_type"]: row["customer_type"],
            "Address": rng.choice(places),
            "Labels": held,
        }


def _has(name: str, row: ContactRow, rng: Random) -> bool:
    share = LABELS[name]
    return row["sms_opt_in"] == "true" if share is None else rng.random() < share


def _stamped(entity: str, rng: Random, created: datetime) -> Record:
    described = ENTITIES[entity]
    links: Record = {link: [] if link in described.many else None for link in described.links}
    return {
        **dict.fromkeys(described.fields),
        **links,
        "ID": _guid(rng),
        "_Type": described.type_name,
        "CreationDate": _moment(created),
    }


def _address(rng: Random, city: str, code: str) -> Record:
    country = {"ID": _guid(rng), "Name": _COUNTRIES[code], "Code": code}
    return {"ID": _guid(rng), "Street": None, "City": city, "PostalCode": None, "Country": country}


def _guid(rng: Random) -> str:
    return str(UUID(int=rng.getrandbits(128), version=4))


def _moment(instant: datetime) -> str:
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _date(text: str | None) -> str | None:
    """A date in the form that Tribe has for dates; whatever else the contact holds is left out."""
    try:
        return datetime.fromisoformat(text).date().isoformat() if text else None
    except ValueError:
        return None
