"""Where the Vibes documentation contradicts itself: one switch each, with both readings.

The first reading is the default. Tests run under both, so that clients depend on neither.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, Self, TypeVar, get_args

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True)
class Switches:
    """The readings that a sandbox follows."""

    find_by_mdn_body: Literal["object", "array"] = "object"
    """Find by MDN answers the person, or a list of one."""

    empty_error_body: bool = False
    """Answers 404 and 409 on person routes come without a body."""

    unset_identifiers: Literal["null", "absent"] = "null"
    """A person without external id or phone: the key holds `null`, or is left out."""

    post_existing_mdn: Literal["merge", "conflict"] = "merge"
    """Adding an MDN on file under another external person id: 200 and renamed, or 409."""

    put_external_unknown: Literal["create", "not_found"] = "create"
    """Updating an unknown external person id: 201 and created, or 404."""

    delete_status: Literal[204, 200] = 204
    """Unsubscribing answers 204, or 200 with an empty body."""

    person_extension: Literal["persons", "person"] = "persons"
    """Extension of person imports; files with another one are left alone."""

    person_key_only_import: Literal["refused", "accepted"] = "refused"
    """Imports without external_person_id and mdn: a file error, or taken by key or numeric id."""

    opt_out_of_nobody: Literal["unchanged", "rejected"] = "unchanged"
    """An `.opt_outs` row of somebody who is not on the list: nothing to do, or an error."""

    extract_kinds: Literal["subscribers", "all"] = "subscribers"
    """Each morning current_subscribers and subscriptions alone, or all seven extracts."""

    extract_names: Literal["current", "former"] = "current"
    """Extracts are called `<kind>_<company>_<date>.txt`, or as in older pages."""

    extract_case: Literal["upper", "lower"] = "upper"
    """`OPT_IN` and `USER_OPT_OUT` in extracts, or in lower case as in older pages."""

    callback_body: Literal["current", "former"] = "current"
    """Callback bodies as documented now, or those of 2021 with callback_id and delivery_attempt."""

    callback_event_date: Literal["seconds", "milliseconds"] = "seconds"
    """Precision of event_date; both occur in the documentation's samples."""

    callback_id_form: Literal["string", "integer"] = "string"
    """Callback ids are text of eight characters, or numbers."""

    callback_stamps: Literal["created_date", "created_at"] = "created_date"
    """A callback's stamps end in `_date` (published API description) or in `_at`."""

    callback_config_key: Literal["own", "sample"] = "own"
    """A callback's configuration stands under its own type only, or also where samples put it."""

    callback_registrations: Literal["several", "one"] = "several"
    """The same callback may go to up to 50 URLs, or be registered once only."""

    callback_url_check: Literal["live", "none"] = "live"
    """A URL where nothing listens is refused at registration, or fails later."""

    person_updated_on: Literal["write", "change"] = "write"
    """person_updated tells of every accepted update, or only of one that changed something."""

    push_device_body: Literal["flat", "wrapped"] = "flat"
    """A device as in the published API description (`OS`), or in older pages (`device.os`)."""

    event_id_reused: Literal["ignored", "refused"] = "ignored"
    """An event with a used event_id: 202 and nothing happens, or 422."""

    recycled_number: Literal["new_person", "same_person"] = "new_person"
    """A number that comes back with another carrier: somebody else, or the person who had it."""

    @classmethod
    def from_mapping(cls, readings: Mapping[str, object]) -> Self:
        """Switches by name; raises ValueError for an unknown name or reading."""
        return read_switches(cls, readings)


Chosen = TypeVar("Chosen", bound="DataclassInstance")


def read_switches(kind: type[Chosen], readings: Mapping[str, object], prefix: str = "") -> Chosen:
    """Switches of any stand-in by name; raises ValueError for an unknown name or reading."""
    known = {field.name: field for field in fields(kind)}
    for name, reading in readings.items():
        if name not in known:
            listed = ", ".join(f"{prefix}{one}" for one in sorted(known))
            raise ValueError(f"unknown switch {prefix + name!r}; known: {listed}")
        allowed = get_args(known[name].type)
        kinds = _free(known[name].type, allowed)
        if kinds:
            if type(reading) not in kinds:
                takes = " or ".join(one.__name__ for one in kinds)
                raise ValueError(f"switch {prefix + name!r} takes {takes}, not {reading!r}")
            continue
        readable = allowed or (False, True)
        if reading not in readable or type(reading) not in {type(value) for value in readable}:
            raise ValueError(f"switch {prefix + name!r} takes one of {readable}, not {reading!r}")
    return kind(**readings)


def _free(declared: object, allowed: tuple[object, ...]) -> tuple[type, ...]:
    """The types of a switch that takes any number or text, instead of one of some readings."""
    given = allowed or (declared,)
    kinds = tuple(one for one in given if isinstance(one, type) and one is not bool)
    return kinds if len(kinds) == len(given) else ()
