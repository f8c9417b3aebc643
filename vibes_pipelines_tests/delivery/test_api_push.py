"""Every operation is sent once in effect, and the ledger knew of it before."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from vibes_pipelines.delivery.api_push import PushError, PushResult, push
from vibes_pipelines.store.ledger import Ledger
from vibes_pipelines.store.records import Lane
from vibes_pipelines.vibes.person_api import VibesAuthError
from vibes_pipelines_tests.support.deliveries import (
    DAY,
    DIFF_SET,
    TYPES,
    FakeAnswer,
    FakePlatform,
    Killed,
    add,
    change,
    opt_out,
    planned,
    update,
)


def run(
    ledger: Ledger,
    platform: FakePlatform,
    lane: Lane = "persons",
    *,
    dry_run: bool = False,
    **more: Any,
) -> PushResult:
    operations = ledger.open_operations(DIFF_SET, lane, "api")
    return asyncio.run(push(operations, platform, ledger, TYPES, dry_run=dry_run, **more))


def statuses(ledger: Ledger) -> dict[str, int]:
    counts: dict[str, int] = {}
    for (_, _, status), rows in ledger.status_counts(DIFF_SET).items():
        counts[status] = counts.get(status, 0) + rows
    return counts


class TestCalls:
    def test_an_add_is_an_upsert_with_its_number(self, ledger: Ledger, tmp_path: Path) -> None:
        rows = [add("C1", change("first_name", "Ada"), mdn="+13125550142")]
        planned(ledger, tmp_path, persons=rows)
        platform = FakePlatform()
        run(ledger, platform)
        body = {"mobile_phone": {"mdn": "+13125550142"}, "custom_fields": {"first_name": "Ada"}}
        assert platform.calls == [("upsert", "C1", body)]

    def test_an_update_carries_what_changed_and_nothing_else(
        self, ledger: Ledger, tmp_path: Path
    ) -> None:
        rows = [update("C1", change("first_name", None, "Ada"), change("interests", "golf|ski"))]
        planned(ledger, tmp_path, persons=rows)
        platform = FakePlatform()
        run(ledger, platform)
        custom = {"first_name": None, "interests": ["golf", "ski"]}
        assert platform.calls == [("upsert", "C1", {"custom_fields": custom})]

    def test_a_number_is_added_to_an_existing_person(self, ledger: Ledger, tmp_path: Path) -> None:
        planned(ledger, tmp_path, persons=[update("C1", change("mdn", "+13125550142"))])
        platform = FakePlatform()
        run(ledger, platform)
        assert platform.calls == [("upsert", "C1", {"mobile_phone": {"mdn": "+13125550142"}})]

    def test_an_adoption_goes_by_person_key(self, ledger: Ledger, tmp_path: Path) -> None:
        planned(ledger, tmp_path, persons=[update("C1", change("external_person_id", "C1"))])
        platform = FakePlatform(keys={"key-c1"})
        run(ledger, platform)
        assert platform.calls == [("update", "key-c1", {"external_person_id": "C1"})]

    def test_a_person_gone_before_its_adoption_is_added(
        self, ledger: Ledger, tmp_path: Path
    ) -> None:
        changes = (change("external_person_id", "C1"), change("first_name", "Ada"))
        planned(ledger, tmp_path, persons=[update("C1", *changes)])
        platform = FakePlatform()
        assert run(ledger, platform).accepted == 1
        assert platform.calls[-1] == ("upsert", "C1", {"custom_fields": {"first_name": "Ada"}})

    def test_an_upsert_of_an_unknown_id_falls_back_to_an_add(
        self, ledger: Ledger, tmp_path: Path
    ) -> None:
        """The other reading of the documentation: the upsert of an unknown id is a 404."""
        rows = [add("C1", change("first_name", "Ada"), mdn="+13125550142")]
        planned(ledger, tmp_path, persons=rows)
        platform = FakePlatform(updates_only=True)
        assert run(ledger, platform).accepted == 1
        body = {"mobile_phone": {"mdn": "+13125550142"}, "custom_fields": {"first_name": "Ada"}}
        assert platform.calls == [
            ("upsert", "C1", body),
            ("add", "C1", {"external_person_id": "C1", **body}),
        ]

    def test_an_opt_out_is_an_unsubscribe(self, ledger: Ledger, tmp_path: Path) -> None:
        planned(ledger, tmp_path, subscriptions=[opt_out("C1")])
        platform = FakePlatform()
        run(ledger, platform, "opt_outs")
        assert platform.calls == [("unsubscribe", "key-c1", {"list": "1234"})]

    def test_an_adoption_without_a_person_key_is_not_sent(
        self, ledger: Ledger, tmp_path: Path
    ) -> None:
        row = update("C1", change("external_person_id", "C1")) | {"person_key": None}
        planned(ledger, tmp_path, persons=[row])
        with pytest.raises(PushError, match="names no person_key"):
            run(ledger, FakePlatform())
        assert statuses(ledger) == {"planned": 1}


class TestAnswers:
    def test_each_answer_becomes_a_receipt(self, ledger: Ledger, tmp_path: Path) -> None:
        rows = [update(f"C{n}", change("first_name", "Ada")) for n in range(4)]
        planned(ledger, tmp_path, persons=rows)
        message = "the number +1 312 555 0142 belongs to another person"
        platform = FakePlatform(
            answers={
                "C1": FakeAnswer(409, "rejected", "HTTP 409", message),
                "C2": FakeAnswer(None, "unknown", "Timeout"),
            }
        )
        result = run(ledger, platform)
        assert result == PushResult(4, 2, 1, 1, 0, {"HTTP 409": 1, "Timeout": 1})
        assert statuses(ledger) == {"accepted": 2, "rejected": 1, "unknown": 1}
        (refused,) = ledger.blocked("2026-01-03").to_pylist()
        assert (refused["external_person_id"], refused["error_class"]) == ("C1", "HTTP 409")

    @pytest.mark.parametrize(
        ("error_class", "message", "kept"),
        [
            ("HTTP 422", "value Ann\ud83d is wrong", ("HTTP 422", "value Ann? is wrong")),
            ("HTTP 422", "A\0da", ("HTTP 422", "Ada")),
            ("\ud83d\0" + "X" * 999, None, ("?" + "X" * 254, None)),
        ],
        ids=["half a character", "NUL", "a long class"],
    )
    def test_an_odd_answer_costs_no_other_its_receipt(
        self,
        ledger_url: str,
        tmp_path: Path,
        error_class: str,
        message: str | None,
        kept: tuple[str, str | None],
    ) -> None:
        platform = FakePlatform(answers={"C1": FakeAnswer(422, "rejected", error_class, message)})
        with Ledger(ledger_url) as ledger:
            rows = [update(f"C{n}", change("first_name", "Ada")) for n in range(3)]
            planned(ledger, tmp_path, persons=rows)
            ids = {
                one.external_person_id: one.operation_id
                for one in ledger.open_operations(DIFF_SET, "persons", "api")
            }
            run(ledger, platform)
            assert statuses(ledger) == {"accepted": 2, "rejected": 1}
            refused = ledger.operation(ids["C1"])
            assert refused is not None
            assert (refused.error_class, refused.message) == kept

    @pytest.mark.parametrize("status", [400, 404])
    def test_a_wrong_company_key_blocks_nobody(
        self, ledger: Ledger, tmp_path: Path, status: int
    ) -> None:
        planned(ledger, tmp_path, persons=[update("C1", change("first_name", "Ada"))])
        refusal = FakeAnswer(status, "rejected", f"HTTP {status}")
        assert run(ledger, FakePlatform(answers={"C1": refusal})).rejected == 1
        assert ledger.blocked("2026-01-03").num_rows == 0
        assert ledger.pending("2026-01-03").num_rows == 0

    def test_no_number_of_a_person_reaches_the_ledger(self, ledger: Ledger, tmp_path: Path) -> None:
        planned(ledger, tmp_path, persons=[update("C1", change("first_name", "Ada"))])
        (operation,) = ledger.open_operations(DIFF_SET, "persons", "api")
        refusal = FakeAnswer(422, "rejected", "HTTP 422", "bad number +13125550142")
        run(ledger, FakePlatform(answers={"C1": refusal}))
        after = ledger.operation(operation.operation_id)
        assert after is not None
        assert after.message == "bad number [removed]"

    def test_an_unknown_one_is_sent_again_by_the_next_run_and_counted_as_a_repeat(
        self, ledger: Ledger, tmp_path: Path
    ) -> None:
        planned(ledger, tmp_path, persons=[update("C1", change("first_name", "Ada"))])
        run(ledger, FakePlatform(answers={"C1": FakeAnswer(503, "unknown", "HTTP 503")}))
        second = run(ledger, FakePlatform())
        assert (second.accepted, second.repeated) == (1, 1)
        assert run(ledger, FakePlatform()) == PushResult()

    def test_progress_is_told(self, ledger: Ledger, tmp_path: Path) -> None:
        rows = [update(f"C{n}", change("first_name", "Ada")) for n in range(3)]
        planned(ledger, tmp_path, persons=rows)
        told: list[int] = []
        run(ledger, FakePlatform(), on_progress=told.append)
        assert told == [1, 2, 3]

    def test_a_dry_run_sends_and_records_nothing(self, ledger: Ledger, tmp_path: Path) -> None:
        planned(ledger, tmp_path, persons=[update("C1", change("first_name", "Ada"))])
        platform = FakePlatform()
        assert run(ledger, platform, dry_run=True) == PushResult(planned=1)
        assert platform.calls == []
        assert statuses(ledger) == {"planned": 1}


class TestStopping:
    def test_refused_credentials_stop_the_push_and_lose_nothing(
        self, ledger: Ledger, tmp_path: Path
    ) -> None:
        rows = [update(f"C{n:04d}", change("first_name", "Ada")) for n in range(1_200)]
        planned(ledger, tmp_path, persons=rows)
        order = [op.external_person_id for op in ledger.open_operations(DIFF_SET, "persons", "api")]
        platform = FakePlatform(answers={str(order[700]): VibesAuthError("HTTP 401")})
        with pytest.raises(VibesAuthError):
            run(ledger, platform)
        assert statuses(ledger) == {"accepted": 700, "planned": 500}
        platform.answers.clear()
        result = run(ledger, platform)
        assert (result.accepted, result.repeated) == (500, 0)
        assert set(platform.effects.values()) == {1}
        assert len(platform.effects) == 1_200

    @pytest.mark.parametrize("calls", [0, 1, 57, 300])
    def test_killed_anywhere_every_operation_has_exactly_one_effect(
        self, ledger: Ledger, tmp_path: Path, calls: int
    ) -> None:
        """Law: exactly-once effect over at-least-once roads."""
        rows = [update(f"C{n}", change("first_name", "Ada")) for n in range(300)]
        planned(ledger, tmp_path, persons=rows, subscriptions=[opt_out("C1")])
        platform = FakePlatform(calls_until_killed=calls)
        if calls < 300:
            with pytest.raises(Killed):
                run(ledger, platform)
        platform.calls_until_killed = None
        run(ledger, platform)
        run(ledger, platform, "opt_outs")
        assert set(platform.effects.values()) == {1}
        assert len(platform.effects) == 301
        assert statuses(ledger) == {"accepted": 301}

    def test_every_send_is_in_the_ledger_before_it_leaves(
        self, ledger: Ledger, tmp_path: Path
    ) -> None:
        rows = [update(f"C{n}", change("first_name", "Ada")) for n in range(3)]
        planned(ledger, tmp_path, persons=rows)
        seen: list[dict[str, int]] = []

        class Watching(FakePlatform):
            async def upsert(self, external_person_id: str, body: dict[str, Any]) -> FakeAnswer:
                seen.append(statuses(ledger))
                return await super().upsert(external_person_id, body)

        run(ledger, Watching())
        assert seen[0] == {"sent": 3}

    def test_works_on_postgresql_too(self, ledger_url: str, tmp_path: Path) -> None:
        with Ledger(ledger_url) as ledger:
            rows = [update(f"C{n}", change("first_name", "Ada")) for n in range(700)]
            planned(ledger, tmp_path, persons=rows, day=DAY)
            run(ledger, FakePlatform(answers={"C5": FakeAnswer(409, "rejected", "HTTP 409")}))
            assert statuses(ledger) == {"accepted": 699, "rejected": 1}
