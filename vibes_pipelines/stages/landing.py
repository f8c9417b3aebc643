"""Landing: every outside source becomes one immutable snapshot per day."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from vibes_pipelines.crm.contacts import land_contacts as read_contacts
from vibes_pipelines.reconcile.landed import write_contact_hashes, write_person_hashes
from vibes_pipelines.reconcile.warehouse import ContactsAtHand
from vibes_pipelines.settings import Settings
from vibes_pipelines.stages.past_days import never_landed, refuse_days_to_come
from vibes_pipelines.stages.project import Project, WrongDayError, end_of_day
from vibes_pipelines.stages.tribe_contacts import Check, go_on, land_tribe_contacts
from vibes_pipelines.store.snapshots import Snapshot
from vibes_pipelines.sync_config import EXTRACT_FEEDS
from vibes_pipelines.tribe.errors import TribeMovedError, TribeUnavailableError
from vibes_pipelines.vibes.extracts import ExtractMissing, IncompleteExtract
from vibes_pipelines.vibes.extracts import land_extracts as read_extracts
from vibes_pipelines.vibes.sftp_errors import SftpUnavailable
from vibes_pipelines.vibes.share import land_share_feed
from vibes_pipelines.vibes.share_errors import ShareRefreshed, ShareUnavailable

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection

    from vibes_pipelines.vibes.sftp import SftpAccount

Landed = tuple[Snapshot, bool]
Connect = Callable[[], AbstractContextManager["SnowflakeConnection"]]

CONTACTS = "crm/contacts"
PERSONS = "share/persons"
# Worth another attempt within the same run; every other error waits for a person.
TRANSIENT = (
    *(ShareUnavailable, ShareRefreshed, SftpUnavailable, ExtractMissing, IncompleteExtract),
    *(TribeUnavailableError, TribeMovedError),
)

LANDED_SHARE_FEEDS = (PERSONS, "share/subscriptions")


def sftp_account(project: Project, sleep: Callable[[float], None] = time.sleep) -> "SftpAccount":
    """The customer's SFTP account; the time of its last session is kept in the data folder."""
    return sftp_account_of(project.settings, sleep)


def sftp_account_of(
    settings: Settings, sleep: Callable[[float], None] = time.sleep
) -> "SftpAccount":
    """The same of settings alone, where no project is open."""
    # paramiko is slow to import; a process that fetches no file does without it.
    from vibes_pipelines.vibes.sftp import SftpAccount  # noqa: PLC0415

    account = settings.sftp
    return SftpAccount(
        host=account.host,
        port=account.port,
        user=account.user,
        key_file=account.key_file,
        known_hosts=account.known_hosts,
        gap_s=account.gap_s,
        state_file=settings.home / "sftp_session.json",
        sleep=sleep,
    )


def land_share(project: Project, day: str, feed: str, connect: Connect) -> Landed:
    """Lands one feed of the share for `day`.

    With `engine: snowflake` the persons are compared with the day's contacts where the share is, so
    the contacts are landed first.

    Raises:
        WrongDayError: the day is yet to come, or the share does not show it.
    """
    if project.snapshots.find(feed, day) is None:
        refuse_days_to_come(project, feed, day)
    at_hand = None
    if feed == PERSONS and project.config.engine == "snowflake":
        at_hand = _contacts_at_hand(project, day)
    landed = land_share_feed(project.snapshots, day, feed, connect, project.config, at_hand)
    if feed == PERSONS:
        write_person_hashes(project.config, landed[0].folder)
    return landed


def _contacts_at_hand(project: Project, day: str) -> ContactsAtHand | None:
    """The day's contacts, landed now if they are not; None where persons are landed already."""
    if project.snapshots.find(PERSONS, day):
        return None
    contacts, _ = land_contacts(project, day)
    return ContactsAtHand(project.config, contacts.folder)


def land_extracts(project: Project, day: str) -> dict[str, Landed]:
    """Lands every extract of `day` in one SFTP session; opens none when all are landed."""
    landed = {feed: project.snapshots.find(feed, day) for feed in EXTRACT_FEEDS}
    if all(landed.values()):
        return {feed: (snapshot, False) for feed, snapshot in landed.items() if snapshot}
    with sftp_account(project).session() as session:
        return read_extracts(
            project.snapshots, day, project.config, session, project.settings.sftp.extract_dir
        )


def land_contacts(project: Project, day: str, later: str | None = None) -> Landed:
    """Lands the CRM's contacts as of now, or of the end of `day` when that has just passed.

    `later` is a later day that is landed in the same run, which can be of one day of the CRM only.

    Raises:
        WrongDayError: the day is past and was not landed then, or it is yet to come.
    """
    if project.snapshots.find(CONTACTS, day) is None:
        if why := never_landed(project, CONTACTS, day, beside=later):
            raise WrongDayError(why)
        refuse_days_to_come(project, CONTACTS, day)
    landed = land_raw_contacts(project, day)
    write_contact_hashes(project.config, landed[0].folder)
    return landed


def land_raw_contacts(project: Project, day: str, check: Check = go_on) -> Landed:
    """The same without the hashes that a reconcile of Vibes reads.

    `check` may raise to stop between two pages of Tribe; a database is read in one statement.
    """
    as_of = min(datetime.now(UTC).replace(microsecond=0), end_of_day(day))
    if project.config.contacts.source == "tribe":
        return land_tribe_contacts(project, day, as_of, check)
    crm_url = project.settings.crm_url
    return read_contacts(project.snapshots, day, crm_url, project.config, as_of)
