"""TLS without a proxy: callbacks from the platform's certificate only, health checks from all."""

import http.client
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from vibes_pipelines.callbacks.tls import PLATFORM_NAME, Tls, TlsError, certificate_names
from vibes_pipelines.cli.main import main
from vibes_pipelines_tests.support.callbacks import stored_rows
from vibes_pipelines_tests.support.certificates import Authority, Pair
from vibes_pipelines_tests.support.served_receiver import Served, removal, serving


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'ledger.db'}"


@pytest.fixture(scope="module")
def served(authority: Authority, url: str) -> Iterator[Served]:
    own = authority.sign("receiver.example.com")
    options = {
        "--tls-certificate": own.certificate,
        "--tls-key": own.key,
        "--client-ca": authority.certificate,
    }
    with serving(url, *(str(part) for pair in options.items() for part in pair)) as running:
        yield running


def request(
    served: Served, authority: Authority, method: str, path: str, shown: Pair | None = None
) -> int:
    context = ssl.create_default_context(cafile=authority.certificate)
    if shown:
        context.load_cert_chain(shown.certificate, shown.key)
    connection = http.client.HTTPSConnection("127.0.0.1", served.port, timeout=60, context=context)
    try:
        connection.request(method, path, removal(path) if method == "POST" else None)
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_platform_s_certificate_opens_the_door(
    served: Served, authority: Authority, url: str
) -> None:
    assert served.address.startswith("https://127.0.0.1:")
    shown = authority.sign(PLATFORM_NAME)
    assert request(served, authority, "POST", "/callbacks/platform", shown) == 200
    assert "/callbacks/platform" in {row["path"] for row in stored_rows(url)}


def test_no_certificate_or_another_name_is_refused(
    served: Served, authority: Authority, url: str
) -> None:
    assert request(served, authority, "POST", "/callbacks/nobody") == 403
    stranger = authority.sign("stranger.example.com")
    assert request(served, authority, "POST", "/callbacks/stranger", stranger) == 403
    assert {row["path"] for row in stored_rows(url)} <= {"/callbacks/platform"}


def test_a_health_check_needs_no_certificate(served: Served, authority: Authority) -> None:
    assert request(served, authority, "GET", "/health") == 200


def test_the_right_name_of_another_authority_is_not_even_heard(
    served: Served, authority: Authority, tmp_path: Path
) -> None:
    forged = Authority(tmp_path, "Somebody else").sign(PLATFORM_NAME)
    with pytest.raises(OSError, match=r"(?i)unknown ca|alert|reset|closed|broken pipe|eof"):
        request(served, authority, "POST", "/callbacks/forged", forged)


def test_plain_http_is_no_way_in(served: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)

    def ask() -> None:
        connection.request("POST", "/callbacks", removal("plain"))
        connection.getresponse()

    with pytest.raises((OSError, http.client.HTTPException)):
        ask()
    connection.close()


def test_names_are_those_of_the_subject_and_of_dns() -> None:
    shown = {
        "subject": ((("countryName", "US"),), (("commonName", "A.example.com"),)),
        "subjectAltName": (("DNS", "b.example.com"), ("IP Address", "192.0.2.1")),
    }
    assert certificate_names(shown) == {"a.example.com", "b.example.com"}
    assert certificate_names(None) == certificate_names({}) == frozenset()


@pytest.mark.parametrize(
    ("missing", "setting"),
    [
        ("certificate", "VIBES_CALLBACKS_TLS_CERTIFICATE"),
        ("key", "VIBES_CALLBACKS_TLS_KEY"),
        ("client_authority", "VIBES_CALLBACKS_CLIENT_CA"),
    ],
)
@pytest.mark.parametrize("exists", [True, False])
def test_a_file_that_cannot_be_used_is_named(
    authority: Authority, tmp_path: Path, missing: str, setting: str, *, exists: bool
) -> None:
    own = authority.sign("receiver.example.com")
    bad = tmp_path / "bad.pem"
    if exists:
        bad.write_text("nothing", encoding="utf-8")
    files = {
        "certificate": own.certificate,
        "key": own.key,
        "client_authority": authority.certificate,
    }
    with pytest.raises(TlsError, match=setting) as raised:
        Tls(**{**files, missing: bad}).context()
    assert "bad.pem" in str(raised.value)


@pytest.mark.parametrize(
    "options",
    [
        ["--tls-certificate", "a.pem"],
        ["--tls-key", "a.pem"],
        ["--client-ca", "a.pem"],
        ["--tls-certificate", "a.pem", "--tls-key", "a.pem", "--client-name", "x"],
    ],
)
def test_half_of_the_options_is_wrong_usage(options: list[str]) -> None:
    result = CliRunner().invoke(main, ["callbacks", "serve", *options])
    assert result.exit_code == 2
    assert "Usage" in result.output
