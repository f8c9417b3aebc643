"""What `sync.yaml` says of the time between two daily runs: callbacks, and changes of the CRM.

Everything else of that file is in `sync_config`.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vibes_pipelines.sync_config.conditions import Section, Text, Whole

COMPANY_EVENTS = (
    "company_participant_added",
    "company_participant_changed",
    "event_processed",
    "person_added",
    "person_updated",
    "subscription_list_added",
    "subscription_list_updated",
)

TARGET_EVENTS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "lists": ("list_id", ("subscription_added", "subscription_removed")),
    "campaigns": ("campaign_id", ("ack_participant_added", "ack_participant_changed")),
    "apps": ("app_id", ("device_added", "device_updated", "device_removed")),
    "wallet_tokens": ("campaign_token", ("wallet_item_install", "wallet_item_remove")),
    "source_codes": ("source_code", ("unmatched_message_received",)),
}
"""Each setting that names targets: how the platform calls one, and the events of each."""


OPT_OUT_WORDS = (
    "cancel",
    "end",
    "opt out",
    "optout",
    "quit",
    "remove me",
    "revoke",
    "stop",
    "unsubscribe",
)
"""What asks for an end in a text that matched no campaign and no word of the platform's own."""


class Callbacks(Section):
    """Which events the platform is to send, and where.

    `lists` left out are those of `consents`. `events` are of the whole company. `facts_table` is
    the table of the CRM in which devices, wallet items, participations and the like are noted; left
    out, they stay in the inbox. `wallet_contact_token` is the token of a wallet item that holds
    the contact's key; left out, the item's own name is taken for it.
    """

    url: Annotated[Text, Field(max_length=1024)]
    lists: tuple[Text, ...] | None = None
    campaigns: tuple[Text, ...] = ()
    apps: tuple[Text, ...] = ()
    wallet_tokens: tuple[Text, ...] = ()
    source_codes: tuple[Text, ...] = ()
    events: tuple[Literal[COMPANY_EVENTS], ...] = ("person_updated",)  # type: ignore[valid-type]
    opt_out_words: tuple[Text, ...] = OPT_OUT_WORDS
    facts_table: Text | None = None
    wallet_contact_token: Text | None = None


class Changes(Section):
    """How it is seen that contacts changed, and how many are carried at once.

    `by: updated_at` asks for contacts whose `column` is newer than what was seen before, and looks
    `overlap_s` seconds back: a transaction may end later than its rows say. `by: outbox` reads the
    rows of `table`, each naming a contact in `key`, in the order of `id`, and deletes what it has
    carried. Above `max_batch` changed contacts their fields are left to the daily job.
    """

    by: Literal["updated_at", "outbox"] = "updated_at"
    column: Text | None = None
    overlap_s: Annotated[Whole, Field(ge=0, le=86_400)] = 300
    table: Text | None = None
    id: Text = "id"
    key: Text = "contact_id"
    max_batch: Annotated[Whole, Field(ge=1, le=5_000)] = 500

    @model_validator(mode="after")
    def _says_where(self) -> Self:
        if self.by == "updated_at" and self.column is None:
            msg = "by: updated_at needs column, the contact column with the time of the last change"
            raise ValueError(msg)
        if self.by == "outbox" and self.table is None:
            msg = "by: outbox needs table, the CRM's table with one row for each changed contact"
            raise ValueError(msg)
        return self
