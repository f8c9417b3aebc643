"""The SQL of the convergence certificate: operations against what was landed afterwards.

Values are compared as the reconcile's canonical text, never raw. `operation`, `rival` and
`set_back` come from the ledger; `landed_person` and `landed_contact` hold the landed row of each
operation, with `value_i` per mapped field; `subscription` the state per person and list; `finding`
says of each changed field whether it is seen, overtaken or waiting; `verdict` is the answer per
operation.
"""
# ruff: noqa: S608 - composed of the reconcile's own expressions; every name and text is quoted there

from collections.abc import Sequence
from datetime import datetime, timedelta

from vibes_pipelines.delivery.intents import EVIDENCE
from vibes_pipelines.reconcile.consent import OPTED_IN, OPTED_OUT, changed_at_columns, state_column
from vibes_pipelines.reconcile.home_numbers import quick_number
from vibes_pipelines.reconcile.moments import (
    has_come,
    instant_literal,
    is_active,
    latest_possible,
    moment_of,
)
from vibes_pipelines.reconcile.phone import is_e164_text
from vibes_pipelines.reconcile.sources import Source
from vibes_pipelines.reconcile.sql import literal, text_list
from vibes_pipelines.reconcile.values import as_text, contact_text, platform_text
from vibes_pipelines.store.ledger_views import PERSON_CHANGED
from vibes_pipelines.sync_config import SyncConfig

OURS_WITHIN_MIN = 5
"""How many minutes after its answer a send may still move the person's time of change (an
assumption: the documentation is silent)."""

SEEN, OVERTAKEN, WAITING, UNMAPPED = "seen", "overtaken", "waiting", "unmapped"

NO_LONGER_MAPPED = "no_longer_mapped"
"""Evidence of what `UNMAPPED` ends."""

PERSON_GONE = "person_gone"
"""Evidence that an accepted opt-out has nobody left to concern: the person is not landed."""

CONTACT_GONE = "contact_gone"
"""The same of an opt-out or a field that the CRM accepted: the contact is not landed."""

_PERSON_KINDS = "('add', 'update', 'mdn_replace')"


def landed_person(config: SyncConfig, persons: Source) -> str:
    """Creates `landed_person`: by person_key when the operation has one, else by external id."""
    key = "NULL::VARCHAR"
    if persons.has("person_key"):
        key = f"lower({as_text(*persons.column('person_key', 'persons'))})"
    external = as_text(*persons.column("external_person_id", "persons"))
    values = "".join(
        f", {platform_text(field.type, *persons.column(field.to, f'fields.to: {field.to}'))}"
        f" AS value_{index}"
        for index, field in enumerate(config.fields)
    )
    return f"""
        CREATE TEMP TABLE landed_person AS
        WITH wanted AS (SELECT operation_id, lower(person_key) AS person_key, external_person_id
                        FROM operation
                        WHERE kind IN ('add', 'update', 'mdn_replace', 'opt_out', 'opt_in',
                                       'delete')),
             person AS (SELECT {key} AS person_key, {external} AS external_person_id,
                               {_mdn(config, persons)} AS mdn,
                               {_updated_at(persons)} AS updated_at{values}
                        FROM {persons.relation}
                        WHERE {key} IN (SELECT person_key FROM wanted)
                           OR {external} IN (SELECT external_person_id FROM wanted)),
             found AS (SELECT operation_id, 0 AS precedence, person.*
                       FROM wanted JOIN person USING (person_key)
                       UNION ALL
                       SELECT operation_id, 1 AS precedence, person.*
                       FROM wanted JOIN person USING (external_person_id))
        SELECT * EXCLUDE (precedence) FROM found
        QUALIFY row_number() OVER (PARTITION BY operation_id
                                   ORDER BY precedence, person_key, external_person_id, mdn) = 1"""


def _mdn(config: SyncConfig, persons: Source) -> str:
    if not persons.has("mdn"):
        return "NULL::VARCHAR"
    text = as_text(*persons.column("mdn", "persons"))
    if config.contacts.mdn is None:
        return text
    number = f"'+' || {quick_number(text, config.contacts.mdn.default_region)}"
    return f"CASE WHEN {is_e164_text(text)} THEN {text} ELSE coalesce({number}, {text}) END"


def _updated_at(persons: Source) -> str:
    """When anything of the person last changed, where the share's `updated_at` is mapped."""
    if not persons.has("updated_at"):
        return "NULL::TIMESTAMP"
    return moment_of(*persons.column("updated_at", "persons"))


def landed_contact(config: SyncConfig, contacts: Source) -> str:
    """Creates `landed_contact`: the contact of each write-back, its consent states and values."""
    key = as_text(*contacts.column(config.contacts.key, "contacts.key"))
    values = "".join(
        f", {contact_text(field, *contacts.column(field.from_, f'fields.from: {field.from_}'))}"
        f" AS value_{index}"
        for index, field in enumerate(config.fields)
    )
    states = "".join(
        f", {state_column(consent, contacts)} AS state_{index}"
        f", {changed_at_columns(consent, contacts)[0]} AS changed_at_{index}"
        for index, consent in enumerate(config.consents)
    )
    return f"""
        CREATE TEMP TABLE landed_contact AS
        WITH wanted AS (SELECT operation_id, external_person_id AS contact_id FROM operation
                        WHERE kind IN ('crm_update', 'crm_opt_out')),
             contact AS (SELECT {key} AS contact_id{values}{states} FROM {contacts.relation}
                         WHERE {key} IN (SELECT contact_id FROM wanted))
        SELECT operation_id, contact.* FROM wanted JOIN contact USING (contact_id)
        QUALIFY row_number() OVER (PARTITION BY operation_id ORDER BY contact) = 1"""


def subscription(subscriptions: Sequence[tuple[Source, str]], as_of: datetime) -> str:
    """Creates `subscription` from the inputs, each with the evidence it stands for.

    An opt-in that is still to come is none, as in the reconcile.
    """
    rows = " UNION ALL ".join(_subscription_rows(*one) for one in subscriptions)
    return f"""
        CREATE TEMP TABLE subscription AS
        WITH event AS ({rows}),
             latest AS (SELECT person_key, list,
                               max(opt_in) FILTER (WHERE {has_come("opt_in", as_of)}) AS last_in,
                               max(opt_out) AS last_out,
                               arg_max(evidence, (opt_out, evidence))
                                   FILTER (WHERE opt_out IS NOT NULL) AS evidence
                        FROM event GROUP BY person_key, list)
        SELECT *, {is_active("last_in", "last_out")} AS is_active
        FROM latest"""


def _subscription_rows(source: Source, evidence: str) -> str:
    names = ("person_key", "subscription_list_id", "opt_in_date", "opt_out_date")
    key, listed, opt_in, opt_out = (source.column(name, "subscriptions") for name in names)
    return f"""
        SELECT lower({as_text(*key)}) AS person_key, {as_text(*listed)} AS list,
               {moment_of(*opt_in)} AS opt_in, {moment_of(*opt_out)} AS opt_out,
               {literal(evidence)} AS evidence
        FROM {source.relation}
        WHERE {as_text(*listed)} IN (SELECT subscription_list_id FROM operation)"""


def finding(
    config: SyncConfig,
    *,
    contacts_landed: bool,
    subscriptions_landed: bool,
    as_of: datetime,
    evidence: str = "share",
) -> list[str]:
    """Creates and fills `finding`: operation_id, state, evidence, one row per changed field.

    `as_of` is the instant that the landed snapshots show.
    """
    statements = [
        "CREATE TEMP TABLE finding (operation_id VARCHAR, state VARCHAR, evidence VARCHAR)",
        _changes(),
        _field_findings(
            "landed_person",
            _PERSON_KINDS,
            evidence,
            _value(config, identifiers=True),
            config.policies.visibility_lag_h,
        ),
    ]
    statements.append(_deletion_findings(evidence))
    if contacts_landed:
        value = _value(config, identifiers=False)
        statements.append(_field_findings("landed_contact", "('crm_update')", "crm", value, 0))
        statements.append(_crm_opt_out_findings(config, as_of))
    if subscriptions_landed:
        visible_since = as_of - timedelta(hours=config.policies.visibility_lag_h)
        statements += [_opt_out_findings(evidence, visible_since), _opt_in_findings(evidence)]
    return statements


def _changes() -> str:
    return """
        CREATE TEMP TABLE change AS
        SELECT operation_id, item.field AS field, item.before AS before, item.after AS after
        FROM (SELECT operation_id, unnest(changes) AS item FROM operation
              WHERE kind IN ('add', 'update', 'mdn_replace', 'crm_update'))
        UNION ALL
        SELECT operation_id, 'external_person_id', NULL, external_person_id
        FROM operation WHERE kind = 'add'
        UNION ALL
        SELECT operation_id, 'mdn', NULL, mdn
        FROM operation WHERE kind = 'add' AND mdn IS NOT NULL
"""


def _value(config: SyncConfig, *, identifiers: bool) -> tuple[str, str]:
    """SQL for: the field of the change is still mapped, and for its landed text."""
    columns = {field.to: f"l.value_{index}" for index, field in enumerate(config.fields)}
    if identifiers:
        columns |= {name: f"l.{name}" for name in ("external_person_id", "mdn")}
    cases = " ".join(f"WHEN {literal(name)} THEN {column}" for name, column in columns.items())
    return f"c.field IN {text_list(columns)}", f"CASE c.field {cases} END"


def _field_findings(
    landed: str, kinds: str, evidence: str, value: tuple[str, str], lag_h: int
) -> str:
    """A later send of another value, or a value neither old nor new, overtakes.

    The same value sent again overtakes nothing: neither of them was seen.
    A value that an earlier send of ours set is old as well, when that send was still under way:
    with a share that is behind, two sends become visible one after the other. An old value is no
    sign of a lost send where the platform changed the person after everything that we sent was
    answered: then somebody may have set it back there. That explains a value of a person's field
    once; a value that is lost day after day must not hide behind changes of other fields.
    What the CRM accepted of a contact that was deleted since has nothing left to be seen in.
    """
    is_gone = f"{landed == 'landed_contact'} AND o.status = 'accepted' AND l.operation_id IS NULL"
    changed_since = "false"
    if landed == "landed_person":
        changed_since = f"""coalesce(l.updated_at > (
                       SELECT max(coalesce(r.answered_at, TIMESTAMP 'infinity')) FROM rival r
                       WHERE r.external_person_id = o.external_person_id
                         AND NOT starts_with(r.kind, 'crm_')) + INTERVAL {OURS_WITHIN_MIN} MINUTE,
                       false)"""
    return f"""
        INSERT INTO finding
        WITH compared AS (
            SELECT o.operation_id, o.kind, o.day, o.as_of, o.sequence, o.external_person_id, c.*
                       EXCLUDE (operation_id),
                   l.operation_id IS NOT NULL AS is_landed, {is_gone} AS is_gone,
                   {value[0]} AS is_mapped, {value[1]} AS landed,
                   {changed_since} AS is_changed_since
            FROM operation o JOIN change c USING (operation_id)
            LEFT JOIN {landed} l USING (operation_id)
            WHERE o.kind IN {kinds}),
             judged AS (
            SELECT *, is_landed AND landed IS NOT DISTINCT FROM after AS is_seen,
                   is_landed AND landed IS DISTINCT FROM before AS is_other,
                   EXISTS (
                       SELECT 1 FROM set_back b
                       WHERE b.external_person_id = compared.external_person_id
                         AND b.field = compared.field AND b.value IS NOT DISTINCT FROM after
                   ) AS was_set_back,
                   EXISTS (
                       SELECT 1 FROM rival r
                       WHERE r.external_person_id = compared.external_person_id
                         AND r.field = compared.field AND r.kind IN {kinds}
                         AND r.value IS DISTINCT FROM after
                         AND (r.day, r.as_of, r.sequence)
                             > (compared.day, compared.as_of, compared.sequence)) AS has_rival,
                   EXISTS (
                       SELECT 1 FROM rival r
                       WHERE r.external_person_id = compared.external_person_id
                         AND r.field = compared.field AND r.kind IN {kinds}
                         AND r.value IS NOT DISTINCT FROM landed
                         AND (r.day, r.as_of, r.sequence)
                             < (compared.day, compared.as_of, compared.sequence)
                         AND r.day >= strftime(compared.as_of - to_hours({lag_h}), '%Y-%m-%d')
                   ) AS is_of_earlier_send
            FROM compared)
        SELECT operation_id,
               CASE WHEN NOT is_mapped THEN {literal(UNMAPPED)}
                    WHEN is_seen THEN {literal(SEEN)}
                    WHEN has_rival THEN {literal(OVERTAKEN)}
                    WHEN is_other AND NOT is_of_earlier_send THEN {literal(OVERTAKEN)}
                    WHEN is_gone OR (is_changed_since AND NOT was_set_back)
                    THEN {literal(OVERTAKEN)}
                    ELSE {literal(WAITING)} END,
               CASE WHEN NOT is_mapped THEN {literal(NO_LONGER_MAPPED)}
                    WHEN is_seen THEN {literal(evidence)}
                    WHEN has_rival THEN 'later_operation'
                    WHEN is_gone THEN {literal(CONTACT_GONE)}
                    WHEN is_other AND NOT is_of_earlier_send THEN {literal(evidence)}
                    WHEN is_changed_since AND NOT was_set_back THEN {literal(PERSON_CHANGED)}
                    ELSE {literal(evidence)} END
        FROM judged"""


def _deletion_findings(evidence: str) -> str:
    return f"""
    INSERT INTO finding
    SELECT o.operation_id,
           CASE WHEN l.operation_id IS NULL THEN {literal(SEEN)} ELSE {literal(WAITING)} END,
           {literal(evidence)}
    FROM operation o LEFT JOIN landed_person l USING (operation_id)
    WHERE o.kind = 'delete'"""


def _opt_out_findings(evidence: str, visible_since: datetime) -> str:
    """An opt-out that the subscriptions show is seen.

    That they show nothing of the person and list proves little: it confirms what was accepted, of a
    person who is landed. One who is not, though all could be visible by now, is gone.
    """
    gone = f"""s.list IS NULL AND l.operation_id IS NULL AND o.status = 'accepted'
                     AND o.as_of <= {instant_literal(visible_since)}"""
    state = f"""
           CASE WHEN NOT s.is_active THEN {literal(SEEN)}
                WHEN s.list IS NULL AND l.operation_id IS NOT NULL AND o.status = 'accepted'
                THEN {literal(SEEN)}
                WHEN s.last_in > o.as_of OR ({gone}) THEN {literal(OVERTAKEN)}
                ELSE {literal(WAITING)} END"""
    shown = f"CASE WHEN {gone} THEN {literal(PERSON_GONE)} ELSE {literal(evidence)} END"
    return _consent_findings("opt_out", state, shown)


def _opt_in_findings(evidence: str) -> str:
    """Opt-ins that were written as they are; an opt-out since then has overtaken one."""
    state = f"""
           CASE WHEN s.is_active THEN {literal(SEEN)}
                WHEN s.last_out >= o.as_of THEN {literal(OVERTAKEN)}
                ELSE {literal(WAITING)} END"""
    return _consent_findings("opt_in", state, literal(evidence))


def _consent_findings(kind: str, state: str, evidence: str) -> str:
    return f"""
    INSERT INTO finding
    SELECT o.operation_id, {state},
           coalesce(s.evidence, {evidence})
    FROM operation o
    LEFT JOIN landed_person l USING (operation_id)
    LEFT JOIN subscription s
           ON s.person_key = coalesce(l.person_key, lower(o.person_key))
          AND s.list = o.subscription_list_id
    WHERE o.kind = {literal(kind)}"""


def _crm_opt_out_findings(config: SyncConfig, as_of: datetime) -> str:
    """An opt-in that is newer than what the platform recorded overtakes, as in the reconcile.

    One that is still to come does not.

    Of a list that is mapped no more, and of a contact that was deleted, nothing is landed: that the
    CRM accepted is enough.
    """

    def case(column: str) -> str:
        branches = " ".join(
            f"WHEN {literal(consent.list.strip())} THEN l.{column}_{index}"
            for index, consent in enumerate(config.consents)
        )
        return f"CASE o.subscription_list_id {branches} END" if branches else "NULL"

    lists = text_list(consent.list.strip() for consent in config.consents)
    evidence = f"list_filter(o.changes, lambda one: one.field = {literal(EVIDENCE)})[1].after"
    recorded_at = f"coalesce(CAST(TRY_CAST({evidence} AS TIMESTAMPTZ) AS TIMESTAMP), o.as_of)"
    return f"""
        INSERT INTO finding
        WITH compared AS (
            SELECT o.operation_id, {case("state")} AS state,
                   o.status = 'accepted' AND NOT coalesce(o.subscription_list_id IN {lists}, false)
                       AS is_unmapped,
                   o.status = 'accepted' AND l.operation_id IS NULL AS is_gone,
                   {latest_possible(recorded_at)} AS recorded_by,
                   CAST({case("changed_at")} AS TIMESTAMP) AS changed_at
            FROM operation o LEFT JOIN landed_contact l USING (operation_id)
            WHERE o.kind = 'crm_opt_out')
        SELECT operation_id,
               CASE WHEN state = {OPTED_OUT} THEN {literal(SEEN)}
                    WHEN is_gone OR (state = {OPTED_IN} AND changed_at > recorded_by
                                     AND {has_come("changed_at", as_of)})
                    THEN {literal(OVERTAKEN)}
                    WHEN is_unmapped THEN {literal(UNMAPPED)}
                    ELSE {literal(WAITING)} END,
               CASE WHEN is_unmapped THEN {literal(NO_LONGER_MAPPED)}
                    WHEN is_gone THEN {literal(CONTACT_GONE)} ELSE 'crm' END
        FROM compared"""


# An accepted invitation is delivered: whether the person subscribes is the person's to decide.
VERDICT = f"""
    CREATE TEMP TABLE verdict AS
    WITH summed AS (
        SELECT operation_id,
               count(*) FILTER (WHERE state = {literal(SEEN)}) AS seen,
               count(*) FILTER (WHERE state IN ({literal(OVERTAKEN)}, {literal(UNMAPPED)})) AS gone,
               count(*) FILTER (WHERE state = {literal(WAITING)}) AS waiting,
               min(evidence) FILTER (WHERE state = {literal(SEEN)}) AS seen_in,
               coalesce(min(evidence) FILTER (WHERE evidence = {literal(PERSON_CHANGED)}),
                        min(evidence) FILTER (WHERE state <> {literal(SEEN)})) AS gone_by
        FROM finding GROUP BY operation_id)
    SELECT o.operation_id, o.day, o.lane, o.route, o.kind,
           CASE WHEN o.status IN ('planned', 'superseded') THEN 'superseded'
                WHEN o.kind = 'invite' AND o.status = 'accepted' THEN 'confirmed'
                WHEN s.seen > 0 AND s.gone = 0 AND s.waiting = 0 THEN 'confirmed'
                WHEN o.status = 'rejected' THEN 'rejected'
                WHEN s.gone > 0 AND s.waiting = 0 THEN 'superseded'
                WHEN o.as_of + to_hours($lag_h) > $as_of THEN 'pending'
                ELSE 'unexplained' END AS outcome,
           CASE WHEN o.status = 'rejected' THEN o.error_class END AS error_class,
           CASE WHEN o.status = 'planned' THEN 'diff_set'
                WHEN o.status = 'superseded' THEN 'callback'
                WHEN o.kind = 'invite' AND o.status = 'accepted' THEN 'api'
                WHEN s.seen > 0 AND s.gone = 0 AND s.waiting = 0 THEN s.seen_in
                WHEN o.status = 'rejected' THEN 'receipt'
                WHEN s.gone > 0 AND s.waiting = 0 THEN s.gone_by
                WHEN o.status = 'accepted' THEN 'receipt'
                ELSE 'none' END AS evidence
    FROM operation o LEFT JOIN summed s USING (operation_id)"""
