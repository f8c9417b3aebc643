"""The fixture `openssh`: a real OpenSSH server that offers SFTP as the platform does.

As root the account is confined by chroot and the session runs as `nobody`; as another user there
is no chroot and the folders have their full local path.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from vibes_pipelines_tests.support.real_parts import (
    accepts_connections,
    end,
    find_program,
    free_port,
    wait_until,
)

LOG = "sshd.log"
FOLDERS = ("files/in", "files/reports", "files/out")

CONFIGURATION = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {home}/host_key
PidFile none
AuthorizedKeysFile {home}/authorized_keys
AuthenticationMethods publickey
Ciphers aes256-ctr,aes192-ctr,aes128-ctr
MACs hmac-sha2-512,hmac-sha2-256
StrictModes no
UsePAM no
UseDNS no
AllowUsers {user}
Subsystem sftp internal-sftp
ForceCommand internal-sftp
LogLevel VERBOSE
"""


@dataclass(frozen=True)
class OpensshServer:
    """A running server; `root` is the local folder behind `remote_root`."""

    host: str
    port: int
    user: str
    key_file: Path
    known_hosts: Path
    root: Path
    remote_root: str
    pid: int

    def remote(self, folder: str) -> str:
        """Name a folder below the root, for example `files/in`, as the client sees it."""
        return f"{self.remote_root.rstrip('/')}/{folder}"

    def log(self) -> str:
        """What sshd has said so far: each login that was tried, and how that went."""
        return (self.key_file.parent / LOG).read_text(encoding="utf-8")


@pytest.fixture
def openssh() -> Iterator[OpensshServer]:
    """Start sshd for one test."""
    with running_openssh() as server:
        yield server


@contextmanager
def running_openssh() -> Iterator[OpensshServer]:
    """Run sshd until the block ends, with the folders files/in, files/reports and files/out."""
    sshd = find_program("sshd", "openssh-server", "usr/sbin")
    keygen = find_program("ssh-keygen", "openssh-client", "usr/bin")
    # Every folder above a chroot must belong to root alone, which is not so below /tmp.
    parent = "/var/lib" if os.geteuid() == 0 else None
    home = Path(tempfile.mkdtemp(prefix="vibes-sshd-", dir=parent))
    try:
        yield from _run(sshd, keygen, home)
    finally:
        shutil.rmtree(home)


def _run(sshd: Path, keygen: Path, home: Path) -> Iterator[OpensshServer]:
    home.chmod(0o755)
    port, root, user = free_port(), home / "root", _session_user()
    for key in ("host_key", "user_key"):
        subprocess.run(
            [keygen, "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", home / key], check=True
        )
    shutil.copy(home / "user_key.pub", home / "authorized_keys")
    (home / "authorized_keys").chmod(0o644)
    host_key = (home / "host_key.pub").read_text().strip()
    (home / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    _make_folders(root, user)
    configuration = CONFIGURATION.format(port=port, home=home, user=user.pw_name)
    if os.geteuid() == 0:
        configuration += f"ChrootDirectory {root}\n"
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd drops its privileges
    (home / "sshd_config").write_text(configuration)
    log = home / LOG
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sshd, "-D", "-e", "-f", home / "sshd_config"], stdout=output, stderr=output
        )
    try:
        wait_until(lambda: accepts_connections(port), process, log)
        yield OpensshServer(
            "127.0.0.1",
            port,
            user.pw_name,
            home / "user_key",
            home / "known_hosts",
            root,
            "/" if os.geteuid() == 0 else str(root),
            process.pid,
        )
    finally:
        end(process, signal.SIGTERM)


def _session_user() -> pwd.struct_passwd:
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())


def _make_folders(root: Path, user: pwd.struct_passwd) -> None:
    for folder in FOLDERS:
        path = root / folder
        path.mkdir(parents=True)
        if os.geteuid() == 0:
            os.chown(path, user.pw_uid, user.pw_gid)
