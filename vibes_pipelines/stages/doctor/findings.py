"""What a check is, and what it finds. The checks themselves are in one file per subject."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from vibes_pipelines.stages.doctor.bench import Bench

Status = Literal["ok", "warn", "fail", "not checked"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look found: in one sentence, with what to do about it. Nothing personal."""

    status: Status
    told: str
    cure: str | None = None


Look = Callable[["Bench"], Iterator[Finding]]


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its name (`subject/what`), what it looks at, and what has to be well before it.

    A check that finds nothing to say is not about this set-up, and has no line.
    """

    name: str
    about: str
    look: Look
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the doctor's account."""

    check: str
    status: Status
    told: str
    cure: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The line for machines."""
        return asdict(self)

    @property
    def text(self) -> str:
        """The line for people."""
        cure = f" -> {self.cure}" if self.cure else ""
        return f"{self.status:11}  {self.check:24} {self.told}{cure}"


def ok(told: str) -> Finding:
    """All is well."""
    return Finding("ok", told)


def warn(told: str, cure: str) -> Finding:
    """It works, but somebody should know."""
    return Finding("warn", told, cure)


def fail(told: str, cure: str) -> Finding:
    """It does not work."""
    return Finding("fail", told, cure)


def of_error(error: Exception) -> Finding:
    """The finding of an error of ours, whose message ends with its cure after a semicolon."""
    told, _, cure = " ".join(str(error).split()).partition("; ")
    return Finding("fail", told, cure or None)
