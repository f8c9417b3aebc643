"""The small Protocols through which delivery reaches the outside, and nothing else.

Whoever starts a delivery passes the real things; no client and no network belongs here.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from vibes_pipelines.store.records import Operation


class WriteAnswer(Protocol):
    """What the platform said to one write. `unknown`: no answer came, it may have happened."""

    @property
    def status(self) -> int | None:
        """The HTTP status; None without an answer."""

    @property
    def outcome(self) -> Literal["accepted", "rejected", "unknown"]:
        """What it means."""

    @property
    def error_class(self) -> str | None:
        """The class of a refusal or of a missing answer."""

    @property
    def message(self) -> str | None:
        """The platform's own words."""


class OperationSender(Protocol):
    """Carries single operations to one destination."""

    async def overtaken(self, operation: Operation) -> str | None:
        """Why the operation must not leave any more, looked up right before; None when it may."""

    async def send(self, operation: Operation) -> WriteAnswer:
        """Sends one operation. Raises when no further one can succeed; it had no effect then.

        Of the errors of the Vibes API one is about this operation alone, `VibesForbidden`; and one
        that is `in_doubt` may have had an effect.
        """

    def may_retry(self, answer: WriteAnswer) -> bool | None:
        """Whether a refusal may be tried again; None leaves it to the registry of classes."""


class PersonWriter(Protocol):
    """Writes to persons, one at a time. Raises when no further write can succeed."""

    async def add(self, body: dict[str, Any]) -> WriteAnswer:
        """Creates a person, or updates the one that the body's identifiers match."""

    async def upsert(self, external_person_id: str, body: dict[str, Any]) -> WriteAnswer:
        """Creates or updates the person with this external id."""

    async def update(self, person_key: str, body: dict[str, Any]) -> WriteAnswer:
        """Updates the person with this key."""

    async def unsubscribe(
        self,
        list_id: str,
        *,
        person_key: str | None = None,
        external_person_id: str | None = None,
    ) -> WriteAnswer:
        """Ends a person's subscription to a list; accepted also when the person had none."""

    async def replace_mdn(
        self,
        mdn: str,
        *,
        person_key: str | None = None,
        external_person_id: str | None = None,
        old_mdn: str | None = None,
    ) -> WriteAnswer:
        """Gives a person another number in two steps; may be cut anywhere and run again."""


class Inviter(Protocol):
    """Asks persons to a list. An invitation is a text to a phone: it must never go out twice."""

    async def invite(
        self,
        campaign_id: str,
        *,
        mdn: str | None = None,
        external_person_id: str | None = None,
        person_key: str | None = None,
        list_id: str | None = None,
    ) -> WriteAnswer:
        """Invites; accepted also when the person was asked before or is on the list."""

    async def standing(
        self,
        campaign_id: str,
        list_id: str | None,
        *,
        mdn: str | None = None,
        external_person_id: str | None = None,
    ) -> WriteAnswer | None:
        """The answer that an earlier invitation has left behind; None when it left no trace.

        Raises an error of the API when that cannot be told.
        """


class ConsentWatch(Protocol):
    """What became known of consent since the diff set was made."""

    def withdrawn(self, operations: Sequence[Operation]) -> Mapping[str, str]:
        """Those that must not leave any more: operation id → why."""


class RemoteFile(Protocol):
    """One entry of a folder on the file server."""

    @property
    def name(self) -> str:
        """The name without its folder."""


class FileSession(Protocol):
    """One open session with the file server."""

    def list(self, directory: str) -> Sequence[RemoteFile]:
        """The files of a folder."""

    def upload(self, local: Path, remote_dir: str, name: str) -> None:
        """Uploads a whole file: under a temporary name, checked, then renamed."""

    def read_text(self, remote: str) -> str:
        """The text of a small file."""


class OpenFileSession(Protocol):
    """Opens one session; connections must be far apart, so it is called only when needed."""

    def __call__(self) -> AbstractContextManager[FileSession]:
        """A session that closes with its `with` block."""


@dataclass(frozen=True, slots=True)
class CrmOptOut:
    """One opt-out to write into the CRM. `evidence_at` is when the platform recorded it."""

    contact_id: str
    list: str
    evidence_at: datetime | None


@dataclass(frozen=True, slots=True)
class CrmFieldChange:
    """One field to write into the CRM; `field` is the custom field, None clears.

    `before` is what the CRM held when that was decided, None for blank; a field with `authority:
    newest` is only written while it still does.
    """

    contact_id: str
    field: str
    after: str | None
    before: str | None = None


class CrmAnswer(Protocol):
    """What became of one row of a write-back."""

    @property
    def outcome(self) -> str:
        """`accepted` or `rejected`."""

    @property
    def error_class(self) -> str | None:
        """Why it was rejected."""


class CrmWriter(Protocol):
    """Writes to the CRM; each call is one transaction and answers row by row, in order."""

    def apply_opt_outs(self, rows: Sequence[CrmOptOut]) -> Sequence[CrmAnswer]:
        """Writes opt-outs; the same row again changes nothing."""

    def apply_fields(self, rows: Sequence[CrmFieldChange]) -> Sequence[CrmAnswer]:
        """Writes field values; the same row again changes nothing."""


class DiffSetSummary(Protocol):
    """What a reconcile says of its diff set."""

    @property
    def diff_set(self) -> str:
        """The id: equal input gives an equal id."""

    @property
    def as_of(self) -> datetime | None:
        """The logical time of the diff set."""

    @property
    def mapping_hash(self) -> str:
        """Company, feeds, identity, fields and consents of the sync config."""

    @property
    def config_hash(self) -> str:
        """The whole sync config."""

    def to_json(self) -> str:
        """The summary as it is stored; each of its `breaches` has a `lane` and a `message`."""


class SnapshotManifest(Protocol):
    """Size and hash of a landed snapshot."""

    @property
    def feed(self) -> str:
        """Which feed it is of."""

    @property
    def rows(self) -> int:
        """How many rows it has."""

    @property
    def content_hash(self) -> str:
        """Of its data."""


class LandedSnapshot(Protocol):
    """A snapshot that a diff set was made from."""

    @property
    def manifest(self) -> SnapshotManifest:
        """What is known of it."""
