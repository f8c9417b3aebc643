"""The servers of a sandbox that speak other protocols than the API's, each started in one call."""

import secrets
from contextlib import ExitStack

from vibes_pipelines.sandbox.audit import Audit
from vibes_pipelines.sandbox.faults import Faults
from vibes_pipelines.sandbox.home import EXTRACT_DIR, IMPORT_DIR, REPORT_DIR, SandboxHome
from vibes_pipelines.sandbox.sftp_server import SftpServer, keep_key_pair
from vibes_pipelines.sandbox.share_server import ShareServer

SFTP_USER = "sandbox"
SHARE_USER = "SANDBOX_READER"


def start_share(home: SandboxHome, starting: ExitStack) -> tuple[ShareServer, dict[str, str]]:
    """Serve the share until `starting` is unwound; returns it and the environment to reach it."""
    password = secrets.token_urlsafe(24)
    share = ShareServer(home.share, SHARE_USER, password)
    starting.callback(share.stop)
    environment = {
        "SNOWFLAKE_ACCOUNT": "sandbox",
        "SNOWFLAKE_USER": SHARE_USER,
        "SNOWFLAKE_PASSWORD": password,
        "SNOWFLAKE_WAREHOUSE": "SANDBOX",
        "SNOWFLAKE_ROLE": "SANDBOX_READER",
        "SNOWFLAKE_DATABASE": "VIBES_SHARE",
        "SNOWFLAKE_SCHEMA": "PUBLIC",
        "SNOWFLAKE_HOST": "127.0.0.1",
        "SNOWFLAKE_PORT": str(share.start()),
        "SNOWFLAKE_PROTOCOL": "http",
        "SNOWFLAKE_DISABLE_PLATFORM_DETECTION": "true",
    }
    return share, environment


def start_sftp(
    home: SandboxHome, starting: ExitStack, audit: Audit, faults: Faults
) -> dict[str, str]:
    """Serve the SFTP until `starting` is unwound; returns the environment to reach it."""
    keys = home.keys
    client_key, client_public_key = keep_key_pair(keys, "client_ed25519")
    host_key, _ = keep_key_pair(keys, "host_ed25519")
    server = SftpServer(
        home.sftp,
        SFTP_USER,
        client_public_key,
        host_key,
        on_session=audit.session,
        faults=faults,
    )
    starting.callback(server.stop)
    port = server.start()
    known_hosts = keys / "known_hosts"
    known_hosts.write_text(server.known_hosts_line(), encoding="utf-8")
    return {
        "VIBES_SFTP_HOST": "127.0.0.1",
        "VIBES_SFTP_PORT": str(port),
        "VIBES_SFTP_USER": SFTP_USER,
        "VIBES_SFTP_KEY_FILE": str(client_key),
        "VIBES_SFTP_KNOWN_HOSTS": str(known_hosts),
        "VIBES_SFTP_GAP_S": "0",
        "VIBES_IMPORT_DIR": IMPORT_DIR,
        "VIBES_REPORT_DIR": REPORT_DIR,
        "VIBES_EXTRACT_DIR": EXTRACT_DIR,
    }
