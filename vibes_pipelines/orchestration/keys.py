"""Asset keys, groups and the owner: the names under which the stages appear in the UI."""

import dagster as dg

OWNERS = ["team:data-engineering"]

PII = {"pii": "true"}
"""The tag of what holds personal data, be it in a file that only its metadata leads to."""

EFFECT_TAG = {"vibes/effect": "delivery"}
"""The tag of what may have effects outside this project; jobs that have it run one at a time."""

OUTSIDE = {
    "share/persons": dg.AssetKey(["outside", "share_persons"]),
    "share/subscriptions": dg.AssetKey(["outside", "share_subscriptions"]),
    "extract/current_subscribers": dg.AssetKey(["outside", "sftp_current_subscribers"]),
    "extract/subscriptions": dg.AssetKey(["outside", "sftp_subscriptions"]),
    "crm/contacts": dg.AssetKey(["outside", "crm_contacts"]),
}
FEEDS = {feed: dg.AssetKey(feed.split("/")) for feed in OUTSIDE}

CERTIFICATE = dg.AssetKey(["convergence", "certificate"])

PERSON_CHANGES = dg.AssetKey(["reconcile", "person_changes"])
SUBSCRIPTION_CHANGES = dg.AssetKey(["reconcile", "subscription_changes"])
CRM_CHANGES = dg.AssetKey(["reconcile", "crm_changes"])
QUARANTINE = dg.AssetKey(["reconcile", "quarantine"])

# What holds a lane. A repush looks again, so that an approval turns them green.
GUARD_CHECKS = (
    dg.AssetCheckKey(PERSON_CHANGES, "person_changes_within_guards"),
    dg.AssetCheckKey(SUBSCRIPTION_CHANGES, "opt_outs_within_guards"),
)

OPT_OUTS = dg.AssetKey(["delivery", "opt_outs"])
PERSON_IMPORT = dg.AssetKey(["delivery", "person_import"])
API_PUSH = dg.AssetKey(["delivery", "api_push"])
INVITES = dg.AssetKey(["delivery", "invites"])
REJECTED = dg.AssetKey(["delivery", "rejected"])
CRM_WRITE_BACK = dg.AssetKey(["delivery", "crm_write_back"])

REPORT_DRAFT = dg.AssetKey(["report", "draft"])
REPORT = dg.AssetKey(["report", "day"])
