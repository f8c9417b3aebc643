"""Alert settings: where alerts go, read from the environment (`VIBES_ALERT_*`).

Without any channel nothing is sent. Secrets are `SecretStr`: a webhook's address is one.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import SecretStr

from vibes_pipelines.settings import SettingsError

Security = Literal["starttls", "tls", "none"]

WINDOW_S = 6 * 3600
_PORTS: Mapping[Security, int] = {"starttls": 587, "tls": 465, "none": 25}


@dataclass(frozen=True)
class MailSettings:
    """The SMTP server, sender and receivers. `ca_file`: an authority of your own (PEM)."""

    host: str
    port: int
    security: Security
    user: str | None
    password: SecretStr | None
    sender: str
    receivers: tuple[str, ...]
    ca_file: Path | None


@dataclass(frozen=True)
class AlertSettings:
    """Where alerts go. `window_s`: the same cause is told once in so many seconds.

    `ui_url` is the address of the Dagster UI, for links.
    """

    webhook: SecretStr | None
    slack_webhook: SecretStr | None
    file: Path | None
    mail: MailSettings | None
    window_s: int
    ui_url: str | None

    @property
    def has_channel(self) -> bool:
        """True when an alert goes anywhere."""
        return any((self.webhook, self.slack_webhook, self.file, self.mail))


def read_alert_settings(environment: Mapping[str, str] | None = None) -> AlertSettings:
    """The alert settings of an environment, by default of the process.

    Raises:
        SettingsError: names the variable and what it may be.
    """
    found = os.environ if environment is None else environment
    webhook, slack = found.get("VIBES_ALERT_WEBHOOK"), found.get("VIBES_ALERT_SLACK_WEBHOOK")
    file = found.get("VIBES_ALERT_FILE")
    ui_url = (found.get("VIBES_ALERT_UI_URL") or "").rstrip("/")
    return AlertSettings(
        webhook=_address("VIBES_ALERT_WEBHOOK", webhook),
        slack_webhook=_address("VIBES_ALERT_SLACK_WEBHOOK", slack),
        file=Path(file).expanduser().absolute() if file else None,
        mail=_mail(found),
        window_s=_whole(found, "VIBES_ALERT_WINDOW_S", WINDOW_S),
        ui_url=ui_url or None,
    )


def _address(name: str, value: str | None) -> SecretStr | None:
    if not value:
        return None
    if not value.startswith(("https://", "http://")):
        msg = f"{name} must begin with https:// (or http:// inside your own network)"
        raise SettingsError(msg)
    return SecretStr(value)


def _mail(found: Mapping[str, str]) -> MailSettings | None:
    host = found.get("VIBES_ALERT_SMTP_HOST")
    if not host:
        return None
    receivers = tuple(one for one in re.split(r"[\s,;]+", found.get("VIBES_ALERT_TO", "")) if one)
    if not receivers:
        msg = "VIBES_ALERT_SMTP_HOST is set, and VIBES_ALERT_TO names nobody"
        raise SettingsError(msg)
    password, ca_file = found.get("VIBES_ALERT_SMTP_PASSWORD"), found.get("VIBES_ALERT_SMTP_CA")
    user, security = found.get("VIBES_ALERT_SMTP_USER") or None, _security(found)
    if user and security == "none":
        msg = (
            "VIBES_ALERT_SMTP_SECURITY is none, and a password must not travel in clear; "
            "use starttls or tls, or leave VIBES_ALERT_SMTP_USER out"
        )
        raise SettingsError(msg)
    return MailSettings(
        host=host,
        port=_whole(found, "VIBES_ALERT_SMTP_PORT", _PORTS[security]),
        security=security,
        user=user,
        password=SecretStr(password) if password else None,
        sender=found.get("VIBES_ALERT_FROM") or receivers[0],
        receivers=receivers,
        ca_file=Path(ca_file).expanduser() if ca_file else None,
    )


def _security(found: Mapping[str, str]) -> Security:
    match found.get("VIBES_ALERT_SMTP_SECURITY") or "starttls":
        case "starttls":
            return "starttls"
        case "tls":
            return "tls"
        case "none":
            return "none"
        case other:
            msg = f"VIBES_ALERT_SMTP_SECURITY must be starttls, tls or none, not {other!r}"
            raise SettingsError(msg)


def _whole(found: Mapping[str, str], name: str, default: int) -> int:
    text = found.get(name) or str(default)
    if not text.isdigit():
        msg = f"{name} must be a whole number of 0 or more, not {text!r}"
        raise SettingsError(msg)
    return int(text)
