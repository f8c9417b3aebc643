"""Columns of every standard data extract, and the rows of those that tell of activity.

Columns and their order are those of the Vibes documentation; where its pages are cut off (messages
after `message_status`) the last columns are an assumption. The extracts of subscribers are in
`extracts`.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone

from vibes_pipelines.sandbox.account import Account
from vibes_pipelines.sandbox.activity import WalletInstance
from vibes_pipelines.sandbox.wallet import object_uid

Row = tuple[str | None, ...]

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "current_subscribers": (
        "mdn",
        "person_id",
        "external_person_id",
        "carrier_code",
        "mdn_e164_format",
        "country_code",
        "subscription_list_id",
    ),
    "subscriptions": (
        "person_id",
        "external_person_id",
        "mdn",
        "company_id",
        "carrier_code",
        "subscription_list_id",
        "subscription_list_name",
        "opt_in_date",
        "opt_out_date",
        "subscription_event",
        "opt_out_reason",
        "activity_description",
        "activity_id",
    ),
    "messages": (
        "person_id",
        "external_person_id",
        "mdn",
        "carrier_code",
        "message_id",
        "client_message_id",
        "timestamp",
        "message_status",
        "message",
        "activity_type",
        "activity_id",
        "company_id",
    ),
    "pushmessages": (
        "person_id",
        "external_person_id",
        "vibes_device_id",
        "os",
        "push_token",
        "message_id",
        "client_message_id",
        "receipt_at",
        "response_text",
        "activity_type",
        "activity_id",
        "company_id",
        "app_id",
        "content",
        "subject",
    ),
    "urls": (
        "click_id",
        "person_id",
        "external_person_id",
        "mdn",
        "message_id",
        "click_timestamp",
        "short_domain",
        "short_key",
        "long_url",
        "first_click",
        "first_device_click",
        "activity_type",
        "activity_id",
        "company_id",
    ),
    "walletinstance": (
        "wallet_instance_uid",
        "instance_event",
        "registered_at",
        "unregistered_at",
        "wallet_object_uid",
        "wallet_provider",
        "platform",
        "company_id",
        "campaign_uid",
        "uuid",
        "current_flag",
        "shared_instance",
    ),
    "walletpageviews": (
        "view_uid",
        "campaign_uid",
        "company_id",
        "wallet_page_type",
        "user_agent",
        "uuid",
        "platform",
        "viewed_at",
    ),
}

QUOTED: Mapping[str, frozenset[str]] = {
    "messages": frozenset({"message"}),
    "pushmessages": frozenset({"content"}),
}
"""The only columns that are quoted: they hold what was sent."""

FORMER_NAMES: Mapping[str, str] = {
    "current_subscribers": "CURRENT_SUBSCRIBERS_{day}.TXT",
    "subscriptions": "SUBSCRIPTIONS{day}.TXT",
    "messages": "MESSAGES{day}.TXT",
    "pushmessages": "PUSHMESSAGES_{day}.TXT",
    "urls": "URLS{day}.TXT",
    "walletinstance": "WALLETINSTANCE_{day}.TXT",
    "walletpageviews": "WALLETPAGEVIEWS_{day}.TXT",
}
"""File names of the older pages."""

_ZONE = timezone(timedelta(hours=-6))
"""The documentation's samples carry -0600."""

_WALLET_PROVIDERS = {"passbook": "Pass", "google_wallet": "Wallet"}

Span = Callable[[datetime | None], bool]
"""Whether an instant belongs to the extract."""


def stamp(instant: datetime) -> str:
    """An instant as extracts of messages and subscriptions show it."""
    return f"{instant.astimezone(_ZONE):%Y-%m-%d %H:%M:%S %z}"


def _wallet_stamp(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _messages(account: Account, is_in: Span) -> Iterator[Row]:
    for number, sent in account.activity.messages.items():
        if is_in(sent.at):
            yield (
                sent.person_key,
                sent.external_person_id,
                sent.mdn,
                sent.carrier_code,
                str(number),
                None,
                stamp(sent.at),
                sent.status,
                sent.text,
                sent.activity_type,
                sent.activity_id,
                account.platform.company_key,
            )


def _push_messages(account: Account, is_in: Span) -> Iterator[Row]:
    for number, sent in account.activity.push_messages.items():
        if is_in(sent.at):
            yield (
                sent.person_key,
                sent.external_person_id,
                sent.vibes_device_id,
                sent.os,
                sent.push_token,
                str(number),
                None,
                stamp(sent.at),
                sent.response,
                sent.activity_type,
                sent.activity_id,
                account.platform.company_key,
                sent.app_id,
                sent.content,
                None,
            )


def _urls(account: Account, is_in: Span) -> Iterator[Row]:
    for number, click in account.activity.clicks.items():
        if is_in(click.at):
            is_first = "true" if click.is_first else "false"
            yield (
                str(number),
                click.person_key,
                click.external_person_id,
                click.mdn,
                click.message_id,
                stamp(click.at),
                "sho.invalid",
                click.short_key,
                click.long_url,
                is_first,
                is_first,
                "Broadcast",
                None,
                account.platform.company_key,
            )


def _wallet_instances(account: Account, is_in: Span) -> Iterator[Row]:
    """One row an instance: one that came and went within the span shows only that it went."""
    instances = account.activity.wallet_instances
    for instance in instances.values():
        has_gone = is_in(instance.unregistered_at)
        if not has_gone and not is_in(instance.registered_at):
            continue
        gone = instance.unregistered_at if has_gone else None
        yield (
            instance.uid,
            "unregistered" if has_gone else "registered",
            _wallet_stamp(instance.registered_at),
            None if gone is None else _wallet_stamp(gone),
            object_uid(instance.uuid),
            _WALLET_PROVIDERS[instance.provider],
            instance.platform,
            account.platform.company_key,
            account.wallet.campaigns[instance.token].uid,
            instance.uuid,
            "FALSE" if has_gone else "TRUE",
            "TRUE" if _is_shared(instance, instances) else "FALSE",
        )


def _is_shared(one: WalletInstance, instances: Mapping[str, WalletInstance]) -> bool:
    """Whether the pass is on another phone too."""
    return any(
        other.uuid == one.uuid and other.uid != one.uid and other.unregistered_at is None
        for other in instances.values()
    )


def _page_views(account: Account, is_in: Span) -> Iterator[Row]:
    for number, view in account.activity.page_views.items():
        if is_in(view.at):
            yield (
                f"view-{number}",
                account.wallet.campaigns[view.token].uid,
                account.platform.company_key,
                view.page_type,
                view.user_agent[:255],
                view.uuid,
                view.platform,
                _wallet_stamp(view.at),
            )


ACTIVITY_ROWS: Mapping[str, Callable[[Account, Span], Iterator[Row]]] = {
    "messages": _messages,
    "pushmessages": _push_messages,
    "urls": _urls,
    "walletinstance": _wallet_instances,
    "walletpageviews": _page_views,
}
"""What each extract of activity tells of a span of time."""
