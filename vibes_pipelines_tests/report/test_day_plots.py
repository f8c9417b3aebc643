"""Plots: a bar for each day that has a value, and words that say the same."""

import re
from datetime import date, timedelta
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from vibes_pipelines.report.day_plots import HEIGHT, WIDTH, Series, bars, funnel

values = st.lists(st.none() | st.integers(min_value=0, max_value=10**9), min_size=1, max_size=30)


def _series(numbers: list[int | None], *, is_share: bool = False) -> Series:
    first = date(2026, 1, 1)
    days = tuple((first + timedelta(days=n)).isoformat() for n in range(len(numbers)))
    return Series("Adds", "persons added", days, tuple(numbers), is_share=is_share)


@given(values)
def test_each_known_day_has_a_bar_inside_the_picture(numbers: list[int | None]) -> None:
    root = ET.fromstring(bars(_series(numbers), stands_alone=True))
    boxes = [node.attrib for node in root.iter() if node.tag.endswith("rect")]
    known = [one for one in numbers if one is not None]
    assert len(boxes) == (len(known) if any(known) else 0)
    for box in boxes:
        left, top, wide, high = (float(box[name]) for name in ("x", "y", "width", "height"))
        assert 0 <= left <= left + wide <= WIDTH
        assert 0 <= top <= top + high <= HEIGHT


@given(values)
def test_the_label_says_the_newest_the_least_and_the_most(numbers: list[int | None]) -> None:
    label = ET.fromstring(bars(_series(numbers))).attrib["aria-label"]
    known = [one for one in numbers if one is not None]
    if not known:
        assert "no day has a value" in label
        return
    newest = "none" if numbers[-1] is None else f"{numbers[-1]:,}"
    assert f"this day {newest}, least {min(known):,}, most {max(known):,}" in label


def test_a_share_is_drawn_against_the_whole() -> None:
    drawn = bars(Series("Convergence", "share", ("2026-01-01",), (0.5,), is_share=True))
    half = (HEIGHT - 44) / 2
    assert f'height="{half:.1f}"' in drawn
    assert "this day 50.0%" in drawn


@given(st.lists(st.tuples(st.sampled_from("abc<&"), st.integers(0, 10**6)), min_size=1, max_size=4))
def test_a_funnel_is_xml_and_no_step_is_wider_than_the_largest(
    steps: list[tuple[str, int]],
) -> None:
    root = ET.fromstring(funnel("Operations", steps))
    widths = [float(n.attrib["width"]) for n in root.iter("rect") if n.attrib["class"] == "bar"]
    assert len(widths) == len(steps)
    assert max(widths) <= WIDTH
    assert all(f"{number:,}" in root.attrib["aria-label"] for _, number in steps)
    assert re.search(r"Operations\. ", root.attrib["aria-label"])
