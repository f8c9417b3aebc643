"""The walk of docs/walk.md in a real Chromium, against what `make dev` starts."""

from pathlib import Path

import pytest

from tools.walk import ON_THE_PAGE, REJECTED, Walk, walk

PAGE = Path(__file__).parents[2] / "docs" / "walk.md"
MOST_CLICKS = 5
# A walk takes three minutes on an idle machine.
TIMEOUT_S = 1500


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory, chromium_path: str) -> Walk:
    return walk(tmp_path_factory.mktemp("walk"), chromium_path)


@pytest.mark.slow
@pytest.mark.chromium
@pytest.mark.timeout(TIMEOUT_S)
def test_a_backfill_changes_nothing_at_the_platform_and_a_release_does(walked: Walk) -> None:
    assert walked.sent_by_backfill == 0
    assert walked.sent_by_release > 0


@pytest.mark.slow
@pytest.mark.chromium
@pytest.mark.timeout(TIMEOUT_S)
def test_each_question_is_answered_in_five_clicks(walked: Walk) -> None:
    assert walked.clicks.keys() == {*ON_THE_PAGE, REJECTED}
    assert max(walked.clicks.values()) <= MOST_CLICKS, walked.clicks


def test_the_page_shows_every_picture_and_asks_every_question() -> None:
    text = PAGE.read_text(encoding="utf-8")
    shown = {path.name for path in (PAGE.parent / "images").glob("*.png")}
    assert shown
    for name in shown:
        assert f"(images/{name})" in text
    for question in (*ON_THE_PAGE, REJECTED):
        assert question in text
