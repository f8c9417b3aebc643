"""The kinds of import files: their extensions, headers and identifying columns, as data.

From the Vibes documentation: File-Based Data Imports, and the page of each kind. The platform knows
a file's kind by its extension alone. How reports are named is an assumption: it is silent there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from vibes_pipelines.vibes.import_errors import ImportFileError

ImportKind = Literal[
    "persons", "subscriptions", "opt_outs", "recipient_list", "wallet_update", "incentives"
]
Identifier = Literal["person_id", "person_key", "external_person_id", "mdn", "vibes_device_id"]

PRECEDENCE: tuple[Identifier, ...] = (
    "person_id",
    "person_key",
    "external_person_id",
    "mdn",
    "vibes_device_id",
)
"""Where a row names a person more than once, the first of these counts."""

REPORT_SUFFIX = ".report.csv"
SUMMARY_SUFFIX = ".summary.csv"
"""Written last: its presence means that the platform is done with the file (an assumption)."""


@dataclass(frozen=True)
class KindRule:
    """What a file of one kind may say, and what it must.

    `headers` in the documented spelling. At least one of `identifying` must be a column.
    """

    headers: tuple[str, ...]
    identifying: tuple[str, ...]
    has_columns: bool = True
    is_text: bool = False

    def knows(self, header: str) -> bool:
        """True for a header of this kind, in any case of letters (an assumption)."""
        return header.lower() in {name.lower() for name in self.headers}


_LIST_HEADERS = ("Content-Type", "Subscription-List-ID", "Fields", "Delimiter")

KINDS: Mapping[ImportKind, KindRule] = {
    "persons": KindRule(
        headers=("Fields", "Delimiter", "Multi-Select-Delimiter"),
        # The error InvalidImportFileFormat does not count person_key and person_id.
        identifying=("external_person_id", "mdn", "vibes_device_id"),
    ),
    "subscriptions": KindRule(headers=_LIST_HEADERS, identifying=PRECEDENCE, is_text=True),
    "opt_outs": KindRule(headers=_LIST_HEADERS, identifying=PRECEDENCE, is_text=True),
    "recipient_list": KindRule(
        headers=("Content-Type", "List-Name", "Fields", "Delimiter"),
        identifying=PRECEDENCE,
        is_text=True,
    ),
    "wallet_update": KindRule(
        headers=("Fields", "Delimiter", "Campaign-Token"), identifying=("uuid",)
    ),
    "incentives": KindRule(headers=(), identifying=(), has_columns=False),
}

# The overview of the documentation writes `.person`, the page of the kind `.persons`.
_SPELLINGS: Mapping[str, ImportKind] = {**{kind: kind for kind in KINDS}, "person": "persons"}


def kind_of(name: str) -> ImportKind:
    """The kind of a file, by its extension.

    Raises:
        ImportFileError: not an extension of an import file.
    """
    extension = name.rpartition(".")[2]
    if extension not in _SPELLINGS:
        msg = f"{name}: no import file; its name must end in one of {', '.join(KINDS)}"
        raise ImportFileError(msg)
    return _SPELLINGS[extension]


def import_name(stem: str, kind: ImportKind) -> str:
    """The file name of an import: `<stem>.<kind>`."""
    return f"{stem}.{kind}"


def report_name(import_file: str) -> str:
    """The name of the platform's report on the rows of a file."""
    return import_file + REPORT_SUFFIX


def summary_name(import_file: str) -> str:
    """The name of the platform's summary of a file."""
    return import_file + SUMMARY_SUFFIX
