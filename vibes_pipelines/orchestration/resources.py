"""Resources: the project that the environment describes, and the connection to the share."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import SecretStr

from vibes_pipelines import stages
from vibes_pipelines.settings import Settings, ShareSettings
from vibes_pipelines.vibes.share_key import check_private_key

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection

# The connector repeats a failed request until this many seconds have passed; without it, for ever.
NETWORK_TIMEOUT_S = 60


class ProjectResource(dg.ConfigurableResource[object]):
    """Settings, sync config, snapshots and ledger, opened for a step and closed after it."""

    @contextmanager
    def open(self) -> "Iterator[stages.project.Project]":
        """The project of this environment."""
        with stages.project.open_project() as project:
            yield project


class ShareResource(dg.ConfigurableResource[object]):
    """Read-only connections to the data share, through `dagster_snowflake.SnowflakeResource`."""

    def connector(self) -> "Callable[[], AbstractContextManager[SnowflakeConnection]]":
        """A function that opens one connection; nothing is imported or dialled before that."""
        return self._connect

    @contextmanager
    def _connect(self) -> "Iterator[SnowflakeConnection]":
        from dagster_snowflake import SnowflakeResource  # noqa: PLC0415 - five CPU seconds to import

        share = Settings().share
        if share.private_key_path is not None:
            check_private_key(share.private_key_path, _secret(share.private_key_passphrase))
        with SnowflakeResource(**_arguments(share)).get_connection() as connection:
            yield connection


def _secret(given: SecretStr | None) -> str | None:
    return given.get_secret_value() if given else None


def _arguments(share: ShareSettings) -> dict[str, Any]:
    given = {
        "account": share.account,
        "user": share.user,
        "password": _secret(share.password),
        "private_key_path": str(share.private_key_path) if share.private_key_path else None,
        "private_key_password": _secret(share.private_key_passphrase),
        "warehouse": share.warehouse,
        "role": share.role,
        "database": share.database,
        "schema": share.schema,
    }
    extra = {"host": share.host, "port": share.port, "protocol": share.protocol}
    extra = {name: value for name, value in extra.items() if value is not None}
    return {
        **{name: value for name, value in given.items() if value is not None},
        "additional_snowflake_connection_args": {
            "network_timeout": NETWORK_TIMEOUT_S,
            "login_timeout": NETWORK_TIMEOUT_S,
            # Without it a NUMBER arrives as a float, with noise in its last digits.
            "arrow_number_to_decimal": True,
            **extra,
        },
    }
