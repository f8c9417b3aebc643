"""Bulk imports of APSIS One over real HTTP: request, upload, poll, limits, expiry, lost answers."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from vibes_pipelines.apsis.calls import Limits
from vibes_pipelines.apsis.client import ApsisClient
from vibes_pipelines.apsis.errors import (
    ApsisAnswerError,
    ApsisError,
    ApsisForbidden,
    ApsisUnavailable,
    ImportFailed,
)
from vibes_pipelines.apsis.import_files import (
    CLEAR,
    ConsentRow,
    ImportFile,
    ProfileRow,
    write_consent_files,
    write_profile_files,
)
from vibes_pipelines.apsis.imports import ConsentColumn, ImportMapping, ImportTicket
from vibes_pipelines.sandbox.apsis_imports import ImportManner
from vibes_pipelines.sandbox.apsis_records import CRM_KEYSPACE, SECTION
from vibes_pipelines.sandbox.apsis_service import ApsisSandbox
from vibes_pipelines.sandbox.apsis_switches import ApsisSwitches
from vibes_pipelines_tests.apsis.apsis_parts import (
    CRM_ID,
    EMAIL_CHANNEL,
    FIRST_NAME,
    NEWS,
    SCORE,
    SHOP,
    TIER,
    fault,
    requests,
    stand_in,
    talk,
)


def names(count: int, folder: Path, prefix: str = "C") -> Any:
    """Writes a file of so many profiles, once the definitions are known."""

    async def write(client: ApsisClient) -> ImportFile:
        rows = [ProfileRow(f"{prefix}-{i}", {FIRST_NAME: f"Näme {i}"}) for i in range(count)]
        (file,) = write_profile_files(rows, await client.definitions(), folder)
        return file

    return write


def bring(count: int, folder: Path, on_request: Any = None) -> Any:
    async def run(client: ApsisClient) -> Any:
        file = await names(count, folder)(client)
        return await client.import_profiles(file.path, file.mapping, on_request)

    return run


def named(box: ApsisSandbox) -> int:
    return sum(1 for p in box.account.profiles() if FIRST_NAME in p.values(SECTION))


def test_5000_rows_come_in_and_a_second_import_changes_nothing(tmp_path: Path) -> None:
    with stand_in(switches=ApsisSwitches(import_result="counts")) as box:
        first = talk(box, bring(5000, tmp_path))
        assert (first.status, first.counts) == (
            "completed",
            {"new": 5000, "updated": 0, "not_changed": 0, "failed": 0},
        )
        second = talk(box, bring(5000, tmp_path))
        assert second.counts["not_changed"] == 5000
        assert box.account.audit.effects("import_attributes") == 5000
        assert box.account.find(CRM_KEYSPACE, "C-42").values(SECTION) == {
            CRM_ID: "C-42",
            FIRST_NAME: "Näme 42",
        }


def test_a_result_without_counts_is_a_result_all_the_same(tmp_path: Path) -> None:
    with stand_in() as box:
        assert talk(box, bring(3, tmp_path)).counts == {}


def test_a_clear_erases_and_everything_else_stays(tmp_path: Path) -> None:
    with stand_in() as box:

        async def run(client: ApsisClient) -> None:
            await client.upsert("C-1", {FIRST_NAME: "Ada", TIER: "gold", SCORE: 7})
            rows = [ProfileRow("C-1", {TIER: CLEAR}), ProfileRow("C-2", {SCORE: "1"})]
            for file in write_profile_files(rows, await client.definitions(), tmp_path):
                await client.import_profiles(file.path, file.mapping)

        talk(box, run)
        values = box.account.find(CRM_KEYSPACE, "C-1").values(SECTION)
        assert values == {CRM_ID: "C-1", FIRST_NAME: "Ada", SCORE: 7}


@pytest.mark.parametrize("zero", ["ignored", "taken"])
def test_consents_come_in_by_type_whatever_a_zero_means(zero: Any, tmp_path: Path) -> None:
    rows = [
        ConsentRow("C-1", "ada@example.com", NEWS, EMAIL_CHANNEL, "opt-in"),
        ConsentRow("C-2", "bea@example.com", NEWS, EMAIL_CHANNEL, "opt-out"),
    ]
    with stand_in(switches=ApsisSwitches(import_zero=zero)) as box:

        async def run(client: ApsisClient) -> list[Any]:
            for file in write_consent_files(rows, tmp_path):
                await client.import_profiles(file.path, file.mapping)
            return [[c.type for c in await client.consents(key) or ()] for key in ("C-1", "C-2")]

        assert talk(box, run) == [["opt-in"], ["opt-out"]]


def test_more_than_three_imports_wait_for_their_turn(tmp_path: Path) -> None:
    with stand_in() as box:

        async def run(client: ApsisClient) -> list[Any]:
            files = [await names(2, tmp_path / str(i), f"C{i}")(client) for i in range(5)]
            runs = (client.import_profiles(file.path, file.mapping) for file in files)
            return await asyncio.gather(*runs)

        for i in range(5):
            (tmp_path / str(i)).mkdir()
        assert [result.status for result in talk(box, run)] == ["completed"] * 5
        assert requests(box, "POST", "/imports") == {200: 5}
        assert named(box) == 10


def test_imports_of_somebody_else_are_waited_for(tmp_path: Path) -> None:
    with stand_in(manner=ImportManner(upload_ttl_s=30)) as box:

        async def run(client: ApsisClient) -> Any:
            for _ in range(3):
                await client.imports.request(ImportMapping("profile_key"))
            return await bring(2, tmp_path)(client)

        assert talk(box, run).status == "completed"
        assert requests(box, "POST", "/imports")[429] > 0


def test_ten_import_requests_a_minute_are_never_run_over(tmp_path: Path) -> None:
    with stand_in(manner=ImportManner(queued_s=0.1, in_progress_s=0.1)) as box:

        async def run(client: ApsisClient) -> None:
            file = await names(1, tmp_path)(client)
            await asyncio.gather(
                *(client.import_profiles(file.path, file.mapping) for _ in range(14))
            )

        talk(box, run, limits=Limits(poll_s=0.1))
        assert requests(box, "POST", "/imports") == {200: 14}


def test_an_expired_upload_url_asks_for_a_new_import(tmp_path: Path) -> None:
    with stand_in() as box:
        asked: list[str] = []

        def on_request(import_id: str) -> None:
            asked.append(import_id)
            if len(asked) == 1:
                box.control.advance({"seconds": 3600})

        assert talk(box, bring(2, tmp_path, on_request)).status == "completed"
        assert asked == ["import-1", "import-2"]
        assert requests(box, "POST", "/uploads") == {403: 1, 204: 1}


def test_an_upload_url_that_never_works_is_given_up(tmp_path: Path) -> None:
    with stand_in(manner=ImportManner(upload_ttl_s=-1)) as box:
        with pytest.raises(ImportFailed, match="no upload URL took"):
            talk(box, bring(2, tmp_path))
        assert requests(box, "POST", "/imports") == {200: 3}


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lost_upload_is_looked_at_before_it_is_sent_again(when: str, tmp_path: Path) -> None:
    with stand_in() as box:
        fault(box, "uploads", "reset", when=when, times=1)
        assert talk(box, bring(20, tmp_path)).status == "completed"
        uploads = requests(box, "POST", "/uploads")
        assert uploads == ({0: 1, 204: 1} if when == "before" else {0: 1})
        assert box.account.audit.effects("profile_created") == 20
        assert box.account.audit.repeats("import_attributes") == 0


def test_a_storm_at_every_step_is_survived(tmp_path: Path) -> None:
    with stand_in() as box:
        storm = [
            {"action": "status", "status": 503, "chance": 0.4, "times": 12},
            {"action": "reset", "when": "after", "chance": 0.3, "times": 8},
        ]
        box.control.set_faults({"faults": storm})
        assert talk(box, bring(50, tmp_path), limits=Limits(max_attempts=20)).status == "completed"
        assert box.account.audit.effects("profile_created") == 50


def test_after_a_crash_an_import_is_asked_for_by_its_id(tmp_path: Path) -> None:
    with stand_in() as box:
        asked: list[str] = []

        async def until_the_crash(client: ApsisClient) -> None:
            file = await names(5, tmp_path)(client)
            ticket = await client.imports.request(file.mapping)
            asked.append(ticket.import_id)
            await client.imports.upload(ticket, file.path)

        talk(box, until_the_crash)
        result = talk(box, lambda client: client.imports.wait(asked[0]))
        assert result.status == "completed"
        assert named(box) == 5


def test_a_file_that_cannot_be_read_ends_in_error(tmp_path: Path) -> None:
    bad = tmp_path / "latin.csv"
    bad.write_bytes("profile_key,x\nC-1,Ä\n".encode("latin-1"))
    with stand_in() as box, pytest.raises(ImportFailed, match="ended in error") as failed:
        talk(box, lambda client: client.import_profiles(bad, ImportMapping("profile_key")))
    assert failed.value.import_id == "import-1"


def test_an_import_that_never_ends_has_failed_after_a_day(tmp_path: Path) -> None:
    limits = Limits(import_patience_s=60)
    with stand_in(manner=ImportManner(queued_s=10**6)) as box:
        with pytest.raises(ImportFailed, match="taken as failed"):
            talk(box, bring(1, tmp_path), limits=limits)
        assert talk(box, lambda c: c.imports.status("import-1")).status == "queued"


def test_a_file_over_the_limit_is_refused_before_anything_is_asked_for(tmp_path: Path) -> None:
    with stand_in() as box:
        with pytest.raises(ImportFailed, match="split it"):
            talk(box, bring(100, tmp_path), limits=Limits(import_bytes=1000))
        assert requests(box, "POST", "/imports") == {}


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (ImportMapping("profile_key", (("tier", "700006"),)), "write permission"),
        (
            ImportMapping(
                "profile_key", consents=(ConsentColumn("flag", "address", NEWS, EMAIL_CHANNEL),)
            ),
            "manage_subscriptions",
        ),
    ],
)
def test_a_mapping_without_permission_is_forbidden(mapping: ImportMapping, message: str) -> None:
    with stand_in() as box, pytest.raises(ApsisForbidden, match=message):
        talk(box, lambda client: client.imports.request(mapping), SHOP)


def test_nothing_is_uploaded_in_the_clear_by_a_client_of_a_real_host(tmp_path: Path) -> None:
    with stand_in() as box:

        async def run(client: ApsisClient) -> None:
            file = await names(1, tmp_path)(client)
            client._api.url = "https://api.apsis.one"
            ticket = ImportTicket("import-1", f"{box.url}/uploads/import-1", {})
            await client.imports.upload(ticket, file.path)

        with pytest.raises(ApsisError, match="without https"):
            talk(box, run)
        assert requests(box, "POST", "/uploads") == {}


def test_an_unknown_state_of_an_import_is_no_success() -> None:
    with stand_in() as box:
        talk(box, lambda client: client.imports.request(ImportMapping("profile_key")))
        job: Any = box.imports._jobs["import-1"]
        job.state = "paused"
        with pytest.raises(ApsisAnswerError, match="import-1 has no known"):
            talk(box, lambda client: client.imports.status("import-1"))


def test_a_request_that_no_answer_came_to_is_told(tmp_path: Path) -> None:
    with stand_in() as box:
        fault(box, "/imports$", "reset")
        with pytest.raises(ApsisUnavailable):
            talk(box, bring(1, tmp_path))
