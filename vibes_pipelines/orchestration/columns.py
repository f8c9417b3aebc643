"""What columns mean, in one sentence each: shown beside them in the UI.

One list for all files, since a column name means the same everywhere. Columns that a sync config
maps have the customer's names and are not described here.
"""

COLUMNS = {
    "action": "What is done: set or clear a field, opt out of a list.",
    "advice": "What to do about it, or why there is nothing to do.",
    "after": "The value that the change leads to.",
    "attempts": "How often it was sent.",
    "before": "The value that was found; empty when there was none.",
    "category": "What kind of refusal it is: whether to send it again, and what to cure first.",
    "changes": "One entry per field: what is done, before, after, reason.",
    "contact_id": "The contact's key in the CRM.",
    "day": "The day whose diff set the row is from.",
    "detail": "What was found, for whoever resolves it.",
    "error_class": "The class under which the platform refused it.",
    "evidence": "Where it was looked for: share, extract, crm or api.",
    "evidence_at": "When the opt-out was given, UTC.",
    "external_person_id": "The contact's key, as the platform holds it.",
    "field": "The field that changes, by its name at the receiving side.",
    "kind": "Of which sort the row is: of a quarantine, or of an operation.",
    "lane": "What it is delivered with; a held lane does not hold another.",
    "matched_by": "The identifier by which contact and person were found to be one.",
    "mdn": "Mobile phone number.",
    "mdn_e164_format": "Mobile phone number, E.164.",
    "operation": "add: a person that the platform does not have; update: one that it has.",
    "operation_id": "The same intent has the same id; the ledger keeps its receipt.",
    "opt_in_date": "When the subscription began.",
    "opt_out_date": "When the subscription ended; empty while it lasts.",
    "opt_out_reason": "Why the subscription ended, in the platform's word.",
    "outcome": "confirmed, pending, rejected, superseded or unexplained.",
    "person_id": "The person's key at the platform.",
    "person_key": "The person's key at the platform.",
    "reason": "Why the row is there, in a short stable word.",
    "route": "The way it takes: file, api or crm.",
    "side": "The side that is to learn of the opt-out: platform or crm.",
    "source": "Which record is meant: contact or person.",
    "status": "The state of the operation in the ledger.",
    "subscription_event": "What happened to the subscription.",
    "subscription_list_id": "The subscription list.",
    "subscription_list_name": "The name of the subscription list.",
}
