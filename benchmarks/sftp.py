"""One file over SFTP, both ways, against OpenSSH's own client with the same cipher.

A real OpenSSH server that allows what the platform allows, aes-ctr only. Needs its programs. The
table is of whole processes. The budget is of what carries a file, login to logout: the start of
Python and a first login, paid once by a process that lives for hours, are in the table alone.

    python -m benchmarks.sftp [--megabytes 200] [--rounds 3]
"""

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import compare, report
from vibes_pipelines_tests.support.openssh import OpensshServer, running_openssh

CIPHER = "aes128-ctr"
MAC = "hmac-sha2-256"
"""What paramiko agrees on with such a server; OpenSSH's client is told to use the same."""
MOST_OF_REFERENCE = 1 / 0.95
"""The budget is 0.95 of the throughput of OpenSSH's client."""


def _by_openssh(direction: str, folder: Path, account: str) -> float:
    port, user, key, known_hosts, remote = account.split("|")
    wish = {
        "up": f"put {folder / 'source'} {remote}",
        "down": f"get {remote} {folder / 'openssh'}",
    }[direction]
    options = [f"UserKnownHostsFile={known_hosts}", f"IdentityFile={key}", "BatchMode=yes"]
    options += [f"Ciphers={CIPHER}", f"MACs={MAC}"]
    told = [part for option in options for part in ("-o", option)]
    command = ["sftp", "-q", "-b", "-", "-P", port, *told, f"{user}@127.0.0.1"]
    began = time.perf_counter()
    subprocess.run(command, input=wish + "\n", text=True, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _by_us(direction: str, folder: Path, account: str) -> float:
    from vibes_pipelines.vibes.sftp import SftpAccount  # noqa: PLC0415 - part of what is measured

    port, user, key, known_hosts, remote = account.split("|")
    state = folder / "state"
    state.unlink(missing_ok=True)
    ours = SftpAccount(
        "127.0.0.1", int(port), user, Path(key), Path(known_hosts), gap_s=0, state_file=state
    )
    with ours.session():
        pass  # what the first login of a process loads
    began = time.perf_counter()
    with ours.session() as session:
        if direction == "up":
            place = Path(remote)
            session.upload(folder / "source", str(place.parent), place.name)
        else:
            session.download(remote, folder / "ours")
    return time.perf_counter() - began


def _measure(mode: str, folder: Path, account: str) -> None:
    who, direction = mode.split(" ")
    carry: Callable[[str, Path, str], float] = _by_us if who == "ours" else _by_openssh
    report({"carried_s": carry(direction, folder, account)})


def _account(server: OpensshServer) -> str:
    """What a child needs, in one argument."""
    remote = server.remote("files/in/benchmark")
    parts = (server.port, server.user, server.key_file, server.known_hosts, remote)
    return "|".join(map(str, parts))


def _print_carried(openssh: list[float], ours: list[float]) -> None:
    ratios = [own / reference for own, reference in zip(ours, openssh, strict=True)]
    told = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(
        f"login to logout: {statistics.median(openssh):.2f} s and {statistics.median(ours):.2f} s;"
        f" round by round {told}, median {statistics.median(ratios):.2f}"
        f" (budget {MOST_OF_REFERENCE:.2f})"
    )


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
        remote, fetched = server.root / "files/in/benchmark", Path(name)

        def child(mode: str) -> list[str]:
            # Neither an import file nor an extract ever replaces another.
            replaced = [remote] if mode.endswith("up") else [fetched / "openssh", fetched / "ours"]
            for file in replaced:
                file.unlink(missing_ok=True)
            return ["-m", "benchmarks.sftp", *told, "--mode", mode]

        for direction in ("up", "down"):
            print(f"{given.megabytes} MB {direction}; OpenSSH's client = 1")
            modes = f"openssh {direction}", f"ours {direction}"
            runs = compare(modes, child, given.rounds, {})
            _print_carried(*([float(str(run["carried_s"])) for run in runs[m]] for m in modes))


if __name__ == "__main__":
    main()
