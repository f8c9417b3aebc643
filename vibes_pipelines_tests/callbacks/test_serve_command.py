"""`callbacks serve` as a process: its address, its stops, and every answer kept through a kill."""

import http.client
import os
import signal
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import CliRunner

from vibes_pipelines.cli.main import main
from vibes_pipelines_tests.support.callbacks import http_request, stored_rows
from vibes_pipelines_tests.support.served_receiver import WAIT_S, removal, serving

SENDERS = 6
KILL_AFTER = 150


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    return str(request.getfixturevalue("postgresql_url"))


@dataclass
class Stream:
    """Posts bodies from several threads until the receiver is gone; keeps what was answered."""

    port: int
    answered: set[bytes] = field(default_factory=set)
    enough: threading.Event = field(default_factory=threading.Event)

    def send(self, sender: int) -> None:
        number = 0
        with suppress(OSError, http.client.HTTPException):  # also an answer cut in its body
            while True:
                body = removal(f"{sender}/{number}")
                status, _ = http_request(self.port, "POST", "/callbacks", body)
                if 200 <= status < 300:
                    self.answered.add(body)
                if len(self.answered) >= KILL_AFTER:
                    self.enough.set()
                number += 1


def test_every_body_that_was_answered_survives_a_kill(url: str) -> None:
    with serving(url) as served:
        stream = Stream(served.port)
        senders = [threading.Thread(target=stream.send, args=[n]) for n in range(SENDERS)]
        for sender in senders:
            sender.start()
        assert stream.enough.wait(WAIT_S)
        os.kill(served.process.pid, signal.SIGKILL)
        for sender in senders:
            sender.join(WAIT_S)
    kept = {row["body"] for row in stored_rows(url)}
    assert len(stream.answered) >= KILL_AFTER
    assert stream.answered <= kept
    with serving(url) as again:  # and the next receiver goes on
        assert http_request(again.port, "POST", "/callbacks", removal("next"))[0] == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_answers_what_is_under_way_and_ends_with_0(tmp_path: Path, number: int) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    body = removal("slow")
    head = f"POST /callbacks HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with serving(url) as served:
        with socket.create_connection(("127.0.0.1", served.port), WAIT_S) as connection:
            connection.sendall(head.encode() + body[:10])
            assert http_request(served.port, "GET", "/health")[0] == 200
            served.process.send_signal(number)
            connection.sendall(body[10:])
            assert connection.recv(12) == b"HTTP/1.1 200"
        _, errors = served.process.communicate(timeout=WAIT_S)
        assert (served.process.returncode, errors) == (0, "")
    assert [row["body"] for row in stored_rows(url)] == [body]


def test_two_receivers_share_one_inbox(url: str) -> None:
    with serving(url) as one, serving(url) as other:
        for n in range(20):
            for served in (one, other):
                assert http_request(served.port, "POST", "/callbacks", removal(str(n)))[0] == 200
    assert len(stored_rows(url)) == 20


def test_an_allow_list_is_told_on_the_command_line_or_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    with serving(url, "--allow", "192.0.2.0/24", "--allow", "198.51.100.7") as served:
        assert http_request(served.port, "POST", "/callbacks", b"{}")[0] == 403
    monkeypatch.setenv("VIBES_CALLBACKS_ALLOW", "192.0.2.0/24 127.0.0.1")
    monkeypatch.setenv("VIBES_CALLBACKS_MAX_BYTES", "10")
    with serving(url) as served:
        assert http_request(served.port, "POST", "/callbacks", b"x" * 20)[0] == 200
    assert [len(row["body"]) for row in stored_rows(url)] == [10]


def _run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["callbacks", *arguments])
    return result.exit_code, result.output


def test_help_and_wrong_usage() -> None:
    for command in ([], ["serve"]):
        code, output = _run(*command, "--help")
        assert (code, output.startswith("Usage: ")) == (0, True)
    assert _run("serve", "--port", "70000")[0] == 2
    code, output = _run("serve", "--allow", "192.0.2.1/24")
    assert (code, "example: 192.0.2.0/24" in output) == (2, True)


def test_a_port_in_use_ends_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIBES_LEDGER_URL", f"sqlite:///{tmp_path / 'ledger.db'}")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, output = _run("serve", "--port", str(taken.getsockname()[1]))
    assert (code, output.startswith("Error: "), "Traceback" in output) == (1, True, False)


@pytest.mark.parametrize(
    "url", ["postgresql+psycopg://user:s3cret@127.0.0.1:1/ledger", "s3cret", "nosuch://s3cret@x/y"]
)
def test_a_database_that_is_away_ends_with_1_and_shows_no_password(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("VIBES_LEDGER_URL", url)
    code, output = _run("serve", "--port", "0")
    assert code == 1
    assert "check VIBES_LEDGER_URL" in output
    assert "s3cret" not in output
