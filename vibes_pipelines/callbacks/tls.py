"""TLS of the receiver, for when no reverse proxy ends it: own certificate, and whose is asked for.

The platform presents a client certificate to whoever asks for one (the Vibes documentation, Client
Certificate Authentication for Callbacks). Its authority signs for many others too, so that the
name in the certificate is compared as well.
"""

import ssl
from asyncio import Transport
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uvicorn.config import Config

from vibes_pipelines.callbacks.connections import ReceiverProtocol

PLATFORM_NAME = "catapult-app.vibescm.com"
"""The common name of the platform's client certificate."""

STATE_KEY = "client_names"


class TlsError(ValueError):
    """A certificate, key or authority cannot be used; the message names the file and setting."""


@dataclass(frozen=True)
class Tls:
    """Files in PEM. With `client_authority` callbacks need a certificate in one of these names."""

    certificate: Path
    key: Path
    client_authority: Path | None = None
    client_names: Sequence[str] = (PLATFORM_NAME,)

    def context(self) -> ssl.SSLContext:
        """What connections are accepted with.

        A certificate is asked for and not demanded, so that health checks and sign-ups need none;
        one that is shown and not trusted ends the handshake.

        Raises:
            TlsError: a file is missing or is not what it should be.
        """
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as unusable:
            msg = (
                f"the certificate {self.certificate} and the key {self.key} cannot be used: "
                f"{_cause(unusable)}; check VIBES_CALLBACKS_TLS_CERTIFICATE and "
                "VIBES_CALLBACKS_TLS_KEY"
            )
            raise TlsError(msg) from unusable
        if self.client_authority is not None:
            self._ask_for_certificates(context, self.client_authority)
        return context

    def _ask_for_certificates(self, context: ssl.SSLContext, authority: Path) -> None:
        try:
            context.load_verify_locations(authority)
        except (OSError, ssl.SSLError) as unusable:
            msg = (
                f"the authority {authority} cannot be used: {_cause(unusable)}; check "
                "VIBES_CALLBACKS_CLIENT_CA"
            )
            raise TlsError(msg) from unusable
        context.verify_mode = ssl.CERT_OPTIONAL


class CertificateProtocol(ReceiverProtocol):
    """Tells the application who the client's certificate says it is."""

    app_state: dict[str, Any]

    def connection_made(self, transport: Transport) -> None:
        """Every request of the connection finds the names in its state."""
        super().connection_made(transport)
        names = certificate_names(transport.get_extra_info("peercert"))
        self.app_state = {**self.app_state, STATE_KEY: names}


def apply_tls(config: Config, tls: Tls) -> None:
    """Serves with TLS; to be called before the server starts."""
    config.http = CertificateProtocol
    config.load()
    config.ssl = tls.context()


def certificate_names(certificate: Mapping[str, Any] | None) -> frozenset[str]:
    """The common name and the DNS names of a verified certificate, in lower case."""
    if not certificate:
        return frozenset()
    subject = (pair for part in certificate.get("subject", ()) for pair in part)
    common = {value for key, value in subject if key == "commonName"}
    others = {value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"}
    return frozenset(name.lower() for name in common | others)


def _cause(unusable: OSError) -> str:
    return getattr(unusable, "reason", None) or unusable.strerror or type(unusable).__name__
