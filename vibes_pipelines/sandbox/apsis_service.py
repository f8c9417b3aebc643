"""The APSIS One stand-in as a whole: one account on a port of its own.

`ApsisSandbox` is for tests and for other parts of the sandbox; `beside` serves one with the
platform.
"""

import secrets

from vibes_pipelines.sandbox.apsis_access import ApsisCredentials, ApsisLimits, Gates, Tokens
from vibes_pipelines.sandbox.apsis_account import ApsisAccount
from vibes_pipelines.sandbox.apsis_api import ApsisApi
from vibes_pipelines.sandbox.apsis_clock import RunningClock
from vibes_pipelines.sandbox.apsis_control import ApsisControl, with_apsis_control
from vibes_pipelines.sandbox.apsis_imports import ImportManner, Imports
from vibes_pipelines.sandbox.apsis_records import Catalogue
from vibes_pipelines.sandbox.apsis_switches import ApsisSwitches
from vibes_pipelines.sandbox.faults import Faults
from vibes_pipelines.sandbox.http_server import HttpServer
from vibes_pipelines.sandbox.running import Running

CLIENT_ID = "sandbox-api-key"


class ApsisSandbox(Running):
    """One account, served on loopback between `start` and `stop`; it lives in memory only.

    Args:
        switches: Where the documentation leaves room.
        limits: Those of the documentation, unless a test lifts them.
        faults: Scripted ones, as everywhere in the sandbox (place `api`).
        clock: Shared with other stand-ins, or sped up.
        catalogue: What is set up in the account.
        manner: How long imports take.
        token_ttl_s: Seconds for which a token is valid.
    """

    def __init__(
        self,
        switches: ApsisSwitches | None = None,
        limits: ApsisLimits | None = None,
        faults: Faults | None = None,
        clock: RunningClock | None = None,
        catalogue: Catalogue | None = None,
        manner: ImportManner | None = None,
        token_ttl_s: float = 86_400,
    ) -> None:
        switches = switches or ApsisSwitches()
        self.clock = clock or RunningClock()
        self.faults = faults or Faults()
        self.account = ApsisAccount(catalogue or Catalogue(), switches, self.clock)
        self.imports = Imports(self.account, manner or ImportManner())
        self._credentials = ApsisCredentials(CLIENT_ID, secrets.token_urlsafe(24))
        self.tokens = Tokens(self._credentials, switches, self.clock, token_ttl_s)
        self.control = ApsisControl(self.account, self.imports, self.tokens, self.faults)
        gates = Gates(limits or ApsisLimits(), self.clock)
        api = ApsisApi(self.account, self.imports, self.tokens, gates, self.faults)
        self.app = with_apsis_control(self.control, api)
        self._server = HttpServer(self.app, "sandbox-apsis")
        self.url = ""

    def start(self) -> None:
        """Serve the account on a free port."""
        self.url = f"http://127.0.0.1:{self._server.start()}"

    def stop(self) -> None:
        """Stop serving."""
        self._server.stop()

    def environment(self) -> dict[str, str]:
        """The environment with which the product reaches it; holds the secret."""
        return {
            "APSIS_API_URL": self.url,
            "APSIS_CLIENT_ID": self._credentials.client_id,
            "APSIS_CLIENT_SECRET": self._credentials.client_secret,
        }
