"""A sender of callbacks: a fixed rate, and every one again until it was answered with 2xx.

Requests leave when they are due, whether or not the ones before were answered, and the time of an
answer counts from then. Prints one JSON object.

    python -m benchmarks.callbacks_sender PORT RATE SECONDS
"""

import asyncio
import json
import resource
import sys
import time
from dataclasses import dataclass, field

CONNECTIONS = 64
TICK_S = 0.002
RETRY_S = 0.5
ANSWER_TIMEOUT_S = 15
GIVE_UP_S = 120
LISTS = 50


@dataclass
class Sent:
    """What became of the callbacks: seconds per answer, and how often one had to be sent again."""

    first_try_s: list[float] = field(default_factory=list)
    answered: int = 0
    again: int = 0


class _Line(asyncio.Protocol):
    """One keep-alive connection with one request under way."""

    def __init__(self) -> None:
        self._status: asyncio.Future[int] | None = None
        self._text = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._text += data
        head, found, body = self._text.partition(b"\r\n\r\n")
        if not found or len(body) < _length(head):
            return
        self._text = b""
        if self._status and not self._status.done():
            self._status.set_result(int(head[9:12]))

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        if self._status and not self._status.done():
            self._status.set_exception(error or ConnectionError("closed"))

    async def ask(self, request: bytes) -> int:
        """The status of the answer."""
        if self.transport is None:
            raise ConnectionError("closed")
        self._status = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await asyncio.wait_for(self._status, ANSWER_TIMEOUT_S)


def _length(head: bytes) -> int:
    value = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
    return int(value or 0)


def request_of(number: int) -> bytes:
    """A callback as the platform posts it; its event id is the number."""
    person = {
        "id": str(number),
        "external_id": f"C{number}",
        "external_person_id": f"C{number}",
        "person_key": f"00000000-0000-4000-8000-{number:012}",
        "mobile_phone": {"mdn": f"+1312{number % 10_000_000:07}"},
        "url": f"/companies/A1b2C3/mobiledb/persons/{number}",
    }
    listed = {"id": str(number % LISTS), "url": "/companies/A1b2C3/mobiledb/subscription_lists/1"}
    subscription = {
        "person": person,
        "subscription_list": listed,
        "opt_in_date": "2024-03-15T15:42:23Z",
        "opt_out_date": "2024-04-15T15:42:23Z",
        "opt_out_reason": "user_opt_out",
    }
    body = json.dumps(
        {
            "event_id": f"EV{number:010}",
            "callback_type": "subscription_removed",
            "event_type": "subscription_removed",
            "event_date": "2024-04-15T15:42:23Z",
            "subscription": subscription,
        }
    ).encode()
    head = (
        "POST /callbacks HTTP/1.1\r\nHost: receiver\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Sender:
    def __init__(self, port: int, rate_per_s: int, seconds: int) -> None:
        self._port = port
        self._rate = rate_per_s
        self._total = rate_per_s * seconds
        self._due: asyncio.Queue[tuple[int, float, bool]] = asyncio.Queue()
        self._done = asyncio.Event()
        self.sent = Sent()

    async def run(self) -> None:
        workers = [asyncio.create_task(self._work()) for _ in range(CONNECTIONS)]
        await self._schedule()
        await asyncio.wait_for(self._done.wait(), GIVE_UP_S)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    async def _schedule(self) -> None:
        begin, planned = time.perf_counter(), 0
        while planned < self._total:
            until = min(self._total, int((time.perf_counter() - begin) * self._rate) + 1)
            for number in range(planned, until):
                self._due.put_nowait((number, begin + number / self._rate, False))
            planned = until
            await asyncio.sleep(TICK_S)

    async def _work(self) -> None:
        line: _Line | None = None
        while True:
            number, due, is_again = await self._due.get()
            try:
                if line is None or line.transport is None:
                    line = await self._connect()
                status = await line.ask(request_of(number))
            except (OSError, TimeoutError):
                status, line = 0, None
            if 200 <= status < 300:
                self._answered(due, is_again=is_again)
            else:
                self.sent.again += 1
                loop = asyncio.get_running_loop()
                loop.call_later(RETRY_S, self._due.put_nowait, (number, due, True))

    def _answered(self, due: float, *, is_again: bool) -> None:
        self.sent.answered += 1
        if not is_again:
            self.sent.first_try_s.append(time.perf_counter() - due)
        if self.sent.answered == self._total:
            self._done.set()

    async def _connect(self) -> _Line:
        loop = asyncio.get_running_loop()
        _, line = await loop.create_connection(_Line, "127.0.0.1", self._port)
        return line


def main() -> None:
    """Sends, and prints what became of it."""
    port, rate_per_s, seconds = map(int, sys.argv[1:4])
    sender = _Sender(port, rate_per_s, seconds)
    begin = time.perf_counter()
    asyncio.run(sender.run())
    usage = resource.getrusage(resource.RUSAGE_SELF)
    report = {
        "answered": sender.sent.answered,
        "again": sender.sent.again,
        "first_try_s": sender.sent.first_try_s,
        "wall_s": time.perf_counter() - begin,
        "cpu_s": usage.ru_utime + usage.ru_stime,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
