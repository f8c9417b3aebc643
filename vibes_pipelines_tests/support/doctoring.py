"""Doctoring for tests: a served sandbox, and the doctor's account once something is broken."""

import re
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from vibes_pipelines.orchestration.resources import ShareResource
from vibes_pipelines.sandbox.service import Sandbox
from vibes_pipelines.stages.doctor.bench import Bench
from vibes_pipelines.stages.doctor.findings import Check, Line
from vibes_pipelines.stages.doctor.registry import CHECKS
from vibes_pipelines.stages.doctor.run import examine
from vibes_pipelines_tests.support.loop import EXAMPLE, process_environment


@dataclass
class Patient:
    """A set-up that is well, and what to change of it."""

    sandbox: Sandbox
    folder: Path
    environment: Mapping[str, str]

    @property
    def day(self) -> str:
        return self.sandbox.today.isoformat()

    def sync_config(self, *edits: tuple[str, str]) -> str:
        """A copy of the example in which pieces of text are replaced; each must be there."""
        text = EXAMPLE.read_text(encoding="utf-8")
        for old, new in edits:
            assert old in text, old
            text = text.replace(old, new)
        path = self.folder / "sync.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    def crm_copy(self) -> Path:
        """A copy of the CRM that may be broken."""
        return Path(shutil.copy(self.sandbox.crm.path, self.folder / "crm.db"))

    def account(self, *names: str, day: str = "", **changes: Any) -> list[Line]:
        """The lines of these checks and what they need; `changes` in capitals are environment."""
        variables = {name: str(value) for name, value in changes.items() if name.isupper()}
        readers = {name: value for name, value in changes.items() if not name.isupper()}
        environment = {**self.environment, **variables}
        with (
            process_environment(environment),
            Bench(environment, ShareResource().connector(), day or self.day, **readers) as bench,
        ):
            return examine(bench, with_needs(names) if names else CHECKS)


def with_needs(names: tuple[str, ...]) -> list[Check]:
    """These checks, and all that have to be well before them, in their order."""
    known = {check.name: check for check in CHECKS}
    wanted: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        wanted.add(name)
        left += known[name].needs
    return [check for check in CHECKS if check.name in wanted]


def the_failure(lines: list[Line], check: str, told: str, cure: str) -> None:
    """Exactly this check is not well, says what is wrong, and how it is cured."""
    unwell = [line for line in lines if line.status in {"fail", "warn"} and line.check == check]
    assert unwell, [line.text for line in lines]
    found = [one for one in unwell if re.search(told, one.told) and re.search(cure, one.cure or "")]
    assert found, [line.text for line in unwell]


@contextmanager
def header_eater(target: str) -> Iterator[str]:
    """A proxy that forgets X-API-Version; yields its address."""

    class Eater(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kept = {
                k: v for k, v in self.headers.items() if k.lower() not in {"x-api-version", "host"}
            }
            request = urllib.request.Request(target + self.path, headers=kept)
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    self._pass_on(answer.status, answer.read())
            except urllib.error.HTTPError as refused:
                with refused:
                    self._pass_on(refused.code, refused.read())

        def _pass_on(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Eater)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
