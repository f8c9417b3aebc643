"""One file over SFTP, both ways, against OpenSSH's own client with the same cipher.

A real OpenSSH server that allows what the platform allows, aes-ctr only. Needs its programs.

    python -m benchmarks.sftp [--megabytes 200] [--rounds 3]
"""

import argparse
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import compare, report
from vibes_pipelines_tests.support.openssh import OpensshServer, running_openssh

CIPHER = "aes128-ctr"
MOST_OF_REFERENCE = 1 / 0.95
"""The budget is 0.95 of the throughput of OpenSSH's client."""


def _by_openssh(direction: str, folder: Path, account: str) -> None:
    port, user, key, known_hosts, remote = account.split("|")
    wish = {
        "up": f"put {folder / 'source'} {remote}",
        "down": f"get {remote} {folder / 'openssh'}",
    }[direction]
    options = [f"UserKnownHostsFile={known_hosts}", f"IdentityFile={key}", f"Ciphers={CIPHER}"]
    told = [part for option in (*options, "BatchMode=yes") for part in ("-o", option)]
    command = ["sftp", "-q", "-b", "-", "-P", port, *told, f"{user}@127.0.0.1"]
    subprocess.run(command, input=wish + "\n", text=True, check=True, stdout=subprocess.DEVNULL)


def _by_us(direction: str, folder: Path, account: str) -> None:
    from vibes_pipelines.vibes.sftp import SftpAccount  # noqa: PLC0415 - part of what is measured

    port, user, key, known_hosts, remote = account.split("|")
    state = folder / "state"
    state.unlink(missing_ok=True)
    ours = SftpAccount(
        "127.0.0.1", int(port), user, Path(key), Path(known_hosts), gap_s=0, state_file=state
    )
    with ours.session() as session:
        if direction == "up":
            place = Path(remote)
            session.upload(folder / "source", str(place.parent), place.name)
        else:
            session.download(remote, folder / "ours")


def _measure(mode: str, folder: Path, account: str) -> None:
    who, direction = mode.split(" ")
    carry: Callable[[str, Path, str], None] = _by_us if who == "ours" else _by_openssh
    carry(direction, folder, account)
    report({})


def _account(server: OpensshServer) -> str:
    """What a child needs, in one argument."""
    remote = server.remote("files/in/benchmark")
    parts = (server.port, server.user, server.key_file, server.known_hosts, remote)
    return "|".join(map(str, parts))


def main() -> None:
    """Prints the measurements and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mode")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--account")
    given = parser.parse_args()
    if given.mode:
        _measure(given.mode, given.folder, given.account)
        return
    with tempfile.TemporaryDirectory() as name, running_openssh() as server:
        with (Path(name) / "source").open("wb") as source:
            for _ in range(given.megabytes):
                source.write(os.urandom(1_000_000))
        told = ["--folder", name, "--account", _account(server)]
        for direction in ("up", "down"):
            print(f"{given.megabytes} MB {direction}; OpenSSH's client = 1")
            compare(
                (f"openssh {direction}", f"ours {direction}"),
                lambda mode: ["-m", "benchmarks.sftp", *told, "--mode", mode],
                given.rounds,
                {f"ours {direction}": MOST_OF_REFERENCE},
            )


if __name__ == "__main__":
    main()
