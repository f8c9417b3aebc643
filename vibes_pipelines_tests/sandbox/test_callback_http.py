"""The way out of the sandbox: loopback only, no proxies, trusted certificates."""

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from vibes_pipelines.sandbox.callbacks_http import Attempt, parse_url
from vibes_pipelines.sandbox.callbacks_records import Destination
from vibes_pipelines.sandbox.platform_refusals import CallbackUrlError
from vibes_pipelines_tests.sandbox.callback_parts import CallingStandIn, calling_platform
from vibes_pipelines_tests.sandbox.receiver import eventually, receiving
from vibes_pipelines_tests.sandbox.stand_in import ADA_KEY


@pytest.fixture
def api() -> Iterator[CallingStandIn]:
    with calling_platform() as stand_in:
        yield stand_in


def happen(api: CallingStandIn) -> None:
    api.platform.edit(ADA_KEY, {"first_name": "Augusta"}, api.platform.clock())


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:80/x",
        "//127.0.0.1/x",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "http:///x",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1/a b",
        "http://127.0.0.1/a\r\nHost: x",
        "http://127.0.0.1/\u00e9",
        "http://127.0.0.1/#top",
        "http://user:secret@127.0.0.1/",
    ],
)
def test_urls_that_are_none_are_refused(url: str) -> None:
    with pytest.raises(CallbackUrlError):
        parse_url(url)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "[::1]", "localhost", "LOCALHOST"])
def test_every_spelling_of_loopback_is_taken(host: str) -> None:
    endpoint = parse_url(f"http://{host}:8080/a?b=c")
    assert (endpoint.port, endpoint.target) == (8080, "/a?b=c")


def test_the_sender_itself_refuses_to_leave_loopback() -> None:
    with pytest.raises(CallbackUrlError, match="loopback"):
        Attempt(Destination("http://192.0.2.1/"), b"{}", 1).send()


def test_proxies_of_the_environment_are_not_used(
    api: CallingStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with receiving() as receiver:
        api.register("person_updated", receiver)
        happen(api)
        assert api.settle() == {"delivered": 1, "queued": 1}


def test_https_needs_a_certificate_that_is_trusted(
    api: CallingStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with receiving(context=context) as receiver:
        api.register("person_updated", receiver)
        happen(api)
        eventually(lambda: api.counts.get("retried", 0) > 0, "a refused certificate")
        assert receiver.received == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        api.callbacks.queue.make_due()
        receiver.wait_for(1)
        assert api.settle()["delivered"] == 1


def self_signed(folder: Path) -> Path:
    """A certificate of 127.0.0.1 with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "receiver.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    return path
