"""Plots as SVG text: bars over days and the funnel. Numbers and our own words in, text out.

Colours come from the page's style; a picture that stands alone brings its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 320, 120
_LEFT, _TOP, _BOTTOM = 4, 22, 22
_STYLE = (
    "<style>.bar{fill:#3d6fb4}.today{fill:#12345f}.axis{stroke:#767676}"
    "text{font:11px sans-serif;fill:#222}</style>"
)
_FUNNEL_ROW, _FUNNEL_BAR, _FUNNEL_TOP = 46, 18, 22


@dataclass(frozen=True)
class Series:
    """One number per day, oldest first; None where there was no such day."""

    name: str
    unit: str
    days: tuple[str, ...]
    values: tuple[float | None, ...]
    is_share: bool = False

    def text(self, value: float | None) -> str:
        """A value as a person reads it."""
        if value is None:
            return "none"
        return f"{value:.1%}" if self.is_share else f"{value:,.0f}"


def bars(series: Series, *, stands_alone: bool = False) -> str:
    """Bars over days; the last day is darker, marked with a triangle and named."""
    top = 1.0 if series.is_share else max((v for v in series.values if v is not None), default=0)
    step = (WIDTH - 2 * _LEFT) / max(len(series.values), 1)
    room = HEIGHT - _TOP - _BOTTOM
    drawn = []
    for position, value in enumerate(series.values):
        x, is_last = _LEFT + position * step, position == len(series.values) - 1
        if value is not None and top:
            height = max(room * value / top, 1.0 if value else 0.0)
            name = "today" if is_last else "bar"
            drawn.append(
                f'<rect class="{name}" x="{x:.1f}" y="{HEIGHT - _BOTTOM - height:.1f}" '
                f'width="{max(step - 2, 1):.1f}" height="{height:.1f}"/>'
            )
        if is_last:
            middle, low = x + (step - 2) / 2, HEIGHT - _BOTTOM + 3
            drawn.append(
                f'<path class="today" d="M{middle:.1f} {low} l4 6 h-8 z"/>',
            )
    low = HEIGHT - _BOTTOM
    drawn.append(f'<path class="axis" d="M{_LEFT} {low} H{WIDTH - _LEFT}"/>')
    said = _said(series)
    labels = [
        _text(_LEFT, 13, f"most {series.text(top)}", "start"),
        _text(WIDTH - _LEFT, 13, f"this day {series.text(_last(series))}", "end"),
        *_dates(series.days),
    ]
    return _svg(series.name, said, WIDTH, HEIGHT, [*drawn, *labels], stands_alone=stands_alone)


def funnel(title: str, steps: Sequence[tuple[str, int]]) -> str:
    """Steps below each other, each as wide as its share of the largest."""
    top = max((number for _, number in steps), default=0)
    drawn = []
    for position, (name, number) in enumerate(steps):
        y = position * _FUNNEL_ROW
        width = WIDTH * number / top if top else 0
        drawn.append(_text(0, y + 13, f"{name}: {number:,}", "start"))
        drawn.append(
            f'<rect class="ground" x="0" y="{y + _FUNNEL_TOP}" '
            f'width="{WIDTH}" height="{_FUNNEL_BAR}"/>'
            f'<rect class="bar" x="0" y="{y + _FUNNEL_TOP}" '
            f'width="{max(width, 1 if number else 0):.1f}" height="{_FUNNEL_BAR}"/>'
        )
    said = "; ".join(f"{name} {number:,}" for name, number in steps)
    return _svg(title, said, WIDTH, len(steps) * _FUNNEL_ROW, drawn)


def _dates(days: tuple[str, ...]) -> list[str]:
    if not days:
        return []
    low = HEIGHT - 6
    return [_text(_LEFT, low, days[0], "start"), _text(WIDTH - _LEFT - 14, low, days[-1], "end")]


def _last(series: Series) -> float | None:
    return series.values[-1] if series.values else None


def _said(series: Series) -> str:
    known = [value for value in series.values if value is not None]
    if not known:
        return f"{series.unit}: no day has a value"
    return (
        f"{series.unit} a day over {len(series.days)} days to {series.days[-1]}: this day "
        f"{series.text(_last(series))}, least {series.text(min(known))}, most "
        f"{series.text(max(known))}"
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(
    title: str, said: str, width: int, height: int, parts: list[str], *, stands_alone: bool = False
) -> str:
    name = escape(f"{title}. {said}", quote=True)
    space = ' xmlns="http://www.w3.org/2000/svg"' if stands_alone else ""
    size = f' width="{width}" height="{height}"' if stands_alone else ""
    style = _STYLE if stands_alone else ""
    return (
        f'<svg{space} viewBox="0 0 {width} {height}"{size} role="img" aria-label="{name}">'
        f"{style}{''.join(parts)}</svg>"
    )
