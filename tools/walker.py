"""A stranger at the screen: reads, clicks what is written there, types, and counts the clicks.

Only what a person sees is used: visible texts, no address typed by hand after the first, no API.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Locator, Page, sync_playwright

WIDTH, HEIGHT = 1280, 800
WAIT_MS = 240_000
# Scrolling ends when nothing new came for so many turns.
SCROLLS = 25
# Dagster's long tables draw only the rows in view and have no better name for one.
ROW = "[class*='VirtualizedTable_row']"
# How far before its text the triangle of an entry stands.
TRIANGLE_PX = 40
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Walker:
    """One browser window, and how often was clicked in it; typing counts as a click."""

    def __init__(self, page: Page, images: Path | None) -> None:
        """`images` is the folder that gets the pictures; without one none is taken."""
        self.page = page
        self._images = images
        self.clicks = 0

    def see(self, text: str, *, exact: bool = True, last: bool = False) -> Locator:
        """Waits until the text is to be seen; the first such place, or the last."""
        found = self.page.get_by_text(text, exact=exact).locator("visible=true")
        place = found.last if last else found.first
        place.wait_for(timeout=WAIT_MS)
        return place

    def see_row(self, *texts: str) -> None:
        """Waits until one row of a table shows all the texts."""
        row = self.page.locator(ROW)
        for text in texts:
            row = row.filter(has_text=text)
        row.first.wait_for(timeout=WAIT_MS)

    def click(self, text: str, *, exact: bool = True, last: bool = False) -> None:
        """Clicks a place that shows the text."""
        self.press(self.see(text, exact=exact, last=last))

    def press(self, place: Locator) -> None:
        """Clicks a place that has no text of its own."""
        place.click(timeout=WAIT_MS)
        self.clicks += 1

    def unfold(self, text: str) -> None:
        """Clicks the triangle before an entry of a tree."""
        box = self.see(text).bounding_box()
        if box is not None:
            self.page.mouse.click(box["x"] - TRIANGLE_PX, box["y"] + box["height"] / 2)
            self.clicks += 1

    def fill(self, hint: str, text: str) -> None:
        """Types into the field with this hint and leaves it with Enter."""
        field = self.page.get_by_placeholder(hint).locator("visible=true").first
        field.fill(text, timeout=WAIT_MS)
        field.press("Enter")
        self.clicks += 1

    def find(self, text: str) -> None:
        """Scrolls the list in the middle of the window until the text is to be seen."""
        self.page.mouse.move(WIDTH / 2, HEIGHT / 2)
        for _ in range(SCROLLS):
            if self.page.get_by_text(text, exact=True).locator("visible=true").count():
                return
            self.page.mouse.wheel(0, HEIGHT / 2)
            self.page.wait_for_timeout(400)

    @contextmanager
    def new_tab(self, text: str) -> Iterator["Walker"]:
        """Follows the link that opens a tab; what is clicked there counts here too."""
        place = self.see(text, exact=False)
        with self.page.context.expect_page(timeout=WAIT_MS) as opened:
            self.press(place)
        page = opened.value
        page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
        page.wait_for_load_state()
        tab = Walker(page, self._images)
        try:
            yield tab
        finally:
            self.clicks += tab.clicks
            page.close()

    def picture(self, name: str) -> None:
        """Takes a picture of the window when it is still; 256 colours keep it small."""
        if self._images is None:
            return
        self.page.wait_for_timeout(1500)
        taken = Image.open(io.BytesIO(self.page.screenshot(timeout=WAIT_MS))).convert("RGB")
        self._images.mkdir(parents=True, exist_ok=True)
        # By coverage: the red and green of a few pixels are what a picture is about.
        small = taken.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        small.save(self._images / f"{name}.png", optimize=True)


@contextmanager
def walker(chromium: str, images: Path | None) -> Iterator[Walker]:
    """A walker in a Chromium of their own, which ends with them."""
    with sync_playwright() as playwright:
        browser: Browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        try:
            context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
            context.set_default_timeout(WAIT_MS)
            yield Walker(context.new_page(), images)
        finally:
            browser.close()
