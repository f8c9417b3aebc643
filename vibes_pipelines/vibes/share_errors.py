"""What can go wrong with the Snowflake share, each with the sync config key and the cure."""

from collections.abc import Iterator
from contextlib import contextmanager


class ShareError(Exception):
    """Permanent until somebody changes the account, its rights or sync.yaml."""


class ShareUnavailable(ShareError):  # noqa: N818 - the name says what is wrong
    """Transient: Snowflake cannot be reached, or the connection broke. Try again later."""


class ShareRefreshed(ShareError):  # noqa: N818 - the name says what happened
    """Transient: the share was refreshed while it was read. Read it again."""


@contextmanager
def share_errors(what: str) -> Iterator[None]:
    """Translates the connector's errors while doing `what`; their text may hold data."""
    # Imported late: the connector takes seconds to import, and only landing the share needs it.
    from snowflake.connector import errors  # noqa: PLC0415

    try:
        yield
    except errors.ProgrammingError as refused:
        msg = f"share: {what} failed with {_code(refused)}; check the object and its rights"
        raise ShareError(msg) from None
    except errors.OperationalError as unreachable:
        msg = (
            f"share: {what} failed with {_code(unreachable)}, Snowflake did not answer; check "
            "SNOWFLAKE_ACCOUNT and the network, then try again"
        )
        raise ShareUnavailable(msg) from None
    except errors.DatabaseError as refused:
        msg = (
            f"share: {what} was refused with {_code(refused)}; check SNOWFLAKE_USER and "
            "SNOWFLAKE_PASSWORD or SNOWFLAKE_PRIVATE_KEY_PATH"
        )
        raise ShareError(msg) from None
    except errors.Error as broken:
        msg = f"share: {what} broke off with {_code(broken)}; try again later"
        raise ShareUnavailable(msg) from None


def _code(error: Exception) -> str:
    return f"{type(error).__name__} {getattr(error, 'errno', None)}"
