"""`explain` over real days: every end of a contact, and a change from its cell to its proof.

The share shows the platform of the day before, so that what the first day sent is pending on the
second and confirmed on the third, whose diff set is held.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow.parquet as pq
import pytest

from vibes_pipelines.reconcile.summary import Summary
from vibes_pipelines.report.explain import explain
from vibes_pipelines.report.explain_facts import DayFacts, Explanation, FieldFact, OperationFact
from vibes_pipelines.report.explain_person import AmbiguousPersonError
from vibes_pipelines.report.explain_render import render
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.sandbox.world import World
from vibes_pipelines.stages.project import Project
from vibes_pipelines_tests.support.loop import Loop, agreed_keys, running_loop

WORLD = build_world(200, 21)
AGREED = agreed_keys(WORLD)
FIRST, SECOND, THIRD = "2026-01-01", "2026-01-02", "2026-01-03"
MASS = AGREED[:60]


@dataclass(frozen=True)
class Story:
    loop: Loop
    world: World
    summaries: dict[str, Summary]

    @property
    def project(self) -> Project:
        return self.loop.project

    def one(self, kind: str) -> str:
        return self.world.kinds[kind][0]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    home = tmp_path_factory.mktemp("explain")
    with running_loop(home, WORLD, lag_h=24) as loop:
        summaries = {}
        loop.edit_contacts("tier = 'Gold', last_name = 'Followed'", AGREED[100:101])
        for _ in range(2):
            summary = summaries[loop.today] = loop.reconcile()
            if summary.breaches or loop.today == FIRST:
                loop.approve(summary)
            loop.deliver()
            loop.sandbox.next_day(edits=False)
        loop.edit_contacts("last_name = 'Acquired'", MASS)
        summaries[loop.today] = loop.reconcile()
        yield Story(loop, WORLD, summaries)


def day_of(explanation: Explanation, day: str) -> DayFacts:
    return next(facts for facts in explanation.days if facts.day == day)


def field_of(facts: DayFacts, name: str) -> FieldFact:
    return next(field for field in facts.fields if field.field == name)


def the_operation(facts: DayFacts) -> OperationFact:
    [operation] = facts.operations
    return operation


def test_a_changed_field_is_followed_from_its_cell_to_its_confirmation(story: Story) -> None:
    key = AGREED[100]
    explanation = explain(story.project, key, field="last_name")
    assert [facts.day for facts in explanation.days] == [THIRD, SECOND, FIRST]

    first = day_of(explanation, FIRST)
    field = field_of(first, "last_name")
    assert (field.crm_column, field.authority, field.when_null) == ("last_name", "crm", "keep")
    [change] = field.changes
    held = field.platform[0].value
    assert (change.side, change.before, change.after) == ("platform", held, "Followed")
    assert (change.reason, field.crm[0].raw) == ("no_base", "Followed")

    [contact] = first.contacts
    snapshot = story.project.snapshots.find("crm/contacts", FIRST)
    assert snapshot is not None
    assert contact.place.content_hash == snapshot.manifest.content_hash
    landed = pq.read_table(snapshot.data).to_pylist()[contact.place.row - 1]
    assert (landed["contact_id"], landed["last_name"]) == (key, "Followed")

    [diff_set] = first.diff_sets
    assert diff_set.diff_set == story.summaries[FIRST].diff_set
    assert (diff_set.status, diff_set.approved_reason) == ("delivered", "looked at in a test")

    operation = the_operation(first)
    assert (operation.kind, operation.status, operation.attempts) == ("update", "accepted", 1)
    assert operation.route in operation.route_reason
    assert operation.sent_at is not None
    assert [one.field for one in operation.changes] == ["last_name"]
    assert [(v.day, v.outcome, v.evidence) for v in operation.verdicts] == [
        (SECOND, "pending", "receipt"),
        (THIRD, "confirmed", "share"),
    ]
    assert "need not be visible yet" in field_of(day_of(explanation, SECOND), "last_name").why
    last = field_of(day_of(explanation, THIRD), "last_name")
    assert (last.platform[0].value, last.why) == ("Followed", "both sides agree")


@pytest.mark.slow
def test_every_contact_with_a_part_ends_where_the_summary_counts_it(story: Story) -> None:
    """Law 2, on the day on which most ends stand only as counts."""
    keys = {key for kind, keys in WORLD.kinds.items() if kind != "platform_only" for key in keys}
    keys |= {key.removesuffix("-2") for key in keys} | {AGREED[100]}
    ends: Counter[str] = Counter()
    for key in keys:
        [facts] = explain(story.project, key, day=SECOND).days
        ends[facts.end.status] += len(facts.contacts)
    summary = story.summaries[SECOND]
    for status in ("added", "updated", "pending", "blocked", "quarantined", "filtered"):
        assert ends[status] == getattr(summary, status), status
    assert ends["pending"] > 5
    assert ends["unknown"] == 0


@pytest.mark.parametrize(
    ("kind", "ends"),
    [
        ("changed", ("unchanged", "pending", "updated")),
        ("crm_only", ("unchanged", "pending", "added")),
        ("mdn_only", ("unchanged", "pending", "updated")),
        ("landline", ("blocked", "blocked", "added")),
        ("other_customer", ("filtered", "filtered", "filtered")),
        ("unknown_tier", ("quarantined", "quarantined", "quarantined")),
        ("platform_only", ("persons-only", "persons-only", "persons-only")),
    ],
)
def test_each_part_of_the_population_has_its_ends(
    story: Story, kind: str, ends: tuple[str, ...]
) -> None:
    explanation = explain(story.project, story.one(kind))
    assert tuple(facts.end.status for facts in explanation.days) == ends


def test_a_rejected_add_is_told_with_its_class_and_the_advice(story: Story) -> None:
    explanation = explain(story.project, story.one("landline"))
    operation = the_operation(day_of(explanation, FIRST))
    assert (operation.kind, operation.status) == ("add", "rejected")
    assert operation.error_class
    assert operation.advice
    assert operation.message
    assert [v.outcome for v in operation.verdicts] == ["rejected"]
    blocked = day_of(explanation, SECOND).end
    assert blocked.how == "derived"
    assert operation.error_class in blocked.why
    assert operation.advice in blocked.why


def test_a_filtered_contact_names_the_condition_and_what_it_found(story: Story) -> None:
    [facts] = explain(story.project, story.one("other_customer"), day=SECOND).days
    assert facts.end.why == "customer_type: equals A does not hold, it is 'B'"


def test_a_quarantined_contact_names_its_kinds_and_its_group(story: Story) -> None:
    [unknown] = explain(story.project, story.one("unknown_tier"), day=SECOND).days
    assert unknown.end.why == "unknown_option: not among the options of tier"
    assert field_of(unknown, "tier").why == "'Platinum' is not among the options"

    second_of_number = story.one("shared_mobile")
    [shared] = explain(story.project, second_of_number, day=SECOND).days
    assert "shared_mdn" in shared.end.why
    others = {one.external_person_id for one in shared.doubts if not one.is_this_person}
    assert others == {second_of_number.removesuffix("-2")}

    [doubled] = explain(story.project, story.one("duplicate_contact"), day=SECOND).days
    assert len(doubled.contacts) == 2
    assert len(field_of(doubled, "last_name").crm) == 2


@pytest.mark.parametrize(
    ("part", "side", "kind", "reason"),
    [
        ("crm_opt_out", "platform", "opt_out", "crm_opted_out"),
        ("platform_opt_out", "crm", "crm_opt_out", "platform_opted_out"),
    ],
)
def test_an_opt_out_is_followed_in_both_directions(
    story: Story, part: str, side: str, kind: str, reason: str
) -> None:
    explanation = explain(story.project, story.one(part))
    first = day_of(explanation, FIRST)
    [consent] = first.consents
    [change] = consent.changes
    assert (change.side, change.action, change.reason) == (side, "opt_out", reason)
    assert {consent.crm, consent.platform} == {"in", "out"}
    assert {row.place.feed for row in consent.rows} <= {
        "share/subscriptions",
        "extract/subscriptions",
    }
    operation = the_operation(first)
    assert (operation.kind, operation.status, operation.lane) == (kind, "accepted", "opt_outs")
    assert operation.verdicts[-1].outcome == "confirmed"
    [agreed] = day_of(explanation, THIRD).consents
    assert (agreed.crm, agreed.platform, agreed.why) == ("out", "out", "both sides agree")


def test_a_held_change_says_by_which_guard_and_how_to_release_it(story: Story) -> None:
    [facts] = explain(story.project, MASS[0], day=THIRD).days
    assert (facts.end.status, facts.operations) == ("updated", ())
    [unsent] = facts.unsent
    assert (unsent.kind, unsent.fields) == ("update", ("last_name",))
    assert unsent.why.startswith("held: updates: 60 rows are ")
    assert "vibes-pipelines approve" in unsent.why
    [diff_set] = facts.diff_sets
    assert diff_set.held
    assert diff_set.breaches
    assert f"not sent            update of last_name: {unsent.why}" in render(
        explain(story.project, MASS[0])
    )


@pytest.mark.slow
def test_a_person_is_found_by_key_and_by_number_as_well(story: Story) -> None:
    key = story.one("changed")
    by_key = explain(story.project, key)
    [person_key] = by_key.who.person_keys
    [mdn] = by_key.who.mdns
    for asked, found_as in ((person_key, "person_key"), (mdn, "mdn")):
        found = explain(story.project, asked)
        assert found.who.found_as == found_as
        assert found.who.external_person_id == key
        assert [facts.end for facts in found.days] == [facts.end for facts in by_key.days]


def test_a_number_of_two_people_is_ambiguous_and_both_are_named(story: Story) -> None:
    second = story.one("shared_mobile")
    [mdn] = explain(story.project, second).who.mdns
    with pytest.raises(AmbiguousPersonError) as told:
        explain(story.project, mdn)
    assert second in str(told.value)
    assert second.removesuffix("-2") in str(told.value)


def test_asked_for_a_day_it_also_tells_what_the_certificate_of_that_day_judged(
    story: Story,
) -> None:
    [facts] = explain(story.project, story.one("changed"), day=THIRD).days
    operation = the_operation(facts)
    assert operation.day == FIRST
    assert operation.verdicts[-1].day == THIRD


def test_asking_changes_nothing(story: Story) -> None:
    home = story.project.settings.home
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*.parquet")}
    explain(story.project, story.one("landline"))
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*.parquet")} == before
