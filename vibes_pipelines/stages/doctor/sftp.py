"""Checks of the SFTP account: one session, never inside the gap, everything seen in that one."""

import re
from collections.abc import Iterator
from datetime import date, timedelta

from vibes_pipelines.stages.arrivals import DATE
from vibes_pipelines.stages.doctor.bench import Bench
from vibes_pipelines.stages.doctor.clock import of_clocks
from vibes_pipelines.stages.doctor.findings import Check, Finding, fail, ok, warn
from vibes_pipelines.sync_config import EXTRACT_FEEDS
from vibes_pipelines.vibes.extracts import file_name

DOCUMENTED_GAP_S = 300
_ANY_DATE = r"\d{4}-\d{2}-\d{2}"


def _gap(bench: Bench) -> Iterator[Finding]:
    gap_s = bench.settings.sftp.gap_s
    left = bench.sftp_account.gap_left_s()
    if left > 0:
        told = f"the last session was less than {gap_s:.0f} s ago, so none was begun"
        yield warn(told, f"run the doctor again in {left:.0f} s to have the account checked")
    elif gap_s < DOCUMENTED_GAP_S:
        told = f"VIBES_SFTP_GAP_S is {gap_s:.0f}; the platform asks for {DOCUMENTED_GAP_S}"
        yield warn(told, "leave VIBES_SFTP_GAP_S out, unless this is a stand-in")
    else:
        yield ok(f"no session was begun within the last {gap_s:.0f} s")


def _login(bench: Bench) -> Iterator[Finding]:
    if bench.sftp_account.gap_left_s() > 0:
        yield Finding("not checked", "waits for the end of the gap")
        return
    _ = bench.sftp
    account = bench.settings.sftp
    yield ok(f"{account.user}@{account.host}:{account.port}: host key and login are right")


def _folders(bench: Bench) -> Iterator[Finding]:
    account, seen = bench.settings.sftp, bench.sftp
    for variable, folder in (
        ("VIBES_EXTRACT_DIR", account.extract_dir),
        ("VIBES_REPORT_DIR", account.report_dir),
        ("VIBES_IMPORT_DIR", account.import_dir),
    ):
        refused = seen.refused.get(folder)
        if refused is None:
            done = "can be written" if folder == account.import_dir else "can be read"
            yield ok(f"{folder} {done}")
        else:
            cure = f"correct {variable}, or ask Vibes for the folder and rights on it"
            yield fail(str(refused).partition("; ")[0], cure)


def _extracts(bench: Bench) -> Iterator[Finding]:
    """Whether each extract of the day or the one before is there, and is said to be whole."""
    names = set(bench.sftp.names.get(bench.settings.sftp.extract_dir, ()))
    today = date.fromisoformat(bench.day)
    days = [today.isoformat(), (today - timedelta(days=1)).isoformat()]
    for feed in EXTRACT_FEEDS:
        wanted = [file_name(bench.config, feed, day) for day in days]
        found = next((name for name in wanted if name in names), None)
        if found is None:
            yield _of_missing(bench, feed, names, wanted[-1])
        elif f"{found}.done" not in names:
            yield warn(f"{found} has no .done beside it: it is not whole yet", "look again later")
        else:
            yield ok(f"{feed}: {found}")


def _of_missing(bench: Bench, feed: str, names: set[str], wanted: str) -> Finding:
    pattern = file_name(bench.config, feed, DATE)
    form = re.compile(re.escape(pattern).replace(re.escape(DATE), _ANY_DATE))
    fitting = sorted(name for name in names if form.fullmatch(name))
    folder = bench.settings.sftp.extract_dir
    if fitting:
        told = f"{feed}: no {wanted}; the newest there is {fitting[-1]}"
        return fail(told, "ask Vibes why the extract did not come; a day without it is not landed")
    others = sorted(name for name in names if not name.endswith(".done"))
    seen = f"it holds e.g. {', '.join(others[:3])}" if others else "it is empty"
    told = f"{feed}: no file of {folder} has the form {pattern}; {seen}"
    cure = f"correct feeds: {feed}: pattern (or company_key), or ask Vibes to switch it on"
    return fail(told, cure)


def _clock(bench: Bench) -> Iterator[Finding]:
    theirs = bench.sftp.server_time
    if theirs is not None:
        yield of_clocks("the SFTP server", theirs, bench.now())


CHECKS = (
    Check("sftp/gap", "no session is begun inside the gap", _gap, ("settings/sftp",)),
    Check("sftp/login", "the host key is known, the login is right", _login, ("sftp/gap",)),
    Check("sftp/folders", "the folders are there with their rights", _folders, ("sftp/login",)),
    Check(
        "sftp/extracts",
        "the extracts of the day or the one before are there",
        _extracts,
        ("files/sync.yaml", "sftp/login", "sftp/folders"),
    ),
    Check("sftp/clock", "the server's clock agrees with this machine's", _clock, ("sftp/login",)),
)
