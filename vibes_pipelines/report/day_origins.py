"""The page's sections on where things come from: files, fields, configuration."""

from collections.abc import Iterator

from vibes_pipelines.report.account import FEEDS
from vibes_pipelines.report.day_blocks import Facts, Note, Section, table
from vibes_pipelines.report.day_view import DayView, instant
from vibes_pipelines.report.explain_texts import means
from vibes_pipelines.stages.landing import CONTACTS
from vibes_pipelines.store.snapshots import Manifest

_HASH = 12
PERSONS = "share/persons"


def files_section(view: DayView) -> Section:
    """The landed snapshots with their sources, and the files of the diff set."""
    hashes = view.summary.content_hashes if view.summary else {}
    return Section(
        "files",
        "Files and their sources",
        "Each source is landed once a day and never changed; its hash says which file it was.",
        (
            table(
                "Landed snapshots",
                ("Feed", "Source", "As of", "Rows", "Rejected lines", "Size", "SHA-256 begins"),
                [
                    (
                        m.feed,
                        m.source,
                        instant(m.as_of),
                        m.rows,
                        m.rejected,
                        _size(m.bytes),
                        m.content_hash[:_HASH],
                    )
                    for m in _manifests(view)
                ],
                empty="Nothing is landed for this day.",
            ),
            table(
                "Files of the diff set",
                ("File", "SHA-256 begins"),
                [(name, value[:_HASH]) for name, value in sorted(hashes.items())],
                empty="This day was not reconciled.",
                folded=True,
            ),
        ),
    )


def _manifests(view: DayView) -> Iterator[Manifest]:
    for feed in FEEDS:
        snapshot = view.project.snapshots.find(feed, view.day)
        if snapshot:
            yield snapshot.manifest


def _size(count: int) -> str:
    return f"{count / 1024:,.0f} KiB" if count < 1024**2 else f"{count / 1024**2:,.1f} MiB"


def fields_section(view: DayView) -> Section:
    """Which file and column each value comes from, and what changed and why."""
    config = view.project.config
    contacts = view.project.snapshots.find(CONTACTS, view.day)
    persons = view.project.snapshots.find(PERSONS, view.day)
    return Section(
        "fields",
        "Which file a value comes from",
        "Of each field its column in the CRM and in the share, the file of this day that was read, "
        "and who decides. For one person: vibes-pipelines explain PERSON --field FIELD.",
        (
            Facts(
                (
                    ("CRM values come from", _named(contacts.manifest) if contacts else None),
                    ("Platform values come from", _named(persons.manifest) if persons else None),
                )
            ),
            table(
                "Fields and their columns",
                ("Field at the platform", "CRM column", "Share column", "Import column", "Decides"),
                [
                    ("external_person_id", config.contacts.key, "external_person_id",
                     "external_person_id", "identifier"),
                    *(_mdn(view)),
                    *(
                        (one.to, one.from_, one.to, one.to, _AUTHORITY[one.authority])
                        for one in config.fields
                    ),
                ],
            ),
            table(
                "What changed on this day, and why",
                ("Field", "Action", "Why", "Changes"),
                _changes(view),
                empty="No field changes.",
            ),
        ),
    )  # fmt: skip


_AUTHORITY = {
    "crm": "the CRM",
    "platform": "the platform",
    "fill": "the CRM, where the platform is empty",
    "newest": "the newer value",
}


def _named(manifest: Manifest) -> str:
    return (
        f"{manifest.source}, as of {instant(manifest.as_of)}, "
        f"snapshot {manifest.content_hash[:_HASH]}"
    )


def _mdn(view: DayView) -> Iterator[tuple[str, str, str, str, str]]:
    mdn = view.project.config.contacts.mdn
    if mdn:
        yield "mdn", mdn.column, "mdn", "mdn", "identifier"


def _changes(view: DayView) -> list[tuple[str, str, str, int]]:
    found = view.query(
        view.folder / "person_changes.parquet",
        "SELECT change.field, change.action || ' at the platform', change.reason, count(*)"
        " FROM (SELECT unnest(changes) AS change FROM file) GROUP BY ALL ORDER BY ALL",
    )
    found += view.query(
        view.folder / "crm_changes.parquet",
        "SELECT field, 'write back to the CRM', reason, count(*) FROM file"
        " GROUP BY ALL ORDER BY ALL",
    )
    return [(name, action, means(reason), rows) for name, action, reason, rows in found]


def config_section(view: DayView) -> Section:
    """Which configuration made the day, and whether it is today's."""
    summary = view.summary
    if summary is None:
        return Section("config", "Configuration", "", (Note("info", "Nothing was reconciled."),))
    is_present = summary.config_hash == view.project.config.config_hash
    return Section(
        "config",
        "Configuration",
        "The diff set depends on what was landed, the ledger and sync.yaml, and on nothing else.",
        (
            Note(
                "good" if is_present else "info",
                "Made under the sync.yaml of the present."
                if is_present
                else "Made under another sync.yaml than the present one.",
            ),
            Facts(
                (
                    ("Diff set", summary.diff_set),
                    ("sync.yaml", summary.config_hash),
                    ("Mapping", summary.mapping_hash),
                    ("Version of sync.yaml", view.project.config.version),
                    ("As of", instant(view.as_of)),
                )
            ),
        ),
    )
