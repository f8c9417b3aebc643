"""What can go wrong with the Snowflake share, each with the sync config key and the cure."""

import logging
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class ShareError(Exception):
    """Permanent until somebody changes the account, its rights or sync.yaml."""


class ShareUnavailable(ShareError):  # noqa: N818 - the name says what is wrong
    """Transient: Snowflake cannot be reached, or the connection broke. Try again later."""


class ShareRefreshed(ShareError):  # noqa: N818 - the name says what happened
    """Transient: the share was refreshed while it was read. Read it again."""


_CUT = (ConnectionError, TimeoutError, ssl.SSLError, socket.gaierror)
"""What the network does to a connection; other faults of the machine are not the share's."""


_LOGGERS = (
    "snowflake.connector.result_batch",
    "snowflake.connector.vendored.urllib3.connectionpool",
)


def _without_address(record: logging.LogRecord) -> bool:
    """The connector's own words about a failed request hold its whole address."""
    if record.levelno >= logging.WARNING:
        record.msg, record.args = "share: a request failed; it is repeated or given up", ()
        record.exc_info = record.exc_text = None
    return True


@contextmanager
def share_errors(what: str) -> Iterator[None]:
    """Translates the connector's errors while doing `what`; their text may hold data."""
    # Imported late: the connector takes seconds to import, and only landing the share needs it.
    from snowflake.connector import errors  # noqa: PLC0415
    from snowflake.connector.vendored.requests.exceptions import RequestException  # noqa: PLC0415
    from snowflake.connector.vendored.urllib3.exceptions import HTTPError  # noqa: PLC0415

    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_without_address)
    try:
        yield
    except errors.ProgrammingError as refused:
        raise refusal(refused, what) from None
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
    except (RequestException, HTTPError, *_CUT) as cut:
        # The connector lets them through while it fetches a result; their texts hold its address,
        # which opens the result to whoever knows it.
        msg = f"share: {what} broke off with {type(cut).__name__}; check the network, try again"
        raise ShareUnavailable(msg) from None


# By Snowflake's public error numbers; their texts may hold data and are not repeated.
_SCHEMA = (
    "set SNOWFLAKE_DATABASE and SNOWFLAKE_SCHEMA to a schema in which SNOWFLAKE_ROLE may create"
    " temporary tables and stages; a share is read-only"
)
_CURES: Mapping[int, str] = {
    606: "no warehouse runs: set SNOWFLAKE_WAREHOUSE, grant its USAGE to SNOWFLAKE_ROLE, resume it",
    2003: f"what it needs does not exist or is not granted: {_SCHEMA}",
    2043: f"what it needs does not exist or is not granted: {_SCHEMA}",
    3001: f"SNOWFLAKE_ROLE lacks a right: {_SCHEMA}",
    90073: "the warehouse is suspended by its resource monitor; raise its quota, or set another",
    90105: f"the session has no database: {_SCHEMA}",
    90106: f"the session has no schema: {_SCHEMA}",
}
_CANCELLED = (604, 630)
"""Cancelled by somebody, or by a timeout of the statement or its warehouse."""


def is_explained(error: Exception) -> bool:
    """Whether the number of the error alone tells what is wrong."""
    errno = getattr(error, "errno", None)
    return errno in _CANCELLED or errno in {606, 90073}


def refusal(error: Exception, what: str) -> ShareError:
    """The error for a statement that Snowflake refused while doing `what`, with its cure."""
    errno = getattr(error, "errno", None)
    if errno in _CANCELLED:
        return ShareUnavailable(
            f"share: {what} was cancelled with {_code(error)}; try again, or raise the warehouse's"
            " size or its STATEMENT_TIMEOUT_IN_SECONDS"
        )
    cure = _CURES.get(errno or 0, "check the object and its rights")
    return ShareError(f"share: {what} failed with {_code(error)}; {cure}")


def _code(error: Exception) -> str:
    return f"{type(error).__name__} {getattr(error, 'errno', None)}"
