"""The data share's stand-in: a server on loopback that the unmodified Snowflake connector reads.

Only the server's life belongs here. Tables are in `share_database`, the protocol in
`share_protocol`, logins in `share_login`, the encoding of results in `share_results`.
"""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from vibes_pipelines.sandbox.http_server import HttpServer
from vibes_pipelines.sandbox.share_database import ShareDatabase
from vibes_pipelines.sandbox.share_login import ShareUser
from vibes_pipelines.sandbox.share_protocol import ShareProtocol
from vibes_pipelines.sandbox.share_results import ChunkStore


class ShareServer:
    """Serves the tables in `db_dir` to one user, on 127.0.0.1.

    Args:
        db_dir: Folder of the databases; tables loaded once are served again after a restart.
        user: Login name, not case-sensitive.
        password: Password of the user.
        public_key_file: PEM file; when given, the user can log in with the key pair too.
        chunk_rows: Most rows in one piece of a result.
        kept_results: Most results whose pieces stay ready for download.
    """

    def __init__(
        self,
        db_dir: Path,
        user: str,
        password: str,
        public_key_file: Path | None = None,
        *,
        chunk_rows: int = 100_000,
        kept_results: int = 8,
    ) -> None:
        self._database = ShareDatabase(db_dir)
        self.protocol = ShareProtocol(
            self._database,
            ShareUser(user, password, public_key_file),
            ChunkStore(kept_results),
            chunk_rows,
        )
        self._http = HttpServer(self.protocol.app(), "share-server")

    def load(
        self,
        tables: Mapping[str, pa.Table],
        database: str = "VIBES_SHARE",
        schema: str = "PUBLIC",
    ) -> None:
        """Replace whole tables at once, before or while serving; other tables stay.

        Raises:
            ShareLoadError: for a table that cannot be part of a share.
        """
        self._database.load(tables, database, schema)

    def start(self) -> int:
        """Serve in a thread and return the port once connections are accepted."""
        return self._http.start()

    def stop(self) -> None:
        """Stop serving and close the databases; the folder can then be served by another."""
        self._http.stop()
        self.protocol.close()
        self._database.close()
