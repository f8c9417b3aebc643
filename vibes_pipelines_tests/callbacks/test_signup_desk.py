"""`POST /signup` over HTTP: its statuses, its refusals, and a person who confirms by text."""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import CliRunner

from vibes_pipelines.callbacks.receiver import Rules
from vibes_pipelines.callbacks.serve import Place, StartFailed, serve
from vibes_pipelines.callbacks.signup import ANSWERS, MAX_FORM_BYTES, Result, SignupAnswer
from vibes_pipelines.cli.main import main
from vibes_pipelines.sandbox.acts import act
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.sandbox.service import Sandbox
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines_tests.support.callbacks import (
    RunningReceiver,
    http_request,
    running_receiver,
    stored_rows,
)
from vibes_pipelines_tests.support.loop import EXAMPLE
from vibes_pipelines_tests.support.served_receiver import serving

FORM = {"mdn": "+13125550142"}
SECTION = """
signup:
  campaign: "777"
  list: "1234"
  fields:
    - {from: name, to: first_name}
"""


@dataclass
class FakeRegistrar:
    """Answers with what it was given; keeps what it was asked."""

    answer: SignupAnswer | Exception = SignupAnswer("confirm")  # noqa: RUF009 - frozen
    asked: list[tuple[Mapping[str, object], str]] = field(default_factory=list)

    async def sign_up(self, form: Mapping[str, object], address: str) -> SignupAnswer:
        self.asked.append((form, address))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def registrar() -> FakeRegistrar:
    return FakeRegistrar()


@pytest.fixture
def served(registrar: FakeRegistrar, tmp_path: Path) -> Iterator[RunningReceiver]:
    @asynccontextmanager
    async def opened() -> AsyncIterator[FakeRegistrar]:
        yield registrar

    with (
        Inbox(f"sqlite:///{tmp_path / 'ledger.db'}") as inbox,
        running_receiver(inbox, signup=opened) as running,
    ):
        yield running


def post(port: int, form: object, **headers: str) -> tuple[int, dict[str, Any]]:
    status, text = http_request(port, "POST", "/signup", json.dumps(form).encode(), **headers)
    return status, json.loads(text)


@pytest.mark.parametrize("result", get_args(Result))
def test_every_result_has_a_status_and_a_sentence(
    served: RunningReceiver, registrar: FakeRegistrar, result: Result
) -> None:
    registrar.answer = SignupAnswer(result)
    status, body = post(served.port, FORM)
    assert (status, body) == (ANSWERS[result][0], {"result": result, "message": ANSWERS[result][1]})
    assert registrar.asked == [(FORM, "127.0.0.1")]


def test_the_address_is_the_client_s_and_not_the_proxy_s(
    served: RunningReceiver, registrar: FakeRegistrar
) -> None:
    post(served.port, FORM, X_Forwarded_For="192.0.2.9")
    assert registrar.asked == [(FORM, "192.0.2.9")]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"x"', b"\xff", b"[" * 9_000, b"x" * (MAX_FORM_BYTES + 1)]
)
def test_what_is_no_form_is_refused(
    served: RunningReceiver, registrar: FakeRegistrar, body: bytes
) -> None:
    status, text = served.request("POST", "/signup", body)
    assert (status, json.loads(text)["result"]) == (400, "invalid_form")
    assert registrar.asked == []


def test_a_failure_is_told_without_what_caused_it(
    served: RunningReceiver, registrar: FakeRegistrar, caplog: pytest.LogCaptureFixture
) -> None:
    registrar.answer = RuntimeError(FORM["mdn"])
    status, body = post(served.port, FORM)
    assert (status, body["result"]) == (503, "unavailable")
    assert "RuntimeError" in caplog.text
    assert FORM["mdn"] not in caplog.text + str(body)


def test_too_many_are_told_when_to_come_again(
    served: RunningReceiver, registrar: FakeRegistrar
) -> None:
    registrar.answer = SignupAnswer("too_many", retry_after_s=90)
    assert post(served.port, FORM)[0] == 429


def test_without_a_registrar_there_is_no_such_place(tmp_path: Path) -> None:
    with (
        Inbox(f"sqlite:///{tmp_path / 'ledger.db'}") as inbox,
        running_receiver(inbox) as running,
    ):
        assert running.request("POST", "/signup", b"{}")[0] == 404


def test_a_person_signs_up_confirms_by_text_and_is_subscribed(tmp_path: Path) -> None:
    sync_config = tmp_path / "sync.yaml"
    sync_config.write_text(EXAMPLE.read_text(encoding="utf-8") + SECTION, encoding="utf-8")
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    form = {"mdn": "(312) 555-0142", "name": "Ada"}
    with Sandbox(tmp_path / "sandbox", build_world(20, seed=3)) as sandbox:
        environment = sandbox.environment() | {"VIBES_SYNC_CONFIG": str(sync_config)}
        with serving(url, "--signup", "--processes", "2", **environment) as served:
            assert served.lines[1] == f"{served.address}/signup\n"
            assert post(served.port, form)[1]["result"] == "confirm"
            assert post(served.port, form)[1]["result"] == "pending"
            account = sandbox.account
            person = account.platform.find(mdn="+13125550142")
            assert person is not None
            assert person.custom["first_name"] == "Ada"
            assert account.platform.subscriptions_of(person.person_key) == []
            answer = {"campaign_id": "777", "word": "Y", "mdn": "+13125550142"}
            act(account, "texts/reply", answer)
            [stay] = account.platform.subscriptions_of(person.person_key)
            assert stay.list_id == "1234"
            assert post(served.port, form)[1]["result"] == "already_subscribed"
            assert post(served.port, form)[1]["result"] == "too_many"  # the fourth of the day
    assert stored_rows(url) == []


@pytest.mark.parametrize("text", [None, ""])
def test_signing_up_needs_its_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    sync_config = tmp_path / "sync.yaml"
    if text is not None:
        sync_config.write_text(EXAMPLE.read_text(encoding="utf-8") + text, encoding="utf-8")
    monkeypatch.setenv("VIBES_SYNC_CONFIG", str(sync_config))
    result = CliRunner().invoke(main, ["callbacks", "serve", "--port", "0", "--signup"])
    assert result.exit_code == 1
    assert "sync.yaml" in result.output


@asynccontextmanager
async def opened_in_vain() -> AsyncIterator[FakeRegistrar]:
    raise OSError("away")
    yield


def test_a_receiver_whose_sign_ups_cannot_open_does_not_pass_for_running(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="did not start to serve"):
        serve(f"sqlite:///{tmp_path / 'ledger.db'}", Place(port=0), Rules(), _never, opened_in_vain)


def _never(_: str) -> None:
    raise AssertionError("it is not ready")
