"""`callbacks plan` and `callbacks apply`: sync.yaml against what the platform has registered."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from vibes_pipelines.cli.main import main
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.stages.registrations import Step, difference, wanted
from vibes_pipelines.store.inbox import Inbox
from vibes_pipelines.sync_config import load_sync_config
from vibes_pipelines.sync_config.realtime import Callbacks
from vibes_pipelines.vibes.callback_api import CallbackSpec, Registration
from vibes_pipelines_tests.support.callbacks import running_receiver
from vibes_pipelines_tests.support.loop import EXAMPLE, Loop, running_loop

SECTION = """
callbacks:
  url: {url}
  campaigns: ["777"]
  apps: [APP1]
  wallet_tokens: [r3zhm8]
  source_codes: ["12345"]
"""
WANTED = {
    ("subscription_added", "1234"),
    ("subscription_removed", "1234"),
    ("ack_participant_added", "777"),
    ("ack_participant_changed", "777"),
    ("device_added", "APP1"),
    ("device_updated", "APP1"),
    ("device_removed", "APP1"),
    ("wallet_item_install", "r3zhm8"),
    ("wallet_item_remove", "r3zhm8"),
    ("unmatched_message_received", "12345"),
    ("person_updated", ""),
}


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    with running_loop(tmp_path_factory.mktemp("loop"), build_world(20, seed=3)) as running:
        yield running


@pytest.fixture
def listening(loop: Loop, tmp_path: Path) -> Iterator[str]:
    with Inbox(f"sqlite:///{tmp_path / 'inbox.db'}") as inbox, running_receiver(inbox) as served:
        yield f"http://127.0.0.1:{served.port}/callbacks"


def run(loop: Loop, config: Path, *arguments: str) -> Result:
    environment = {**loop.environment, "VIBES_SYNC_CONFIG": str(config)}
    return CliRunner().invoke(main, ["callbacks", *arguments], env=environment)


def actions(loop: Loop, config: Path, *arguments: str) -> dict[tuple[str, str], str]:
    result = run(loop, config, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return {
        (step["callback_type"], "".join(step["target"].values())): step["action"]
        for step in json.loads(result.stdout)
    }


def declared(folder: Path, section: str) -> Path:
    path = folder / "sync.yaml"
    path.write_text(EXAMPLE.read_text(encoding="utf-8") + section, encoding="utf-8")
    return path


def test_what_is_missing_is_registered_once_and_then_present(
    loop: Loop, listening: str, tmp_path: Path
) -> None:
    config = declared(tmp_path, SECTION.format(url=listening))
    assert actions(loop, config, "plan") == dict.fromkeys(WANTED, "register")
    shown = run(loop, config, "plan")
    assert "+ register subscription_removed (list_id 1234)" in shown.stdout
    assert "list 1234: opt-outs are not told until this is applied" in shown.stderr
    assert actions(loop, config, "apply") == dict.fromkeys(WANTED, "register")
    assert actions(loop, config, "plan") == dict.fromkeys(WANTED, "present")
    assert actions(loop, config, "apply", "--prune") == dict.fromkeys(WANTED, "present")


def test_surplus_of_ours_goes_only_when_pruned_and_a_foreign_one_never(
    loop: Loop, listening: str, tmp_path: Path
) -> None:
    (tmp_path / "theirs").mkdir()
    theirs = declared(
        tmp_path / "theirs",
        f"\ncallbacks:\n  url: {listening}/theirs\n  events: []\n",
    )
    actions(loop, theirs, "apply")
    config = declared(tmp_path, SECTION.format(url=listening))
    actions(loop, config, "apply")
    config = declared(tmp_path, f"\ncallbacks:\n  url: {listening}\n  events: []\n")
    ours = run(loop, config, "plan")
    assert ours.stdout.count("? surplus  ") == len(WANTED) - 2
    assert f"~ foreign  subscription_added (list_id 1234) -> {listening}/theirs" in ours.stdout
    run(loop, config, "apply")
    assert run(loop, config, "plan").stdout == ours.stdout
    pruned = run(loop, config, "apply", "--prune")
    assert pruned.stdout.count("  accepted") == len(WANTED) - 2
    left = run(loop, config, "plan", "--prune").stdout
    assert "- cancel" not in left
    assert left.count("= present") == 2
    assert left.count("/theirs") == 2


def test_a_refusal_is_shown_with_the_platforms_words_and_fails(loop: Loop, tmp_path: Path) -> None:
    config = declared(
        tmp_path,
        '\ncallbacks:\n  url: https://127.0.0.1:9/nobody\n  lists: ["404"]\n  events: []\n',
    )
    result = run(loop, config, "apply")
    assert result.exit_code == 1
    assert "subscription_added (list_id 404)  rejected: " in result.stdout


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("", "sync.yaml: callbacks: is missing; give the url of the receiver"),
        ("\ncallbacks: {url: 'http://x.example.com/'}\n", "the address must begin with https://"),
        ("\ncallbacks: {url: 'https://x.example.com/', events: [lunch]}\n", "callbacks.events"),
    ],
)
def test_what_cannot_be_declared_is_told_with_its_cure(
    loop: Loop, tmp_path: Path, section: str, message: str
) -> None:
    result = run(loop, declared(tmp_path, section), "plan")
    assert result.exit_code == 1
    assert message in result.output


def test_a_section_of_callbacks_changes_no_diff_set(tmp_path: Path) -> None:
    plain = load_sync_config(EXAMPLE)
    path = declared(tmp_path, SECTION.format(url="https://callbacks.example.com/callbacks"))
    assert load_sync_config(path).config_hash == plain.config_hash
    assert load_sync_config(path).mapping_hash == plain.mapping_hash


URL = "https://callbacks.example.com/callbacks"
registrations = st.lists(
    st.builds(
        lambda number, kind, target, url, end: Registration(
            str(number), kind, url, "POST", {"list_id": target}, None, None, end
        ),
        st.integers(0, 10**6),
        st.sampled_from(["subscription_added", "subscription_removed"]),
        st.sampled_from(["1234", "9"]),
        st.sampled_from([URL, "https://elsewhere.example.com/"]),
        st.sampled_from([None, "2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z"]),
    ),
    max_size=8,
    unique_by=lambda one: one.callback_id,
)


@settings(deadline=None)
@given(registered=registrations)
def test_whatever_is_registered_afterwards_each_wanted_event_is_sent_to_us_once(
    registered: list[Registration],
) -> None:
    section = Callbacks(url=URL, events=())
    config = load_sync_config(EXAMPLE).model_copy(update={"callbacks": section})
    specs = wanted(config)
    steps = difference(config, specs, registered, prune=True)
    cancelled = {step.callback_id for step in steps if step.action == "cancel"}
    alive = [one for one in registered if one.end_date != "2020-01-01T00:00:00Z"]
    kept = [one for one in alive if one.callback_id not in cancelled]
    new = [step for step in steps if step.action == "register"]
    for spec in specs:
        assert sum(map(spec.matches, kept)) + sum(map(_is_of(spec), new)) == 1
    assert all(one in kept for one in alive if one.url != URL)


def _is_of(spec: CallbackSpec) -> Callable[[Step], bool]:
    return lambda step: (step.callback_type, step.target) == (spec.callback_type, dict(spec.target))
