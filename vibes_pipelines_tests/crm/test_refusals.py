"""What a database refuses while several rows are written: of one row, of all, or a lock."""

from collections.abc import Callable

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from vibes_pipelines.crm.database import each_or_its_refusal, is_locked, writing

ROWS = range(3)


class OfPsycopg2(Exception):  # noqa: N818 - what the driver's own error looks like
    def __init__(self, code: str) -> None:
        super().__init__("the words of the database")
        self.pgcode = code


class OfMySql(Exception):  # noqa: N818 - what the driver's own error looks like
    def __init__(self, number: int) -> None:
        super().__init__(number, "the words of the database")


def written(refusal: Exception) -> list[str | Exception]:
    """Three rows are written, of which the last is answered by `refusal`."""

    def write(row: int) -> str:
        if row == ROWS[-1]:
            raise OperationalError("UPDATE", {}, refusal)
        return "accepted"

    with writing(sa.create_engine("sqlite://")) as connection:
        return each_or_its_refusal(connection, ROWS, write, "accepted")


@pytest.mark.parametrize(
    ("refusal", "locked"),
    [
        (OfPsycopg2("55P03"), True),
        (OfPsycopg2("P0001"), False),
        (OfMySql(1205), True),
        (OfMySql(1644), False),
        (OfMySql(3819), False),
    ],
)
def test_what_is_of_one_row_holds_back_no_other(refusal: Exception, *, locked: bool) -> None:
    first, second, last = written(refusal)
    assert (first, second) == ("accepted", "accepted")
    assert isinstance(last, OperationalError)
    assert is_locked(last) is locked


@pytest.mark.parametrize(
    ("make", "code"),
    [(OfPsycopg2, "40P01"), (OfPsycopg2, "25006"), (OfMySql, 1213), (OfMySql, 1305)],
)
def test_after_what_takes_the_transaction_nothing_passes_for_written(
    make: Callable[[object], Exception], code: object
) -> None:
    with pytest.raises(OperationalError):
        written(make(code))
