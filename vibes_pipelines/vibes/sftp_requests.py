"""Requests in flight on one SFTP channel, and their answers in whatever order they come.

The wire is SFTP version 3. What is asked, and what becomes of an answer, is `sftp_transfer`'s.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple, Self

import paramiko
from paramiko.sftp import CMD_DATA

_LENGTH = struct.Struct(">I")
_HEAD = struct.Struct(">IBI")
"""How many bytes follow, what kind of message it is, and the number of its request."""
_DATA_HEAD_BYTES = _HEAD.size + _LENGTH.size

# No answer that is asked for here is longer; what claims to be is not SFTP.
LONGEST_ANSWER_BYTES = 2**20
# A receive buffer that is emptied whole has nothing left to move to its front.
_ALL_THAT_ARRIVED = 2**30


class Piece(NamedTuple):
    """A part of the answer to a request; data comes in several, with `last` on the last one."""

    request: int
    kind: int
    content: memoryview
    last: bool


def packed(kind: int, request: int, *strings: bytes, tail: bytes = b"") -> bytes:
    """A request as it goes over the wire: its strings with their lengths, then `tail` as it is."""
    body = b"".join(_LENGTH.pack(len(string)) + string for string in strings) + tail
    return _HEAD.pack(_HEAD.size - _LENGTH.size + len(body), kind, request) + body


class Exchange:
    """One conversation on the channel of `sftp`, which nobody else uses meanwhile.

    Left before the last answer is whole, it ends the session: nobody could tell the rest of an
    answer from the beginning of the next one.
    """

    def __init__(self, sftp: paramiko.SFTPClient) -> None:
        self._sftp = sftp
        self._unanswered: set[int] = set()
        self._rest = b""
        self._answering = 0
        self._missing_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._unanswered or self._rest or self._missing_bytes:
            self._sftp.close()

    def number(self) -> int:
        """The number of a request that is about to be sent; from now on its answer is due."""
        number = self._sftp.request_number
        self._sftp.request_number += 1
        self._unanswered.add(number)
        return number

    def send(self, requests: bytes | memoryview) -> None:
        """Sends whole requests. Waits while the server takes no more."""
        # paramiko sends memoryviews itself; its stubs do not say so.
        self._sftp.sock.sendall(requests)  # type: ignore[arg-type]

    def receive(self) -> Iterator[Piece]:
        """The answers, or parts of them, that have arrived; waits for at least one byte.

        Raises:
            EOFError: the server ended the session.
            TimeoutError: nothing came for the channel's timeout.
            paramiko.SSHException: what came is not an answer.
        """
        arrived = self._sftp.sock.recv(_ALL_THAT_ARRIVED)
        if not arrived:
            msg = "the server ended the session"
            raise EOFError(msg)
        left = memoryview(self._rest + arrived if self._rest else arrived)
        while left:
            piece, length = self._next(left)
            if not length:
                break
            left = left[length:]
            if piece:
                yield piece
        self._rest = bytes(left)

    def _next(self, arrived: memoryview) -> tuple[Piece | None, int]:
        """What begins here, if it is of interest, and its bytes; 0 bytes: too little arrived."""
        if self._missing_bytes:
            part = arrived[: self._missing_bytes]
            self._missing_bytes -= len(part)
            return self._piece(self._answering, CMD_DATA, part), len(part)
        if len(arrived) < _DATA_HEAD_BYTES:
            return None, 0
        following, kind, request = _HEAD.unpack_from(arrived)
        if not _HEAD.size - _LENGTH.size <= following <= LONGEST_ANSWER_BYTES:
            msg = f"the server announced an answer of {following} bytes"
            raise paramiko.SSHException(msg)
        if kind == CMD_DATA:
            self._begin_data(arrived, following, request)
            return None, _DATA_HEAD_BYTES
        length = _LENGTH.size + following
        if len(arrived) < length:
            return None, 0
        # Else of a file that paramiko closed without waiting for the answer.
        asked = request in self._unanswered
        return self._piece(request, kind, arrived[_HEAD.size : length]) if asked else None, length

    def _begin_data(self, arrived: memoryview, following: int, request: int) -> None:
        (announced,) = _LENGTH.unpack_from(arrived, _HEAD.size)
        fits = _LENGTH.size + following == _DATA_HEAD_BYTES + announced
        if not (announced and fits and request in self._unanswered):
            msg = "the server sent data that is empty, of a wrong length or was not asked for"
            raise paramiko.SSHException(msg)
        self._answering, self._missing_bytes = request, announced

    def _piece(self, request: int, kind: int, content: memoryview) -> Piece:
        last = not self._missing_bytes
        if last:
            self._unanswered.discard(request)
        return Piece(request, kind, content, last)
