"""The data share's stand-in: a server on loopback that the unmodified Snowflake connector reads.

Only the server's life belongs here. Tables are in `share_database`, the protocol in
`share_protocol`, logins in `share_login`, the encoding of results in `share_results`.
"""

import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import uvicorn

from vibes_pipelines.sandbox.share_database import ShareDatabase
from vibes_pipelines.sandbox.share_login import ShareUser
from vibes_pipelines.sandbox.share_protocol import ShareProtocol
from vibes_pipelines.sandbox.share_results import ChunkStore

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0


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
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

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
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(
            uvicorn.Config(
                self.protocol.app(),
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=int(STOP_TIMEOUT_S),
            )
        )
        thread = threading.Thread(
            target=server.run, kwargs={"sockets": [listener]}, name="share-server", daemon=True
        )
        thread.start()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                server.should_exit = True
                listener.close()
                raise RuntimeError("the share server did not start: see the log of uvicorn")
            time.sleep(0.005)
        self._server, self._thread = server, thread
        port: int = listener.getsockname()[1]
        return port

    def stop(self) -> None:
        """Stop serving and close the databases; the folder can then be served by another."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(STOP_TIMEOUT_S + 5)
            self._server = self._thread = None
        self.protocol.close()
        self._database.close()
