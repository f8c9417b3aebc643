"""Trends: what every day came to, over thirty days, from what is stored of each of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from vibes_pipelines.delivery.certificate import (
    Certificate,
    UnreadableCertificate,
    load_certificate,
)
from vibes_pipelines.reconcile.summary import Summary
from vibes_pipelines.report.day_ledger import accepted_opt_outs, rejected_rows
from vibes_pipelines.report.day_plots import Series
from vibes_pipelines.report.explain_ledger import reading
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.reconciling import (
    NotReconciledError,
    UnreadableDayError,
    read_summary,
)

DAYS = 30

NAMES: Mapping[str, tuple[str, str]] = {
    "adds": ("Adds", "persons added"),
    "updates": ("Updates", "persons updated"),
    "opt_outs": ("Opt-outs", "opt-outs that the other side took"),
    "rejects": ("Rejects", "operations refused"),
    "quarantine": ("Quarantine", "contacts in quarantine"),
    "convergence": ("Convergence", "share of judged sends that are confirmed"),
}
"""Of each trend the title and what is counted; the keys are the names of the metadata too."""


@dataclass(frozen=True)
class DayNumbers:
    """One day in the numbers of the trends; None where the day has none.

    `unreadable` names a file of the day that cannot be read, and the cure.
    """

    day: str
    adds: int | None = None
    updates: int | None = None
    opt_outs: int | None = None
    rejects: int | None = None
    quarantine: int | None = None
    convergence: float | None = None
    unreadable: str | None = None

    @property
    def known(self) -> dict[str, int | float]:
        """The numbers that the day has, by the keys of `NAMES`."""
        found = {name: getattr(self, name) for name in NAMES}
        return {name: value for name, value in found.items() if value is not None}


def convergence(certificate: Certificate) -> float | None:
    """The share of judged sends that are confirmed.

    Judged is what is neither waited for nor overtaken; None when nothing is.
    """
    judged = certificate.confirmed + certificate.rejected + certificate.unexplained
    return certificate.confirmed / judged if judged else None


def certificate_of(project: Project, day: str) -> Certificate | None:
    """The certificate of a day, if it has one that can be read."""
    try:
        return load_certificate(project.certificate_folder(day))
    except (FileNotFoundError, UnreadableCertificate):
        return None


def summary_of(project: Project, day: str) -> Summary | None:
    """The summary of a day, if it was reconciled and can be read."""
    try:
        return read_summary(project, day)
    except NotReconciledError:
        return None


def trend(project: Project, day: str, days: int = DAYS) -> list[DayNumbers]:
    """The numbers of so many calendar days up to `day`, oldest first."""
    last = date.fromisoformat(day)
    wanted = [(last - timedelta(days=back)).isoformat() for back in range(days - 1, -1, -1)]
    with reading(project.settings.ledger_url) as connection:
        rejects = rejected_rows(connection, (wanted[0], wanted[-1]))
        opt_outs = accepted_opt_outs(connection, (wanted[0], wanted[-1]))
    return [_numbers(project, one, rejects.get(one, 0), opt_outs[one]) for one in wanted]


def series(numbers: list[DayNumbers]) -> list[Series]:
    """The six trends, ready to be drawn."""
    days = tuple(one.day for one in numbers)
    return [
        Series(
            title,
            unit,
            days,
            tuple(getattr(one, name) for one in numbers),
            is_share=name == "convergence",
        )
        for name, (title, unit) in NAMES.items()
    ]


def _numbers(project: Project, day: str, rejects: int, opt_outs: int) -> DayNumbers:
    try:
        summary = read_summary(project, day)
        certificate = load_certificate(project.certificate_folder(day))
    except (UnreadableDayError, UnreadableCertificate) as half:
        return DayNumbers(day, unreadable=str(half))
    except NotReconciledError:
        return DayNumbers(day)
    except FileNotFoundError:
        certificate = None
    return DayNumbers(
        day,
        adds=summary.added,
        updates=summary.updated,
        opt_outs=opt_outs,
        rejects=rejects,
        quarantine=summary.quarantined,
        convergence=convergence(certificate) if certificate else None,
    )
