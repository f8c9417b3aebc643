"""Whole files over one SFTP session, with as much in flight as keeps the line busy.

Names, sizes and renames belong to `sftp_session`; the wire to `sftp_requests`.
"""

import errno
import os
import struct
from collections import deque
from functools import cached_property
from typing import IO, NamedTuple, Protocol, cast

import paramiko
from paramiko.sftp import (
    CMD_DATA,
    CMD_EXTENDED,
    CMD_EXTENDED_REPLY,
    CMD_READ,
    CMD_STATUS,
    CMD_WRITE,
    SFTP_EOF,
    SFTP_NO_SUCH_FILE,
    SFTP_OK,
    SFTP_PERMISSION_DENIED,
)

from vibes_pipelines.vibes.sftp_errors import LocalDiskError
from vibes_pipelines.vibes.sftp_requests import Exchange, Piece, packed

# Every SFTP server must take requests of this size; a larger one is the server's to offer.
CERTAIN_REQUEST_BYTES = 32 * 1024
# What OpenSSH's server offers at most. Larger requests make nothing faster.
LARGEST_REQUEST_BYTES = 255 * 1024
# A line of 100 ms carries 80 MB/s with it, and it bounds the memory that a transfer takes.
IN_FLIGHT_BYTES = 8 * 2**20
# How much the server may send before it is told that we took it: never what it waits for.
WINDOW_BYTES = 2 * IN_FLIGHT_BYTES

_ERRNO = {SFTP_NO_SUCH_FILE: errno.ENOENT, SFTP_PERMISSION_DENIED: errno.EACCES}
_STATUS = struct.Struct(">II")
_LIMITS = struct.Struct(">4Q")
_RANGE = struct.Struct(">QI")
_WRITE_HEAD = ">IBII{}sQI"


def open_sftp(client: paramiko.SSHClient) -> paramiko.SFTPClient:
    """An SFTP session with a window that large requests do not fill.

    Raises:
        paramiko.SSHException: there is no connection any more, or the server offers no SFTP.
    """
    transport = client.get_transport()
    if transport is None:
        msg = "the connection is closed"
        raise paramiko.SSHException(msg)
    channel = transport.open_session(window_size=WINDOW_BYTES)
    channel.invoke_subsystem("sftp")
    return paramiko.SFTPClient(channel)


class Source(Protocol):
    """A local file open for reading."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fills the buffer as far as the file goes; returns the bytes it wrote there."""


class _Limits(NamedTuple):
    """The longest read and the longest write that the server takes."""

    read_bytes: int
    write_bytes: int


_CERTAIN = _Limits(CERTAIN_REQUEST_BYTES, CERTAIN_REQUEST_BYTES)


class Transfers:
    """Carries the contents of open files over one session; one at a time."""

    def __init__(self, sftp: paramiko.SFTPClient) -> None:
        self._sftp = sftp

    def fetch(self, source: paramiko.SFTPFile, target: IO[bytes], size: int) -> int:
        """Writes the first `size` bytes of `source`; returns how many there were.

        Raises:
            OSError: the server refused to read; the session goes on.
            LocalDiskError: the local disk refused to write; the session goes on.
            EOFError, TimeoutError, paramiko.SSHException: the line broke.
        """
        request_bytes = self._request_bytes(size).read_bytes
        return _Download(self._sftp, source, target, size, request_bytes).run()

    def put(self, source: Source, target: paramiko.SFTPFile, size: int) -> None:
        """Writes all of `source`, about `size` bytes, to the beginning of `target`.

        Raises:
            OSError: the server refused to write; the session goes on.
            LocalDiskError: the local disk refused to read; the session goes on.
            EOFError, TimeoutError, paramiko.SSHException: the line broke.
        """
        request_bytes = self._request_bytes(size).write_bytes
        _Upload(self._sftp, source, target, request_bytes).run()

    def _request_bytes(self, size: int) -> _Limits:
        if size <= CERTAIN_REQUEST_BYTES:
            return _CERTAIN
        return self._offered

    @cached_property
    def _offered(self) -> _Limits:
        """What the server says when asked as OpenSSH's client asks (limits@openssh.com)."""
        with Exchange(self._sftp) as exchange:
            exchange.send(packed(CMD_EXTENDED, exchange.number(), b"limits@openssh.com"))
            answers: list[Piece] = []
            while not answers:
                answers += exchange.receive()
        [answer] = answers
        if answer.kind != CMD_EXTENDED_REPLY or len(answer.content) < _LIMITS.size:
            return _CERTAIN
        _, read_bytes, write_bytes, _ = _LIMITS.unpack_from(answer.content)
        return _Limits(_bounded(read_bytes), _bounded(write_bytes))


def _bounded(offered_bytes: int) -> int:
    """What to ask for; 0 means that the server sets no limit."""
    return min(offered_bytes or LARGEST_REQUEST_BYTES, LARGEST_REQUEST_BYTES)


class _Download:
    """A file on its way here. A failure waits for what is in flight: the session goes on."""

    def __init__(
        self,
        sftp: paramiko.SFTPClient,
        source: paramiko.SFTPFile,
        target: IO[bytes],
        size: int,
        request_bytes: int,
    ) -> None:
        self._exchange = Exchange(sftp)
        self._handle = _handle(source)
        self._target = target.fileno()
        self._size = size
        self._request_bytes = request_bytes
        self._asked_to = 0
        self._cut_short: deque[tuple[int, int]] = deque()
        self._parts: dict[int, tuple[int, int]] = {}
        self._arrived = 0
        self._ended = False
        self._failure: OSError | None = None

    def run(self) -> int:
        with self._exchange:
            self._ask()
            while self._parts:
                for piece in self._exchange.receive():
                    self._take(piece)
                self._ask()
        if self._failure:
            raise self._failure
        return self._arrived

    def _ask(self) -> None:
        requests = []
        while len(self._parts) * self._request_bytes < IN_FLIGHT_BYTES and (part := self._next()):
            start, end = part
            number = self._exchange.number()
            self._parts[number] = part
            span = _RANGE.pack(start, end - start)
            requests.append(packed(CMD_READ, number, self._handle, tail=span))
        if requests:
            self._exchange.send(b"".join(requests))

    def _next(self) -> tuple[int, int] | None:
        if self._ended:
            return None
        if self._cut_short:
            return self._cut_short.popleft()
        start = self._asked_to
        self._asked_to = min(start + self._request_bytes, self._size)
        return (start, self._asked_to) if start < self._asked_to else None

    def _take(self, piece: Piece) -> None:
        start, end = self._parts.pop(piece.request)
        if piece.kind != CMD_DATA:
            self._end(_refusal(piece))
            return
        reached = start + len(piece.content)
        if reached > end:
            msg = "the server sent more data than was asked for"
            raise paramiko.SSHException(msg)
        self._write(piece.content, start)
        if not piece.last:
            self._parts[piece.request] = (reached, end)
        elif reached < end:
            self._cut_short.append((reached, end))

    def _write(self, content: memoryview, at: int) -> None:
        try:
            while content and not self._failure:
                written = os.pwrite(self._target, content, at)
                content, at = content[written:], at + written
                self._arrived += written
        except OSError as full:
            self._end(LocalDiskError(full))

    def _end(self, failure: OSError | None) -> None:
        """Asks for nothing more, because of a failure or because the file ends here."""
        self._ended = True
        self._failure = self._failure or failure


class _Upload:
    """A file on its way there. A failure waits for what is in flight: the session goes on."""

    def __init__(
        self,
        sftp: paramiko.SFTPClient,
        source: Source,
        target: paramiko.SFTPFile,
        request_bytes: int,
    ) -> None:
        self._exchange = Exchange(sftp)
        self._source = source
        self._handle = _handle(target)
        self._head = struct.Struct(_WRITE_HEAD.format(len(self._handle)))
        # One buffer for all requests: memory of this size is costly to get, and to give back.
        self._request = memoryview(bytearray(self._head.size + request_bytes))
        self._most_in_flight = max(1, IN_FLIGHT_BYTES // request_bytes)
        self._in_flight = 0
        self._failure: OSError | None = None

    def run(self) -> None:
        offset = 0
        with self._exchange:
            while (length := self._read()) and not self._failure:
                self._send(offset, length)
                offset += length
                while self._in_flight >= self._most_in_flight:
                    self._receive()
            while self._in_flight:
                self._receive()
        if self._failure:
            raise self._failure

    def _read(self) -> int:
        try:
            return self._source.readinto(self._request[self._head.size :])
        except OSError as unreadable:
            self._failure = LocalDiskError(unreadable)
            return 0

    def _send(self, offset: int, length: int) -> None:
        number, handle = self._exchange.number(), self._handle
        request = self._request[: self._head.size + length]
        following = len(request) - 4
        head = (following, CMD_WRITE, number, len(handle), handle, offset, length)
        self._head.pack_into(request, 0, *head)
        self._exchange.send(request)
        self._in_flight += 1

    def _receive(self) -> None:
        for piece in self._exchange.receive():
            self._in_flight -= piece.last
            self._failure = self._failure or _refusal(piece, good=SFTP_OK)


def _refusal(piece: Piece, good: int = SFTP_EOF) -> OSError | None:
    """What a status says, as the error that Python has for it; none if it is the good one.

    Raises:
        paramiko.SSHException: it is not a status, or says that all is well where data is due.
    """
    if piece.kind != CMD_STATUS or len(piece.content) < _STATUS.size:
        msg = f"the server answered with {len(piece.content)} bytes of kind {piece.kind}"
        raise paramiko.SSHException(msg)
    code, length = _STATUS.unpack_from(piece.content)
    if code == good:
        return None
    if code == SFTP_OK:
        msg = "the server answered a read without data"
        raise paramiko.SSHException(msg)
    text = bytes(piece.content[_STATUS.size : _STATUS.size + length]).decode(errors="replace")
    return OSError(_ERRNO[code], text) if code in _ERRNO else OSError(text)


def _handle(file: paramiko.SFTPFile) -> bytes:
    return cast("bytes", file.handle)
