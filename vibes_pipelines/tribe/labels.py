"""Labels: Tribe's tags of a person, some of which mean an opt-in.

How a label is taken off a person is not in Tribe's documentation. Two forms are known to this
client (`TRIBE_LABEL_WRITE`): the OData way, which touches the one label only; or, where it is set,
a PUT of the list of all others, which undoes what a user changed since that list was read. Either
way the person is read back, and a label that is not what it should be is an error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vibes_pipelines.tribe.errors import TribeAnswerError, TribeFieldError
from vibes_pipelines.tribe.metadata import near


@dataclass(frozen=True, slots=True)
class Label:
    """One label of the environment."""

    id: str
    name: str
    is_inactive: bool = False


def read_label(row: Mapping[str, Any], path: str) -> Label:
    """A row of Label.

    Raises:
        TribeAnswerError: it has no ID or no Name.
    """
    identifier, name = row.get("ID"), row.get("Name")
    if not isinstance(identifier, str) or not isinstance(name, str):
        msg = f"Tribe {path}: a label without ID or Name; nothing was read"
        raise TribeAnswerError(msg)
    return Label(identifier, name, row.get("IsInactive") is True)


def label_id_of(labels: Sequence[Label], name: str) -> str:
    """The identifier of the label with this name.

    Raises:
        TribeFieldError: there is none, or several; names near ones.
    """
    found = [label.id for label in labels if label.name == name]
    if len(found) == 1:
        return found[0]
    if found:
        msg = f"sync.yaml: Tribe has {len(found)} labels named {name!r}; rename all but one there"
        raise TribeFieldError(msg)
    hint = near(name, [label.name for label in labels])
    msg = f"sync.yaml: Tribe has no label {name!r}{hint}; correct the name after label:"
    raise TribeFieldError(msg)


def label_ids(person: Mapping[str, Any], path: str) -> tuple[str, ...]:
    """The ids of a person's labels, as read.

    Raises:
        TribeAnswerError: the labels were not sent; that is not the same as having none.
    """
    labels = person.get("Labels")
    if not isinstance(labels, list) or "Labels@odata.nextLink" in person:
        msg = (
            f"Tribe {path}: a person came without all of its Labels, which were asked for; give "
            "the application the right to read them. Nothing was made of it"
        )
        raise TribeAnswerError(msg)
    return tuple(read_label(label, path).id for label in labels)
