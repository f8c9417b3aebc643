"""The page's sections on rows that need a person: refused ones, and quarantine.

Identifiers are masked. A detail is shown when it is one of our own sentences; others stay in the
file, for anybody could have written them.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from vibes_pipelines.delivery.tally import tally
from vibes_pipelines.reconcile.findings import REFUSED_MDNS
from vibes_pipelines.report.account import FEEDS
from vibes_pipelines.report.day_blocks import Block, Note, Section, counted, difference, table
from vibes_pipelines.report.day_flow import KINDS, ROADS
from vibes_pipelines.report.day_ledger import refused
from vibes_pipelines.report.day_view import DayView
from vibes_pipelines.vibes.error_classes import lookup, without_personal_data

SHOWN_REFUSED = 25
SHOWN_OF_A_KIND = 6

CATEGORIES: Mapping[str, str] = {
    "fix_data": "correct the value",
    "identity": "decide who is who",
    "retry_later": "sent again by itself",
    "give_up": "sending again cannot help",
}

DOUBTS: Mapping[str, tuple[str, str]] = {
    "missing_contact_key": ("A contact has no key.", "Give it one in the CRM."),
    "invalid_contact_key": (
        "A key is too long, or holds characters that no text can hold.",
        "Correct the key in the CRM.",
    ),
    "duplicate_contact_key": (
        "Several contacts have one key.",
        "Keep one of them in the CRM, or give the others keys of their own.",
    ),
    "duplicate_person_key": (
        "Several persons have one person_key.",
        "The share is not whole; ask Vibes, and land the day anew.",
    ),
    "duplicate_external_id": (
        "Several persons have one external_person_id.",
        "Decide at the platform which of them it belongs to.",
    ),
    "shared_mdn": (
        "Several contacts, or several persons, have one number.",
        "Decide whose it is, and take it from the others.",
    ),
    "identity_split": (
        "The key and the number of one contact lead to different persons.",
        "Decide which person it is; correct the number or the external id of the other.",
    ),
    "shared_person": (
        "Several contacts lead to one person.",
        "Merge them in the CRM, or correct the identifiers of one.",
    ),
    "mdn_change": (
        "The person has another number, which cannot be written over.",
        "See whether the number is right; policies.mdn_change says what is done then.",
    ),
    "mdn_recycled": (
        "The number seems to have a new holder.",
        "Ask the contact for the number anew; consent does not go with it.",
    ),
    "invalid_mdn": ("The number is no valid mobile number.", "Correct it in the CRM."),
    "unknown_option": (
        "A value is not among the options of its field.",
        "Correct it in the CRM, or add it to fields[].options in sync.yaml.",
    ),
    "invalid_value": (
        "A value cannot be read as the type of its field.",
        "Correct it in the CRM, or the field's type in sync.yaml.",
    ),
}
"""Of each kind of quarantine what it means and what to do."""

_OTHER_DOUBT = ("A finding of another kind.", "Read `detail` in quarantine.parquet.")
_OUR_DETAILS = frozenset(REFUSED_MDNS.values())
_ABOUT_FIELDS = re.compile(r"(?:not among the options of|cannot be read as the type of) (.+)")


def rejects_section(view: DayView) -> Section:
    """What was refused, by class with the cure, and the rows."""
    return Section(
        "rejects",
        "Rejected rows",
        "What the platform, the CRM or the reader of a file refused, why, and the cure.",
        tuple(_rejects(view)),
    )


def _rejects(view: DayView) -> Iterator[Block]:
    record = view.record
    classes = tally(view.project.ledger, record.diff_set).rejections if record else {}
    yield table(
        "Refused operations by class",
        ("Error class", "Rows", "What it is", "Cure"),
        [
            (name, rows, CATEGORIES[lookup(name).category], lookup(name).advice)
            for name, rows in sorted(classes.items(), key=lambda item: (-item[1], item[0]))
        ],
        empty="Nothing was refused.",
    )
    rows = list(refused(view.ledger, record.diff_set, SHOWN_REFUSED)) if record else []
    if rows:
        yield table(
            f"The first {len(rows)} refused or unanswered rows, identifiers masked",
            ("Contact", "What", "Fields", "Error class", "File and row"),
            [
                (
                    view.mask(one.external_person_id or one.person_key),
                    KINDS.get(one.kind, one.kind),
                    ", ".join(one.fields) or "identifiers only",
                    one.error_class,
                    f"{one.file}, row {one.row_number}" if one.file else ROADS[one.route],
                )
                for one in rows
            ],
        )
        yield Note(
            "info",
            "To see a row in clear, read rejected.parquet in the folder of the day's deliveries, "
            "and ask for the person:",
            "vibes-pipelines explain PERSON",
        )
    yield table(
        "Not sent again: refused or not kept before, and unchanged since",
        ("Error class", "Values", "Cure"),
        _blocked(view, view.folder / "blocked.parquet"),
        empty="No value is blocked.",
    )
    yield table(
        "Lines of landed files that could not be read",
        ("Feed", "Reason", "Lines", "First line"),
        list(_unreadable(view)),
        empty="Every line was read.",
    )


def _blocked(view: DayView, path: Path) -> list[tuple[str, int, str]]:
    rows = view.query(
        path,
        "SELECT coalesce(error_class, 'unnamed'), count(*) FROM file GROUP BY ALL ORDER BY ALL",
    )
    return [(name, count, lookup(name).advice) for name, count in rows]


def _unreadable(view: DayView) -> Iterator[tuple[str, str, int, int]]:
    for feed in FEEDS:
        snapshot = view.project.snapshots.find(feed, view.day)
        if snapshot is None or not snapshot.manifest.rejected:
            continue
        for reason, rows, line in view.query(
            snapshot.rejects,
            "SELECT reason, count(*), min(line) FROM file GROUP BY ALL ORDER BY ALL",
        ):
            yield feed, without_personal_data(str(reason)), rows, line


def quarantine_section(view: DayView) -> Section:
    """Cases in quarantine by kind, against the day before, with masked evidence."""
    return Section(
        "quarantine",
        "Quarantine",
        "Contacts and persons in doubt: nothing is guessed and nothing merged. Equal masks are "
        "equal values, so that one sees what is shared.",
        tuple(_quarantine(view)),
    )


def _quarantine(view: DayView) -> Iterator[Block]:
    if view.summary is None:
        yield Note("info", "This day is landed and was not compared: nobody was looked at.")
        return
    path = view.folder / "quarantine.parquet"
    now, before = _kinds(view, path), _kinds(view, _earlier(view))
    yield table(
        "Cases by kind",
        ("Kind", "Rows", "Against the day before", "What it means", "What to do"),
        [
            (kind, now[kind], difference(now[kind] - before[kind]), *DOUBTS.get(kind, _OTHER_DOUBT))
            for kind in sorted({*now, *before})
        ],
        empty="Nobody is in quarantine.",
    )
    evidence = list(_evidence(view, path))
    if evidence:
        yield table(
            f"Evidence: up to {counted(SHOWN_OF_A_KIND, 'row')} of each kind, masked",
            ("Kind", "Record", "Contact key", "Person key", "Number", "Detail"),
            evidence,
            folded=len(evidence) > 2 * SHOWN_OF_A_KIND,
        )


def _earlier(view: DayView) -> Path:
    """Quarantine of the landed day before; a path to nothing without one."""
    day = next(iter(view.days_before()), "none")
    return view.project.diff_set_folder(day) / "quarantine.parquet"


def _kinds(view: DayView, path: Path) -> Counter[str]:
    rows = view.query(path, "SELECT kind, count(*) FROM file GROUP BY kind")
    return Counter(dict(rows))


def _evidence(view: DayView, path: Path) -> Iterator[Sequence[str]]:
    rows = view.query(
        path,
        "SELECT kind, source, external_person_id, person_key, mdn, detail FROM file"
        " QUALIFY row_number() OVER (PARTITION BY kind ORDER BY mdn, external_person_id,"
        " person_key, source, detail) <= ?"
        " ORDER BY kind, mdn, external_person_id, person_key, source, detail",
        SHOWN_OF_A_KIND,
    )
    for kind, source, contact, person, mdn, detail in rows:
        masked = (view.mask(contact), view.mask(person), view.mask(mdn))
        yield kind, source, *masked, _told(view, kind, detail)


def _told(view: DayView, kind: str, detail: str | None) -> str:
    """The detail when it is a sentence of ours."""
    if detail in _OUR_DETAILS:
        return str(detail)
    found = _ABOUT_FIELDS.fullmatch(detail or "")
    ours = {field.to for field in view.project.config.fields}
    ours |= {consent.from_ for consent in view.project.config.consents}
    if found and set(found[1].split(", ")) <= ours:
        return str(detail)
    return DOUBTS.get(kind, _OTHER_DOUBT)[0]
