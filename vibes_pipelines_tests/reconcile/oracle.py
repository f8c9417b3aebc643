"""An oracle of the reconcile: the written rules in plain Python, one contact at a time.

It understands only the values that `test_reconcile_laws` draws; what they mean is tested elsewhere.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import date, timedelta

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
        self.settle_consent(number, c, before, person)
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

    def settle_consent(self, number, c, before, person):
        if not before - {"invalid_mdn", "mdn_change"} and person is not None:
            self.compare_consent(c, person)
        elif (named := self.named_by_key(number)) is not None:
            self.compare_consent(c, named, directions={"platform"})

    def person_of(self, number):
        found = self.agreeing(number) or set().union(*self.claims[number].values())
        return self.persons[min(found)] if len(found) == 1 else None

    def named_by_key(self, number):
        """The one person that has the contact's key, whatever else is in doubt."""
        found = self.claims[number].get("external_person_id", set())
        doubled = {"duplicate_external_id", "duplicate_person_key"}
        found = {n for n in found if not doubled & self.person_kinds(n)}
        return self.persons[min(found)] if len(found) == 1 else None

    def person_kinds(self, number):
        return {kind for kind, source, n in self.kinds if source == "person" and n == number}

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

    def compare_consent(self, c, p, directions=frozenset({"platform", "crm"})):
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
        if not last_out or (last_in > last_out and last_in >= latest_possible(last_out)):
            if said == "no" and not (at and last_in > latest_possible(at)):
                self.consent.add(("platform", c["key"]))
            return
        is_newer = said == "yes" and at and last_out and at > latest_possible(last_out)
        if "crm" in directions and said != "no" and not is_newer:
            self.consent.add(("crm", c["key"]))


def latest_possible(at):
    """A day without a time is as late as the next one begins; texts of instants sort by time."""
    day, _, rest = at.partition("T")
    return str(date.fromisoformat(day) + timedelta(1)) if rest in {"", "00:00:00Z"} else at
