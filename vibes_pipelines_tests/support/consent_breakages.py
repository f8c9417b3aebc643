"""Rules of consent, each broken in one place: what the machine of both sides has to notice."""

from collections.abc import Callable
from typing import Any

import pytest

from vibes_pipelines.crm import write_back
from vibes_pipelines.delivery import consent_watch, deferrals
from vibes_pipelines.reconcile import consent, invites
from vibes_pipelines.stages import (
    changes,
    inbox,
    inbox_opt_outs,
    last_look,
    late_joins,
    opt_out_lane,
)
from vibes_pipelines.stages.heard import Heard
from vibes_pipelines.stages.late_joins import LateJoins
from vibes_pipelines.store.inbox import Finished, Inbox
from vibes_pipelines.store.realtime import RealtimeBook
from vibes_pipelines_tests.support import two_sides


def without(text: str, instead: str) -> Callable[[Any], Any]:
    """A rule whose SQL has something else in place of a text that must be there."""

    def broken(rule_sql: Any) -> Any:
        def sql(*arguments: Any) -> str:
            found: str = rule_sql(*arguments)
            assert text in found, text
            return found.replace(text, instead)

        return sql

    return broken


def always(answer: Any) -> Callable[[Any], Any]:
    return lambda _: lambda *_, **__: answer


def marked_first(settle: Any) -> Any:
    """Ends callbacks before their effect."""

    def settled(project: Any, inbox: Inbox, page: Any, **how: Any) -> Any:
        inbox.finish([Finished(one.id, "applied", "opted_out") for one in page])
        return settle(project, inbox, page, **how)

    return settled


def sent_blindly(_: Any) -> Any:
    """Sends again what a cut look left, whatever was said meanwhile."""
    return lambda carrier: carrier._send(carrier._book.unfinished())


def whoever_it_is(_: Any) -> Any:
    return lambda operation: (operation.external_person_id, operation.subscription_list_id)


def whose_no_it_is(mark: Any) -> Any:
    """Marks a no alone, whether or not somebody has joined that it speaks against."""
    return lambda cell, _, hashed: mark(cell, None, hashed)


CHANGED = "c.changed_at_0"
BREAKAGES: dict[str, tuple[Any, str, Callable[[Any], Any]]] = {
    "the daily job forgets the opt-outs of the platform": (
        consent, "_change_sql", without("ELSE m.is_sure AND", "ELSE false AND"),
    ),
    "the daily job forgets the opt-outs of the CRM": (
        consent, "_change_sql", without("THEN c.state_0 = -1 AND", "THEN false AND"),
    ),
    "any opt-in of the CRM stands against an opt-out": (
        consent, "_change_sql", without(f"coalesce({CHANGED} >", f"coalesce(true OR {CHANGED} >"),
    ),
    "an invitation needs no newer opt-in": (
        invites, "_wanted_sql", without(f"coalesce({CHANGED} >", f"coalesce(true OR {CHANGED} >"),
    ),
    "nobody looks before an invitation leaves": (last_look.LastLook, "withdrawn", always({})),
    "a callback withdraws no invitation": (consent_watch, "_why_not", always(None)),
    "the drain ignores opt-outs": (inbox_opt_outs, "_find_contacts", always(([], []))),
    "a callback is ended before its effect": (inbox, "settle_subscriptions", marked_first),
    "an older opt-out overwrites a newer yes": (
        write_back._Contacts, "_refuse_older", always(None),
    ),
    "a look that was cut is forgotten": (RealtimeBook, "unfinished", always([])),
    "what a cut look left is sent blindly": (changes._Carrier, "take_up", sent_blindly),
    "one opt-out of a person is enough for ever": (changes, "_same_opt_out", whoever_it_is),
    "opt-outs are put off for ever": (deferrals.Deferrals, "why_deferred", always("later")),
    "real time does not hear the callbacks": (
        two_sides, "heard_subscriptions", always(Heard()),
    ),
    "the lane of opt-outs forgets the CRM": (opt_out_lane, "changed_contacts", always([])),
    "the lane of opt-outs forgets late joins": (
        opt_out_lane, "late_joins", always(LateJoins({}, None)),
    ),
    "what the lane looked at once is done for ever": (opt_out_lane, "_mark", whose_no_it_is),
    "nobody is sought by number": (late_joins, "_with_numbers", always(())),
}  # fmt: skip


def broken_by(patch: pytest.MonkeyPatch, name: str) -> None:
    """Breaks one rule until the patch is undone."""
    owner, attribute, broken = BREAKAGES[name]
    patch.setattr(owner, attribute, broken(getattr(owner, attribute)))
