"""What an alert says of each cause: what is safe, and what to do. Only sentences belong here.

Keys are names of checks and of steps: an asset's key with `__` between its parts, or an op. What is
said of an asset goes for each step that it is made of, as `delivery__api_push.send`.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Advice:
    """What stays safe meanwhile, and what a person should do."""

    safe: str
    todo: str


_NOTHING_SENT = "Nothing of this day was sent; what was agreed before stands."
_NOTHING_TWICE = (
    "Every send is in the ledger with its intent; running again sends nothing twice and loses "
    "nothing."
)
_OPT_OUTS_GO = "Opt-outs have a lane of their own and are not held by this."

_LANDING = Advice(
    _NOTHING_SENT,
    "See in the run which source refused or was late; cure it, then run reconcile_daily for the "
    "day again. What is landed already stays.",
)
_DELIVERY = Advice(
    _NOTHING_TWICE, "See in the run what stopped it; then run the job repush for the day."
)
_SOURCE_CHECK = Advice(
    _NOTHING_SENT,
    "Look for a changed, doubled or partial table at its source. Once it is right, move the landed "
    "day away and run reconcile_daily for the day again.",
)
_GUARD = (
    "Open the day's report, section Held lanes. When the changes are right: launch the job approve "
    "as the check's to_release shows, or vibes-pipelines approve DIFF_SET --reason TEXT. When not, "
    "correct the source; the next day replaces it."
)

ADVICE: Mapping[str, Advice] = {
    # checks
    "columns_as_mapped": Advice(
        _NOTHING_SENT,
        "A column that sync.yaml maps is missing: correct feeds or fields in sync.yaml, or ask for "
        "the column; then run reconcile_daily again.",
    ),
    "primary_key_unique": _SOURCE_CHECK,
    "input_share_within_guard": _SOURCE_CHECK,
    "subscribers_agree_with_share": Advice(
        "Nothing is held by this.",
        "Extract and share differ: see whether one of them is older; if it lasts, ask Vibes.",
    ),
    "every_contact_is_accounted_for": Advice(
        "Nothing of this day was sent.",
        "The counts do not add up, which is a fault of this project: do not deliver, report it.",
    ),
    "person_changes_within_guards": Advice(f"Person changes wait. {_OPT_OUTS_GO}", _GUARD),
    "opt_outs_within_guards": Advice(
        "Opt-outs wait, and their legal clock runs; person changes are not held by this.",
        f"Today, not tomorrow: {_GUARD}",
    ),
    "nothing_is_unexplained": Advice(
        "Nothing is sent again blindly.",
        "Open the day's report, section Convergence certificate; ask Vibes about the operations.",
    ),
    "opt_outs_arrive_in_time": Advice(
        "Every opt-out that is known is recorded.",
        "Open the newest report, section Opt-out clocks; decide parked callbacks, and run repush.",
    ),
    "newest_day_is_made": Advice(
        "Nothing was sent; callbacks are kept. A share shows only the present day: a day that is "
        "never landed cannot be landed later.",
        "See whether daemon and schedule run, and start reconcile_daily for today. If it was a dry "
        "run alone, launch repush for the day with dry_run: false.",
    ),
    # steps
    "share": _LANDING,
    "extracts": _LANDING,
    "contacts": _LANDING,
    "convergence__certificate": Advice(
        _NOTHING_SENT, "See the run's error, then run reconcile_daily for the day again."
    ),
    "diff_set": Advice(
        _NOTHING_SENT,
        "See the run's error: mostly sync.yaml and the landed columns disagree. Then run "
        "reconcile_daily for the day again.",
    ),
    "delivery__opt_outs": Advice(
        f"Their legal clock runs. {_NOTHING_TWICE}",
        "Today, not tomorrow: see in the run what stopped it; then run the job repush.",
    ),
    "delivery__crm_write_back": _DELIVERY,
    "delivery__person_import": _DELIVERY,
    "delivery__api_push": _DELIVERY,
    "delivery__invites": _DELIVERY,
    "delivery__rejected": Advice(
        "Only reading failed; every send is in the ledger.",
        "See in the run what stopped it; then run the job import_reports, which sends nothing.",
    ),
    "report__draft": Advice("Only a page is missing.", "Run: vibes-pipelines report --day DAY"),
    "report__day": Advice("All sends are done.", "Run: vibes-pipelines report --day DAY"),
    "drain_callback_inbox": Advice(
        "Callbacks are kept, and acted on once it works again.",
        "See whether the CRM answers; the sensor repeats it by itself.",
    ),
    "carry_crm_changes": Advice(
        "The daily job carries what this leaves.",
        "See whether CRM and API answer; the sensor repeats it by itself.",
    ),
    "send_new_events": Advice(
        _NOTHING_TWICE, "See in the run what stopped it; then run the job send_events."
    ),
}

DEFAULT = Advice(
    _NOTHING_TWICE, "Open the run, read its error, cure it and run the job for the day again."
)


def advice_for(names: tuple[str, ...]) -> Advice:
    """The advice of the first name that has one."""
    known = (ADVICE.get(name.partition(".")[0]) for name in names)
    return next((advice for advice in known if advice is not None), DEFAULT)
