"""The only way out of the sandbox: one HTTP request to a customer's receiver on loopback.

A URL that is not on loopback is refused when it is registered and again when it is opened, which is
stricter than the platform. No name is ever resolved, no redirect followed, no proxy used.
"""

import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from vibes_pipelines.sandbox.callbacks_records import Destination
from vibes_pipelines.sandbox.platform_refusals import CallbackUrlError

_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
_LOCALHOST = ("127.0.0.1", "::1")
_PORTS = {"http": 80, "https": 443}
_LIVE_TIMEOUT_S = 1.0
_MAX_ANSWER = 65_536
"""How much of an answer's body is read, in bytes; it means nothing to the platform."""


@dataclass(frozen=True)
class _Endpoint:
    """A destination's parts: every address is on loopback, `target` is path and query."""

    scheme: str
    host: str
    addresses: tuple[str, ...]
    port: int
    target: str

    def connect(self, timeout_s: float) -> socket.socket:
        """A connection to the first address that accepts one; raises OSError."""
        for address in self.addresses[:-1]:
            with suppress(OSError):
                return socket.create_connection((address, self.port), timeout_s)
        return socket.create_connection((self.addresses[-1], self.port), timeout_s)


def parse_url(url: str) -> _Endpoint:
    """The parts of a destination's URL; raises CallbackUrlError, above all beyond loopback."""
    if not url.isascii() or not url.isprintable() or " " in url:
        raise CallbackUrlError("destination.url takes printable ASCII characters without blanks")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise CallbackUrlError(f"destination.url is not a URL: {error}") from error
    if parts.scheme not in _PORTS or not parts.hostname:
        raise CallbackUrlError("destination.url takes an absolute http or https URL")
    if "@" in parts.netloc or parts.fragment:
        raise CallbackUrlError("destination.url takes neither a user nor a fragment")
    if port == 0:
        raise CallbackUrlError("destination.url takes a port from 1 to 65535")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _Endpoint(
        scheme=parts.scheme,
        host=parts.hostname,
        addresses=_loopback_addresses(parts.hostname),
        port=port or _PORTS[parts.scheme],
        target=target,
    )


def _loopback_addresses(host: str) -> tuple[str, ...]:
    if host == "localhost":
        return _LOCALHOST
    try:
        address = ip_address(host)
    except ValueError:
        address = None
    if address is None or not any(address in network for network in _LOOPBACK):
        raise CallbackUrlError(
            "this sandbox sends callbacks to loopback only; give destination.url the host"
            " 127.0.0.1, [::1] or localhost"
        )
    return (str(address),)


def check_live(url: str) -> None:
    """Raises CallbackUrlError when nothing listens at the URL."""
    try:
        parse_url(url).connect(_LIVE_TIMEOUT_S).close()
    except OSError as error:
        raise CallbackUrlError(
            "nothing listens at destination.url; start the receiver before registering it"
        ) from error


class Attempt:
    """One attempt to send, which another thread may abort."""

    def __init__(self, destination: Destination, content: bytes, timeout_s: float) -> None:
        self._destination = destination
        self._content = content
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None

    def send(self) -> int:
        """The status of the answer. Raises OSError (TimeoutError, too) or HTTPException.

        The timeout holds for connecting and for every wait on the socket.
        """
        endpoint = parse_url(self._destination.url)
        connection = self._open(endpoint)
        try:
            connection.request(
                self._destination.method,
                endpoint.target,
                self._content,
                {"Content-Type": self._destination.content_type},
            )
            response = connection.getresponse()
            # The status decides; reading on only lets the receiver finish its answer in peace.
            with suppress(OSError, HTTPException):
                response.read(_MAX_ANSWER)
            return response.status
        finally:
            connection.close()

    def abort(self) -> None:
        """Break the connection, if there is one, so that `send` fails at once."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _open(self, endpoint: _Endpoint) -> HTTPConnection:
        """A connection of which http.client need not know how it came to its socket."""
        plain = endpoint.connect(self._timeout_s)
        self._socket = plain
        if endpoint.scheme == "http":
            connection = HTTPConnection(endpoint.host, endpoint.port)
            connection.sock = plain
            return connection
        secure = HTTPSConnection(endpoint.host, endpoint.port)
        try:
            context = ssl.create_default_context()
            secure.sock = context.wrap_socket(plain, server_hostname=endpoint.host)
        except OSError:
            plain.close()
            raise
        self._socket = secure.sock
        return secure
