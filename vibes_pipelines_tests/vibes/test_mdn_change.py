"""The change of a number is one operation: cut it anywhere, run it again, and it is done once."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from vibes_pipelines.vibes.person_api import Answer
from vibes_pipelines_tests.vibes.answering import ask, refusal

OLD, NEW, OTHER = "+13125550142", "+13125550143", "+13125550144"


@dataclass
class NumberPlatform:
    """Persons with numbers, as documented: a number can be removed and set, never changed.

    `faults` maps the count of a request, from 1, to `before` or `after`: the line breaks before or
    after it was applied.
    """

    mdns: dict[str, str | None]
    faults: dict[int, str] = field(default_factory=dict)
    refuse_set: web.Response | None = None
    is_slow: bool = False
    writes: list[str | None] = field(default_factory=list)
    count: int = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        content = await request.read()
        self.count += 1
        fault = self.faults.get(self.count)
        if fault == "before":
            return web.Response(status=503)
        answer = self.answer(request, json.loads(content) if content else {})
        return web.Response(status=503) if fault == "after" else answer

    def answer(self, request: web.Request, body: dict[str, Any]) -> web.Response:
        if "mdn" in request.query:
            owners = [key for key, mdn in self.mdns.items() if mdn == request.query["mdn"]]
            return self.person(owners[0]) if owners else refusal(404)
        key = request.path.rsplit("/", 1)[1]
        if key not in self.mdns:
            return web.Response(status=404)
        return self.person(key) if request.method == "GET" else self.put(key, body)

    def put(self, key: str, body: dict[str, Any]) -> web.Response:
        mdn = body["mobile_phone"]["mdn"]
        self.writes.append(mdn)
        if mdn is not None and self.mdns[key] not in {None, mdn}:
            return web.Response(status=409)
        if mdn is not None and self.refuse_set is not None:
            return self.refuse_set
        if not self.is_slow:
            self.mdns[key] = mdn
        return self.person(key)

    def person(self, key: str) -> web.Response:
        phone = {"mdn": self.mdns[key], "carrier_code": "104"}
        return web.json_response({"person_key": key, "mobile_phone": phone})


def change(platform: NumberPlatform, old_mdn: str | None = OLD, attempts: int = 1) -> Answer:
    return ask(
        platform,
        lambda api: api.replace_mdn(NEW, person_key="p1", old_mdn=old_mdn),
        max_attempts=attempts,
    )


def test_the_number_is_removed_then_set_and_read_back() -> None:
    platform = NumberPlatform({"p1": OLD})
    assert change(platform).outcome == "accepted"
    assert platform.mdns == {"p1": NEW}
    assert platform.writes == [None, NEW]


def test_a_person_with_the_number_is_left_alone() -> None:
    platform = NumberPlatform({"p1": NEW})
    assert change(platform).outcome == "accepted"
    assert platform.writes == []


def test_a_person_without_a_number_only_gets_one() -> None:
    platform = NumberPlatform({"p1": None})
    assert change(platform).outcome == "accepted"
    assert platform.writes == [NEW]


def test_a_number_that_another_person_has_removes_nothing() -> None:
    platform = NumberPlatform({"p1": OLD, "p2": NEW})
    answer = change(platform)
    assert (answer.outcome, answer.error_class) == (
        "rejected",
        "PersonErrors::MobilePhoneAlreadyAssigned",
    )
    assert (platform.mdns["p1"], platform.writes) == (OLD, [])


def test_a_person_whose_number_is_another_meanwhile_is_left_alone() -> None:
    platform = NumberPlatform({"p1": OTHER})
    answer = change(platform)
    assert (answer.outcome, answer.error_class) == ("rejected", "ChangedMeanwhile")
    assert platform.writes == []
    assert change(platform, old_mdn=None).outcome == "accepted"


def test_a_person_who_is_not_there_is_refused() -> None:
    answer = change(NumberPlatform({}))
    assert (answer.outcome, answer.status) == ("rejected", 404)


def test_a_refused_number_leaves_none_and_says_so() -> None:
    platform = NumberPlatform({"p1": OLD}, refuse_set=refusal(422, "no provisioned carrier"))
    answer = change(platform)
    assert (answer.outcome, answer.error_class) == ("rejected", "CarrierNotProvisioned")
    assert answer.message == "no provisioned carrier; the person has no number now"


def test_a_write_that_cannot_be_seen_is_not_believed() -> None:
    platform = NumberPlatform({"p1": OLD}, is_slow=True)
    answer = change(platform)
    assert (answer.outcome, answer.error_class) == ("unknown", "NotYetVisible")
    assert platform.writes == [None], "nothing is set before the removal can be seen"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("cut", range(1, 7))
def test_cut_at_any_request_a_second_run_finishes_it(cut: int, when: str) -> None:
    """Requests of a whole change: read, owner, remove, read, set, read."""
    platform = NumberPlatform({"p1": OLD}, faults={cut: when})
    first = change(platform)
    assert first.outcome in {"accepted", "unknown"}
    if first.outcome == "accepted":
        assert platform.mdns == {"p1": NEW}, "accepted is never said of what did not happen"
    assert change(platform).outcome == "accepted"
    assert platform.mdns == {"p1": NEW}


@pytest.mark.parametrize("cut", range(1, 7))
def test_one_fault_is_survived_in_one_run(cut: int) -> None:
    platform = NumberPlatform({"p1": OLD}, faults={cut: "after"})
    assert change(platform, attempts=3).outcome == "accepted"
    assert platform.mdns == {"p1": NEW}
