"""A TCP socket that asks the kernel for much at once and hands out little at a time.

paramiko reads every packet in two small steps. Each one is then a copy out of memory, not a call.
"""

import socket

AHEAD_BYTES = 256 * 1024


class ReadAheadSocket(socket.socket):
    """Takes over an open socket; only `recv` differs. `select` does not see what it holds."""

    def __init__(self, taken_over: socket.socket) -> None:
        timeout_s = taken_over.gettimeout()
        super().__init__(fileno=taken_over.detach())
        self.settimeout(timeout_s)
        self._ahead = memoryview(bytearray(AHEAD_BYTES))
        self._start = self._end = 0

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """At most `bufsize` bytes; what was read ahead comes first.

        Raises:
            ValueError: flags were given; they would have to hold for what was read before.
        """
        if flags:
            msg = "a socket that reads ahead takes no flags"
            raise ValueError(msg)
        if self._start == self._end:
            self._start = self._end = 0
            self._end = self.recv_into(self._ahead)
        start, self._start = self._start, min(self._start + bufsize, self._end)
        return bytes(self._ahead[start : self._start])
