"""The demo's report pages and the documentation over HTTP, for links from the Dagster UI.

A browser follows no link from a page of the web to a file. Loopback only, and only while the demo
runs; a real installation serves the folder with its own web server.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class _Quiet(SimpleHTTPRequestHandler):
    """Without a line on the terminal for each page that is read."""

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def served_pages(folder: Path) -> Iterator[str]:
    """Serves the files of `folder`, which may appear later; yields the address, without a slash."""
    handler = partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
