"""Every check, in the order in which a person sets things up.

A new subject is a file with `CHECKS`, and one line here; a new check is one function in its file.
"""

from vibes_pipelines.stages.doctor import (
    api,
    apsis,
    callbacks,
    crm,
    files,
    machine,
    sftp,
    share,
    tribe,
)
from vibes_pipelines.stages.doctor.findings import Check

CHECKS: tuple[Check, ...] = (
    *files.CHECKS,
    *machine.CHECKS,
    *crm.CHECKS,
    *tribe.CHECKS,
    *share.CHECKS,
    *sftp.CHECKS,
    *api.CHECKS,
    *callbacks.CHECKS,
    *apsis.CHECKS,
)


def table() -> str:
    """The checks as a Markdown table, as docs/doctor.md shows them."""
    lines = ["| check | what is looked at | not checked without |", "|---|---|---|"]
    for check in CHECKS:
        needs = ", ".join(f"`{name}`" for name in check.needs)
        lines.append(f"| `{check.name}` | {check.about} | {needs} |")
    return "\n".join(lines)
