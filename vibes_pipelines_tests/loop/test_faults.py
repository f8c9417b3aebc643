"""Faults of the sources: each stops the landing, names its place and the cure, and lands nothing.

Once the cause is mended, the same day in the same data folder is landed whole. Real protocols.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from vibes_pipelines.crm.contacts import CrmError
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.sandbox.sftp_server import generate_key_pair
from vibes_pipelines.stages import landing
from vibes_pipelines.stages.project import Project, WrongDayError
from vibes_pipelines.stages.reconciling import NotLandedError, reconcile_day
from vibes_pipelines.store.snapshots import EmptySource
from vibes_pipelines.sync_config import EXTRACT_FEEDS, SyncConfigError, load_sync_config
from vibes_pipelines.vibes.extracts import ExtractMissing, IncompleteExtract
from vibes_pipelines.vibes.sftp_errors import HostKeyMismatch
from vibes_pipelines.vibes.share import ShareError
from vibes_pipelines_tests.support.loop import Loop, edited_sync_config, running_loop

FEEDS = (*landing.LANDED_SHARE_FEEDS, *EXTRACT_FEEDS, landing.CONTACTS)


@dataclass(frozen=True)
class Fault:
    """A cause, what it stops, and the words its error must hold: the place, then the cure."""

    feeds: tuple[str, ...]
    error: type[Exception]
    words: tuple[str, ...]
    edit: tuple[str, str] | None = None
    environment: dict[str, str] = field(default_factory=dict)


FAULTS = {
    "wrong Snowflake password": Fault(
        landing.LANDED_SHARE_FEEDS,
        ShareError,
        ("logging in", "check SNOWFLAKE_USER and SNOWFLAKE_PASSWORD"),
        environment={"SNOWFLAKE_PASSWORD": "not the password"},
    ),
    "wrong object of a share feed": Fault(
        ("share/persons",),
        ShareError,
        ("VIBES_SHARE.PUBLIC.PEOPLE does not exist", "feeds.share/persons.object in sync.yaml"),
        edit=("VIBES_SHARE.PUBLIC.PERSONS", "VIBES_SHARE.PUBLIC.PEOPLE"),
    ),
    "wrong object of the share's refreshes": Fault(
        landing.LANDED_SHARE_FEEDS,
        ShareError,
        ("VIBES_SHARE.PUBLIC.UPDATES", "feeds.share/refreshes.object in sync.yaml"),
        edit=("VIBES_SHARE.PUBLIC.REFRESHES", "VIBES_SHARE.PUBLIC.UPDATES"),
    ),
    "wrong column of a share feed": Fault(
        ("share/persons",),
        ShareError,
        (
            "VIBES_SHARE.PUBLIC.PERSONS has no column MOBILE (feeds.share/persons.columns.mdn)",
            "map it in sync.yaml",
            "MDN",
        ),
        edit=("mdn: MDN}", "mdn: MOBILE}"),
    ),
    "CRM column that does not exist": Fault(
        (landing.CONTACTS,),
        CrmError,
        ("fields[0].from", "contacts has no column 'given_name'", "correct the name", "first_name"),
        edit=("{from: first_name,", "{from: given_name,"),
    ),
    "wrong CRM table": Fault(
        (landing.CONTACTS,),
        CrmError,
        ("no table customers", "correct contacts.table in sync.yaml", "contacts"),
        edit=("table: contacts", "table: customers"),
    ),
    "extract called otherwise": Fault(
        EXTRACT_FEEDS,
        ExtractMissing,
        ("no subs_A1b2C3_2026-01-01.txt yet", "correct its pattern in sync.yaml"),
        edit=('pattern: "subscriptions_', 'pattern: "subs_'),
    ),
}


@pytest.fixture(scope="module")
def sandbox_loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """The first morning of one sandbox; each test brings its own data folder."""
    with running_loop(tmp_path_factory.mktemp("sources"), build_world(300, 11)) as loop:
        yield loop


def landers(loop: Loop) -> dict[tuple[str, ...], Callable[[], object]]:
    """Each separate step of landing, by the feeds it lands."""
    return {
        ("share/persons",): lambda: loop.land_share("share/persons"),
        ("share/subscriptions",): lambda: loop.land_share("share/subscriptions"),
        EXTRACT_FEEDS: lambda: landing.land_extracts(loop.project, loop.today),
        (landing.CONTACTS,): lambda: landing.land_contacts(loop.project, loop.today),
    }


def landed_files(project: Project) -> set[str]:
    """Every file below the landing folder, but for the locks of the feeds."""
    root = project.settings.home / "landing"
    files = (path for path in root.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(root)) for path in files}


def assert_stops_and_is_mended(loop: Loop, home: Path, fault: Fault) -> None:
    """The fault stops exactly its own feeds, leaves nothing behind, and the mended day is whole."""
    changes: dict[str, object] = dict(fault.environment)
    if fault.edit:
        changes["VIBES_SYNC_CONFIG"] = edited_sync_config(home, fault.edit)
    with loop.changed(VIBES_HOME=home / "data", **changes) as broken:
        for feeds, land in landers(broken).items():
            if set(feeds) & set(fault.feeds):
                with pytest.raises(fault.error) as stopped:
                    land()
                assert [word for word in fault.words if word not in str(stopped.value)] == []
            else:
                land()
        with pytest.raises(NotLandedError, match="is not landed; materialize"):
            reconcile_day(broken.project, broken.today)
        sound = set(FEEDS) - set(fault.feeds)
        assert {file.rsplit("/", 2)[0] for file in landed_files(broken.project)} == sound
    with loop.changed(VIBES_HOME=home / "data") as mended:
        mended.land()
        assert {file.rsplit("/", 2)[0] for file in landed_files(mended.project)} == set(FEEDS)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_faulty_source_stops_and_lands_nothing(
    sandbox_loop: Loop, tmp_path: Path, fault: Fault
) -> None:
    assert_stops_and_is_mended(sandbox_loop, tmp_path, fault)


def test_a_server_with_another_host_key_is_not_spoken_to(
    sandbox_loop: Loop, tmp_path: Path
) -> None:
    _, public = generate_key_pair(tmp_path / "other", "host_ed25519")
    port = sandbox_loop.environment["VIBES_SFTP_PORT"]
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(f"[127.0.0.1]:{port} {public.read_text()}", encoding="utf-8")
    fault = Fault(
        EXTRACT_FEEDS,
        HostKeyMismatch,
        (f"127.0.0.1:{port}", "the host key changed", str(known_hosts), "Ask your Vibes"),
        environment={"VIBES_SFTP_KNOWN_HOSTS": str(known_hosts)},
    )
    assert_stops_and_is_mended(sandbox_loop, tmp_path, fault)


def test_an_empty_crm_is_refused_and_no_person_is_touched(
    sandbox_loop: Loop, tmp_path: Path
) -> None:
    rows = sandbox_loop.sandbox.crm.rows()
    with sandbox_loop.changed(VIBES_HOME=tmp_path / "data") as loop:
        with loop.sandbox.crm.edit() as editor:
            editor.connection.execute("DELETE FROM contacts")
        try:
            with pytest.raises(EmptySource, match=r"contacts holds no contact; check CRM_URL"):
                landing.land_contacts(loop.project, loop.today)
            assert landed_files(loop.project) == set()
        finally:
            with loop.sandbox.crm.edit() as editor:
                editor.insert(rows)
        assert loop.reconcile().contacts == len(rows)


@pytest.mark.parametrize(
    ("edit", "line", "words"),
    [
        (("type: number", "type: numeral"), 16, ("fields[3].type", "'numeral' is not allowed")),
        (("max_share: 0.20", "max_share: 20"), 25, ("guards.updates.max_share",)),
        (("company_key: A1b2C3", "company_key: [A1b2C3"), None, ("expected",)),
        (("company_key: A1b2C3", "company_key: a\ncompany_key: b"), 4, ("stands twice",)),
    ],
    ids=["type", "share", "yaml", "repeated key"],
)
def test_a_malformed_sync_config_is_shown_with_its_line_by_every_command(
    tmp_path: Path, edit: tuple[str, str], line: int | None, words: tuple[str, ...]
) -> None:
    path = edited_sync_config(tmp_path, edit)
    with pytest.raises(SyncConfigError) as refused:
        load_sync_config(path)
    message = str(refused.value)
    assert f"{path}:{line or ''}" in message
    assert all(word in message for word in words)


def test_the_command_line_shows_a_malformed_sync_config_and_exits_with_1(tmp_path: Path) -> None:
    path = edited_sync_config(tmp_path, ("type: number", "type: numeral"))
    contacts = tmp_path / "contacts.csv"
    contacts.write_text("contact_id\n", encoding="utf-8")
    options = {"--config": path, "--contacts": contacts, "--persons": contacts}
    words = [str(word) for option in options.items() for word in option]
    command = [sys.executable, "-m", "vibes_pipelines.cli", "reconcile", *words]
    command += ["--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {path}:16: fields[3].type: 'numeral' is not allowed")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_extract_cut_in_half_is_refused_until_it_is_whole(tmp_path: Path) -> None:
    with running_loop(tmp_path, build_world(300, 12)) as loop:
        loop.day(approve=True)
        loop.sandbox.cut_next_extracts(["subscriptions"])
        loop.sandbox.next_day()
        with pytest.raises(
            IncompleteExtract, match=r"subscriptions_A1b2C3_2026-01-02.txt.*try again later"
        ):
            loop.land()
        landed = {feed: loop.project.snapshots.days(feed) for feed in EXTRACT_FEEDS}
        assert landed == {feed: ["2026-01-01"] for feed in EXTRACT_FEEDS}
        assert not [file for file in landed_files(loop.project) if "unfinished" in file]
        loop.sandbox.complete_extracts()
        assert loop.day().unexplained == 0
        assert loop.project.snapshots.days("extract/subscriptions") == ["2026-01-01", "2026-01-02"]


def test_a_stale_share_is_refused_by_the_configured_age(tmp_path: Path) -> None:
    with running_loop(tmp_path, build_world(300, 13), lag_h=72) as loop:
        with pytest.raises(WrongDayError, match=r"PERSONS shows 2025-12-29 .*max_age_h.*ask Vibes"):
            loop.land()
        assert landed_files(loop.project) == set()
        patient = edited_sync_config(tmp_path, ("max_age_h: 48", "max_age_h: 120"))
        with loop.changed(VIBES_SYNC_CONFIG=patient) as mended:
            assert mended.day(approve=True).rejected <= 1  # the world's one landline


def test_a_past_day_can_be_rebuilt_but_not_landed(tmp_path: Path) -> None:
    with running_loop(tmp_path, build_world(300, 14)) as loop:
        first_day = loop.today
        loop.sandbox.next_day()
        with pytest.raises(WrongDayError, match="after 2026-01-01; a past day cannot be landed"):
            loop.land_share("share/persons", first_day)
        assert landed_files(loop.project) == set()
        assert loop.day(approve=True).updated > 0
