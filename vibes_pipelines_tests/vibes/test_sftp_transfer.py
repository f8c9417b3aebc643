"""Files over SFTP: whatever the order of the answers and wherever they are cut, nothing is lost."""

import errno
import io
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import IO, Any

import paramiko
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paramiko.sftp import (
    CMD_DATA,
    CMD_EXTENDED,
    CMD_EXTENDED_REPLY,
    CMD_HANDLE,
    CMD_READ,
    CMD_STATUS,
    CMD_WRITE,
    SFTP_EOF,
    SFTP_FAILURE,
    SFTP_NO_SUCH_FILE,
    SFTP_OK,
    SFTP_OP_UNSUPPORTED,
    SFTP_PERMISSION_DENIED,
)

from vibes_pipelines.vibes import sftp_transfer
from vibes_pipelines.vibes.sftp_transfer import CERTAIN_REQUEST_BYTES, Transfers

LARGEST = sftp_transfer.LARGEST_REQUEST_BYTES
HANDLE = b"\x00\x07"


def message(kind: int, number: int, body: bytes) -> bytes:
    return struct.pack(">IBI", 5 + len(body), kind, number) + body


def text(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def status(number: int, code: int) -> bytes:
    return message(CMD_STATUS, number, struct.pack(">I", code) + text(b"says the disk") + text(b""))


def data(number: int, content: bytes) -> bytes:
    return message(CMD_DATA, number, text(content))


class FakeServer:
    """A client's session, and behind it a server of one file that answers in a drawn order.

    Answers leave in drawn pieces. `offered`: its longest read and write; None: it knows no limits.
    `longest_read`: it answers no read with more. `faults`: the nth read or write has this answer.
    """

    def __init__(
        self,
        content: bytes = b"",
        seed: int = 0,
        offered: int | None = LARGEST,
        longest_read: int = 10**9,
        faults: dict[int, Callable[[int], bytes]] | None = None,
    ) -> None:
        self.content = bytearray(content)
        self.offered = offered
        self.longest_read = longest_read
        self.faults = faults or {}
        self.asked: list[tuple[int, int]] = []
        self.closed = False
        self.most_in_flight = 0
        self.request_number = 41
        self.sock = self
        self.handle = HANDLE
        self._random = Random(seed)
        self._waiting: list[bytes] = []
        self._leaving = b""

    def sendall(self, requests: bytes | memoryview) -> None:
        left = bytes(requests)
        while left:
            (length,) = struct.unpack_from(">I", left)
            self._waiting.append(left[4 : 4 + length])
            left = left[4 + length :]
        self.most_in_flight = max(self.most_in_flight, len(self._waiting))

    def recv(self, size: int) -> bytes:
        assert not self.closed
        while not self._leaving or (self._waiting and self._random.random() < 0.5):
            if not self._waiting:
                return b""
            position = self._random.randrange(len(self._waiting))
            self._leaving += self._answer(self._waiting.pop(position))
        length = self._random.randint(1, min(size, len(self._leaving)))
        leaving, self._leaving = self._leaving[:length], self._leaving[length:]
        return leaving

    def close(self) -> None:
        self.closed = True

    def _answer(self, request: bytes) -> bytes:
        kind, number = struct.unpack_from(">BI", request)
        if kind == CMD_EXTENDED:
            if self.offered is None:
                return status(number, SFTP_OP_UNSUPPORTED)
            limits = struct.pack(">4Q", 0, self.offered, self.offered, 0)
            return message(CMD_EXTENDED_REPLY, number, limits)
        assert request[5:11] == text(HANDLE)
        offset, length = struct.unpack_from(">QI", request, 11)
        self.asked.append((kind, length))
        if fault := self.faults.pop(len(self.asked), None):
            return fault(number)
        if kind == CMD_WRITE:
            assert len(request) == 23 + length
            self.content.extend(bytes(max(0, offset - len(self.content))))
            self.content[offset : offset + length] = request[23:]
            return status(number, SFTP_OK)
        assert kind == CMD_READ
        part = bytes(self.content[offset : offset + min(length, self.longest_read)])
        return data(number, part) if part else status(number, SFTP_EOF)


def fetch(server: Any, target: IO[bytes], size: int) -> int:
    return Transfers(server).fetch(server, target, size)


def put(server: Any, content: bytes) -> None:
    Transfers(server).put(io.BytesIO(content), server, len(content))


sizes = st.integers(0, 200_000)
offers = st.sampled_from([None, 0, 5_000, LARGEST])


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(), offers, st.sampled_from([3_000, 10**9]))
def test_a_download_is_the_file_in_whatever_order_and_pieces_it_comes(
    tmp_path_factory: pytest.TempPathFactory,
    size: int,
    seed: int,
    offered: int | None,
    longest_read: int,
) -> None:
    content = Random(size).randbytes(size)
    server = FakeServer(content, seed, offered, longest_read)
    file = tmp_path_factory.mktemp("down") / "file"
    with file.open("wb") as target:
        assert fetch(server, target, size) == size
    assert file.read_bytes() == content
    assert not server.closed


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(), offers)
def test_an_upload_is_the_file_in_whatever_order_the_answers_come(
    size: int, seed: int, offered: int | None
) -> None:
    content = Random(size).randbytes(size)
    server = FakeServer(seed=seed, offered=offered)
    put(server, content)
    assert bytes(server.content) == content
    assert not server.closed


@pytest.mark.parametrize(
    ("offered", "longest"),
    [(None, CERTAIN_REQUEST_BYTES), (50_000, 50_000), (0, LARGEST), (10**9, LARGEST)],
)
def test_requests_are_as_long_as_the_server_offers(
    tmp_path: Path, offered: int | None, longest: int
) -> None:
    content = bytes(2 * LARGEST)
    server = FakeServer(content, offered=offered)
    with (tmp_path / "file").open("wb") as target:
        fetch(server, target, len(content))
    put(server, content)
    for kind in (CMD_READ, CMD_WRITE):
        assert max(length for asked, length in server.asked if asked == kind) == longest


def test_a_small_file_needs_no_offer(tmp_path: Path) -> None:
    server = FakeServer(b"report")
    with (tmp_path / "file").open("wb") as target:
        fetch(server, target, 6)
    assert server.request_number == 42, "one request, and none about limits"


def test_what_is_in_flight_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sftp_transfer, "IN_FLIGHT_BYTES", 4 * 1_000)
    server = FakeServer(bytes(100_000), offered=1_000)
    with (tmp_path / "file").open("wb") as target:
        fetch(server, target, 100_000)
    put(server, bytes(100_000))
    assert server.most_in_flight == 4


def test_a_file_that_is_shorter_than_it_was_says_how_much_came(tmp_path: Path) -> None:
    server = FakeServer(bytes(70_000))
    with (tmp_path / "file").open("wb") as target:
        assert fetch(server, target, 5_000_000) == 70_000
    assert not server.closed


REFUSALS = [
    (SFTP_PERMISSION_DENIED, PermissionError),
    (SFTP_NO_SUCH_FILE, FileNotFoundError),
    (SFTP_FAILURE, OSError),
]


@pytest.mark.parametrize(("code", "error"), REFUSALS)
def test_a_refused_read_or_write_ends_the_transfer_and_not_the_session(
    tmp_path: Path, code: int, error: type[OSError]
) -> None:
    content = Random(1).randbytes(400_000)
    refuses = {3: lambda number: status(number, code)}
    server = FakeServer(content, offered=10_000, faults=dict(refuses))
    with (tmp_path / "file").open("wb") as target:
        with pytest.raises(error, match="says the disk"):
            fetch(server, target, len(content))
        assert fetch(server, target, len(content)) == len(content)
    assert (tmp_path / "file").read_bytes() == content
    server = FakeServer(offered=10_000, faults=dict(refuses))
    with pytest.raises(error, match="says the disk"):
        put(server, content)
    put(server, content)
    assert bytes(server.content) == content


def test_a_full_disk_ends_the_download_and_not_the_session(tmp_path: Path) -> None:
    server = FakeServer(bytes(400_000), offered=10_000)
    with Path("/dev/full").open("wb") as full, pytest.raises(OSError, match="space") as raised:
        fetch(server, full, 400_000)
    assert raised.value.errno == errno.ENOSPC
    with (tmp_path / "file").open("wb") as target:
        assert fetch(server, target, 400_000) == 400_000


class WornOutFile(io.BytesIO):
    """A file whose second half cannot be read."""

    def readinto(self, buffer: Any) -> int:
        if self.tell() * 2 > len(self.getvalue()):
            raise OSError(errno.EIO, "worn out")
        return super().readinto(buffer)


def test_an_unreadable_file_ends_the_upload_and_not_the_session() -> None:
    server: Any = FakeServer(offered=10_000)
    with pytest.raises(OSError, match="worn out"):
        Transfers(server).put(WornOutFile(bytes(400_000)), server, 400_000)
    assert not server.closed
    put(server, b"whole")
    assert len(server.content) == 210_000


NOT_ANSWERS: dict[str, Callable[[int], bytes]] = {
    "an answer without end": lambda number: struct.pack(">IBIQ", 2**31, CMD_DATA, number, 0),
    "no room for a number": lambda _: struct.pack(">IBIQ", 2, CMD_STATUS, 0, 0),
    "data of another request": lambda number: data(number + 1_000, b"x"),
    "data without data": lambda number: data(number, b""),
    "data of another length": lambda number: message(CMD_DATA, number, text(b"x") + b"y"),
    "more data than asked for": lambda number: data(number, bytes(10_001)),
    "all well and no data": lambda number: status(number, SFTP_OK),
    "half a status": lambda number: message(CMD_STATUS, number, bytes(6)),
    "a handle": lambda number: message(CMD_HANDLE, number, text(HANDLE)),
}


@pytest.mark.parametrize("answer", NOT_ANSWERS.values(), ids=NOT_ANSWERS)
def test_what_is_no_answer_ends_the_session(tmp_path: Path, answer: Callable[[int], bytes]) -> None:
    server = FakeServer(bytes(400_000), offered=10_000, faults={3: answer})
    with (tmp_path / "file").open("wb") as target, pytest.raises(paramiko.SSHException):
        fetch(server, target, 400_000)
    assert server.closed


def test_a_line_that_breaks_within_an_answer_ends_the_session(tmp_path: Path) -> None:
    def leave(number: int) -> bytes:
        server._waiting.clear()
        return data(number, bytes(10_000))[:5_000]

    server = FakeServer(bytes(400_000), offered=10_000, faults={3: leave})
    with (tmp_path / "file").open("wb") as target, pytest.raises(EOFError):
        fetch(server, target, 400_000)
    assert server.closed


def test_an_answer_to_somebody_else_is_passed_over(tmp_path: Path) -> None:
    """Paramiko does not wait for the answer when it closes a file that was forgotten."""
    late = {2: lambda number: status(7, SFTP_OK) + data(number, bytes(10_000))}
    server = FakeServer(bytes(400_000), offered=10_000, faults=late)
    with (tmp_path / "file").open("wb") as target:
        assert fetch(server, target, 400_000) == 400_000
