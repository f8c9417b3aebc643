"""The extracts beside those of subscribers, the switches of all, and privacy requests."""

import csv
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from vibes_pipelines.sandbox.account import Account
from vibes_pipelines.sandbox.acts import act
from vibes_pipelines.sandbox.events import Event
from vibes_pipelines.sandbox.extract_rows import COLUMNS
from vibes_pipelines.sandbox.extracts import ExtractDrop
from vibes_pipelines.sandbox.platform import PersonPatch
from vibes_pipelines.sandbox.privacy import PrivacyDesk
from vibes_pipelines.sandbox.switches import Switches
from vibes_pipelines_tests.sandbox.stand_in import (
    ADA_KEY,
    ADA_MDN,
    BEA_KEY,
    BEA_MDN,
    CAL_KEY,
    LANDLINE,
    TickingClock,
    build_platform,
)

DAY = date(2026, 1, 1)
CARD = {"token": "r3zhm8", "uuid": "card-1"}
INSTALL = {**CARD, "provider": "passbook"}


@pytest.fixture
def account() -> Account:
    return Account(build_platform())


def dropped(account: Account, folder: Path, **switches: object) -> dict[str, str]:
    """A first drop of everything that has happened: text by name."""
    readings = Switches.from_mapping({"extract_kinds": "all", **switches})
    drop = ExtractDrop(folder, account=account, switches=readings)
    drop.drop(account.platform, DAY, datetime(2026, 2, 1, tzinfo=UTC))
    return {path.name: path.read_text("utf-8") for path in folder.iterdir()}


def rows(files: dict[str, str], kind: str) -> list[dict[str, str]]:
    lines = files[f"{kind}_A1b2C3_{DAY}.txt"].splitlines()
    return list(csv.DictReader(lines, delimiter="\t"))


def test_all_seven_have_their_columns_and_a_done_file(account: Account, tmp_path: Path) -> None:
    files = dropped(account, tmp_path)
    names = {f"{kind}_A1b2C3_{DAY}.txt" for kind in COLUMNS}
    assert set(files) == names | {f"{name}.done" for name in names}
    for kind, columns in COLUMNS.items():
        header = files[f"{kind}_A1b2C3_{DAY}.txt"].splitlines()[0]
        assert header == "\t".join(columns)


def test_older_pages_name_files_and_events_otherwise(account: Account, tmp_path: Path) -> None:
    files = dropped(account, tmp_path, extract_names="former", extract_case="lower")
    assert {name for name in files if not name.endswith(".done")} == {
        f"CURRENT_SUBSCRIBERS_{DAY}.TXT",
        f"SUBSCRIPTIONS{DAY}.TXT",
        f"MESSAGES{DAY}.TXT",
        f"PUSHMESSAGES_{DAY}.TXT",
        f"URLS{DAY}.TXT",
        f"WALLETINSTANCE_{DAY}.TXT",
        f"WALLETPAGEVIEWS_{DAY}.TXT",
    }
    told = csv.DictReader(files[f"SUBSCRIPTIONS{DAY}.TXT"].splitlines(), delimiter="\t")
    events = [(row["subscription_event"], row["opt_out_reason"]) for row in told]
    assert sorted(events) == [("opt_in", ""), ("opt_in", ""), ("opt_out", "user_opt_out")]


def test_messages_are_told_with_their_activity_and_quoted_text(
    account: Account, tmp_path: Path
) -> None:
    account.acquisition.add("777", PersonPatch(), person_key=BEA_KEY)
    act(account, "texts/broadcast", {"mdn": ADA_MDN, "text": 'Say "hi"'})
    act(account, "texts/broadcast", {"mdn": ADA_MDN, "text": "x", "status": "Capped Message"})
    files = dropped(account, tmp_path)
    assert '"Say ""hi"""' in files[f"messages_A1b2C3_{DAY}.txt"]
    told = [
        (row["message"], row["message_status"], row["activity_type"], row["activity_id"])
        for row in rows(files, "messages")
    ]
    assert told == [
        ("Reply Y to join", "SUCCESS", "ACQUISITION", "777"),
        ('Say "hi"', "SUCCESS", "Broadcast", "501"),
        ("x", "Capped Message", "Broadcast", "501"),
    ]
    assert rows(files, "messages")[0]["timestamp"].endswith(" -0600")


def test_a_subscription_tells_the_campaign_it_came_by(account: Account, tmp_path: Path) -> None:
    account.acquisition.add("778", PersonPatch(), person_key=BEA_KEY)
    (row,) = (r for r in rows(dropped(account, tmp_path), "subscriptions") if r["activity_id"])
    assert (row["activity_id"], row["activity_description"]) == ("778", "Offers at the till")


def test_only_the_first_click_is_first(account: Account, tmp_path: Path) -> None:
    for _ in range(2):
        act(account, "texts/click", {"mdn": ADA_MDN, "long_url": "https://shop.invalid/a"})
    told = rows(dropped(account, tmp_path), "urls")
    assert [row["first_click"] for row in told] == ["true", "false"]
    assert {row["person_id"] for row in told} == {ADA_KEY}


def test_push_messages_go_to_who_has_a_device_and_no_number(
    account: Account, tmp_path: Path
) -> None:
    opened = act(account, "devices/open-app", {"app_id": "APP1", "os": "IOS"})
    device = account.devices.get(str(opened["vibes_device_id"]))
    account.devices.assign(device, person_key=CAL_KEY, external_person_id=None)
    from_event(account, CAL_KEY)
    (row,) = rows(dropped(account, tmp_path), "pushmessages")
    assert (row["person_id"], row["os"], row["response_text"]) == (CAL_KEY, "IOS", "Success")


def from_event(account: Account, person_key: str) -> None:
    account.events.accept(Event("day_of_delivery", {"person_key": person_key}))


@pytest.mark.parametrize(
    ("acts", "told"),
    [
        (["install"], [("registered", "TRUE")]),
        (["install", "remove"], [("unregistered", "FALSE")]),
        (
            ["install", "remove", "install"],
            [("unregistered", "FALSE"), ("registered", "TRUE")],
        ),
    ],
)
def test_what_a_pass_did_within_a_day(
    account: Account, tmp_path: Path, acts: list[str], told: list[tuple[str, str]]
) -> None:
    for name in acts:
        act(account, f"wallet/{name}", INSTALL if name == "install" else CARD)
    instances = rows(dropped(account, tmp_path), "walletinstance")
    assert [(row["instance_event"], row["current_flag"]) for row in instances] == told
    assert len({row["wallet_instance_uid"] for row in instances}) == len(told)
    assert {row["wallet_provider"] for row in instances} == {"Pass"}
    assert all(row["registered_at"].endswith(" UTC") for row in instances)


def test_a_pass_removed_on_a_later_day_is_told_again(account: Account, tmp_path: Path) -> None:
    clock = account.platform.clock
    assert isinstance(clock, TickingClock)
    drop = ExtractDrop(tmp_path, account=account, switches=Switches(extract_kinds="all"))
    act(account, "wallet/install", INSTALL)
    drop.drop(account.platform, DAY, clock())
    act(account, "wallet/remove", CARD)
    drop.drop(account.platform, DAY, clock())
    (row,) = rows({p.name: p.read_text("utf-8") for p in tmp_path.iterdir()}, "walletinstance")
    assert (row["instance_event"], row["unregistered_at"] != "") == ("unregistered", True)


def test_page_views_are_told(account: Account, tmp_path: Path) -> None:
    act(account, "wallet/install", INSTALL)
    (row,) = rows(dropped(account, tmp_path), "walletpageviews")
    assert (row["wallet_page_type"], row["uuid"], row["platform"]) == ("smartlink", "card-1", "iOS")


@pytest.fixture
def desk(account: Account, tmp_path: Path) -> PrivacyDesk:
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    return PrivacyDesk(account, tmp_path / "in", tmp_path / "out")


def answered(desk: PrivacyDesk, folder: Path, name: str, content: bytes) -> list[str]:
    """The status column of what the desk says about a file."""
    (folder / "in" / name).write_bytes(content)
    (status_file,) = desk.scan()
    assert not list((folder / "in").iterdir()), "a request is removed once processed"
    with (folder / "out" / status_file).open(encoding="utf-8", newline="") as text:
        return [row["Status"] for row in csv.DictReader(text)]


def test_privacy_requests_look_up_and_delete(
    account: Account, desk: PrivacyDesk, tmp_path: Path
) -> None:
    act(account, "texts/broadcast", {"mdn": ADA_MDN, "text": "x"})
    requests = (
        "RequestID,MDN,Type\n"
        f"R1,3125550142,0\nR2,{ADA_MDN},1\nR3,{ADA_MDN},0\nR2,{BEA_MDN},1\n"
        f"R4,12,0\nR5,{BEA_MDN},7\nR6,{LANDLINE},1\n"
    )
    assert answered(desk, tmp_path, "a.csv", requests.encode()) == [
        "FOUND",
        "DELETED",
        "NOT_FOUND",
        "DUPLICATE_REQUEST",
        "INVALID_MDN",
        "INVALID_REQUEST",
        "NOT_FOUND",
    ]
    assert set(account.platform.persons) == {BEA_KEY, CAL_KEY}
    assert account.platform.subscriptions == []
    assert not account.activity.messages


def test_a_request_id_counts_once_for_ever(desk: PrivacyDesk, tmp_path: Path) -> None:
    content = f"RequestID,MDN,Type\nR1,{ADA_MDN},0\n".encode()
    assert answered(desk, tmp_path, "a.csv", content) == ["FOUND"]
    assert answered(desk, tmp_path, "b.csv", content) == ["DUPLICATE_REQUEST"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"MDN,Type\n1,0\n"),
        ("a.csv", b""),
        ("a.csv", b"\xff\xfe"),
        ("a.gpg", b"RequestID,MDN,Type\n"),
        ("a.pgp", b"\x00"),
    ],
)
def test_unreadable_privacy_files_are_said_to_be_so(
    desk: PrivacyDesk, tmp_path: Path, name: str, content: bytes
) -> None:
    assert answered(desk, tmp_path, name, content) == ["UNREADABLE_FILE"]
