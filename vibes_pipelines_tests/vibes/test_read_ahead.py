"""The socket that reads ahead gives the bytes, the ends and the waits of any other."""

import socket
from collections.abc import Iterator

import pytest

from vibes_pipelines.vibes.read_ahead import AHEAD_BYTES, ReadAheadSocket


@pytest.fixture
def pair() -> Iterator[tuple[ReadAheadSocket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ReadAheadSocket(ours) as reading, theirs:
        yield reading, theirs


def test_the_bytes_come_in_their_order_and_never_more_than_asked_for(
    pair: tuple[ReadAheadSocket, socket.socket],
) -> None:
    ours, theirs = pair
    theirs.sendall(b"SSH-2.0-x\r\n")
    assert [ours.recv(4), ours.recv(4), ours.recv(100)] == [b"SSH-", b"2.0-", b"x\r\n"]
    theirs.sendall(b"more")
    assert ours.recv(AHEAD_BYTES * 2) == b"more"


def test_the_end_comes_after_what_was_read_ahead(
    pair: tuple[ReadAheadSocket, socket.socket],
) -> None:
    ours, theirs = pair
    theirs.sendall(b"last")
    theirs.close()
    assert [ours.recv(2), ours.recv(2), ours.recv(2), ours.recv(2)] == [b"la", b"st", b"", b""]


def test_a_wait_ends_at_the_timeout_and_loses_nothing(
    pair: tuple[ReadAheadSocket, socket.socket],
) -> None:
    ours, theirs = pair
    ours.settimeout(0.01)
    with pytest.raises(TimeoutError):
        ours.recv(1)
    theirs.sendall(b"late")
    assert ours.recv(9) == b"late"


def test_it_takes_the_socket_over_with_its_timeout() -> None:
    taken, theirs = socket.socketpair()
    taken.settimeout(7)
    with ReadAheadSocket(taken) as ours, theirs:
        assert (taken.fileno(), ours.gettimeout()) == (-1, 7)


def test_flags_are_refused(pair: tuple[ReadAheadSocket, socket.socket]) -> None:
    with pytest.raises(ValueError, match="takes no flags"):
        pair[0].recv(1, socket.MSG_PEEK)
