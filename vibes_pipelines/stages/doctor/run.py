"""Running the checks: each on its own; what depends on a failed one is left out, nothing else."""

from collections.abc import Callable, Iterator, Sequence

import sqlalchemy as sa

from vibes_pipelines.stages.doctor.bench import Bench
from vibes_pipelines.stages.doctor.findings import Check, Finding, Line, of_error


def examine(
    bench: Bench, checks: Sequence[Check], tell: Callable[[Line], None] = lambda _line: None
) -> list[Line]:
    """Every line of the account, in the order of the checks; each is told as soon as known."""
    lines: list[Line] = []
    unwell: dict[str, str] = {}
    for check in checks:
        cause = next((unwell[need] for need in check.needs if need in unwell), None)
        if cause is not None:
            findings = [Finding("not checked", f"waits for {cause}")]
        else:
            findings = list(_findings(check, bench))
        if cause is not None or any(one.status in {"fail", "not checked"} for one in findings):
            unwell[check.name] = cause or check.name
        for one in findings:
            lines.append(Line(check.name, one.status, one.told, one.cure))
            tell(lines[-1])
    return lines


def is_well(lines: Sequence[Line]) -> bool:
    """Whether nothing failed."""
    return all(line.status != "fail" for line in lines)


def _findings(check: Check, bench: Bench) -> Iterator[Finding]:
    """What a check finds; an error within it is a finding too, and hides no other check."""
    try:
        yield from check.look(bench)
    except Exception as error:  # noqa: BLE001 - the boundary between two checks; it is told
        yield _of(error)


def _of(error: Exception) -> Finding:
    if type(error).__module__.startswith("vibes_pipelines."):
        return of_error(error)
    if isinstance(error, sa.exc.SQLAlchemyError):  # its text may hold values
        cure = "check the URL, the rights of its user and the log of that database"
        return Finding("fail", f"the database refused ({type(error).__name__})", cure)
    if isinstance(error, OSError):
        told = f"{error.strerror or type(error).__name__}: {error.filename or ''}".rstrip(": ")
        return Finding("fail", told, "check that path and the rights of the user of this process")
    told = f"the check itself broke ({type(error).__name__})"
    return Finding("fail", told, "report it with this line; the other checks are not touched")
