"""The daily report: one self-contained page per day, and an index over days.

    <home>/reports/{index.html, <YYYY-MM-DD>.html}

Counts, our own words and masks only. Equal inputs make equal bytes: nothing here reads a clock.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from vibes_pipelines.report import day_doubts, day_flow, day_lists, day_loop, day_origins
from vibes_pipelines.report.account import FEEDS
from vibes_pipelines.report.day_blocks import Note, Plot, Plots, Section, Table, Tone, table
from vibes_pipelines.report.day_plots import bars
from vibes_pipelines.report.day_view import DayView, Reading, open_reading
from vibes_pipelines.report.trends import DAYS, NAMES, DayNumbers, series, trend
from vibes_pipelines.stages.project import Project
from vibes_pipelines.store.placing import write_text

INDEX = "index.html"
_BREAKS = re.compile(r"(::|[_/](?=\w))")
_TEMPLATES = Path(__file__).parent / "templates"

QUESTIONS = (
    ("Why did opt-ins rise or fall?", "lists"),
    ("Which file did a value come from?", "fields"),
    ("Which rows were rejected, and why?", "rejects"),
    ("What is still pending?", "pending"),
    ("What does this day's run send?", "plan"),
)
"""What analysts ask most, and the section that answers it."""

_SECTIONS: tuple[Callable[[DayView], Section], ...] = (
    day_flow.funnel_section,
    day_flow.ends_section,
    day_lists.lists_section,
    day_flow.plan_section,
    day_flow.held_section,
    day_doubts.rejects_section,
    day_doubts.quarantine_section,
    day_loop.pending_section,
    day_loop.clocks_section,
    day_loop.certificate_section,
)
_LAST_SECTIONS: tuple[Callable[[DayView], Section], ...] = (
    day_loop.speed_section,
    day_origins.files_section,
    day_origins.fields_section,
    day_loop.callbacks_section,
    day_origins.config_section,
)


@dataclass(frozen=True)
class Standing:
    """A day in a word with its tone, and in a sentence."""

    tone: Tone
    word: str
    sentence: str


@dataclass(frozen=True)
class Page:
    """What the template of a day is given. `attention`: notes that need a person, by section."""

    day: str
    standing: Standing
    attention: tuple[tuple[Note, Section], ...]
    sections: tuple[Section, ...]
    earlier: str | None
    later: str | None


def report_folder(project: Project) -> Path:
    """Where the pages are."""
    return project.settings.home / "reports"


def write_report(project: Project, day: str, *, fills_gaps: bool = True) -> Path:
    """Writes the page of `day` and of the landed day before it, what is missing, and the index.

    The page before is written anew: the day's certificate says what became of its sends. Without
    `fills_gaps` no other page is made, however many are missing.
    """
    landed = landed_days(project)
    folder = report_folder(project)
    folder.mkdir(parents=True, exist_ok=True)
    oldest = date.fromordinal(max(date.fromisoformat(day).toordinal() - DAYS, 1)).isoformat()
    wanted = {day, *[one for one in landed if one < day][-1:]}
    recent = [one for one in landed if oldest <= one <= day] if fills_gaps else []
    wanted |= {one for one in recent if not (folder / f"{one}.html").exists()}
    with open_reading(project) as opened:
        for one in sorted(wanted):
            write_text(folder / f"{one}.html", _render(build_page(opened, one)))
        write_text(folder / INDEX, _render_index(opened))
    return folder / f"{day}.html"


def landed_days(project: Project) -> list[str]:
    """The days of which anything is landed, oldest first."""
    return sorted({day for feed in FEEDS for day in project.snapshots.days(feed)})


def render_day(project: Project, day: str) -> str:
    """The page of one day as HTML.

    Raises:
        SnapshotError: `day` is not an ISO date.
    """
    with open_reading(project) as opened:
        return _render(build_page(opened, day))


def build_page(opened: Reading, day: str) -> Page:
    """What the page of one day says."""
    landed = landed_days(opened.project)
    earlier = next((one for one in reversed(landed) if one < day), None)
    later = next((one for one in landed if one > day), None)
    view = opened.day(day)
    if not view.is_landed:
        return Page(day, _NOT_LANDED, (), (), earlier, later)
    opened.unreadable.clear()
    sections = tuple(_sections(view))
    if opened.unreadable:
        sections += (_unreadable_section(opened),)
    return Page(day, standing(view), tuple(_attention(sections)), sections, earlier, later)


def _render(page: Page) -> str:
    text: str = _template("day.html.j2").render(page=page, questions=QUESTIONS)
    return text


def _render_index(opened: Reading) -> str:
    """Every day from the first landed to the newest, newest first."""
    landed = landed_days(opened.project)
    rows = [_index_row(opened.day(day)) for day in _calendar(landed)]
    numbers = trend(opened.project, landed[-1]) if landed else []
    text: str = _template("index.html.j2").render(
        rows=rows, newest=landed[-1] if landed else None, plots=_plots(numbers).plots
    )
    return text


_NOT_LANDED = Standing(
    "warn",
    "not landed",
    "This day was not landed: nothing was read, compared, sent or confirmed on it. A share shows "
    "only the present day, so that a past one cannot be landed later. What changed on it is part "
    "of the diff set of the next landed day.",
)


def standing(view: DayView) -> Standing:
    """How the day stands."""
    if not view.is_landed:
        return _NOT_LANDED
    if view.summary is None or view.record is None:
        return Standing(
            "warn", "not reconciled", "The day is landed in part or whole, and was not compared."
        )
    said = day_flow.sentence(view)
    if any(verdict.status == "held" for verdict in day_flow.verdicts(view).values()):
        return Standing("bad", "held", said)
    if view.certificate is not None and view.certificate.unexplained:
        return Standing("bad", "unexplained sends", said)
    words: dict[str, tuple[Tone, str]] = {
        "delivered": ("good", "delivered"),
        "open": ("warn", "not delivered whole"),
        "superseded": ("info", "superseded by a newer diff set"),
    }
    return Standing(*words[view.record.status], said)


def _sections(view: DayView) -> Iterator[Section]:
    for build in _SECTIONS:
        yield build(view)
    yield trends_section(view)
    for build in _LAST_SECTIONS:
        yield build(view)


def trends_section(view: DayView) -> Section:
    """Thirty days of the six trends, drawn and in numbers."""
    numbers = trend(view.project, view.day)
    landed = [one for one in numbers if one.known]
    rows = [(one.day, *(s.text(getattr(one, n)) for n, s in _named(numbers))) for one in landed]
    titles = [title for title, _ in NAMES.values()]
    return Section(
        "trends",
        f"Trends over {DAYS} days",
        "One bar a day; the bar over the triangle is this day. A day without a bar was not "
        "landed, or has nothing to count.",
        (
            *_gaps(numbers),
            _plots(numbers),
            table("The trends in numbers", ("Day", *titles), rows, folded=True),
        ),
    )


def _gaps(numbers: list[DayNumbers]) -> Iterator[Note]:
    for one in numbers:
        if one.unreadable:
            yield Note("warn", f"{one.day} is missing here: {one.unreadable}.")


def _unreadable_section(opened: Reading) -> Section:
    """Files without which the page was made."""
    notes = (
        Note("warn", f"{path}: reconcile {path.parent.name} again, which writes it anew.")
        for path in sorted(opened.unreadable)
    )
    return Section(
        "unreadable",
        "Files that cannot be read",
        "What stands in them is missing on this page.",
        tuple(notes),
    )


def _named(numbers: list[DayNumbers]) -> list[tuple[str, Any]]:
    return list(zip(NAMES, series(numbers), strict=True))


def _plots(numbers: list[DayNumbers]) -> Plots:
    return Plots(tuple(Plot(bars(one), one.name, one.unit) for one in series(numbers)))


def _attention(sections: tuple[Section, ...]) -> Iterator[tuple[Note, Section]]:
    for section in sections:
        for block in section.blocks:
            if isinstance(block, Note) and block.tone in {"bad", "warn"} and block.code is None:
                yield block, section


def _calendar(landed: list[str]) -> Iterator[str]:
    """Every day from the last landed back to the first."""
    if not landed:
        return
    day, first = date.fromisoformat(landed[-1]), date.fromisoformat(landed[0])
    while day >= first:
        yield day.isoformat()
        day -= timedelta(days=1)


def _index_row(view: DayView) -> dict[str, object]:
    summary, certificate = view.summary, view.certificate
    return {
        "day": view.day,
        "is_linked": (report_folder(view.project) / f"{view.day}.html").exists(),
        "standing": standing(view),
        "adds": summary.added if summary else None,
        "updates": summary.updated if summary else None,
        "quarantine": summary.quarantined if summary else None,
        "confirmed": certificate.confirmed if certificate else None,
        "unexplained": certificate.unexplained if certificate else None,
    }


def _template(name: str) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415 - slow

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = _cell
    environment.tests["note"] = lambda block: isinstance(block, Note)
    environment.tests["table"] = lambda block: isinstance(block, Table)
    environment.tests["plots"] = lambda block: isinstance(block, Plots)
    return environment.get_template(name)


def _cell(value: object) -> str:
    """A cell as HTML: numbers with thousands, nothing as a dash, long names with breaks."""
    from markupsafe import Markup, escape  # noqa: PLC0415 - comes with jinja2

    if value is None or value == "":
        return "–"  # noqa: RUF001 - what a person expects in an empty cell
    if isinstance(value, int):
        return f"{value:,}"
    breaks = _BREAKS.sub(r"\1<wbr>", str(escape(value)))
    return Markup(breaks)  # noqa: S704 - escaped just before
