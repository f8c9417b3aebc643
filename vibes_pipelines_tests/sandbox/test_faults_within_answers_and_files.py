"""Scripted faults in storms, within answers, at the SFTP and of import reports."""

import asyncio
import io
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import IncompleteRead
from pathlib import Path
from types import SimpleNamespace

import paramiko
import pytest

from vibes_pipelines.sandbox import sftp_server
from vibes_pipelines.sandbox.faults import Faults, FaultScriptError, parse_faults
from vibes_pipelines.sandbox.pickup import ImportPickup
from vibes_pipelines.sandbox.sftp_server import SftpServer, generate_key_pair
from vibes_pipelines_tests.sandbox.stand_in import (
    ADA_KEY,
    ADA_MDN,
    StandIn,
    build_platform,
)

ADA = f"/mobiledb/persons/{ADA_KEY}"
EDIT = {"custom_fields": {"first_name": "Augusta"}}


def test_a_storm_strikes_its_share_of_the_requests_the_same_every_time() -> None:
    script = parse_faults([{"action": "status", "status": 503, "chance": 0.1}])
    storms = (Faults(script), Faults(script))
    runs = [[faults.take("GET", "/") is not None for _ in range(1_000)] for faults in storms]
    assert runs[0] == runs[1]
    assert 70 < sum(runs[0]) < 130


def test_a_storm_of_429_reaches_the_client(api: StandIn) -> None:
    api.script({"action": "status", "status": 429, "chance": 0.5})
    statuses = Counter(api.call("GET", ADA).status for _ in range(40))
    assert set(statuses) == {200, 429}


def test_a_partial_answer_ends_in_its_middle_with_the_effect_done(api: StandIn) -> None:
    api.script({"action": "partial", "times": 1})
    with pytest.raises(IncompleteRead) as broken:
        api.call("PUT", ADA, EDIT)
    assert broken.value.partial
    assert api.platform.persons[ADA_KEY].custom["first_name"] == "Augusta"
    assert api.call("GET", ADA).status == 200


def test_a_stalled_answer_arrives_whole(api: StandIn) -> None:
    api.script({"action": "stall", "delay_s": 0.3, "times": 1})
    since = time.monotonic()
    assert api.call("GET", ADA).body["person_key"] == ADA_KEY
    assert time.monotonic() - since >= 0.3


@pytest.mark.parametrize(
    "entry",
    [
        {"action": "half"},
        {"action": "status", "on": "sftp"},
        {"action": "slow", "on": "reports"},
        {"action": "slow", "on": "moon"},
        {"action": "partial", "when": "before"},
        {"action": "status", "chance": 1.1},
        {"action": "status", "chance": "often"},
    ],
)
def test_faults_in_the_wrong_place_are_refused(entry: object) -> None:
    with pytest.raises(FaultScriptError):
        parse_faults([entry])


def test_faults_of_one_place_do_not_strike_another() -> None:
    faults = Faults(parse_faults([{"action": "refuse", "on": "sftp", "times": 1}]))
    assert faults.take("GET", "/") is None
    assert faults.take("IMPORT", "a.persons", "reports") is None
    assert faults.take("SESSION", "/", "sftp", {"refuse"}) is not None


@contextmanager
def account(tmp_path: Path, *script: dict[str, object]) -> Iterator[paramiko.SSHClient]:
    """A logged-in client of an SFTP account with these faults; `a.txt` has 100,000 bytes."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a.txt").write_bytes(b"x" * 100_000)
    private, public = generate_key_pair(tmp_path / "keys")
    faults = Faults(parse_faults(list(script)))
    server = SftpServer(tmp_path / "root", "vibes", public, faults=faults)
    try:
        port = server.start()
        (tmp_path / "known_hosts").write_text(server.known_hosts_line())
        with paramiko.SSHClient() as client:
            client.load_host_keys(str(tmp_path / "known_hosts"))
            client.connect(
                "127.0.0.1", port, "vibes", key_filename=str(private), look_for_keys=False
            )
            yield client
    finally:
        server.stop()


def read(sftp: paramiko.SFTPClient) -> bytes:
    with sftp.open("/a.txt") as file:
        return file.read()


def test_a_session_is_refused_and_the_next_one_served(tmp_path: Path) -> None:
    with account(tmp_path, {"on": "sftp", "action": "refuse", "times": 1}) as client:
        with pytest.raises(paramiko.ChannelException):
            client.open_sftp()
        with client.open_sftp() as sftp:
            assert sftp.listdir("/") == ["a.txt"]


def test_a_file_ends_in_its_middle_once(tmp_path: Path) -> None:
    with (
        account(tmp_path, {"on": "sftp", "action": "half", "times": 1}) as client,
        client.open_sftp() as sftp,
    ):
        assert [len(read(sftp)) for _ in range(2)] == [50_000, 100_000]


def test_a_slow_file_takes_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await asyncio.sleep(seconds)

    timed = SimpleNamespace(**vars(asyncio) | {"sleep": sleep})
    monkeypatch.setattr(sftp_server, "asyncio", timed)
    fault = {"on": "sftp", "action": "slow", "delay_s": 0.3, "match": {"path_regex": "a.txt"}}
    with account(tmp_path, fault) as client, client.open_sftp() as sftp:
        since = time.monotonic()
        read(sftp)
        assert time.monotonic() - since >= 0.9
        before = slept.count(0.3)
        sftp.putfo(io.BytesIO(b"y" * 1_000), "/b.txt")
        assert slept.count(0.3) == before >= 3, "another file is not slow"


def test_a_connection_breaks_in_the_middle_of_a_file(tmp_path: Path) -> None:
    with account(tmp_path, {"on": "sftp", "action": "reset"}) as client:
        sftp = client.open_sftp()
        with pytest.raises((OSError, EOFError, paramiko.SSHException)):
            read(sftp)


@pytest.mark.parametrize(
    ("action", "first", "then"),
    [
        ("duplicate", ["report", "summary"], ["report", "summary"]),
        ("late", [], ["report", "summary"]),
        ("half", ["report"], []),
    ],
)
def test_reports_come_twice_late_or_cut(
    tmp_path: Path, action: str, first: list[str], then: list[str]
) -> None:
    in_dir, report_dir = tmp_path / "in", tmp_path / "reports"
    for folder in (in_dir, report_dir):
        folder.mkdir()
    faults = Faults(parse_faults([{"on": "reports", "action": action, "delay_s": 0}]))
    pickup = ImportPickup(build_platform(), in_dir, report_dir, faults=faults)
    (in_dir / "a.persons").write_text(f"mdn\n{ADA_MDN}\n", encoding="utf-8")

    def delivered() -> list[str]:
        """What is there now; the client takes it away."""
        found = sorted(report_dir.iterdir())
        for path in found:
            path.unlink()
        return [path.name.split(".")[2] for path in found]

    pickup.scan()
    assert delivered() == first
    pickup.scan()
    assert delivered() == then
    pickup.scan()
    assert delivered() == []
