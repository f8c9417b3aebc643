"""A stranger's walk through the Dagster UI: `python -m tools.walk --images docs/images`.

An operator's day (graph, report, backfill, held diff set, release, rejected row) and an analyst's
five questions, each by visible texts and clicks alone. It raises where the UI does not show what
docs/walk.md says, and takes that page's pictures.
"""

import argparse
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Locator

from tools.walk_answers import right_answer
from tools.walk_stage import DAYS, Stage, WalkError, served_demo
from tools.walker import Walker, walker

GUARD = "person_changes_within_guards"
APPROVAL = """\
ops:
  approve_diff_set:
    config:
      diff_set: "{diff_set}"
      reason: "everybody is Gold this week"
"""
UNFOLDS = 5
# Question of an analyst → how the day's page asks it, and the table that answers.
ON_THE_PAGE = {
    "Why did opt-ins fall yesterday?": ("Why did opt-ins rise or fall?", "Subscriptions by list"),
    "Which file did this value come from?": (
        "Which file did a value come from?",
        "Fields and their columns",
    ),
    "What is still pending?": ("What is still pending?", "Under way when the day was over"),
    "What would today's run send?": ("What does this day's run send?", "What goes where"),
}
REJECTED = "Which rows were rejected, and why?"
PLAN = "What would today's run send?"


@dataclass
class Walk:
    """What the walk found."""

    clicks: dict[str, int] = field(default_factory=dict)
    """Question → clicks from any page of the UI to its answer."""
    sent_by_backfill: int = -1
    sent_by_release: int = -1


def walk(home: Path, chromium: str, images: Path | None = None) -> Walk:
    """Walks through a demo served below `home`; takes pictures into `images`, if given.

    Raises:
        WalkError: a number is not what it should be, or the demo did not come up.
        playwright.sync_api.Error: a text was not to be seen in time; the message has it.
    """
    found = Walk()
    with served_demo(home) as stage, walker(chromium, images) as person:
        person.page.goto(stage.url)
        days = [f"2026-01-{number:02d}" for number in range(1, DAYS + 1)]
        look_at_the_graph(person)
        follow_the_lineage_to_the_report(person)
        found.sent_by_backfill = backfill(person, stage, days)
        day = run_a_day_that_is_held(person, stage)
        found.clicks[PLAN] = ask(person, stage, PLAN, "report / draft", picture="plan")
        diff_set = look_at_the_held_diff_set(person)
        found.sent_by_release = release(person, stage, diff_set, day)
        found.clicks[REJECTED] = find_a_rejected_row(person, days[0])
        for question in ON_THE_PAGE:
            if question != PLAN:
                found.clicks[question] = ask(person, stage, question, "report / day")
    return found


def look_at_the_graph(person: Walker) -> None:
    """Opens the asset graph."""
    person.click("Lineage")
    person.see("Materialize all", exact=False)
    person.see("reconcile", last=True)
    person.picture("graph")


def follow_the_lineage_to_the_report(person: Walker) -> None:
    """From the graph to the last asset, and by its metadata to the day's page."""
    open_asset(person, "report", "day")
    person.see("convergence")
    person.picture("report-asset")
    with person.new_tab(".html") as page:
        page.see("Daily report")
        page.see("What needs a person")


def backfill(person: Walker, stage: Stage, days: list[str]) -> int:
    """Rebuilds the diff sets of the days; returns how much that changed at the platform."""
    before = sum(stage.effects().values())
    person.click("Catalog")
    person.find("reconcile")
    person.click("reconcile")
    person.see("person_changes")
    person.page.wait_for_timeout(2000)
    person.page.mouse.click(620, 700)  # where nothing is: all of the group, not one asset
    person.click("Materialize all", exact=False)
    choose_partitions(person, f"[{days[0]}...{days[-1]}]")
    person.see(f"{len(days)} partitions")
    person.picture("backfill")
    person.click("Launch backfill")
    person.see("Created backfill", exact=False)
    person.click("Runs")
    person.see_row(f"{len(days)} partitions", "Success")
    return sum(stage.effects().values()) - before


def choose_partitions(person: Walker, partitions: str) -> None:
    """Types the partitions into the dialog, which first offers the last 90 days only."""
    person.see("Partition selection")
    person.page.wait_for_timeout(2000)
    if person.page.get_by_text("Show all partitions").is_visible():
        person.click("Show all partitions")
    person.fill("ex: 20", partitions)


def run_a_day_that_is_held(person: Walker, stage: Stage) -> str:
    """Runs the daily job over a night that changed too much; returns its day."""
    day = stage.campaign_night()
    person.click("Jobs")
    person.click("reconcile_daily")
    person.click("Materialize all", exact=False)
    choose_partitions(person, day)
    person.click("Launch 1 run")
    person.see("Launched run", exact=False)
    person.click("Runs")
    person.see_row("reconcile_daily", f"partition: {day}", "Failure")
    return day


def look_at_the_held_diff_set(person: Walker) -> str:
    """Opens the red check; returns the hash that it tells to approve."""
    open_check(person)
    text = person.see("guards.updates.max_share", exact=False).inner_text()
    person.see("to_release")
    person.picture("held")
    person.click("[Show Markdown]")
    person.see("When the changes are meant", exact=False)
    person.page.keyboard.press("Escape")
    told = re.search(r"approve ([0-9a-f]{12})", text)
    if told is None:
        raise WalkError(f"the red check names no hash to approve: {text}")
    return told[1]


def release(person: Walker, stage: Stage, diff_set: str, day: str) -> int:
    """Approves, lets the sensor deliver; returns how much that changed at the platform."""
    before = sum(stage.effects().values())
    person.click("Jobs")
    person.click("approve")
    person.click("Launchpad")
    person.see("Missing required config", exact=False)
    person.press(person.page.locator(".CodeMirror").first)
    person.page.keyboard.press("Control+a")
    person.page.keyboard.insert_text(APPROVAL.format(diff_set=diff_set))
    person.see("No errors")
    person.picture("approve")
    person.click("Launch Run")
    person.see("Success")
    person.click("Automation")
    person.click("diff_set_sensor")
    person.see("~1 min")
    switch = person.page.locator("label", has=person.page.locator("input[type=checkbox]"))
    person.press(switch.first)
    person.click("Runs")
    person.see_row("repush", f"partition: {day}", "Success")
    open_check(person)
    person.see("Passed")
    person.picture("released")
    return sum(stage.effects().values()) - before


def open_check(person: Walker) -> None:
    """Opens the check that holds person changes."""
    open_asset(person, "reconcile", "person_changes")
    person.click("Checks")
    person.click(GUARD)
    person.see("Latest execution")


def open_asset(person: Walker, group: str, name: str) -> None:
    """Opens an asset by the tree beside the graph, where long names are whole."""
    person.click("Lineage")
    person.see("Materialize all", exact=False)
    entry = person.page.get_by_text(name, exact=True).locator("visible=true")
    for _ in range(UNFOLDS):  # the tree comes late, and may come unfolded
        person.page.wait_for_timeout(3000)
        if entry.count():
            break
        person.unfold(group)
    person.click(name)
    person.click("View in Asset Catalog")
    person.see("Latest materialization")


def find_a_rejected_row(person: Walker, day: str) -> int:
    """Finds what the platform refused of a day, and the cure; returns the clicks it took."""
    before = person.clicks
    person.click("Catalog")
    person.find("delivery / rejected")
    person.click("delivery / rejected")
    person.click("Partitions")
    person.fill("Filter by name", day)
    person.click(day, last=True)
    person.see("by_error_class")
    person.see("correct it in the CRM", exact=False)
    person.picture("rejected")
    return person.clicks - before


def ask(person: Walker, stage: Stage, question: str, asset: str, picture: str = "") -> int:
    """Finds the answer on the page of the asset's newest day; returns the clicks it took.

    Raises:
        WalkError: the page answers otherwise than the landed files and the ledger do.
    """
    before = person.clicks
    link, table = ON_THE_PAGE[question]
    person.click("Catalog")
    person.find(asset)
    person.click(asset)
    with person.new_tab(".html") as page:
        page.click(link)
        answer = page.page.locator("table", has=page.page.locator("caption", has_text=table))
        answer.first.wait_for()
        day = Path(urlsplit(page.page.url).path).stem
        judge = right_answer(question, stage.sandbox.environment, day)
        if wrong := judge(_cells(answer.first), page.page.inner_text("body")):
            raise WalkError(f"{question} On {day} the page should say: {wrong}")
        if picture:
            page.picture(picture)
    return person.clicks - before


def _cells(table: Locator) -> list[dict[str, str]]:
    """The body of a table, each row by its headings; no row where the table says it is empty."""
    headings = table.locator("thead th").all_inner_texts()
    rows = (row.locator("th, td").all_inner_texts() for row in table.locator("tbody tr").all())
    return [dict(zip(headings, row, strict=True)) for row in rows if len(row) == len(headings)]


def main() -> None:
    """Walks once; prints the clicks of each question."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="the folder for the pictures")
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    options = parser.parse_args()
    if options.chromium is None:
        parser.error("chromium is not installed (Debian: chromium); or give --chromium PATH")
    with tempfile.TemporaryDirectory(prefix="walk-") as home:
        found = walk(Path(home), options.chromium, options.images)
    for question, clicks in found.clicks.items():
        sys.stdout.write(f"{clicks} clicks: {question}\n")
    sys.stdout.write(
        f"changes at the platform: {found.sent_by_backfill} by the backfill, "
        f"{found.sent_by_release} by the release\n"
    )


if __name__ == "__main__":
    main()
