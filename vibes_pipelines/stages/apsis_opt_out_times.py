"""When an opt-out seen at APSIS One was certainly there; in doubt that is as late as the read.

What we wrote ourselves is no later than its evidence, an opt-out that was read before no later than
that read, anything else no later than the read that shows it. The account's own time (`changed_at`,
where it gives one) only ever says that this is another opt-out, never that it is an older one.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from vibes_pipelines.delivery.intents import evidence_at
from vibes_pipelines.store.realtime import Sent

OPT_OUT = "opt-out"
CLOCKS = timedelta(minutes=1)
"""How far two clocks, and the sending of a write and its effect, may lie apart."""

_OPT_OUTS = frozenset({"opt_out", "crm_opt_out"})
_MAYBE_THERE = frozenset({"accepted", "sent", "unknown"})

Consented = Mapping[str, str]
"""What is known of one consent: `type`; of an opt-out `out_at` too, and `changed_at` if given."""


class OptOutTimes:
    """Dates opt-outs; `sent` are the operations since the state that is known, oldest first."""

    def __init__(self, sent: Iterable[Sent]) -> None:
        self._last: dict[tuple[str, str], Sent] = {}
        for one in sent:
            operation = one.operation
            # A label that was perhaps removed tells nothing of the opt-out behind it.
            wrote = operation.kind in {"opt_out", "opt_in"} and operation.status in _MAYBE_THERE
            if wrote or (operation.kind == "crm_opt_out" and operation.status == "accepted"):
                place = (operation.external_person_id or "", operation.subscription_list_id or "")
                self._last[place] = one

    def dated(
        self, place: tuple[str, str], changed_at: datetime | None, known: Consented, at: datetime
    ) -> dict[str, str]:
        """An opt-out of (profile, list) as it is kept; `at`: when it was read."""
        stamp = {} if changed_at is None else {"changed_at": _text(changed_at)}
        out_at = self._out_at(place, changed_at, known, at)
        return {"type": OPT_OUT, "out_at": _text(out_at), **stamp}

    def _out_at(
        self, place: tuple[str, str], changed_at: datetime | None, known: Consented, at: datetime
    ) -> datetime:
        was_out = datetime.fromisoformat(known["out_at"]) if "out_at" in known else None
        stamp = known.get("changed_at")
        if was_out and changed_at and stamp == _text(changed_at):
            return was_out
        sent = self._last.get(place)
        if sent is not None:
            return _of_ours(sent, changed_at) or at
        if was_out is None or (stamp and changed_at):
            return at
        return max(was_out, changed_at) if changed_at else was_out


def _of_ours(sent: Sent, changed_at: datetime | None) -> datetime | None:
    """The evidence of what we wrote; None where what is there may be of somebody else."""
    operation = sent.operation
    if operation.kind not in _OPT_OUTS or operation.status != "accepted":
        return None
    evidence = evidence_at(operation) or operation.as_of
    written = sent.at if operation.kind == "opt_out" else evidence
    return None if changed_at is not None and changed_at > written + CLOCKS else evidence


def _text(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat()
