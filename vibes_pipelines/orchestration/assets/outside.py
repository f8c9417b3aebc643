"""External specs: the tables and files of other systems from which snapshots are landed."""

import dagster as dg

from vibes_pipelines.orchestration.keys import OUTSIDE, OWNERS, PII

_DESCRIPTIONS = {
    "share/persons": (
        "The persons of the Vibes data share, refreshed once a day; read through Snowflake.",
        {"snowflake"},
    ),
    "share/subscriptions": (
        "Every subscription, current and ended, of the Vibes data share.",
        {"snowflake"},
    ),
    "extract/current_subscribers": (
        "The daily full extract of current subscribers on the Vibes SFTP account.",
        {"sftp"},
    ),
    "extract/subscriptions": (
        "The daily extract of subscription events on the Vibes SFTP account.",
        {"sftp"},
    ),
    "crm/contacts": (
        "The CRM's contacts, read with SQLAlchemy; opt-outs are written back into it.",
        {"sqlalchemy"},
    ),
}

OUTSIDE_SPECS = [
    dg.AssetSpec(
        OUTSIDE[feed],
        description=description,
        group_name="outside",
        kinds=kinds,
        owners=OWNERS,
        tags=PII,
    )
    for feed, (description, kinds) in _DESCRIPTIONS.items()
]
