"""The bench: what checks look at, opened when first needed and kept for the checks after it."""

import shutil
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import sqlalchemy as sa

from vibes_pipelines.crm.database import crm_engine
from vibes_pipelines.settings import Settings
from vibes_pipelines.stages.api import vibes_api_of
from vibes_pipelines.stages.interrupts import run_until_interrupted
from vibes_pipelines.stages.landing import Connect, sftp_account_of
from vibes_pipelines.sync_config import SyncConfig, load_sync_config
from vibes_pipelines.sync_config.apsis_view import apsis_section
from vibes_pipelines.vibes.share_errors import share_errors

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection

    from vibes_pipelines.apsis.definitions import Definitions
    from vibes_pipelines.vibes.api_calls import Record
    from vibes_pipelines.vibes.callback_api import Registration
    from vibes_pipelines.vibes.sftp import SftpAccount
    from vibes_pipelines.vibes.vibes_api import VibesApi

Answer = TypeVar("Answer")

API_TIMEOUT_S = 15
API_ATTEMPTS = 2


class SftpBusy(RuntimeError):  # noqa: N818 - the name says what is wrong
    """The one session of the account is open elsewhere."""


@dataclass(frozen=True)
class SftpSeen:
    """What one session showed: the names in each folder, or why not; the server's clock."""

    names: Mapping[str, list[str]]
    refused: Mapping[str, Exception]
    server_time: datetime | None


@dataclass(frozen=True)
class ApsisSeen:
    """What an APSIS One account has, and for how many seconds a new token can be used."""

    definitions: "Definitions"
    token_lasts_s: float


def free_bytes(path: Path) -> int:
    """Free bytes of the disk that holds a folder, or the nearest folder above that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


@dataclass
class Bench:
    """One set-up under examination.

    `day` is the day whose sources are looked for, `env_file` what the file .env says.
    What reads the world beside it can be given: the clock, the free space of a disk.
    """

    environment: Mapping[str, str]
    connect_share: Connect
    day: str = ""
    env_file: Mapping[str, str] = field(default_factory=dict)
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    free_bytes: Callable[[Path], int] = free_bytes
    _opened: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> "Bench":
        self.day = self.day or self.now().date().isoformat()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._opened.close()

    @cached_property
    def settings(self) -> Settings:
        """The settings of this environment."""
        return Settings(self.environment)

    @cached_property
    def config(self) -> SyncConfig:
        """The sync config; raises SyncConfigError."""
        return load_sync_config(self.settings.sync_config)

    @contextmanager
    def crm(self) -> Iterator[sa.Connection]:
        """A connection to the CRM; raises CrmError."""
        with crm_engine(self.settings.crm_url) as engine, engine.connect() as connection:
            yield connection

    @cached_property
    def share(self) -> "SnowflakeConnection":
        """One connection to the share, for all checks; raises ShareError."""
        with share_errors("logging in"):
            opening: AbstractContextManager[SnowflakeConnection] = self.connect_share()
            return self._opened.enter_context(opening)

    def ask_api(self, question: "Callable[[VibesApi], Awaitable[Answer]]") -> Answer:
        """The answer of the Vibes API; raises VibesApiError."""
        return run_until_interrupted(self._ask(question))

    @cached_property
    def lists(self) -> "dict[str, Record]":
        """The company's subscription lists by id."""
        from vibes_pipelines.vibes.api_calls import text_of  # noqa: PLC0415 - the HTTP client is slow

        return {text_of(one, "id", "list_id") or "": one for one in self.ask_api(_lists)}

    @cached_property
    def registrations(self) -> "list[Registration]":
        """The company's registered callbacks."""
        return self.ask_api(_registrations)

    @cached_property
    def apsis(self) -> ApsisSeen:
        """The APSIS One account of sync.yaml, with one token; raises ApsisError."""
        return run_until_interrupted(self._look_at_apsis())

    @cached_property
    def sftp_account(self) -> "SftpAccount":
        """The account, with which nothing waits; raises SettingsError."""
        return replace(sftp_account_of(self.settings, _refuse_to_wait), attempts=1)

    @cached_property
    def sftp(self) -> SftpSeen:
        """What one session shows; raises SftpError or SftpBusy."""
        from vibes_pipelines.vibes.sftp_errors import SftpError  # noqa: PLC0415 - as paramiko

        account = self.settings.sftp
        names: dict[str, list[str]] = {}
        refused: dict[str, Exception] = {}
        server_time = None
        with self.sftp_account.session() as session:
            for folder in dict.fromkeys((account.extract_dir, account.report_dir)):
                try:
                    names[folder] = [file.name for file in session.list(folder)]
                except SftpError as error:
                    refused[folder] = error
            try:
                server_time = session.probe(account.import_dir)
            except SftpError as error:
                refused[account.import_dir] = error
        return SftpSeen(names, refused, server_time)

    async def _look_at_apsis(self) -> ApsisSeen:
        from vibes_pipelines.apsis.calls import Limits  # noqa: PLC0415 - the HTTP client is slow
        from vibes_pipelines.apsis.client import ApsisClient  # noqa: PLC0415 - as above
        from vibes_pipelines.apsis.definitions import Place  # noqa: PLC0415 - as above
        from vibes_pipelines.apsis.kept import KeptAccount  # noqa: PLC0415 - as above

        section = apsis_section(self.config)
        kept = KeptAccount(Limits(timeout_s=API_TIMEOUT_S, max_attempts=API_ATTEMPTS))
        place = Place(section.section, section.keyspace)
        async with ApsisClient(self.settings.apsis, place, kept=kept) as client:
            definitions = await client.definitions()
        return ApsisSeen(definitions, kept.token.usable_until - self.now().timestamp())

    async def _ask(self, question: "Callable[[VibesApi], Awaitable[Answer]]") -> Answer:
        account, company = self.settings.api, self.config.company_key
        opened = vibes_api_of(account, company, timeout_s=API_TIMEOUT_S, max_attempts=API_ATTEMPTS)
        async with opened as api:
            return await question(api)


async def _lists(api: "VibesApi") -> "list[Record]":
    return await api.subscriptions.lists()


async def _registrations(api: "VibesApi") -> "list[Registration]":
    return await api.callbacks.registrations()


def _refuse_to_wait(seconds: float) -> None:
    msg = (
        f"the one SFTP session is open elsewhere, or its gap of {seconds:.0f} s is not over; "
        "run the doctor again later"
    )
    raise SftpBusy(msg)
