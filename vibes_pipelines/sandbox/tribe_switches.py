"""Where Tribe's documentation is silent: one switch each, with both readings.

The first reading is the default. Tests run under both, so that clients depend on neither.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TribeSwitches:
    """The readings that a stand-in of Tribe follows."""

    top_over_100: Literal["cap", "refuse"] = "cap"
    """More than 100 records asked for in one GET: 100 come, or HTTP 400."""

    next_link: bool = False
    """A page that is not the last tells where the next one is (`@odata.nextLink`)."""

    page_rows: int = 100
    """The most records of a page; without `next_link` it is cut short without a word."""

    count: Literal["answered", "ignored"] = "answered"
    """`$count=true` is answered by `@odata.count`, or by nothing."""

    guid_order: Literal["text", "last_bytes_first"] = "text"
    """The order of identifiers: as their text, or as some databases sort them."""

    untouched_mutation: Literal["null", "created"] = "null"
    """LastMutationDate of a record that never changed: null, or its CreationDate."""

    labels_touch: bool = False
    """A label put on or taken off moves LastMutationDate."""

    label_put: Literal["replaces", "adds"] = "replaces"
    """A list of labels in a PUT is the whole, or comes to those that are there."""

    label_ref: Literal["served", "refused"] = "served"
    """One label is taken off by `DELETE .../Labels({id})/$ref`, or there is no such resource."""

    label_mutation: Literal["entity", "relationship", "none"] = "entity"
    """What a webhook tells of a label: an update of the person, a relationship, or nothing."""

    mutation_key: str = "type"
    """The name under which a webhook's payload tells its kind; empty when it does not."""

    signature_header: str = "X-Tribe-Signature"
    """The header in which a webhook's signature is sent."""

    webhook_attempts: int = 5
    """How often a webhook is sent before it is given up."""

    token_ttl_s: int = 3600
    """How long a token holds."""

    expires_in: Literal["answered", "absent"] = "answered"
    """Whether a token's answer tells how long it holds."""

    organization_id: str | None = None
    """When set, a token is only given to who names this organization."""

    put_answer: Literal["entity", "nothing"] = "entity"
    """A PUT is answered by 200 with the record, or by 204."""
