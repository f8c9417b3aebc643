"""The daily report over three days: what each page says, of whom it says nothing, how it is made.

The first day is approved, the second goes well, on the third a mass change is held.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from vibes_pipelines.reconcile.summary import CONTACT_STATUSES, Summary
from vibes_pipelines.report import day_page
from vibes_pipelines.report.account import DayAccount, account_of
from vibes_pipelines.report.day_loop import OUTCOMES
from vibes_pipelines.report.day_page import QUESTIONS, render_day, report_folder, write_report
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.stages.certifying import read_certificate
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.reconciling import read_summary
from vibes_pipelines.vibes.error_classes import lookup
from vibes_pipelines_tests.support.loop import Loop, agreed_keys, running_loop
from vibes_pipelines_tests.support.pages import ReadPage

WORLD = build_world(200, 21)
AGREED = agreed_keys(WORLD)
FIRST, SECOND, THIRD = "2026-01-01", "2026-01-02", "2026-01-03"
CANARY = "Xylophonius"


@dataclass(frozen=True)
class Story:
    """Three days, their pages as they were when each day was over, and what was counted."""

    loop: Loop
    pages: dict[str, ReadPage]
    html: dict[str, str]
    accounts: dict[str, DayAccount]

    @property
    def project(self) -> Project:
        return self.loop.project

    def summary(self, day: str) -> Summary:
        return read_summary(self.project, day)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    home = tmp_path_factory.mktemp("report")
    with running_loop(home, WORLD) as loop:
        loop.edit_contacts(f"last_name = '{CANARY}'", AGREED[100:104])
        for _ in range(2):
            summary = loop.reconcile()
            write_report(loop.project, loop.today)
            if loop.today == FIRST:
                loop.approve(summary)
            loop.deliver()
            write_report(loop.project, loop.today)
            loop.sandbox.next_day(edits=True)
        loop.edit_contacts(f"last_name = '{CANARY}'", AGREED[:60])
        loop.reconcile()
        write_report(loop.project, loop.today)
        days = (FIRST, SECOND, THIRD)
        folder = report_folder(loop.project)
        html = {one: (folder / f"{one}.html").read_text(encoding="utf-8") for one in days}
        html["index"] = (folder / "index.html").read_text(encoding="utf-8")
        pages = {name: ReadPage(text) for name, text in html.items()}
        accounts = {one: account_of(loop.project, one) for one in days}
        yield Story(loop, pages, html, accounts)


def test_every_contact_stands_in_one_line_and_the_lines_add_up(story: Story) -> None:
    for day in (FIRST, SECOND, THIRD):
        table = story.pages[day].table("Where every contact ended")
        found = dict(zip(table.column("End"), table.column("Contacts"), strict=True))
        summary = story.summary(day)
        assert {n: int(found[n]) for n in CONTACT_STATUSES} == {
            n: getattr(summary, n) for n in CONTACT_STATUSES
        }
        assert int(found["sum"]) == story.accounts[day].landed["crm/contacts"]
        assert "the counts add up" in story.pages[day].section("contacts")


def test_the_funnel_ends_with_what_the_next_day_confirmed(story: Story) -> None:
    page = story.pages[FIRST].table("The steps in numbers")
    steps = dict(zip(page.column("Step"), page.column("Number"), strict=True))
    account, next_day = story.accounts[FIRST], story.accounts[SECOND]
    sent = sum(account.delivered.values()) + account.opt_outs_to_platform + account.opt_outs_to_crm
    assert int(steps["Delivered"]) == sent
    assert int(steps["Accepted"]) == sent - account.rejected
    assert int(steps["Confirmed"]) == next_day.confirmed > 0


def test_a_held_day_says_so_first_and_how_to_release_it(story: Story) -> None:
    page = story.pages[THIRD]
    diff_set = story.summary(THIRD).diff_set
    assert "person changes are held: updates" in page.section("attention")
    assert f"vibes-pipelines approve {diff_set[:12]} --reason" in page.section("held")
    assert "No lane is held" not in page.text
    assert "opt-outs are held" not in page.text
    assert "held" in dict(_index(story))[THIRD]
    assert "Nothing." in story.pages[SECOND].section("attention")


def test_a_day_says_what_it_would_send_before_it_is_planned(story: Story) -> None:
    summary = story.summary(THIRD)
    table = story.pages[THIRD].table("What goes where")
    rows = [int(one) for one in table.column("Rows")]
    assert sum(rows) == summary.added + summary.updated + summary.subscription_changes
    assert story.project.ledger.plan(summary.diff_set) is None


def test_rejected_rows_stand_with_class_cure_and_mask(story: Story) -> None:
    account = story.accounts[FIRST]
    assert account.rejections
    classes = story.pages[FIRST].table("Refused operations by class")
    found = dict(zip(classes.column("Error class"), classes.column("Rows"), strict=True))
    assert {name: int(rows) for name, rows in found.items()} == account.rejections
    assert set(classes.column("Cure")) == {lookup(name).advice for name in account.rejections}
    rows = next(t for t in story.pages[FIRST].tables if "refused or unanswered" in t.caption)
    assert len(rows.rows) == account.rejected
    assert all(re.fullmatch("#[0-9a-f]{8}", one) for one in rows.column("Contact"))


def test_quarantine_counts_by_kind_and_equal_numbers_have_equal_masks(story: Story) -> None:
    table = story.pages[THIRD].table("Cases by kind")
    found = dict(zip(table.column("Kind"), table.column("Rows"), strict=True))
    kinds = {name: int(rows) for name, rows in found.items() if rows != "0"}
    assert kinds == dict(story.summary(THIRD).quarantine_kinds)
    assert all(table.column("What to do"))
    evidence = story.pages[THIRD].table("Evidence")
    shared = [row[4] for row in evidence.rows if row[0] == "shared_mdn"]
    assert shared
    assert all(shared.count(mask) > 1 for mask in shared)


def test_opt_outs_by_reason_add_up_and_are_compared_with_the_day_before(story: Story) -> None:
    page = story.pages[SECOND]
    lists, reasons = page.table("Subscriptions by list"), page.table("Why subscriptions ended")
    assert lists.column("List") == ["1234"]
    whole = int(lists.column("Opt-outs")[0])
    before = int(lists.column("Opt-outs the day before")[0])
    assert whole == sum(int(one) for one in reasons.column("This day")) > 0
    assert before == sum(int(one) for one in reasons.column("Day before"))
    against = f"{abs(whole - before)} {'more' if whole > before else 'fewer'} than the day before"
    if whole == before:
        against = "as many as the day before"
    assert f"{whole} opt-out{'' if whole == 1 else 's'}, {against}" in page.section("lists")


def test_what_is_pending_is_what_left_and_was_not_seen(story: Story) -> None:
    pending = story.pages[SECOND].table("Under way when the day was over")
    account = story.accounts[SECOND]
    sent = sum(account.delivered.values()) + account.opt_outs_to_platform + account.opt_outs_to_crm
    under_way = sum(int(one) for one in pending.column("Operations"))
    assert under_way == sent - account.rejected + account.not_yet


def test_the_verdicts_on_the_page_are_those_of_the_certificate(story: Story) -> None:
    for day in (FIRST, SECOND, THIRD):
        certificate = read_certificate(story.project, day)
        table = story.pages[day].table("Verdicts")
        assert [row[0].partition(":")[0] for row in table.rows] == list(OUTCOMES)
        for row, outcome in zip(table.rows, OUTCOMES, strict=True):
            lanes = [
                certificate.by_lane[lane].get(outcome, 0) for lane in sorted(certificate.by_lane)
            ]
            assert [int(cell) for cell in row[1:]] == [getattr(certificate, outcome), *lanes]
    certificate = read_certificate(story.project, SECOND)
    evidence = story.pages[SECOND].table("By the day of the send and the evidence")
    assert certificate.confirmed > 0
    assert certificate.rejected > 0
    for outcome in OUTCOMES:
        rows = [int(row[3]) for row in evidence.rows if row[1] == outcome]
        assert sum(rows) == getattr(certificate, outcome)


def test_each_value_leads_to_its_file(story: Story) -> None:
    section = story.pages[SECOND].section("fields")
    files = story.pages[SECOND].table("Landed snapshots")
    hashes = dict(zip(files.column("Feed"), files.column("SHA-256 begins"), strict=True))
    for feed in ("crm/contacts", "share/persons"):
        snapshot = story.project.snapshots.find(feed, SECOND)
        assert snapshot is not None
        assert snapshot.manifest.content_hash.startswith(hashes[feed])
        assert hashes[feed] in section
    fields = story.pages[SECOND].table("Fields and their columns")
    columns = dict(zip(fields.column("Field at the platform"), fields.column("CRM column"),
                       strict=True))  # fmt: skip
    assert columns["birthdate"] == "birth_date"


def test_no_page_knows_a_person(story: Story) -> None:
    known: set[str] = set()
    for row in WORLD.contacts:
        known |= {str(row["contact_id"]), str(row["mobile"]), str(row["birth_date"])}
    known |= set(re.findall(r"\+1\d{10}", str(WORLD.persons)))
    known = {one for one in known if len(one) > 6 and any(map(str.isdigit, one))} | {CANARY}
    assert len(known) > 300
    for name, html in story.html.items():
        assert not [one for one in known if one in html], name


def test_equal_inputs_make_an_equal_page(story: Story) -> None:
    for day in (FIRST, SECOND, THIRD):
        assert render_day(story.project, day) == story.html[day]


def test_a_day_that_was_not_landed_says_so(story: Story) -> None:
    page = ReadPage(render_day(story.project, "2026-02-01"))
    assert "This day was not landed" in page.text
    assert page.tables == []
    assert f"{THIRD}.html" in page.links


def test_a_page_is_whole_in_itself_and_in_order(story: Story) -> None:
    for name, page in story.pages.items():
        assert page.language == "en"
        assert page.unclosed == []
        assert page.headings[0] == 1
        assert set(page.headings[1:]) == {2}
        assert {"header", "main", "footer"} <= set(page.elements)
        assert not {"script", "iframe", "img", "form"} & set(page.elements)
        assert page.loads == ["data:,"]
        assert len(page.ids) == len(set(page.ids)), name
        assert 'content="width=device-width, initial-scale=1"' in story.html[name]
        for table in page.tables:
            assert table.caption
            assert table.scopes <= {"col", "row"}
            assert len({len(row) for row in [table.columns, *table.rows]}) == 1, table.caption
        local = {link[1:] for link in page.links if link.startswith("#")}
        assert local <= set(page.ids)
        files = {link for link in page.links if not link.startswith("#")}
        assert all((report_folder(story.project) / link).is_file() for link in files)


def test_every_question_has_its_section(story: Story) -> None:
    for day in (FIRST, SECOND, THIRD):
        for question, anchor in QUESTIONS:
            assert question in story.pages[day].text
            assert f"#{anchor}" in story.pages[day].links
            assert anchor in story.pages[day].ids


def test_the_index_has_every_day_newest_first(story: Story) -> None:
    assert [day for day, _ in _index(story)] == [THIRD, SECOND, FIRST]


@pytest.fixture(scope="module")
def browser(chromium_path: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium_path, args=flags)
        yield browser
        browser.close()


def _fits(page: Page, story: Story, name: str, width: int) -> None:
    """Opens a page with all that is folded, and looks for what leaves the screen."""
    page.goto((report_folder(story.project) / f"{name}.html").as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    wide = page.evaluate(
        "[...document.querySelectorAll('body *')].filter(one => one.getClientRects().length"
        " && !one.closest('thead, caption, .skip')"
        " && one.getBoundingClientRect().right > innerWidth + 1).map(one => one.outerHTML)"
    )
    assert wide == []
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.chromium
def test_a_day_fits_a_phone_and_shows_its_headings(story: Story, browser: Browser) -> None:
    page = browser.new_page(viewport={"width": 360, "height": 800})
    _fits(page, story, THIRD, 360)
    headings = page.locator("h1, h2")
    assert headings.count() == len(story.pages[THIRD].headings)
    assert all(one.is_visible() for one in headings.all())
    page.close()


@pytest.mark.slow
@pytest.mark.chromium
@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_screen(story: Story, browser: Browser, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for name in story.pages:
        _fits(page, story, name, width)
    assert all(url.startswith(("file:", "data:")) for url in asked)
    page.close()


def _reaches(page: Page, anchor: str) -> bool:
    """Whether the section is in view."""
    return bool(
        page.evaluate(
            "name => { const box = document.getElementById(name).getBoundingClientRect();"
            " return box.bottom > 0 && box.top < innerHeight; }",
            anchor,
        )
    )


def _shows(page: Page, caption: str) -> bool:
    return page.locator("table", has=page.locator("caption", has_text=caption)).first.is_visible()


ANSWERS: dict[str, Callable[[Page], bool]] = {
    "lists": lambda page: _shows(page, "Subscriptions by list"),
    "fields": lambda page: _shows(page, "Fields and their columns"),
    "rejects": lambda page: _shows(page, "Refused operations by class"),
    "pending": lambda page: _shows(page, "Under way when the day was over"),
    "plan": lambda page: _shows(page, "What goes where"),
}


@pytest.mark.slow
@pytest.mark.chromium
def test_each_question_is_answered_two_clicks_from_the_index(
    story: Story, browser: Browser
) -> None:
    page = browser.new_page(viewport={"width": 360, "height": 800})
    for question, anchor in QUESTIONS:
        page.goto((report_folder(story.project) / "index.html").as_uri())
        page.get_by_role("link", name=FIRST, exact=True).click()
        page.get_by_role("link", name=question).click()
        assert _reaches(page, anchor), question
        assert ANSWERS[anchor](page), question
    page.close()


def test_text_is_four_and_a_half_times_as_bright_as_its_ground_or_the_other_way_round() -> None:
    css = (Path(day_page.__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
    light, dark = css.split("prefers-color-scheme: dark", maxsplit=1)
    for scheme in (light, dark):
        colour = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", scheme))
        pairs = [
            (one, ground) for one in ("text", "soft", "link") for ground in ("ground", "raised")
        ]
        pairs += [(tone, f"{tone}-ground") for tone in ("good", "warn", "bad", "info")]
        for text, ground in pairs:
            assert _contrast(colour[text], colour[ground]) >= 4.5, (text, ground)
        for bar in ("bar", "today"):
            assert _contrast(colour[bar], colour["ground"]) >= 3, bar


def _contrast(one: str, other: str) -> float:
    """Contrast as WCAG 2.2 defines it."""
    low, high = sorted(map(_luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_reason_to_approve_is_shown_without_numbers_of_people(story: Story) -> None:
    assert "looked at in a test" in story.pages[FIRST].section("held")
    with story.loop.changed() as loop:
        summary = read_summary(loop.project, THIRD)
        loop.project.ledger.approve(summary.diff_set, "asked by +12015550123, ada@example.com")
        held = ReadPage(render_day(loop.project, THIRD)).section("held")
    assert "asked by [removed], [removed]" in held


def _index(story: Story) -> list[tuple[str, str]]:
    table = story.pages["index"].table("Every day")
    return list(zip(table.column("Day"), table.column("Standing"), strict=True))
