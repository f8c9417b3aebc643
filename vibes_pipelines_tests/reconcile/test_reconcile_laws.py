"""The laws of the reconcile, and its agreement with an oracle that knows no SQL.

The oracle below follows the written rules one contact at a time; frames are random, small and
crowded, so that duplicates, blanks, shared numbers and contradictions are the usual case.
"""

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vibes_pipelines.reconcile.run import Inputs, Limits, reconcile
from vibes_pipelines.reconcile.summary import CONTACT_STATUSES

NUMBERS = ["+13125550100", "+13125550101", "+13125550102", "+13125550103"]
SPELT = {"(312) 555-0100": 0, "312.555.0101": 1, "+13125550102": 2, "1 312 555 0103": 3}
FIELDS = [
    {"from": "name", "to": "name", "type": "string"},
    {"from": "score", "to": "score", "type": "number", "authority": "fill"},
    {"from": "born", "to": "born", "type": "date", "authority": "platform"},
    {
        "from": "tier",
        "to": "tier",
        "type": "single_select",
        "options": {"Gold": "g", "Tin": "t"},
        "when_null": "clear",
    },
    {"from": "likes", "to": "likes", "type": "multi_select", "when_null": "clear"},
]
SECTIONS = {
    "contacts": {
        "key": "id",
        "person_key": "pk",
        "mdn": {"column": "phone", "default_region": "US"},
        "conditions": [{"column": "type", "not_equals": "B"}],
    },
    "fields": FIELDS,
    "consents": [{"from": "sms", "list": "77", "changed_at": "sms_at"}],
}
TIMES = ["2026-01-01", "2026-01-02", "2026-01-03"]


def maybe(*values):
    return st.sampled_from([None, *values])


contact_rows = st.lists(
    st.fixed_dictionaries(
        {
            "id": maybe("C1", "C2", "C3", " C4 ", "", "C5", "C6"),
            "pk": maybe(None, None, "k1", "K2", "k9"),
            "phone": maybe(None, *SPELT, "12", "312-555-0100 x5"),
            "type": maybe("A", "B"),
            "name": maybe("Ann", " Ann", "e\u0301", "", "a\nb"),
            "score": maybe("1", "1.0", "x"),
            "born": maybe("2017-01-15", "2017-01-15T00:00Z", "never"),
            "tier": maybe("Gold", "Tin", "Wood"),
            "likes": maybe("a;b", "b; a", ";", "a|b"),
            "sms": maybe("yes", "no", "NO", "maybe"),
            "sms_at": maybe(*TIMES),
        }
    ),
    max_size=9,
)
person_rows = st.lists(
    st.fixed_dictionaries(
        {
            "person_key": maybe("k1", "k2", "K3", "k4", "k5", "k6"),
            "external_person_id": maybe("C1", "C2", "C3", "C4", "C9", " "),
            "mdn": maybe(*NUMBERS),
            "name": maybe("Ann", "Bob", "\u00e9"),
            "score": maybe("1.00", "2"),
            "born": maybe("2017-01-15T00:00:00.000Z", "2018-01-01"),
            "tier": maybe("g", "t"),
            "likes": maybe("b|a", "c"),
        }
    ),
    max_size=9,
)
subscription_rows = st.lists(
    st.fixed_dictionaries(
        {
            "person_key": maybe("k1", "K2", "k3"),
            "subscription_list_id": maybe("77", "78"),
            "opt_in_date": maybe(*TIMES),
            "opt_out_date": maybe(*TIMES),
        }
    ),
    max_size=6,
)


def blank(text):
    return (text or "").strip(" \n") or None


def canonical(name, text):
    """The contact's value as canonical text; raises KeyError or ValueError for doubt."""
    text = blank(text)
    if text is None:
        return None
    if name == "score":
        return f"{float(text):g}"
    if name == "born":
        return {"2017-01-15": text, "2017-01-15T00:00Z": "2017-01-15"}[text]
    if name == "likes":
        if "|" in text:
            raise ValueError(text)
        return "|".join(sorted({part.strip() for part in text.split(";")} - {""})) or None
    return text.replace("e\u0301", "\u00e9")


def at_platform(name, text):
    text = blank(text)
    if text is None:
        return None
    shown = {"1.00": "1", "2017-01-15T00:00:00.000Z": "2017-01-15", "b|a": "a|b"}
    return shown.get(text, text)


@dataclass
class Oracle:
    """Follows the rules in plain Python over lists of dicts."""

    contacts: list
    persons: list
    subscriptions: list
    kinds: set = field(default_factory=set)
    status: Counter = field(default_factory=Counter)
    changes: dict = field(default_factory=dict)
    crm: set = field(default_factory=set)
    consent: set = field(default_factory=set)

    def run(self):
        for c in self.contacts:
            c["key"], c["own"] = blank(c["id"]), (c["pk"] or "").lower() or None
            c["mdn"] = NUMBERS[SPELT[c["phone"]]] if c["phone"] in SPELT else None
        for p in self.persons:
            p["key"] = (p["person_key"] or "").lower() or None
            p["external"] = blank(p["external_person_id"])
        self.claims = [self.claims_of(c) for c in self.contacts]
        self.find_doubt()
        for number, c in enumerate(self.contacts):
            self.settle(number, c)
        return self

    def claims_of(self, c):
        """Per identifier the persons it points to, if any."""
        pointed = {}
        for by, mine, theirs in (
            ("person_key", "own", "key"),
            ("external_person_id", "key", "external"),
            ("mdn", "mdn", "mdn"),
        ):
            found = {n for n, p in enumerate(self.persons) if c[mine] and p[theirs] == c[mine]}
            if found:
                pointed[by] = found
        return pointed

    def agreeing(self, number):
        """Persons with the contact's external id that no other identifier contradicts."""
        c = self.contacts[number]
        return {
            n
            for n in self.claims[number].get("external_person_id", ())
            if c["mdn"] in {None, self.persons[n]["mdn"]}
            and c["own"] in {None, self.persons[n]["key"]}
        }

    def repeats(self, kind, source, rows, column):
        groups = defaultdict(list)
        for number, row in enumerate(rows):
            if row[column]:
                groups[row[column]].append(number)
        for group in groups.values():
            if len(group) > 1:
                self.kinds |= {(kind, source, number) for number in group}

    def find_doubt(self):
        self.repeats("duplicate_contact_key", "contact", self.contacts, "key")
        self.repeats("shared_mdn", "contact", self.contacts, "mdn")
        self.repeats("duplicate_person_key", "person", self.persons, "key")
        self.repeats("duplicate_external_id", "person", self.persons, "external")
        self.repeats("shared_mdn", "person", self.persons, "mdn")
        claimed = defaultdict(set)
        linked = {}
        for number, c in enumerate(self.contacts):
            if c["key"] is None:
                self.kinds.add(("missing_contact_key", "contact", number))
            if c["phone"] and c["mdn"] is None:
                self.kinds.add(("invalid_mdn", "contact", number))
            pointed = self.claims[number]
            everyone = set().union(*pointed.values()) if pointed else set()
            linked[number] = self.agreeing(number) or everyone
            if self.agreeing(number) or not everyone:
                continue
            self.judge_loose(number, c, pointed, everyone, claimed)
        for person, claimants in claimed.items():
            if len({self.contacts[n]["key"] or n for n in claimants}) > 1:
                self.kinds |= {("shared_person", "contact", n) for n in claimants}
                self.kinds.add(("shared_person", "person", person))
        doubted = [(kind, n) for kind, source, n in self.kinds if source == "person"]
        for number, persons in linked.items():
            self.kinds |= {(kind, "contact", number) for kind, n in doubted if n in persons}

    def judge_loose(self, number, c, pointed, everyone, claimed):
        split = not set.intersection(*pointed.values())
        if len(everyone) == 1:
            [person] = everyone
            p = self.persons[person]
            split = c["key"] and p["external"] not in {None, c["key"]}
            if not split:
                claimed[person].add(number)
                if c["mdn"] and p["mdn"] not in {None, c["mdn"]}:
                    self.kinds.add(("mdn_change", "contact", number))
        if split:
            self.kinds.add(("identity_split", "contact", number))
            self.kinds |= {("identity_split", "person", n) for n in everyone}

    def settle(self, number, c):
        before = {k for k, source, n in self.kinds if source == "contact" and n == number}
        person = self.person_of(number)
        if not before - {"invalid_mdn"} and person is not None:
            self.compare_consent(c, person)
        values = {}
        for one in FIELDS:
            try:
                values[one["to"]] = canonical(one["to"], c[one["from"]])
                if one["to"] == "tier" and blank(c["tier"]):
                    values["tier"] = {"Gold": "g", "Tin": "t"}[c["tier"]]
            except KeyError:
                kind = "unknown_option" if one["to"] == "tier" else "invalid_value"
                self.kinds.add((kind, "contact", number))
            except ValueError:
                self.kinds.add(("invalid_value", "contact", number))
        if c["sms"] == "maybe":
            self.kinds.add(("invalid_value", "contact", number))
        if any(source == "contact" and n == number for _, source, n in self.kinds):
            self.status["quarantined"] += 1
        elif c["type"] == "B":
            self.status["filtered"] += 1
        elif person is None:
            self.status["added"] += 1
            self.changes[c["key"]] = {f: (None, v) for f, v in values.items() if v}
        else:
            self.compare(c, person, values)

    def person_of(self, number):
        found = self.agreeing(number) or set().union(*self.claims[number].values())
        return self.persons[min(found)] if len(found) == 1 else None

    def compare(self, c, p, values):
        changes = {}
        if p["external"] is None:
            changes["external_person_id"] = (None, c["key"])
        if p["mdn"] is None and c["mdn"]:
            changes["mdn"] = (None, c["mdn"])
        for one in FIELDS:
            name = one["to"]
            mine, theirs = values[name], at_platform(name, p[name])
            if mine == theirs:
                continue
            authority = one.get("authority", "crm")
            if authority == "platform":
                if theirs:
                    self.crm.add((c["key"], name, mine, theirs))
            elif (authority == "fill" and theirs is None) or (authority == "crm" and mine):
                changes[name] = (theirs, mine)
            elif authority == "crm" and one.get("when_null") == "clear":
                changes[name] = (theirs, None)
        self.status["updated" if changes else "unchanged"] += 1
        if changes:
            self.changes[c["key"]] = changes

    def compare_consent(self, c, p):
        rows = [
            s
            for s in self.subscriptions
            if s["subscription_list_id"] == "77"
            and p["key"]
            and (s["person_key"] or "").lower() == p["key"]
        ]
        if not rows:
            return
        last_in = max((s["opt_in_date"] or "" for s in rows), default="")
        last_out = max((s["opt_out_date"] or "" for s in rows), default="")
        said, at = (c["sms"] or "").lower(), c["sms_at"]
        if not last_out or last_in > last_out:
            if said == "no" and not (at and last_in > at):
                self.consent.add(("platform", c["key"]))
        elif said != "no" and not (said == "yes" and at and at > last_out):
            self.consent.add(("crm", c["key"]))


many = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
few = settings(many, max_examples=12)


@given(contact_rows, person_rows, subscription_rows)
@many
def test_the_reconcile_agrees_with_the_oracle(run, make_config, contacts, persons, subscriptions):
    done = run(make_config(**SECTIONS), contacts, persons, subscriptions=subscriptions)
    told = Oracle([dict(c) for c in contacts], [dict(p) for p in persons], subscriptions).run()

    summary = done.summary
    assert {s: getattr(summary, s) for s in CONTACT_STATUSES if getattr(summary, s)} == told.status
    assert Counter((r["kind"], r["source"]) for r in done.rows("quarantine")) == Counter(
        (kind, source) for kind, source, _ in told.kinds
    )
    assert {
        row["external_person_id"]: {c["field"]: (c["before"], c["after"]) for c in row["changes"]}
        for row in done.person_changes
    } == told.changes
    assert {
        (r["contact_id"], r["field"], r["before"], r["after"]) for r in done.rows("crm_changes")
    } == told.crm
    assert {
        (r["side"], r["external_person_id"]) for r in done.rows("subscription_changes")
    } == told.consent


@given(contact_rows, person_rows, subscription_rows)
@few
def test_every_record_is_told_exactly_once(run, make_config, contacts, persons, subscriptions):
    done = run(make_config(**SECTIONS), contacts, persons, subscriptions=subscriptions)
    summary = done.summary
    assert summary.contacts == len(contacts)
    assert sum(getattr(summary, status) for status in CONTACT_STATUSES) == len(contacts)
    operations = Counter(row["operation"] for row in done.person_changes)
    assert (operations["add"], operations["update"]) == (summary.added, summary.updated)
    assert summary.persons == len(persons)
    assert summary.persons_only + summary.quarantined_persons <= len(persons)
    assert summary.subscription_changes == len(done.rows("subscription_changes"))
    assert summary.crm_changes == len(done.rows("crm_changes"))


@given(contact_rows, person_rows)
@few
def test_applying_the_diff_set_leaves_nothing_to_do(run, make_config, contacts, persons):
    config = make_config(**SECTIONS)
    before = {f"k{n}": person | {"person_key": f"k{n}"} for n, person in enumerate(persons)}
    done = run(config, contacts, list(before.values()))
    for row in done.person_changes:
        key = row["person_key"] or f"new {row['external_person_id']}"
        person = before.setdefault(
            key,
            {
                "person_key": key,
                "external_person_id": row["external_person_id"],
                "mdn": row["mdn"],
            },
        )
        renamed = {"external_person_id", "mdn", *(one["to"] for one in FIELDS)}
        assert {change["field"] for change in row["changes"]} <= renamed
        person.update({change["field"]: change["after"] for change in row["changes"]})
    again = run(config, contacts, list(before.values()))
    assert again.person_changes == []
    assert again.summary.unchanged == done.summary.unchanged + len(done.person_changes)


@given(st.lists(st.tuples(st.text(max_size=5), maybe("1", "2.5"), maybe("g", "t")), max_size=8))
@few
def test_a_side_differs_not_from_itself(run, make_config, rows):
    fields = [FIELDS[0], FIELDS[1] | {"authority": "crm"}, FIELDS[3] | {"options": None}]
    contacts = [
        {"id": f"C{n}", "name": a, "score": b, "tier": c} for n, (a, b, c) in enumerate(rows)
    ]
    persons = [
        {"person_key": f"k{n}", "external_person_id": f"C{n}", "name": a, "score": b, "tier": c}
        for n, (a, b, c) in enumerate(rows)
    ]
    done = run(make_config(fields=fields), contacts, persons)
    assert done.summary.unchanged == len(rows)
    assert done.person_changes == []


@given(contact_rows, person_rows, subscription_rows)
@few
def test_no_consent_without_a_subscription_and_never_an_opt_in(
    run, make_config, contacts, persons, subscriptions
):
    config = make_config(**SECTIONS)
    done = run(config, contacts, persons, subscriptions=subscriptions)
    told = done.rows("subscription_changes")
    assert {row["action"] for row in told} <= {"opt_out"}
    known = {(s["person_key"] or "").lower() for s in subscriptions}
    assert {row["person_key"] for row in told} <= known
    assert run(config, contacts, persons).rows("subscription_changes") == []


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """20 000 contacts and persons that agree, differ, collide and lack; as Parquet."""
    folder = tmp_path_factory.mktemp("crowd")
    connection = duckdb.connect()
    try:
        for name, salt, columns in (
            (
                "contacts",
                1,
                "'C' || i % 19900 AS id, NULL::VARCHAR AS pk, 'A' AS type,"
                " '312' || (2000000 + i % 19950) AS phone, 'n' || hash(i, {salt}) % 9 AS name,"
                " i % 7 AS score, DATE '2017-01-01' + (i % 30)::INTEGER AS born,"
                " ['Gold', 'Tin', NULL, 'Wood'][1 + (hash(i) % 4)::INTEGER] AS tier,"
                " 'b;a' AS likes,"
                " NULL::VARCHAR AS sms, NULL::VARCHAR AS sms_at",
            ),
            (
                "persons",
                2,
                "'k' || i AS person_key, 'C' || (i + 100) AS external_person_id,"
                " '+1312' || (2000000 + i + 100) AS mdn, 'n' || hash(i, {salt}) % 9 AS name,"
                " (i % 7)::DECIMAL(18, 4) AS score, TIMESTAMP '2017-01-01' AS born, 'g' AS tier,"
                " 'a|b' AS likes",
            ),
        ):
            connection.execute(
                f"COPY (SELECT {columns.format(salt=salt)} FROM range(20000) r(i))"
                f" TO '{folder / name}.parquet'"
            )
    finally:
        connection.close()
    return folder


def _shuffled(folder: Path, target: Path, seed: int) -> Inputs:
    for name in ("contacts", "persons"):
        table = pq.read_table(folder / f"{name}.parquet")
        order = list(range(table.num_rows))
        random.Random(seed).shuffle(order)
        pq.write_table(table.take(order), target / f"{name}.parquet", row_group_size=3000)
    return Inputs(target / "contacts.parquet", target / "persons.parquet", relative_guards=False)


def test_files_are_the_same_bytes_whatever_the_row_order_threads_and_memory(
    crowd, make_config, tmp_path
):
    config = make_config(**SECTIONS)
    hashes = []
    for number, limits in enumerate(
        [Limits(threads=1), Limits(threads=4), Limits(threads=2, memory_limit="100MB")]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        summary = reconcile(config, _shuffled(crowd, folder, number), folder / "out", limits)
        hashes.append((summary.diff_set, (folder / "out" / "summary.json").read_bytes()))
    assert summary.updated > 1000
    assert summary.quarantined > 1000
    assert hashes[0] == hashes[1] == hashes[2]
