"""The receiver over real HTTP: whatever could be stored is answered with 200, anything else 503."""

import json
import logging
import re
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vibes_pipelines.callbacks.intake import TOO_LONG, posted, read_arrival
from vibes_pipelines.callbacks.receiver import Rules
from vibes_pipelines.store.inbox import CONFLICT, Arrival, Inbox, Reception
from vibes_pipelines_tests.support.callbacks import (
    REMOVED,
    RunningReceiver,
    as_bytes,
    running_receiver,
    stored_rows,
    subscription_body,
)
from vibes_pipelines_tests.support.examples import examples

AT = "2026-01-02T03:04:05Z"
CANARY = "Xylophonius"
LIMIT = 2_000


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    return str(request.getfixturevalue("postgresql_url"))


@pytest.fixture
def served(url: str) -> Iterator[RunningReceiver]:
    with Inbox(url) as inbox, running_receiver(inbox, Rules(max_body_bytes=LIMIT)) as running:
        yield running


@pytest.fixture
def lite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'lite.db'}"


def removal(event_id: str | None = "E1", external_person_id: str = "C1") -> bytes:
    return as_bytes(subscription_body(REMOVED, event_id, AT, external_person_id=external_person_id))


class TestWhatIsStored:
    def test_a_callback_with_what_was_read_of_it(self, served: RunningReceiver, url: str) -> None:
        assert served.post(removal(), "/callbacks/of-the-news-list") == 200
        [row] = stored_rows(url)
        assert (row["body"], row["body_bytes"]) == (removal(), len(removal()))
        assert (row["path"], row["source_address"]) == ("/callbacks/of-the-news-list", "127.0.0.1")
        assert (row["event_id"], row["event_type"], row["status"]) == ("E1", REMOVED, "stored")
        assert (row["subscription_list_id"], row["external_person_id"]) == ("1234", "C1")
        assert row["event_at"].isoformat() == "2026-01-02T03:04:05+00:00"

    def test_it_may_come_by_put_and_under_any_media_type(
        self, served: RunningReceiver, url: str
    ) -> None:
        assert served.request("PUT", "/callbacks/", removal(), Content_Type="text/json")[0] == 200
        assert served.post(removal("E2"), Content_Type="application/x-unknown") == 200
        assert [row["status"] for row in stored_rows(url)] == ["stored", "stored"]

    def test_a_duplicate_and_a_conflict_are_answered_with_200(
        self, served: RunningReceiver, url: str
    ) -> None:
        bodies = [removal(), removal(), removal(external_person_id="C2")]
        assert [served.post(body) for body in bodies] == [200] * 3
        found = [(row["external_person_id"], row["reason"]) for row in stored_rows(url)]
        assert found == [("C1", None), ("C2", CONFLICT)]

    @pytest.mark.parametrize("body", [b"", b"{", b"\x00\xff", b"[]", b'{"callback_type": 1}'])
    def test_garbage_is_parked_with_its_reason(
        self, served: RunningReceiver, url: str, body: bytes
    ) -> None:
        assert served.post(body) == 200
        [row] = stored_rows(url)
        assert (row["body"], row["status"]) == (body, "parked")
        assert row["reason"]

    @pytest.mark.parametrize("size", [LIMIT + 1, 3_000_000])
    def test_of_a_long_body_the_beginning_is_kept_and_parked(
        self, served: RunningReceiver, url: str, size: int
    ) -> None:
        longer = b"x" * size
        assert [served.post(body) for body in (longer, longer, longer + b"y")] == [200] * 3
        rows = stored_rows(url)
        assert [row["body_bytes"] for row in rows] == [size, size + 1]  # one came twice
        assert {(len(row["body"]), row["status"], row["reason"]) for row in rows} == {
            (LIMIT, "parked", TOO_LONG)
        }

    def test_a_body_of_just_the_limit_is_whole(self, served: RunningReceiver, url: str) -> None:
        body = removal() + b" " * (LIMIT - len(removal()))
        assert served.post(body) == 200
        assert [row["status"] for row in stored_rows(url)] == ["stored"]

    def test_a_body_in_pieces_is_one_body(self, served: RunningReceiver, url: str) -> None:
        body = removal()
        pieces = [body[n : n + 7] for n in range(0, len(body), 7)]
        chunked = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
        head = b"POST /callbacks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        with socket.create_connection(("127.0.0.1", served.port), 20) as connection:
            connection.sendall(head + b"Connection: close\r\n\r\n" + chunked + b"0\r\n\r\n")
            answer = connection.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert [row["body"] for row in stored_rows(url)] == [body]

    def test_many_at_once_are_each_stored_once(self, served: RunningReceiver, url: str) -> None:
        bodies = [removal(f"E{n % 100}") for n in range(200)]
        with ThreadPoolExecutor(16) as pool:
            assert set(pool.map(served.post, bodies)) == {200}
        assert len(stored_rows(url)) == 100
        tally = served.receiver.tally
        assert (tally.received, tally.stored, tally.duplicates) == (200, 100, 100)
        assert (tally.conflicts, tally.failed) == (0, 0)


@settings(max_examples=examples(150), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    body=st.binary(max_size=400)
    | st.sampled_from([removal(), removal(None)]).flatmap(
        lambda body: st.integers(0, len(body)).map(lambda cut: body[:cut])
    )
    | st.text(max_size=50).map(lambda text: removal(text, text)),
    path=st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=20),
)
def test_no_body_is_answered_with_anything_but_200(
    served: RunningReceiver, url: str, body: bytes, path: str
) -> None:
    assert served.post(body, f"/callbacks/{path}") == 200
    hashes = {row["body"] for row in stored_rows(url)}
    assert body in hashes or read_arrival(posted("", "", body)).parked is None


class TestWhatIsNotStored:
    def test_a_database_that_fails_is_answered_with_503_and_heals(
        self, served: RunningReceiver, monkeypatch: pytest.MonkeyPatch, url: str
    ) -> None:
        with _broken(served.receiver.inbox):
            assert served.post(removal()) == 503
            assert served.request("GET", "/health")[0] == 503
            status, text = served.request("GET", "/metrics")
            assert (status, "vibes_callbacks_database_up 0\n" in text) == (200, True)
        assert served.post(removal()) == 200
        assert served.request("GET", "/health") == (200, "ok\n")
        assert len(stored_rows(url)) == 1
        assert served.receiver.tally.failed == 1

    def test_one_body_that_the_database_refuses_does_not_take_others_with_it(
        self, lite: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = Inbox.store

        def refusing(inbox: Inbox, arrivals: Sequence[Arrival]) -> list[Reception]:
            if any(arrival.event_id == "E3" for arrival in arrivals):
                raise sa.exc.DataError("statement", None, Exception("refused"))
            return store(inbox, arrivals)

        monkeypatch.setattr(Inbox, "store", refusing)
        bodies = [removal(f"E{n}") for n in range(10)]
        with (
            Inbox(lite) as inbox,
            running_receiver(inbox) as served,
            ThreadPoolExecutor(10) as pool,
        ):
            told = list(pool.map(served.post, bodies))
        assert told == [503 if n == 3 else 200 for n in range(10)]
        assert len(stored_rows(lite)) == 9

    def test_a_database_that_hangs_is_answered_with_503(self, lite: str) -> None:
        rules = Rules(store_timeout_s=0.2)
        with Inbox(lite) as inbox, running_receiver(inbox, rules) as served:
            other = sa.create_engine(lite)
            with other.connect() as connection:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                assert served.post(removal()) == 503
                connection.rollback()
            other.dispose()
            served.receiver.rules = Rules()  # now it may take the time that it needs
            assert served.post(removal()) == 200
        assert len(stored_rows(lite)) == 1  # what was late is no second row

    def test_a_body_that_does_not_end_is_given_up(self, lite: str) -> None:
        rules = Rules(read_timeout_s=0.2)
        head = b"POST /callbacks HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf"
        with (
            Inbox(lite) as inbox,
            running_receiver(inbox, rules) as served,
            socket.create_connection(("127.0.0.1", served.port), 20) as connection,
        ):
            connection.sendall(head)
            assert connection.recv(12) == b"HTTP/1.1 503"
        assert stored_rows(lite) == []

    def test_a_sender_that_leaves_in_the_middle_leaves_nothing(self, lite: str) -> None:
        head = b"POST /callbacks HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf"
        with Inbox(lite) as inbox, running_receiver(inbox) as served:
            with socket.create_connection(("127.0.0.1", served.port), 20) as connection:
                connection.sendall(head)
            assert served.post(removal()) == 200
        assert [row["event_id"] for row in stored_rows(lite)] == ["E1"]


class TestSources:
    def test_only_allowed_networks_are_taken_in(self, lite: str) -> None:
        elsewhere = Rules(allowed=[ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")])
        with Inbox(lite) as inbox, running_receiver(inbox, elsewhere) as served:
            assert served.post(removal()) == 403
            assert served.request("GET", "/health")[0] == 200
            assert (served.receiver.tally.refused, served.receiver.tally.received) == (1, 0)
        here = Rules(allowed=[ip_network("192.0.2.0/24"), ip_network("127.0.0.0/8")])
        with Inbox(lite) as inbox, running_receiver(inbox, here) as served:
            assert served.post(removal()) == 200
        assert len(stored_rows(lite)) == 1

    @pytest.mark.parametrize(
        ("forwarded", "status"),
        [("192.0.2.9", 200), ("::ffff:192.0.2.9", 200), ("198.51.100.1", 403), ("unknown", 403)],
    )
    def test_a_proxy_on_this_machine_names_its_client(
        self, lite: str, forwarded: str, status: int
    ) -> None:
        rules = Rules(allowed=[ip_network("192.0.2.0/24")])
        with Inbox(lite) as inbox, running_receiver(inbox, rules) as served:
            assert served.post(removal(), X_Forwarded_For=forwarded) == status
        assert [row["source_address"] for row in stored_rows(lite)] == [forwarded] * (status == 200)


class TestMetrics:
    def test_prometheus_reads_every_line(self, served: RunningReceiver) -> None:
        for body in (removal(), removal(), removal(external_person_id="C2"), b"garbage"):
            served.post(body)
        status, text = served.request("GET", "/metrics")
        assert status == 200
        samples = [line for line in text.splitlines() if not line.startswith("# ")]
        form = re.compile(r'[a-z_]+(\{status="[a-z]+"\})? \d+')
        assert all(form.fullmatch(line) for line in samples)
        assert dict(line.rsplit(" ", 1) for line in samples) == {
            "vibes_callbacks_received_total": "4",
            "vibes_callbacks_stored_total": "3",
            "vibes_callbacks_duplicates_total": "1",
            "vibes_callbacks_conflicts_total": "1",
            "vibes_callbacks_failed_total": "0",
            "vibes_callbacks_refused_total": "0",
            "vibes_callbacks_database_up": "1",
            'vibes_callbacks_inbox{status="stored"}': "1",
            'vibes_callbacks_inbox{status="applied"}': "0",
            'vibes_callbacks_inbox{status="ignored"}': "0",
            'vibes_callbacks_inbox{status="parked"}': "2",
            'vibes_callbacks_inbox{status="dropped"}': "0",
        }


def test_no_log_and_no_answer_shows_a_person(
    served: RunningReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "vibes_pipelines")
    personal = as_bytes(json.loads(removal()) | {"name": CANARY})
    answers = [served.request("POST", f"/callbacks/{CANARY}", personal)]
    with _broken(served.receiver.inbox):
        answers.append(served.request("POST", "/callbacks", personal))
    answers.append(served.request("POST", "/callbacks", b"{" + personal))
    answers.append(served.request("GET", "/metrics"))
    assert [status for status, _ in answers] == [200, 503, 200, 200]
    assert "not stored" in caplog.text
    assert CANARY not in caplog.text + str(answers)


class _broken:  # noqa: N801 - reads as a clause of `with`
    """The table is away while the block lasts."""

    def __init__(self, inbox: Inbox) -> None:
        self._engine = inbox._writer

    def _rename(self, old: str, new: str) -> None:
        with self._engine.begin() as connection:
            connection.exec_driver_sql(f"ALTER TABLE {old} RENAME TO {new}")

    def __enter__(self) -> None:
        self._rename("callbacks", "callbacks_away")

    def __exit__(self, *_exception: object) -> None:
        self._rename("callbacks_away", "callbacks")
