"""Judging clocks: this machine's against one of another machine."""

from datetime import UTC, datetime

from vibes_pipelines.stages.doctor.findings import Finding, fail, ok, warn

LITTLE_S = 10
MUCH_S = 60
_CURE = "set this machine's clock by NTP (timedatectl set-ntp true), or tell who runs the other one"


def of_clocks(whose: str, theirs: datetime, ours: datetime) -> Finding:
    """What the difference of two clocks means: opt-outs are ordered by their times."""
    aware = theirs.replace(tzinfo=UTC) if theirs.tzinfo is None else theirs
    apart = (ours - aware).total_seconds()
    if abs(apart) <= LITTLE_S:
        return ok(f"{whose} and this machine agree")
    side = "ahead of" if apart > 0 else "behind"
    told = f"this machine's clock is {abs(apart):,.0f} s {side} that of {whose}"
    return fail(told, _CURE) if abs(apart) > MUCH_S else warn(told, _CURE)
