"""Scripted faults over real HTTP, before and after the effect of a call."""

from pathlib import Path
from time import monotonic

import pytest

from vibes_pipelines.sandbox.faults import Fault, Faults, FaultScriptError, parse_faults
from vibes_pipelines.sandbox.switches import Switches
from vibes_pipelines_tests.sandbox.stand_in import ADA_KEY, StandIn

ADA = f"/mobiledb/persons/{ADA_KEY}"
EDIT = {"custom_fields": {"first_name": "Augusta"}}


def test_a_status_strikes_the_matching_calls_as_often_as_asked(api: StandIn) -> None:
    match = {"method": "put", "path_regex": "persons/[0-9a-f-]+$"}
    api.script({"match": match, "action": "status", "status": 503, "times": 2})
    statuses = [api.call("PUT", ADA, EDIT).status for _ in range(3)]
    assert (statuses, api.call("GET", ADA).status) == ([503, 503, 200], 200)
    assert api.platform.audit.effects() == 1


def test_an_effect_may_be_done_although_the_answer_says_otherwise(api: StandIn) -> None:
    api.script({"action": "status", "status": 500, "when": "after", "times": 1})
    assert api.call("PUT", ADA, EDIT).status == 500
    assert api.platform.persons[ADA_KEY].custom["first_name"] == "Augusta"
    assert api.call("PUT", ADA, EDIT).status == 200
    assert (api.platform.audit.effects(), api.platform.audit.repeats()) == (1, 1)


@pytest.mark.parametrize(("when", "effects"), [("before", 0), ("after", 1)])
def test_a_reset_breaks_the_connection(api: StandIn, when: str, effects: int) -> None:
    api.script({"action": "reset", "when": when, "times": 1})
    with pytest.raises(ConnectionResetError):
        api.call("PUT", ADA, EDIT)
    assert api.platform.audit.effects() == effects
    assert api.call("GET", ADA).status == 200, "the server lives on"


@pytest.mark.parametrize(("when", "effects"), [("before", 0), ("after", 1)])
def test_a_call_may_hang_until_its_time_is_up(api: StandIn, when: str, effects: int) -> None:
    api.script({"action": "hang", "when": when, "delay_s": 0.3, "times": 1})
    since = monotonic()
    with pytest.raises(ConnectionError):
        api.call("PUT", ADA, EDIT)
    assert monotonic() - since >= 0.3
    assert api.platform.audit.effects() == effects


def test_a_delayed_call_is_answered_late(api: StandIn) -> None:
    api.script({"action": "delay", "delay_s": 0.3, "times": 1})
    since = monotonic()
    assert api.call("GET", ADA).status == 200
    assert monotonic() - since >= 0.3


def test_a_dropped_connection_is_counted_as_no_answer(api: StandIn) -> None:
    api.script({"action": "reset", "times": 1})
    with pytest.raises(ConnectionResetError):
        api.call("GET", ADA)
    assert api.platform.audit.as_dict()["requests"] == [
        {"method": "GET", "route": "/mobiledb/persons/*", "status": 0, "count": 1}
    ]


def test_faults_are_read_from_yaml(tmp_path: Path) -> None:
    script = tmp_path / "faults.yaml"
    script.write_text(
        "- match: {method: GET, path_regex: /subscriptions}\n  action: status\n  status: 502\n"
        "- {action: delay, delay_s: 0.5, times: 1}\n",
        encoding="utf-8",
    )
    faults = Faults.load(script)
    first = faults.take("GET", "/a/subscriptions")
    assert first is not None
    assert (first.action, first.status) == ("status", 502)
    second = faults.take("PUT", "/a/subscriptions")
    assert second is not None
    assert (second.action, second.delay_s) == ("delay", 0.5)
    assert faults.take("PUT", "/a/subscriptions") is None


def test_an_empty_script_means_no_faults(tmp_path: Path) -> None:
    script = tmp_path / "faults.yaml"
    script.write_text("# nothing goes wrong\n", encoding="utf-8")
    assert Faults.load(script).take("GET", "/") is None


@pytest.mark.parametrize(
    "entry",
    [
        "reset",
        {},
        {"action": "explode"},
        {"action": "reset", "when": "never"},
        {"action": "reset", "path_regex": "x"},
        {"action": "reset", "match": {"path": "x"}},
        {"action": "reset", "match": {"path_regex": "("}},
        {"action": "delay", "delay_s": "long"},
        {"action": "delay", "times": -1},
    ],
)
def test_a_script_that_cannot_be_meant_is_refused(entry: object) -> None:
    with pytest.raises(FaultScriptError):
        parse_faults([entry])


def test_a_script_that_is_no_list_or_no_yaml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FaultScriptError, match="list"):
        parse_faults({"action": "reset"})
    script = tmp_path / "faults.yaml"
    script.write_text("[", encoding="utf-8")
    with pytest.raises(FaultScriptError, match="not YAML"):
        Faults.load(script)


def test_a_fault_without_a_match_strikes_everything() -> None:
    assert Fault("reset").matches("DELETE", "/anything")


@pytest.mark.parametrize(
    "readings",
    [{"nonsense": 1}, {"delete_status": 205}, {"empty_error_body": 1}, {"post_existing_mdn": ""}],
)
def test_switches_refuse_what_they_do_not_know(readings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="switch"):
        Switches.from_mapping(readings)
