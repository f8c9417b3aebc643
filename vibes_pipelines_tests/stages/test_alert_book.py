"""Alerts: told once, counted, told when over; nothing is lost when a channel is out of reach."""

import json
import socketserver
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vibes_pipelines.settings import SettingsError
from vibes_pipelines.stages import alert_channels, alerts
from vibes_pipelines.stages.alert_channels import AlertError
from vibes_pipelines.stages.alert_settings import AlertSettings, read_alert_settings
from vibes_pipelines.stages.alert_texts import ADVICE, DEFAULT
from vibes_pipelines.stages.alerts import STATE, AlertBook, Cause
from vibes_pipelines_tests.support.certificates import Authority
from vibes_pipelines_tests.support.receivers import mail_server, webhook

NOW = datetime(2026, 1, 3, 7, tzinfo=UTC)
WINDOW = timedelta(hours=6)
UI = "https://dagster.internal"


def cause(run: str = "run-1", step: str = "diff_set", day: str = "2026-01-03") -> Cause:
    return Cause(
        key=f"run:reconcile_daily:{step}",
        what=f"the job reconcile_daily of {day} failed at {step}",
        names=(step,),
        job="reconcile_daily",
        day=day,
        run_id=run,
        failed_steps=(step,),
    )


def settings(**given: object) -> AlertSettings:
    return read_alert_settings(
        {f"VIBES_ALERT_{name.upper()}": str(value) for name, value in given.items()}
    )


def lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_an_alert_says_what_happened_what_is_safe_and_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "alerts.jsonl"
    AlertBook(tmp_path, settings(file=file, ui_url=UI)).report([cause()], NOW)
    [alert] = lines(file)
    assert (alert["event"], alert["severity"], alert["count"]) == ("failed", "error", 1)
    assert alert["title"] == "[vibes] the job reconcile_daily of 2026-01-03 failed at diff_set"
    assert (alert["safe"], alert["todo"]) == (ADVICE["diff_set"].safe, ADVICE["diff_set"].todo)
    assert alert["link"] == f"{UI}/runs/run-1"
    for name in ("what", "safe", "todo", "link"):
        assert alert[name] in alert["text"]
    assert file.stat().st_mode & 0o777 == 0o600


def test_the_same_cause_is_told_once_in_a_window_then_again_with_its_count(tmp_path: Path) -> None:
    file = tmp_path / "alerts.jsonl"
    book = AlertBook(tmp_path, settings(file=file))
    for hour in range(8):
        book.report([cause(run=f"run-{hour}")], NOW + timedelta(hours=hour))
    assert [(one["event"], one["count"]) for one in lines(file)] == [("failed", 1), ("repeated", 7)]
    assert lines(file)[1]["title"].startswith("[vibes] still: ")
    assert "Seen 7 times since 2026-01-03T07:00:00Z" in lines(file)[1]["text"]
    [firing] = book.firing()
    assert firing.count == 8


def test_one_failure_seen_by_two_sensors_counts_once(tmp_path: Path) -> None:
    book = AlertBook(tmp_path, settings(file=tmp_path / "alerts.jsonl"))
    book.report([cause()], NOW)
    book.report([cause()], NOW)
    assert [one.count for one in book.firing()] == [1]


def test_what_is_over_is_told_once_and_begins_anew_afterwards(tmp_path: Path) -> None:
    file = tmp_path / "alerts.jsonl"
    book = AlertBook(tmp_path, settings(file=file))
    book.report([cause()], NOW)
    for _ in range(2):
        book.resolve([cause().key, "run:never:told"], NOW + timedelta(hours=1))
    book.report([cause(run="run-2")], NOW + timedelta(hours=2))
    assert [one["event"] for one in lines(file)] == ["failed", "resolved", "failed"]
    assert "It is over" in lines(file)[1]["text"]


def test_a_channel_out_of_reach_gets_everything_later_and_in_order(tmp_path: Path) -> None:
    file = tmp_path / "alerts.jsonl"
    with webhook() as hook:
        hook.status = 503
        book = AlertBook(tmp_path, settings(file=file, webhook=hook.url))
        for step in ("share", "diff_set"):
            with pytest.raises(AlertError, match=r"webhook: 127\.0\.0\.1 answered 503") as raised:
                book.report([cause(step=step)], NOW)
            assert "secret-path" not in str(raised.value)
        assert [one["failed_steps"] for one in lines(file)] == [["share"], ["diff_set"]]
        hook.status = 204
        AlertBook(tmp_path, settings(file=file, webhook=hook.url)).resolve([], NOW)
        assert [one["failed_steps"] for one in hook.received] == [["share"], ["diff_set"]]
        assert len(lines(file)) == 2


def test_a_failure_is_told_when_nothing_can_be_kept(tmp_path: Path) -> None:
    """Also by the channels after one that refuses; and it is kept once there is room again."""
    draft = (tmp_path / STATE).with_suffix(".draft")
    draft.parent.mkdir()
    draft.symlink_to("/dev/full")
    with webhook() as hook:
        book = AlertBook(tmp_path, settings(file="/dev/full", webhook=hook.url))
        with pytest.raises(AlertError, match="file: /dev/full cannot be written"):
            book.report([cause(step="share"), cause(step="diff_set")], NOW)
        assert [one["failed_steps"] for one in hook.received] == [["share"], ["diff_set"]]
        draft.unlink()
        book = AlertBook(tmp_path, settings(webhook=hook.url))
        for hour in range(2):
            book.report([cause(run=f"run-{hour}", step="share")], NOW + timedelta(hours=hour))
        assert len(hook.received) == 3


def test_a_day_that_failed_is_kept_when_an_older_one_fails_too(tmp_path: Path) -> None:
    book = AlertBook(tmp_path, settings(file=tmp_path / "alerts.jsonl"))
    for run, day in (("run-1", "2026-01-05"), ("run-2", "2026-01-02")):
        book.report([cause(run, day=day)], NOW)
    [firing] = book.firing()
    assert (firing.cause.day, firing.last_day, firing.count) == ("2026-01-02", "2026-01-05", 2)


@contextmanager
def no_http() -> Iterator[str]:
    """The address of a server that speaks another protocol."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.request.sendall(b"220 another protocol\r\n\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/secret-path"
        server.shutdown()
        thread.join()


def test_what_speaks_no_http_is_a_channel_out_of_reach(tmp_path: Path) -> None:
    file = tmp_path / "alerts.jsonl"
    with no_http() as address:
        book = AlertBook(tmp_path, settings(file=file, webhook=address))
        for causes in ([cause()], [], []):
            with pytest.raises(AlertError, match=r"webhook: 127\.0\.0\.1 cannot be reached"):
                book.report(causes, NOW)
    assert len(lines(file)) == 1


def test_a_mail_host_that_is_none_is_told_once_in_the_other_channels(tmp_path: Path) -> None:
    file = tmp_path / "alerts.jsonl"
    given = {"file": file, "smtp_host": "smtp..example.com", "to": "one@example.com"}
    book = AlertBook(tmp_path, settings(**given))
    for causes in ([cause()], []):
        with pytest.raises(AlertError, match=r"mail: .* see VIBES_ALERT_SMTP_HOST"):
            book.report(causes, NOW)
    assert len(lines(file)) == 1


def test_an_unforeseen_fault_of_a_channel_is_told_by_its_class_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise LookupError("+12015550123")

    file = tmp_path / "alerts.jsonl"
    monkeypatch.setattr(alert_channels, "post", broken)
    book = AlertBook(tmp_path, settings(file=file, webhook="http://hooks.internal"))
    for causes in ([cause()], []):
        with pytest.raises(AlertError) as raised:
            book.report(causes, NOW)
        assert str(raised.value) == "webhook: LookupError; see its VIBES_ALERT_* settings"
    assert len(lines(file)) == 1


def test_what_left_is_not_sent_again_when_the_process_ends_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*_: object) -> None:
        raise KeyboardInterrupt

    file = tmp_path / "alerts.jsonl"
    book = AlertBook(tmp_path, settings(file=file, webhook="http://hooks.internal"))
    with monkeypatch.context() as patch:
        patch.setattr(alert_channels, "post", ended)
        with pytest.raises(KeyboardInterrupt):
            book.report([cause()], NOW)
    with webhook() as hook:
        AlertBook(tmp_path, settings(file=file, webhook=hook.url)).carry()
        assert len(hook.received) == len(lines(file)) == 1


def test_a_channel_that_refused_is_left_in_peace_until_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def away(*_: object) -> None:
        asked.append(1)
        raise AlertError("webhook: hooks.internal cannot be reached")

    file = tmp_path / "alerts.jsonl"
    monkeypatch.setattr(alert_channels, "post", away)
    book = AlertBook(tmp_path, settings(file=file, webhook="http://hooks.internal"))
    with pytest.raises(AlertError):
        book.report([cause(step="share"), cause(step="diff_set")], NOW)
    assert (len(asked), len(lines(file))) == (1, 2)


def test_what_waits_for_one_channel_pushes_out_nothing_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "MOST_WAITING", 2)
    file = tmp_path / "alerts.jsonl"
    with webhook() as hook:
        book = AlertBook(tmp_path, settings(file=file, webhook=hook.url))
        book.note([cause(step=step) for step in ("share", "extracts", "diff_set")], NOW)
        book.carry()
        for told in (lines(file), hook.received):
            assert [one["failed_steps"] for one in told] == [["extracts"], ["diff_set"]]


def test_a_redirect_is_no_receipt(tmp_path: Path) -> None:
    with webhook() as hook:
        hook.status = 302
        with pytest.raises(AlertError, match="answered 302"):
            AlertBook(tmp_path, settings(webhook=hook.url)).report([cause()], NOW)


def test_slack_gets_a_text_and_nothing_else(tmp_path: Path) -> None:
    with webhook() as hook:
        AlertBook(tmp_path, settings(slack_webhook=hook.url)).report([cause()], NOW)
        [posted] = hook.received
    assert posted.keys() == {"text"}
    assert posted["text"].startswith("[vibes] the job reconcile_daily")
    assert ADVICE["diff_set"].todo in posted["text"]


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_mail_goes_over_tls_with_a_login(tmp_path: Path, security: str) -> None:
    authority = Authority(tmp_path)
    pair = authority.sign("mail.internal")
    with mail_server(pair, {"alerts": "s3cret"}, tls_first=security == "tls") as server:
        given = {
            "smtp_host": "127.0.0.1",
            "smtp_port": server.port,
            "smtp_security": security,
            "smtp_user": "alerts",
            "smtp_password": "s3cret",
            "smtp_ca": authority.certificate,
            "from": "vibes@example.com",
            "to": "one@example.com, two@example.com",
        }
        AlertBook(tmp_path, settings(**given)).report([cause()], NOW)
        [message] = server.messages
        assert server.encrypted == [True]
        assert message["Subject"] == f"[vibes] {cause().what}"
        assert (message["From"], message["To"]) == (
            "vibes@example.com",
            "one@example.com, two@example.com",
        )
        assert f"What is safe: {ADVICE['diff_set'].safe}" in " ".join(message.get_content().split())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"smtp_password": "wrong"}, "refused the login"),
        ({"smtp_ca": ""}, "is not trusted"),
        ({"smtp_port": "1"}, "did not take it"),
    ],
)
def test_mail_that_does_not_leave_says_why_without_a_secret(
    tmp_path: Path, changed: Mapping[str, str], said: str
) -> None:
    authority = Authority(tmp_path)
    with mail_server(authority.sign("mail.internal"), {"alerts": "s3cret"}) as server:
        given = {
            "smtp_host": "127.0.0.1",
            "smtp_port": server.port,
            "smtp_user": "alerts",
            "smtp_password": "s3cret",
            "smtp_ca": authority.certificate,
            "to": "one@example.com",
            **changed,
        }
        with pytest.raises(AlertError, match=said) as raised:
            AlertBook(tmp_path, settings(**given)).report([cause()], NOW)
        assert server.messages == []
    assert not {"s3cret", "wrong"} & set(str(raised.value).split())


def test_a_state_that_cannot_be_read_counts_as_none(tmp_path: Path) -> None:
    file = tmp_path / "alerts.jsonl"
    book = AlertBook(tmp_path, settings(file=file))
    book.report([cause()], NOW)
    (tmp_path / STATE).write_text("{half", encoding="utf-8")
    book.report([cause(run="run-2")], NOW)
    assert [one["event"] for one in lines(file)] == ["failed", "failed"]


def test_two_processes_at_once_tell_it_once(tmp_path: Path) -> None:
    file = tmp_path / "alerts.jsonl"

    def tell(run: int) -> None:
        AlertBook(tmp_path, settings(file=file)).report([cause(run=f"run-{run}")], NOW)

    threads = [threading.Thread(target=tell, args=(run,)) for run in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines(file)) == 1
    assert [one.count for one in AlertBook(tmp_path, settings(file=file)).firing()] == [8]


@given(
    st.lists(
        st.tuples(st.sampled_from(["report", "resolve"]), st.integers(0, 400)),
        min_size=1,
        max_size=20,
    )
)
def test_never_twice_in_a_window_and_every_end_has_a_beginning(
    tmp_path_factory: pytest.TempPathFactory, acts: list[tuple[str, int]]
) -> None:
    home = tmp_path_factory.mktemp("book")
    book, now = AlertBook(home, settings(file=home / "alerts.jsonl")), NOW
    for number, (act, minutes) in enumerate(acts):
        now += timedelta(minutes=minutes)
        if act == "report":
            book.report([cause(run=f"run-{number}")], now)
        else:
            book.resolve([cause().key], now)
    told: datetime | None = None
    for one in lines(home / "alerts.jsonl"):
        at = datetime.fromisoformat(one["at"])
        match one["event"]:
            case "failed":
                assert told is None
            case "repeated":
                assert told is not None
                assert at - told >= WINDOW
            case _:
                assert told is not None
        told = None if one["event"] == "resolved" else at


@pytest.mark.parametrize(
    ("given_settings", "said"),
    [
        ({"webhook": "hooks.internal/x"}, "VIBES_ALERT_WEBHOOK must begin with https://"),
        ({"smtp_host": "mail"}, "VIBES_ALERT_TO names nobody"),
        ({"smtp_host": "mail", "to": "a@b.c", "smtp_security": "ssl"}, "starttls, tls or none"),
        (
            {"smtp_host": "mail", "to": "a@b.c", "smtp_security": "none", "smtp_user": "x"},
            "must not travel in clear",
        ),
        ({"window_s": "1h"}, "VIBES_ALERT_WINDOW_S must be a whole number"),
    ],
)
def test_a_wrong_setting_names_itself_and_the_cure(
    given_settings: dict[str, str], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        settings(**given_settings)


def test_an_unknown_cause_has_advice_too(tmp_path: Path) -> None:
    file = tmp_path / "alerts.jsonl"
    AlertBook(tmp_path, settings(file=file)).report([cause(step="a_new_step")], NOW)
    assert lines(file)[0]["todo"] == DEFAULT.todo
