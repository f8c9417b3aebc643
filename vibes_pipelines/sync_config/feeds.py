"""`feeds` of `sync.yaml`: what each logical feed and its columns are called on this account."""

from collections.abc import Collection, Mapping

from pydantic import Field

from vibes_pipelines.sync_config.conditions import PlacedError, Section, Text

SHARE_FEEDS = ("share/persons", "share/subscriptions", "share/refreshes")
EXTRACT_FEEDS = ("extract/current_subscribers", "extract/subscriptions")
IDENTIFIERS: tuple[str, ...] = ("person_id", "person_key", "external_person_id", "mdn")
OF_THE_BASE: tuple[str, ...] = (
    "person_row",
    "carrier_code",
    "number_since",
    "unknown",
    "has_matched",
    "base_row",
    "file_row_number",
)
"""What the base calls its own columns, which stand beside those of the custom fields."""

_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "share/persons": (*IDENTIFIERS, "carrier_code", "updated_at"),
    "share/subscriptions": (
        *IDENTIFIERS,
        "subscription_list_id",
        "opt_in_date",
        "opt_out_date",
        "opt_out_reason",
    ),
    "share/refreshes": ("as_of",),
}
"""The logical columns that are read by name; of persons those of the mapped fields too."""


class Feed(Section):
    """What one logical feed is called on this account.

    Share feeds have an `object` (DATABASE.SCHEMA.TABLE) and `columns` (logical name → column);
    extract feeds have a file name `pattern` with `{company_key}` and `{date}`.
    """

    object: Text | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    pattern: Text | None = None


def refuse_what_is_not_read(feeds: Mapping[str, Feed], targets: Collection[str]) -> None:
    """Refuses settings of the other kind of feed, names without a day, and columns nothing reads.

    `targets` are the custom fields that are mapped. A misspelt name would switch off what its
    column is for, and nothing else would tell.

    Raises:
        PlacedError: at the setting, with what is allowed.
    """
    for name, feed in feeds.items():
        wrong = ("pattern",) if name in SHARE_FEEDS else ("object", "columns")
        for setting in wrong:
            if getattr(feed, setting):
                kind = "extract" if name in SHARE_FEEDS else "share"
                msg = f"belongs to {kind} feeds; leave it out"
                raise PlacedError(("feeds", name, setting), msg)
        if feed.pattern is not None and not _names_each_day(feed.pattern):
            msg = (
                f"{feed.pattern!r} names no file for each day; write {{date}} once and, where the"
                " name has it, {company_key}"
            )
            raise PlacedError(("feeds", name, "pattern"), msg)
        fields = targets if name == "share/persons" else ()
        read = (*_COLUMNS.get(name, ()), *fields)
        known = {column.lower() for column in read}  # columns are found in any case
        unknown = [column for column in feed.columns if column.lower() not in known]
        if unknown:
            allowed = ", ".join(dict.fromkeys(read))
            msg = f"nothing reads this; allowed: {allowed}"
            raise PlacedError(("feeds", name, "columns", unknown[0]), msg)


def _names_each_day(pattern: str) -> bool:
    """Else one file were taken for that of every day, or a name waited for that never comes."""
    others = pattern.replace("{company_key}", "").replace("{date}", "", 1)
    return "{date}" in pattern and set("{}/").isdisjoint(others)
