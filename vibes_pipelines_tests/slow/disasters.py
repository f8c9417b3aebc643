"""The disasters: one source is broken on an otherwise healthy day, and what must stop it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc

from vibes_pipelines.crm.contacts import CrmError
from vibes_pipelines.reconcile.errors import ReconcileError
from vibes_pipelines.sandbox.extracts import CURRENT_SUBSCRIBERS, SUBSCRIPTIONS
from vibes_pipelines.stages.project import WrongDayError
from vibes_pipelines.store.snapshots import EmptySource
from vibes_pipelines.vibes.extract_reader import ExtractError
from vibes_pipelines.vibes.extracts import IncompleteExtract
from vibes_pipelines.vibes.share import ShareError
from vibes_pipelines_tests.slow.spoils import (
    Spoil,
    blank,
    body,
    cells,
    column,
    cut,
    doubled,
    earlier_contacts,
    earlier_contacts_in_another_order,
    earlier_extract,
    earlier_share,
    emptied,
    extract,
    header_alone,
    header_twice,
    heading_among_rows,
    keys_out_of_step,
    nothing,
    other_company,
    part,
    renamed,
    shifted,
    statements,
    table,
    texts,
)


@dataclass(frozen=True)
class Disaster:
    """How a source is broken, and what stops it: an error, guards, or quarantine.

    With none of them it must be seen through: the day is as good as a healthy one.
    """

    spoil: Spoil
    error: type[Exception] | None = None
    words: str = ""
    guards: frozenset[str] = frozenset()
    quarantine: str | None = None
    edit: tuple[str, str] | None = None


def stopped(
    spoil: Spoil, error: type[Exception], words: str, edit: tuple[str, str] | None = None
) -> Disaster:
    """Nothing is landed, or nothing is reconciled."""
    return Disaster(spoil, error=error, words=words, edit=edit)


def held(spoil: Spoil, *guards: str, edit: tuple[str, str] | None = None) -> Disaster:
    """At least these guards hold their lanes."""
    return Disaster(spoil, guards=frozenset(guards), edit=edit)


def quarantined(spoil: Spoil, kind: str) -> Disaster:
    """The broken rows alone are set apart, and the others go on."""
    return Disaster(spoil, quarantine=kind)


def seen_through(spoil: Spoil) -> Disaster:
    """It makes no difference."""
    return Disaster(spoil)


NAMES = ("first_name", "last_name")
TWO = "contact_id IN ('C100001', 'C100003')"
KNOWN, RISE = "contacts.known_keys", "quarantine.rise"
CONSENT_AGAINST = {"true": "false", "false": "true"}

OF_CONTACTS: Mapping[str, Disaster] = {
    "no contacts": stopped(
        statements("DELETE FROM contacts"), EmptySource, "contacts holds no contact"
    ),
    "half of the contacts": held(
        statements("DELETE FROM contacts WHERE rowid > 300"), "contacts.min_input_share"
    ),
    "a tenth of the contacts": held(
        statements("DELETE FROM contacts WHERE rowid > 60"), "contacts.min_input_share"
    ),
    "doubled contacts": held(statements("INSERT INTO contacts SELECT * FROM contacts"), RISE),
    "the contacts of days ago": held(earlier_contacts, "crm/contacts.copy"),
    "the contacts of days ago, in another order": held(
        earlier_contacts_in_another_order, "contacts.sms_opt_in_at.newest"
    ),
    "values one column too far": held(cells(shifted), KNOWN, RISE),
    "a heading among the rows": quarantined(heading_among_rows, "invalid_mdn"),
    "a typo in the mapping": stopped(
        nothing, CrmError, "no column 'frist_name'", ("{from: first_name,", "{from: frist_name,")
    ),
    "a field mapped to another": held(
        nothing, "updates.max_share", edit=("{from: first_name,", "{from: last_name, ")
    ),
    "a missing column": stopped(
        statements("ALTER TABLE contacts DROP COLUMN zip"), CrmError, "no column 'zip'"
    ),
    "a byte order mark in the header": stopped(
        statements("ALTER TABLE contacts RENAME COLUMN contact_id TO '\ufeffcontact_id'"),
        CrmError,
        "no column 'contact_id'",
    ),
}

OF_IDENTIFIERS: Mapping[str, Disaster] = {
    "keys one row too far": held(keys_out_of_step, "contacts.mobile.rewritten", RISE),
    "keys with a prefix": held(texts("contact_id", by="CRM-{}".format), KNOWN),
    "keys in lower case": held(texts("contact_id", by=str.lower), KNOWN),
    "keys without their letter": held(texts("contact_id", by=lambda text: text[1:]), KNOWN),
    "blank keys": held(cells(lambda _: {"contact_id": None}), KNOWN),
    "key and number swapped": held(
        cells(lambda row: {"contact_id": row["mobile"], "mobile": row["contact_id"]}), KNOWN
    ),
    "number in the key": held(cells(lambda row: {"contact_id": row["mobile"]}), KNOWN),
    "blank numbers": held(cells(lambda _: {"mobile": None}), "contacts.mobile.filled"),
    "one number for all": held(cells(lambda _: {"mobile": "+13125550199"}), RISE),
    "truncated numbers": held(texts("mobile", by=lambda text: text[:-3]), RISE),
    "numbers as floats": held(
        texts("mobile", by=lambda text: f"{re.sub('[^0-9]', '', text)}.0"), RISE
    ),
    "numbers in scientific notation": held(
        texts("mobile", by=lambda text: f"{float(re.sub('[^0-9]', '', text) or 0):.5E}"), RISE
    ),
}

OF_VALUES: Mapping[str, Disaster] = {
    "names in a wrong encoding": held(
        texts(*NAMES, by=lambda text: text.encode().decode("latin-1")),
        "contacts.first_name.rewritten",
    ),
    "names with replacement characters": held(
        texts(*NAMES, by=lambda text: text.encode("latin-1", "replace").decode("utf-8", "replace")),
        "contacts.first_name.rewritten",
    ),
    "names with question marks": held(
        texts(*NAMES, by=lambda text: text.encode("ascii", "replace").decode()),
        "contacts.first_name.rewritten",
    ),
    "names with NUL bytes": held(
        texts("last_name", by="{}\0\0\0".format), "contacts.last_name.rewritten"
    ),
    "two names with NUL bytes": quarantined(
        statements(f"UPDATE contacts SET last_name = 'A' || char(0) || 'B' WHERE {TWO}"),
        "invalid_value",
    ),
    "two names with replacement characters": quarantined(
        statements(f"UPDATE contacts SET last_name = 'A' || char(65533) || 'B' WHERE {TWO}"),
        "invalid_value",
    ),
    "first and last names swapped": held(
        cells(lambda row: {"first_name": row["last_name"], "last_name": row["first_name"]}),
        "updates.max_share",
    ),
    "blank first names": held(cells(lambda _: {"first_name": None}), "contacts.first_name.filled"),
    "first names of blanks": held(
        cells(lambda _: {"first_name": "  "}), "contacts.first_name.filled"
    ),
    "blank tiers": held(cells(lambda _: {"tier": None}), "clears.max_share"),
    "blank interests": held(cells(lambda _: {"interests": None}), "contacts.interests.filled"),
    "blank customer types": held(
        cells(lambda _: {"customer_type": None}), "contacts.customer_type.filled"
    ),
    "birth dates a zone earlier": held(
        texts("birth_date", by="{}T00:00:00+06:00".format), "updates.max_share"
    ),
    "birth dates of the epoch": held(
        cells(lambda _: {"birth_date": "1970-01-01"}), "updates.max_share"
    ),
    "birth dates day first": held(
        texts("birth_date", by=lambda text: f"{text[8:]}/{text[5:7]}/{text[:4]}"), RISE
    ),
    "scores with thousands separators": held(
        texts("score", by=lambda text: f"{float(text) * 1000:,.2f}"), RISE
    ),
    "scores with decimal commas": held(
        texts("score", by=lambda text: text.replace(".", ",")), RISE
    ),
    "scores in cents": held(
        texts("score", by=lambda text: str(float(text) * 100)), "contacts.score.rewritten"
    ),
    "postal codes as numbers": held(
        texts("zip", by=lambda text: str(int(text))), "contacts.zip.rewritten"
    ),
    "tiers called otherwise": held(texts("tier", by="{} Member".format), RISE),
    "interests with another separator": held(
        texts("interests", by=lambda text: text.replace(";", ",")), "updates.max_share"
    ),
}

OF_CONSENTS: Mapping[str, Disaster] = {
    "everyone opted out": held(cells(lambda _: {"sms_opt_in": "false"}), "opt_outs.max_share"),
    "everyone opted in": held(cells(lambda _: {"sms_opt_in": "true"}), "opt_outs.max_share"),
    "consents blank": held(cells(lambda _: {"sms_opt_in": None}), "contacts.sms_opt_in.filled"),
    "consents inverted": held(
        cells(lambda row: {"sms_opt_in": CONSENT_AGAINST.get(str(row["sms_opt_in"]))}),
        "opt_outs.max_share",
    ),
    "consents in another spelling": held(
        texts("sms_opt_in", by={"true": "granted", "false": "refused"}.get), RISE
    ),
    "times of consent in another format": held(
        texts("sms_opt_in_at", by=lambda text: f"{text[5:7]}/{text[8:10]}/{text[:4]}"), RISE
    ),
}

PERSONS, STAYS, REFRESHES = "PERSONS", "SUBSCRIPTIONS", "REFRESHES"
FEWER_STAYS = "subscriptions.min_input_share"

OF_THE_SHARE: Mapping[str, Disaster] = {
    "no persons": stopped(table(PERSONS, emptied), EmptySource, "PERSONS holds no row"),
    "a tenth of the persons": held(table(PERSONS, part(10)), "persons.min_input_share"),
    "half of the persons": held(table(PERSONS, part(2)), "persons.min_input_share"),
    "doubled persons": held(table(PERSONS, doubled), RISE),
    "a renamed share column": stopped(
        table(PERSONS, renamed("TIER", "TIER_KEY")), ShareError, "has no column TIER"
    ),
    "the share of another company": held(other_company, "persons.known_keys"),
    "a share that was not refreshed": stopped(
        earlier_share(PERSONS, STAYS, REFRESHES), WrongDayError, "older than policies.max_age_h"
    ),
    "the persons of days ago, called fresh": held(earlier_share(PERSONS), "share/persons.copy"),
    "blank external ids": held(
        table(PERSONS, blank("EXTERNAL_PERSON_ID")), "persons.external_person_id.filled"
    ),
    "blank numbers at the platform": held(table(PERSONS, blank("MDN")), "persons.mdn.filled"),
    "blank tiers at the platform": held(table(PERSONS, blank("TIER")), "persons.tier.filled"),
    "blank scores at the platform": held(table(PERSONS, blank("SCORE")), "persons.score.filled"),
    "option keys renamed at the platform": held(
        table(PERSONS, column("TIER", lambda whole: pc.utf8_upper(whole["TIER"]))),
        "updates.max_share",
    ),
    "birth dates of the share a zone earlier": held(
        table(
            PERSONS,
            column(
                "BIRTHDATE",
                lambda whole: pc.subtract(whole["BIRTHDATE"], pa.scalar(timedelta(hours=6))),
            ),
        ),
        "updates.max_share",
    ),
    "no subscriptions": held(table(STAYS, emptied), FEWER_STAYS),
    "a tenth of the subscriptions": held(table(STAYS, part(10)), FEWER_STAYS),
    "doubled subscriptions": seen_through(table(STAYS, doubled)),
    "subscriptions of another list": held(
        table(
            STAYS,
            column("SUBSCRIPTION_LIST_ID", lambda whole: pa.array(["9999"] * whole.num_rows)),
        ),
        FEWER_STAYS,
    ),
    "the subscriptions of days ago, called fresh": held(
        earlier_share(STAYS), "share/subscriptions.copy", "subscriptions.opt_in_date.newest"
    ),
    "no opt-out dates": held(
        table(STAYS, blank("OPT_OUT_DATE")), "subscriptions.opt_out_date.filled"
    ),
    "everyone opted out at the platform": held(
        table(
            STAYS,
            column(
                "OPT_OUT_DATE",
                lambda whole: pc.add(whole["OPT_IN_DATE"], pa.scalar(timedelta(days=30))),
            ),
        ),
        "opt_outs.max_share",
    ),
}

OF_EXTRACTS: Mapping[str, Disaster] = {
    "an empty extract": stopped(
        extract(SUBSCRIPTIONS, lambda _: b""), ExtractError, "the header has no column"
    ),
    "half an extract": stopped(
        cut(SUBSCRIPTIONS), IncompleteExtract, "so it is still being written"
    ),
    "half an extract that claims to be whole": stopped(
        extract(SUBSCRIPTIONS, lambda content: content[: len(content) * 2 // 3].rstrip(b"\n")),
        ExtractError,
        "the file is cut",
    ),
    "an extract of its header alone": seen_through(extract(SUBSCRIPTIONS, header_alone)),
    "an extract with its header twice": seen_through(extract(SUBSCRIPTIONS, header_twice)),
    "an extract with a byte order mark": seen_through(
        extract(SUBSCRIPTIONS, lambda content: b"\xef\xbb\xbf" + content)
    ),
    "no current subscribers": seen_through(extract(CURRENT_SUBSCRIBERS, header_alone)),
    "an extract in UTF-16": stopped(
        extract(SUBSCRIPTIONS, lambda content: content.decode().encode("utf-16")),
        ExtractError,
        "the header has no column",
    ),
    "an extract with a column named twice": stopped(
        extract(SUBSCRIPTIONS, lambda content: content.replace(b"\n", b"\tmdn\n")),
        ExtractError,
        "names mdn twice",
    ),
    "an extract one column too far": held(
        extract(SUBSCRIPTIONS, body(lambda line: "\t" + line.rpartition("\t")[0])),
        "extract/subscriptions.known_lists",
    ),
    "an extract with a column too many": held(
        extract(SUBSCRIPTIONS, body("\t{}".format)), "extract/subscriptions.rejected"
    ),
    "an extract of NUL bytes": held(
        extract(SUBSCRIPTIONS, body(lambda line: "\0" * len(line))),
        "extract/subscriptions.rejected",
    ),
    "an extract with unreadable dates": stopped(
        extract(SUBSCRIPTIONS, lambda content: content.replace(b"2026-", b"26/")),
        ReconcileError,
        "an unreadable opt_in_date or opt_out_date",
    ),
    "the extract of the day before": held(
        earlier_extract(SUBSCRIPTIONS), "extract/subscriptions.copy"
    ),
    "the extract of another company": held(
        extract(
            SUBSCRIPTIONS,
            lambda content: content.replace(b"A1b2C3", b"Z9y8X7").replace(b"1234", b"777"),
        ),
        "extract/subscriptions.known_lists",
    ),
}

DISASTERS: Mapping[str, Disaster] = {
    **OF_CONTACTS,
    **OF_IDENTIFIERS,
    **OF_VALUES,
    **OF_CONSENTS,
    **OF_THE_SHARE,
    **OF_EXTRACTS,
}
