"""Checks of callbacks: whether the platform tells every list's opt-outs, and the receiver hears."""

import http.client
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

from vibes_pipelines.stages.doctor.bench import Bench
from vibes_pipelines.stages.doctor.findings import Check, Finding, fail, ok, warn
from vibes_pipelines.stages.registrations import (
    difference,
    unnamed_lists,
    unregistered_lists,
    wanted,
)
from vibes_pipelines.vibes.callback_api import InvalidCallback

TIMEOUT_S = 10
_APPLY = "run `vibes-pipelines callbacks apply` while the receiver runs"


def _registered(bench: Bench) -> Iterator[Finding]:
    config = bench.config
    if config.callbacks is None:
        if config.consents:
            told = "sync.yaml has no section callbacks: an opt-out is known a day later"
            yield warn(told, "run the receiver and name its address there (docs/callbacks.md)")
        return
    try:
        steps = difference(config, wanted(config), bench.registrations, prune=False)
    except InvalidCallback as refused:
        yield fail(f"callbacks.url: {refused}", "correct callbacks.url in sync.yaml")
        return
    silent = list(unregistered_lists(steps))
    for name in silent:
        yield warn(f"opt-outs from list {name} are told to nobody", _APPLY)
    unnamed = list(unnamed_lists(config, steps))
    for name in unnamed:
        told = f"opt-outs from list {name} are told to nobody: callbacks.lists leaves it out"
        yield warn(told, f"add it to callbacks.lists, or leave callbacks.lists out; {_APPLY}")
    other = sum(step.action == "register" for step in steps) - len(silent)
    if other:
        yield warn(f"{other} other registrations are missing", _APPLY)
    surplus = sum(step.action == "surplus" for step in steps)
    if surplus:
        cure = "look at `vibes-pipelines callbacks plan --prune`, then apply it"
        yield warn(f"{surplus} registrations of ours are in no line of sync.yaml", cure)
    if not silent and not unnamed and not other:
        yield ok("every wanted callback is registered")


def _receiver(bench: Bench) -> Iterator[Finding]:
    """Whether something answers at the registered address, over trusted TLS."""
    if bench.config.callbacks is None:
        return
    url = urlsplit(bench.config.callbacks.url)
    is_local = url.hostname in {"127.0.0.1", "localhost", "::1"}
    if url.scheme != "https" and not is_local:
        yield fail("callbacks.url is not https://", "the platform posts to https:// only")
        return
    try:
        status = _status(url.scheme, url.hostname or "", url.port, url.path or "/")
    except ssl.SSLError:
        cure = "serve a certificate of a public authority with its whole chain"
        yield fail(f"{url.hostname} has no TLS certificate that is trusted here", cure)
    except (OSError, http.client.HTTPException) as unreachable:
        told = f"callbacks.url does not answer from here ({type(unreachable).__name__})"
        yield fail(told, "start `vibes-pipelines callbacks serve`; check the proxy before it")
    else:
        yield _of_status(status)


def _status(scheme: str, host: str, port: int | None, path: str) -> int:
    kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    connection = kind(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def _of_status(status: int) -> Finding:
    """The receiver takes POST and PUT alone, and answers 405 to anything else."""
    if status == 405:
        return ok("the receiver answers at callbacks.url")
    if status >= 500:
        cure = "start `vibes-pipelines callbacks serve`, or correct the proxy's target"
        return fail(f"callbacks.url answers with HTTP {status}", cure)
    cure = "look whether callbacks.url ends in /callbacks, and who answers there"
    return warn(f"something else answers at callbacks.url (HTTP {status} to GET)", cure)


CHECKS = (
    Check(
        "callbacks/registered",
        "the platform tells every list's opt-outs to us",
        _registered,
        ("files/sync.yaml", "api/login"),
    ),
    Check("callbacks/receiver", "the receiver answers, securely", _receiver, ("files/sync.yaml",)),
)
