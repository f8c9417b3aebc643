"""Carries an alert out: to a webhook, to Slack, by e-mail, into a file. One function per channel.

Each raises an `AlertError` that names the channel and its host, never an address with a secret.
"""

import http.client
import json
import os
import smtplib
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from email.message import EmailMessage
from email.utils import make_msgid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vibes_pipelines.stages.alert_settings import AlertSettings, MailSettings

TIMEOUT_S = 10

Document = Mapping[str, Any]
"""An alert as the file and the webhook get it; see `alerts.Alert`."""


class AlertError(RuntimeError):
    """An alert could not be carried out; it is kept and tried again."""


def channels(settings: AlertSettings) -> dict[str, Callable[[Document], None]]:
    """Each configured channel by its name; the file first, which cannot be out of reach."""
    return dict(_channels(settings))


def _channels(settings: AlertSettings) -> Iterator[tuple[str, Callable[[Document], None]]]:
    file, mail = settings.file, settings.mail
    webhook, slack = settings.webhook, settings.slack_webhook
    if file:
        yield "file", lambda alert: append(file, alert)
    if webhook:
        yield "webhook", lambda alert: post("webhook", webhook.get_secret_value(), alert)
    if slack:
        yield (
            "slack",
            lambda alert: post("slack", slack.get_secret_value(), {"text": alert["text"]}),
        )
    if mail:
        yield "mail", lambda alert: send_mail(mail, alert)


def append(path: Path, alert: Document) -> None:
    """Adds one line of JSON; readers of the file see whole lines."""
    line = json.dumps(alert, sort_keys=True, ensure_ascii=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
    except OSError as refused:
        msg = f"file: {path} cannot be written ({refused.strerror}); see VIBES_ALERT_FILE"
        raise AlertError(msg) from refused


def post(channel: str, address: str, document: Document) -> None:
    """Posts JSON; only an answer below 300 counts."""
    host = urlsplit(address).hostname
    request = urllib.request.Request(  # noqa: S310 - the operator's own webhook
        address, json.dumps(document).encode(), {"Content-Type": "application/json"}
    )
    try:
        with _opener().open(request, timeout=TIMEOUT_S):
            return
    except urllib.error.HTTPError as refused:
        refused.close()
        msg = f"{channel}: {host} answered {refused.code}; see its VIBES_ALERT_* address"
        raise AlertError(msg) from None  # the cause holds the address, which is a secret
    except (OSError, ValueError, http.client.HTTPException):
        msg = f"{channel}: {host} cannot be reached; see its VIBES_ALERT_* address"
        raise AlertError(msg) from None


def _opener() -> urllib.request.OpenerDirector:
    """Follows no redirect: a POST that is redirected becomes a GET and loses its alert."""

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: object, **__: object) -> None:
            return None

    return urllib.request.build_opener(Stay())


def send_mail(settings: MailSettings, alert: Document) -> None:
    """Sends one message over TLS, unless `none` was chosen for a server of one's own."""
    try:
        message = _message(settings, alert)
        with _connected(settings) as server:
            if settings.user:
                password = settings.password
                server.login(settings.user, password.get_secret_value() if password else "")
            server.send_message(message)
    except smtplib.SMTPAuthenticationError:
        msg = f"mail: {settings.host} refused the login; see VIBES_ALERT_SMTP_USER and _PASSWORD"
        raise AlertError(msg) from None
    except ssl.SSLError as untrusted:
        msg = f"mail: the certificate of {settings.host} is not trusted; see VIBES_ALERT_SMTP_CA"
        raise AlertError(msg) from untrusted
    except (OSError, smtplib.SMTPException) as refused:
        msg = f"mail: {settings.host}:{settings.port} did not take it ({type(refused).__name__})"
        raise AlertError(msg) from refused
    except ValueError as unreadable:
        msg = (
            f"mail: a host or an address cannot be used ({type(unreadable).__name__}); "
            "see VIBES_ALERT_SMTP_HOST, VIBES_ALERT_FROM and VIBES_ALERT_TO"
        )
        raise AlertError(msg) from unreadable


def _message(settings: MailSettings, alert: Document) -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = alert["title"]
    message["From"] = settings.sender
    message["To"] = ", ".join(settings.receivers)
    message["Message-ID"] = make_msgid(domain=settings.sender.rpartition("@")[2] or None)
    message.set_content(alert["text"])
    return message


def _connected(settings: MailSettings) -> smtplib.SMTP:
    ca_file = str(settings.ca_file) if settings.ca_file else None
    if settings.security == "none":
        return smtplib.SMTP(settings.host, settings.port, timeout=TIMEOUT_S)
    trusted = ssl.create_default_context(cafile=ca_file)
    if settings.security == "tls":
        return smtplib.SMTP_SSL(settings.host, settings.port, timeout=TIMEOUT_S, context=trusted)
    server = smtplib.SMTP(settings.host, settings.port, timeout=TIMEOUT_S)
    try:
        server.starttls(context=trusted)
    except BaseException:
        server.close()
        raise
    return server
