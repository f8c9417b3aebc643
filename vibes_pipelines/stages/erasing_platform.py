"""Erasing a person at the platform: by API, by a privacy request over SFTP, or both.

The API has no delete: everything known is set to null (the Vibes documentation, Nullification of
Mobile Database Records). A request file deletes all records of a number (CPA Requests via SFTP); of
its status file the name and the words are an assumption: the documentation is silent. A number is
asked for only while the share shows it at this person.
"""

import csv
import io
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from vibes_pipelines.stages.api import vibes_api
from vibes_pipelines.stages.erasing_subject import ErasureError, Subject
from vibes_pipelines.stages.interrupts import run_until_interrupted
from vibes_pipelines.stages.landing import sftp_account
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.erasures import Erasures

IN_DIR, OUT_DIR = "/files/in_cpr", "/files/out_cpr"
DONE = frozenset({"DELETED", "NOT_FOUND", "DUPLICATE_REQUEST"})
"""What the platform says of a request after which it knows the number no more."""

STATUS_WAIT_S = 60.0
NOBODY = "no identifier to ask with"
"""The answer that stands for none: the platform was to be asked, and nobody is known there."""

_POLL_S = 0.5
_DELETION = "1"


def erase_at_platform(
    project: Project,
    subject: Subject,
    erasure_id: str,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, int]:
    """Erases by the routes of `policies.erasure`; returns the answers, by route and word.

    Where nothing is left to ask with, the answers that an erasure of before got count.

    Raises:
        ErasureError: the platform did not confirm; the same command again goes on from there.
    """
    route, answers = project.config.policies.erasure, dict[str, int]()
    if route in {"file", "both"} and subject.newest_mdns:
        answers |= _by_file(project, subject.newest_mdns, erasure_id, sleep)
    if route in {"api", "both"} and subject.person_keys:
        answers |= run_until_interrupted(_by_api(project, subject.person_keys))
    if route != "none" and not answers:
        return _earlier_answers(project, erasure_id) or {NOBODY: 1}
    return answers


def will_ask(project: Project, subject: Subject) -> bool:
    """Whether the platform will be asked to forget the person."""
    route = project.config.policies.erasure
    by_file = route in {"file", "both"} and bool(subject.newest_mdns)
    return by_file or (route in {"api", "both"} and bool(subject.person_keys))


def _earlier_answers(project: Project, erasure_id: str) -> dict[str, int]:
    with closing(Erasures(project.settings.inbox_url)) as book:
        known = book.all()
    own = {name for one in known if one.erasure_id == erasure_id for name in one.pseudonyms}
    outcomes = [one.outcome for one in known if one.outcome and own.intersection(one.pseudonyms)]
    answers = [dict(outcome["platform"]) for outcome in outcomes]
    return next((one for one in answers if one and NOBODY not in one), {})


async def _by_api(project: Project, person_keys: Sequence[str]) -> dict[str, int]:
    async with vibes_api(project) as api:
        for person_key in person_keys:
            answer = await api.privacy.erase(person_key)
            if answer.outcome != "accepted":
                why = answer.error_class or answer.outcome
                msg = f"the platform did not confirm the erasure ({why}); run the same erase again"
                raise ErasureError(msg)
    return {"api accepted": len(person_keys)}


def _by_file(
    project: Project, mdns: Sequence[str], erasure_id: str, sleep: Callable[[float], None]
) -> dict[str, int]:
    """Uploads one request file and waits for its status; the same file again is a duplicate."""
    name = f"{erasure_id}.csv"
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["RequestID", "MDN", "Type"])
    writer.writerows([f"{erasure_id}-{n}", mdn, _DELETION] for n, mdn in enumerate(mdns))
    session = sftp_account(project).session
    with tempfile.TemporaryDirectory(prefix="erasure-") as folder, session() as server:
        path = Path(folder) / name
        path.write_text(text.getvalue(), encoding="utf-8", newline="")
        server.upload(path, IN_DIR, name)
        deadline = time.monotonic() + STATUS_WAIT_S
        while True:
            status = [f.name for f in server.list(OUT_DIR) if f.name.startswith(erasure_id)]
            if status:
                return _words(server.read_text(f"{OUT_DIR}/{status[-1]}"), len(mdns))
            if time.monotonic() > deadline:
                msg = f"no status of {name} in {OUT_DIR} yet; run the same erase again later"
                raise ErasureError(msg)
            sleep(_POLL_S)


def _words(text: str, requests: int) -> dict[str, int]:
    words: dict[str, int] = {}
    for row in csv.DictReader(io.StringIO(text)):
        word = row.get("Status") or "no status"
        words[f"file {word}"] = words.get(f"file {word}", 0) + 1
    refused = sorted(set(words) - {f"file {word}" for word in DONE})
    if refused or sum(words.values()) != requests:
        msg = f"the privacy request was answered with {', '.join(refused) or 'too few rows'}"
        raise ErasureError(f"{msg}; ask Vibes, then run the same erase again")
    return words
