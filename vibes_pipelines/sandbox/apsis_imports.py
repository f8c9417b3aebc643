"""Bulk imports of the APSIS One stand-in: from the request to the end, by the clock.

States and limits are those of the documentation; how long each state lasts is an assumption. The
rows themselves are in `apsis_import_rows`.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from vibes_pipelines.sandbox.apsis_account import ApsisAccount
from vibes_pipelines.sandbox.apsis_consents import consent_key, require_management
from vibes_pipelines.sandbox.apsis_import_rows import (
    ConsentRule,
    ImportPlan,
    MalformedFileError,
    bring_in,
)
from vibes_pipelines.sandbox.apsis_records import Attribute, Keyspace, ProblemError, text_of

State = Literal["waiting_for_file", "queued", "in_progress", "completed", "error"]
MAX_BYTES: Final = 50_000_000
AT_ONCE: Final = 3
_KEYS: Final = {"keyspace_mapping", "options", "attribute_mappings", "consent_mappings"}
_OPTIONS: Final = {"update_existing_profiles", "clear_existing_attributes"}


@dataclass(frozen=True)
class ImportManner:
    """How imports go: seconds in each state, and until an unused upload URL expires."""

    upload_ttl_s: float = 900
    queued_s: float = 2
    in_progress_s: float = 3


@dataclass
class ImportJob:
    """One import."""

    import_id: str
    section: str
    plan: ImportPlan
    upload_key: str
    expires_at: datetime
    state: State = "waiting_for_file"
    content: bytes = b""
    since: datetime | None = None
    counts: dict[str, int] = field(default_factory=dict)


class Imports:
    """All imports of an account; whoever looks at one first lets its time pass (`settle`)."""

    def __init__(self, account: ApsisAccount, manner: ImportManner) -> None:
        self._account = account
        self._manner = manner
        self._jobs: dict[str, ImportJob] = {}

    def request(self, section: str, body: Mapping[str, Any], upload_base: str) -> dict[str, Any]:
        """A new import that waits for its file; raises ProblemError."""
        plan = self._read_plan(section, body)
        if len([job for job in self._jobs.values() if self._is_pending(job)]) >= AT_ONCE:
            raise ProblemError(429, "Too Many Requests", "three imports are pending")
        job = ImportJob(
            f"import-{len(self._jobs) + 1}",
            section,
            plan,
            secrets.token_urlsafe(16),
            self._account.clock.now() + timedelta(seconds=self._manner.upload_ttl_s),
        )
        self._jobs[job.import_id] = job
        return {
            "import_id": job.import_id,
            "file_upload_url": f"{upload_base}/uploads/{job.import_id}",
            "file_upload_body": {"key": job.upload_key, "policy": secrets.token_urlsafe(8)},
            "file_upload_url_expires_at": job.expires_at.isoformat().replace("+00:00", "Z"),
        }

    def upload(self, import_id: str, fields: Mapping[str, str], content: bytes | None) -> None:
        """The file of an import arrives; raises ProblemError as a store of files would refuse."""
        job = self._jobs.get(import_id)
        if job is None or fields.get("key") != job.upload_key or not fields.get("policy"):
            raise ProblemError(403, "Forbidden", "the form does not fit")
        if job.state != "waiting_for_file":
            raise ProblemError(409, "Conflict", "the file is there already")
        if self._account.clock.now() >= job.expires_at:
            raise ProblemError(403, "Forbidden", "the URL has expired")
        if content is None:
            raise ProblemError(400, "Bad Request", "the form has no part file of type text/csv")
        if len(content) > MAX_BYTES:
            raise ProblemError(400, "Bad Request", "the file is too large")
        job.content, job.state, job.since = content, "queued", self._account.clock.now()

    def show(self, section: str, import_id: str) -> dict[str, Any]:
        """An import as its status call answers it; raises ProblemError."""
        job = self._jobs.get(import_id)
        if job is None or job.section != section:
            raise ProblemError(404, "Not Found", "there is no such import")
        counts = job.counts if self._account.switches.import_result == "counts" else {}
        return {"import_id": import_id, "result": {"status": job.state, **counts}}

    def settle(self) -> None:
        """Let every import be where it is by now."""
        for job in self._jobs.values():
            if job.since is None or job.state in {"completed", "error"}:
                continue
            age_s = (self._account.clock.now() - job.since).total_seconds()
            if job.state == "queued" and age_s >= self._manner.queued_s:
                job.state = "in_progress"
            if age_s >= self._manner.queued_s + self._manner.in_progress_s:
                self._finish(job)

    def counts(self) -> dict[str, dict[str, Any]]:
        """What became of every import and its rows."""
        return {job.import_id: {"state": job.state, **job.counts} for job in self._jobs.values()}

    def _finish(self, job: ImportJob) -> None:
        try:
            job.counts = bring_in(self._account, job.section, job.plan, job.content)
            job.state = "completed"
            self._account.audit.imported(job.counts)
        except MalformedFileError:
            job.state = "error"
        job.content = b""

    def _is_pending(self, job: ImportJob) -> bool:
        """Whether an import counts against the three; one whose URL expired unused does not."""
        if job.state == "waiting_for_file":
            return self._account.clock.now() < job.expires_at
        return job.state in {"queued", "in_progress"}

    def _read_plan(self, section: str, body: Mapping[str, Any]) -> ImportPlan:
        if set(body) - _KEYS:
            raise ProblemError(400, "Bad Request", "unknown member of the body")
        mapping = _object(body, "keyspace_mapping")
        keyspace = self._account.catalogue.keyspace(text_of(mapping, "keyspace_discriminator"))
        options = _object(body, "options")
        if set(options) != _OPTIONS or not all(isinstance(v, bool) for v in options.values()):
            raise ProblemError(400, "Bad Request", f"options takes {', '.join(sorted(_OPTIONS))}")
        attributes = self._attributes(keyspace, body)
        consents = self._consents(keyspace, section, body)
        if not keyspace.is_writable:
            raise ProblemError(403, "Forbidden", "this keyspace cannot write anything")
        return ImportPlan(
            keyspace,
            text_of(mapping, "field_selector"),
            attributes,
            consents,
            update=options["update_existing_profiles"],
            clear=options["clear_existing_attributes"],
        )

    def _attributes(self, keyspace: Keyspace, body: Mapping[str, Any]) -> dict[str, Attribute]:
        found = {
            text_of(entry, "field_selector"): self._account.catalogue.by_version(
                text_of(entry, "attribute_version_id"), 400
            )
            for entry in _objects(body, "attribute_mappings")
        }
        self._account.permit(keyspace, *(attribute.discriminator for attribute in found.values()))
        return found

    def _consents(
        self, keyspace: Keyspace, section: str, body: Mapping[str, Any]
    ) -> tuple[ConsentRule, ...]:
        rules = []
        for mapping in _objects(body, "consent_mappings"):
            require_management(keyspace)
            for entry in _objects(mapping, "consents"):
                consent_type = text_of(entry, "type")
                if consent_type not in {"opt-in", "opt-out"}:
                    raise ProblemError(400, "Bad Request", "type takes opt-in or opt-out")
                rules.append(
                    ConsentRule(
                        text_of(entry, "field_selector"),
                        text_of(mapping, "address_field_selector"),
                        consent_key(self._account, section, entry),
                        "opt-in" if consent_type == "opt-in" else "opt-out",
                        resubscribe=entry.get("resubscribe_if_opted_out") is True,
                    )
                )
        if len({rule.type for rule in rules}) > 1:
            raise ProblemError(400, "Bad Request", "one import takes one type of consent")
        return tuple(rules)


def _object(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = body.get(name)
    if not isinstance(found, dict):
        raise ProblemError(400, "Bad Request", f"{name} is a required object")
    return found


def _objects(body: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = body.get(name, [])
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise ProblemError(400, "Bad Request", f"{name} is a list of objects")
    return found
