"""Deliveries in a process of their own that is killed (SIGKILL) by its own hand at a chosen call.

Nothing in the package knows of it: the process wraps the function before it runs the stages.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from vibes_pipelines_tests.support.loop import Loop

ROOT = Path(__file__).parents[2]
WAIT_S = 240.0
PUSH_FILE = {"VIBES_SFTP_GAP_S": "0"}
PUSH_API = {"VIBES_SFTP_GAP_S": "3600"}  # so that a file would take an hour

DELIVER = """
import sys
from vibes_pipelines.stages import delivering
from vibes_pipelines.stages.project import open_project

day = sys.argv[1]
send = delivering.Options(dry_run=False)
with open_project() as project:
    for stage in (delivering.deliver_opt_outs, delivering.write_back, delivering.import_persons,
                  delivering.push_persons, delivering.deliver_invites):
        stage(project, day, send)
"""

# Put before a script: the process kills itself when it calls, or has just called, a function. Of a
# coroutine function the call is over when it was awaited.
_DIE = """
import inspect, os, signal
from importlib import import_module

def die_at(module, name, call, when):
    owner = import_module(module)
    *path, name = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    real, calls = getattr(owner, name), []

    def die_if(number, now):
        if number == call and when == now:
            os.kill(os.getpid(), signal.SIGKILL)

    def begin():
        calls.append(name)
        die_if(len(calls), "before")
        return len(calls)  # of several calls at once, each one's own number

    def deadly(*args, **kwargs):
        number = begin()
        answer = real(*args, **kwargs)
        die_if(number, "after")
        return answer

    async def deadly_later(*args, **kwargs):
        number = begin()
        answer = await real(*args, **kwargs)
        die_if(number, "after")
        return answer

    setattr(owner, name, deadly_later if inspect.iscoroutinefunction(real) else deadly)

die_at({module!r}, {name!r}, {call!r}, {when!r})
"""

# Smaller steps, so that many deaths find work to do.
SMALL_STEPS = """
from vibes_pipelines.delivery import api_push
api_push.INTENT_ROWS, api_push.RECEIPT_ROWS, api_push.CONCURRENCY = 12, 5, 4
api_push.INVITE_ROWS = 4
"""


class Point(NamedTuple):
    """Where a process dies: at a call of a function, before it or after."""

    module: str
    name: str
    call: int
    when: Literal["before", "after"]


def start(
    loop: Loop, script: str, changes: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Runs a script in a process of its own, in the environment of the loop."""
    environment = {**os.environ, **loop.environment, **(changes or {})}
    command = [sys.executable, "-c", script, loop.today]
    return subprocess.Popen(command, env=environment, cwd=ROOT)


def run_to_the_end(loop: Loop, script: str, changes: Mapping[str, str] | None = None) -> None:
    """The script must end well."""
    assert start(loop, script, changes).wait(WAIT_S) == 0


def run_to_death(
    loop: Loop, script: str, point: Point, changes: Mapping[str, str] | None = None
) -> None:
    """The script must come to the point and die there."""
    prelude = _DIE.format(**point._asdict())
    assert start(loop, prelude + script, changes).wait(WAIT_S) == -signal.SIGKILL, point
