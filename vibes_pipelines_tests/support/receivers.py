"""Who receives alerts in tests: an HTTP receiver and an SMTP server, both real and on loopback."""

import asyncio
import base64
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from vibes_pipelines_tests.support.certificates import Pair


@dataclass
class Webhook:
    """What was posted, and the status that the next answers have."""

    received: list[dict[str, Any]] = field(default_factory=list)
    status: int = 204
    url: str = ""


@contextmanager
def webhook() -> Iterator[Webhook]:
    """A receiver of JSON over HTTP; only what it answers with success counts as received."""
    hook = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if hook.status < 300:
                hook.received.append(json.loads(body))
            self.send_response(hook.status)
            if hook.status in {301, 302}:
                self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        hook.url = f"http://127.0.0.1:{server.server_port}/secret-path"
        yield hook
        server.shutdown()
        thread.join()


@dataclass
class MailServer:
    """An SMTP server (RFC 5321) with STARTTLS (RFC 3207) and AUTH PLAIN (RFC 4954).

    `logins` are the passwords by user; `encrypted` says of each message whether it came over TLS.
    """

    tls: ssl.SSLContext | None
    logins: dict[str, str]
    messages: list[EmailMessage] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until QUIT or its end."""
        try:
            await _Talk(self, reader, writer).run()
        except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


class _Talk:
    def __init__(
        self, server: MailServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._server, self._reader, self._writer = server, reader, writer
        self._is_encrypted = writer.get_extra_info("ssl_object") is not None
        self._may_send = not server.logins

    async def run(self) -> None:
        await self._say("220 ready")
        while line := (await self._reader.readline()).decode().strip():
            if not await self._answer(line):
                return

    async def _answer(self, line: str) -> bool:
        word = line.split(" ", maxsplit=1)[0].upper()
        match word:
            case "EHLO":
                await self._say("250-here\r\n250-STARTTLS\r\n250 AUTH PLAIN")
            case "STARTTLS" if self._server.tls:
                await self._say("220 go on")
                await self._writer.start_tls(self._server.tls)
                self._is_encrypted = True
            case "AUTH":
                await self._log_in(line)
            case "MAIL" | "RCPT":
                await self._say("250 fine" if self._may_send else "530 log in first")
            case "DATA":
                await self._take()
            case "QUIT":
                await self._say("221 bye")
                return False
            case _:
                await self._say("502 not here")
        return True

    async def _log_in(self, line: str) -> None:
        _, user, password = base64.b64decode(line.rpartition(" ")[2]).decode().split("\0")
        self._may_send = self._is_encrypted and self._server.logins.get(user) == password
        await self._say("235 welcome" if self._may_send else "535 no")

    async def _take(self) -> None:
        await self._say("354 go on")
        lines = []
        while (line := await self._reader.readline()) not in {b".\r\n", b""}:
            lines.append(line.removeprefix(b"."))
        message = message_from_bytes(b"".join(lines), policy=policy.default)
        assert isinstance(message, EmailMessage)
        self._server.messages.append(message)
        self._server.encrypted.append(self._is_encrypted)
        await self._say("250 kept")

    async def _say(self, text: str) -> None:
        self._writer.write(f"{text}\r\n".encode())
        await self._writer.drain()


@contextmanager
def mail_server(
    pair: Pair | None = None, logins: dict[str, str] | None = None, *, tls_first: bool = False
) -> Iterator[MailServer]:
    """A mail server in a thread of its own; with a pair it speaks TLS, at once or when asked."""
    context = None
    if pair:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
    server = MailServer(context, logins or {})
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(
            server.serve, "127.0.0.1", 0, ssl=context if tls_first else None
        )

    listening = asyncio.run_coroutine_threadsafe(start(), loop).result(60)
    server.port = listening.sockets[0].getsockname()[1]

    async def stop() -> None:
        listening.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    yield server
    asyncio.run_coroutine_threadsafe(stop(), loop).result(60)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
