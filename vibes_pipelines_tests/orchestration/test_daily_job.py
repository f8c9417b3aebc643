"""The daily job as Dagster runs it, against a sandbox: what is made, held, delivered and shown."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
import yaml

from vibes_pipelines.orchestration.build import build_defs
from vibes_pipelines.orchestration.jobs import DELIVERIES as DELIVERED
from vibes_pipelines.orchestration.jobs import delivery_run_config
from vibes_pipelines.orchestration.keys import (
    API_PUSH,
    CERTIFICATE,
    CRM_CHANGES,
    CRM_WRITE_BACK,
    FEEDS,
    INVITES,
    OPT_OUTS,
    PERSON_CHANGES,
    PERSON_IMPORT,
    QUARANTINE,
    REJECTED,
    REPORT,
    REPORT_DRAFT,
    SUBSCRIPTION_CHANGES,
)
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.stages.delivering import approve
from vibes_pipelines.stages.reconciling import read_summary
from vibes_pipelines_tests.support.loop import EXAMPLE, Loop, running_loop

TABLES = {
    *FEEDS.values(),
    CERTIFICATE,
    PERSON_CHANGES,
    SUBSCRIPTION_CHANGES,
    CRM_CHANGES,
    QUARANTINE,
}
DELIVERIES = {OPT_OUTS, CRM_WRITE_BACK, PERSON_IMPORT, API_PUSH, INVITES, REJECTED}

# A first name that is nobody's, and no word of ours.
CANARY = "Xylophonius"


@dataclass
class Run:
    """A finished run and what its event log holds."""

    run_id: str
    succeeded: bool
    instance: dg.DagsterInstance

    @property
    def entries(self) -> list[dg.EventLogEntry]:
        return list(self.instance.all_logs(self.run_id))

    @property
    def events(self) -> list[dg.DagsterEvent]:
        return [entry.dagster_event for entry in self.entries if entry.dagster_event]

    @property
    def materialized(self) -> dict[dg.AssetKey, dict[str, dg.MetadataValue]]:
        return {
            event.asset_key: dict(event.step_materialization_data.materialization.metadata)
            for event in self.events
            if event.is_step_materialization and event.asset_key
        }

    @property
    def red(self) -> dict[str, str | None]:
        """Failed checks, and what they say."""
        return {check.check_name: check.description for check in self.failed_checks}

    @property
    def failed_checks(self) -> list[dg.AssetCheckEvaluation]:
        found = [
            event.asset_check_evaluation_data
            for event in self.events
            if event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION
        ]
        return [check for check in found if not check.passed]

    @property
    def text(self) -> str:
        """Everything that a user of the UI could read of the run."""
        return "\n".join(
            f"{dg.serialize_value(entry)}\n{entry.user_message}" for entry in self.entries
        )


def _run(instance: dg.DagsterInstance, job: str, day: str, *, dry_run: bool = False) -> Run:
    deliveries = (API_PUSH,) if job == "api_push" else DELIVERED
    config = delivery_run_config(dry_run=dry_run, deliveries=deliveries)
    quiet = {"console": {"config": {"log_level": "CRITICAL"}}}
    result = (
        build_defs()
        .resolve_job_def(job)
        .execute_in_process(
            instance=instance,
            partition_key=day,
            run_config=dg.RunConfig(ops=config.ops, loggers=quiet),
            raise_on_error=False,
        )
    )
    return Run(result.run_id, result.success, instance)


@dataclass
class TwoDays:
    """Two days of one small company, run by run."""

    loop: Loop
    dry: Run
    held: Run
    effects_while_held: int
    repushed: Run
    effects_after: int
    second: Run
    rebuilt: Run

    @property
    def runs(self) -> list[Run]:
        return [self.dry, self.held, self.repushed, self.second, self.rebuilt]


@pytest.fixture(scope="module")
def two_days(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoDays]:
    home = tmp_path_factory.mktemp("two-days")
    with (
        running_loop(home, build_world(400, seed=5)) as loop,
        dg.DagsterInstance.ephemeral() as instance,
    ):
        with loop.sandbox.crm.edit() as crm:
            crm.update(1, {"first_name": CANARY})
        dry = _run(instance, "reconcile_daily", loop.today, dry_run=True)
        held = _run(instance, "reconcile_daily", loop.today)
        while_held = loop.sandbox.platform.audit.effects()
        diff_set = read_summary(loop.project, loop.today).diff_set
        approve(loop.project, diff_set, "looked at in a test")
        repushed = _run(instance, "repush", loop.today)
        after = loop.sandbox.platform.audit.effects()
        delivered = loop.today
        loop.sandbox.next_day()
        second = _run(instance, "reconcile_daily", loop.today)
        rebuilt = _run(instance, "api_push", delivered, dry_run=True)
        yield TwoDays(loop, dry, held, while_held, repushed, after, second, rebuilt)


def test_the_first_day_is_held_by_its_guard_checks_and_sends_nothing(two_days: TwoDays) -> None:
    assert not two_days.held.succeeded
    assert set(two_days.held.materialized) == TABLES | {REPORT_DRAFT}
    assert set(two_days.held.red) == {"person_changes_within_guards", "opt_outs_within_guards"}
    for said in two_days.held.red.values():
        assert said is not None
        assert "first run" in said
        assert "vibes-pipelines approve" in said
    assert two_days.effects_while_held == 0


def test_a_red_guard_shows_what_to_launch_to_release_the_diff_set(two_days: TwoDays) -> None:
    project = two_days.loop.project
    first = project.snapshots.days("crm/contacts")[0]
    diff_set = read_summary(project, first).diff_set
    job = build_defs().resolve_job_def("approve")
    assert two_days.held.failed_checks
    for check in two_days.held.failed_checks:
        told = str(check.metadata["to_release"].value)
        pasted = yaml.safe_load(told.split("```")[1].removeprefix("yaml"))
        dg.validate_run_config(job, pasted)
        config = pasted["ops"]["approve_diff_set"]["config"]
        assert len(config["diff_set"]) >= 6
        assert diff_set.startswith(config["diff_set"])


def test_an_approval_turns_the_guards_green_and_a_repush_delivers(two_days: TwoDays) -> None:
    assert two_days.repushed.succeeded
    assert two_days.repushed.red == {}
    assert set(two_days.repushed.materialized) == DELIVERIES | {REPORT}
    assert two_days.effects_after > 0
    pushed = two_days.repushed.materialized[API_PUSH]
    assert pushed["dry_run"].value is False
    assert _number(pushed["accepted"]) > 0
    assert _number(pushed["planned"]) == _number(pushed["accepted"]) + _number(pushed["rejected"])
    took = [pushed[name].value for name in ("estimated_s", "actual_s")]
    assert all(isinstance(seconds, float) and seconds > 0 for seconds in took)
    assert "| answered | after s | per s |" in str(pushed["progress"].value)


def test_what_could_not_be_delivered_is_shown_row_by_row(two_days: TwoDays) -> None:
    shown = two_days.repushed.materialized[REJECTED]
    pushed = two_days.repushed.materialized[API_PUSH]
    imported = two_days.repushed.materialized[PERSON_IMPORT]
    refused = sum(_number(made["rejected"]) for made in (pushed, imported) if "rejected" in made)
    assert _number(shown["dagster/partition_row_count"]) == refused > 0
    advised = str(shown["by_error_class"].value)
    assert f"rows: {refused}" in advised
    assert "correct it in the CRM" in " ".join(advised.split())
    assert max(map(len, advised.splitlines())) < 60
    assert CANARY not in str(shown["preview"].value)


def test_the_second_day_goes_through_without_a_person(two_days: TwoDays) -> None:
    assert two_days.second.succeeded
    assert two_days.second.red == {}
    assert set(two_days.second.materialized) == TABLES | DELIVERIES | {REPORT_DRAFT, REPORT}
    certificate = two_days.second.materialized[CERTIFICATE]
    assert _number(certificate["confirmed"]) > 0
    assert _number(certificate["unexplained"]) == 0


@pytest.mark.parametrize("key", sorted(TABLES), ids=lambda key: "_".join(key.path))
def test_every_table_shows_its_rows_columns_and_a_masked_preview(
    two_days: TwoDays, key: dg.AssetKey
) -> None:
    shown = two_days.second.materialized[key]
    rows = _number(shown["dagster/partition_row_count"])
    schema = shown["dagster/column_schema"]
    assert isinstance(schema, dg.TableSchemaMetadataValue)
    # A field inside `changes` has a column of its own in the schema, and none in the file.
    names = [c.name for c in schema.schema.columns if not c.name.startswith("changes.")]
    assert Path(str(shown["dagster/uri"].value)).is_file()
    preview = str(shown["preview"].value).splitlines()
    if rows == 0:
        assert preview == ["no rows"]
        return
    assert preview[0] == f"| {' | '.join(names)} |"
    assert len(preview) == 2 + min(rows, 5)
    masked = [name for name in names if name in {"mdn", "external_person_id", "contact_id"}]
    for line in preview[2:]:
        cells = dict(zip(names, line.strip("| ").split(" | "), strict=False))
        assert all(re.fullmatch(r"(#[0-9a-f]{8})?", cells[name].strip()) for name in masked)


@pytest.mark.parametrize("key", sorted(TABLES - {CERTIFICATE}), ids=lambda key: "_".join(key.path))
def test_the_columns_name_where_they_come_from(two_days: TwoDays, key: dg.AssetKey) -> None:
    lineage = two_days.second.materialized[key]["dagster/column_lineage"]
    assert isinstance(lineage, dg.TableColumnLineageMetadataValue)
    parents = build_defs().get_repository_def().asset_graph.get(key).parent_keys
    made_from = [dep for deps in lineage.column_lineage.deps_by_column.values() for dep in deps]
    assert made_from
    assert {dep.asset_key for dep in made_from} <= parents


def test_nothing_personal_is_in_the_event_log(two_days: TwoDays) -> None:
    texts = [run.text for run in two_days.runs]
    assert all("person_changes" in text for text in texts)
    personal = _personal(two_days.loop)
    assert len(personal) > 1000
    told = re.compile("|".join(sorted(map(re.escape, personal), key=len, reverse=True)))
    assert {match for text in texts for match in told.findall(text)} == set()


def test_a_dry_run_is_the_default_and_has_no_effect(two_days: TwoDays) -> None:
    assert not two_days.dry.succeeded  # the guards hold a dry run like any other
    assert two_days.effects_while_held == 0


def test_a_breach_of_the_person_guards_holds_no_opt_out(tmp_path: Path) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    strict = tmp_path / "sync.yaml"
    strict.write_text(
        re.sub(r"updates: +\{max_rows: \d+", "updates: {max_rows: 1", text), encoding="utf-8"
    )
    with (
        running_loop(tmp_path, build_world(400, seed=5), strict) as loop,
        dg.DagsterInstance.ephemeral() as instance,
    ):
        loop.day(approve=True)
        loop.sandbox.next_day()
        before = loop.sandbox.platform.audit.effects("api_unsubscribe")
        run = _run(instance, "reconcile_daily", loop.today)
        made = run.materialized
        assert set(run.red) == {"person_changes_within_guards"}
        assert {PERSON_IMPORT, API_PUSH}.isdisjoint(made)
        assert _number(made[OPT_OUTS]["accepted"]) > 0
        assert loop.sandbox.platform.audit.effects("api_unsubscribe") > before


def _number(value: object) -> int:
    assert isinstance(value, dg.IntMetadataValue)
    assert value.value is not None
    return value.value


def _personal(loop: Loop) -> set[str]:
    """Values of the population that stand for one person: numbers, keys, the canary's name."""
    found = {CANARY}
    for person in loop.sandbox.platform.persons.values():
        found |= {person.person_key, person.external_person_id or "", (person.mdn or "")[2:]}
    for row in loop.sandbox.crm.rows():
        found |= {str(row["contact_id"]), str(row["mobile"] or "")}
    return {value for value in found if len(value) >= 6}


def test_each_day_has_its_page_and_its_numbers(two_days: TwoDays) -> None:
    names = {"adds", "updates", "opt_outs", "rejects", "quarantine"}
    for run, key in ((two_days.held, REPORT_DRAFT), (two_days.second, REPORT)):
        shown = run.materialized[key]
        page = Path(str(shown["report"].value))
        assert page.is_file()
        assert page.with_name("index.html").is_file()
        assert all(_number(shown[name]) >= 0 for name in names)
        assert str(shown["trends"].value).count("data:image/svg+xml;base64,") == 6
    convergence = two_days.second.materialized[REPORT]["convergence"]
    assert isinstance(convergence, dg.FloatMetadataValue)
    assert 0 <= (convergence.value or 0) <= 1


def test_every_partition_says_what_made_it_and_how_long_it_took(two_days: TwoDays) -> None:
    for key, shown in two_days.second.materialized.items():
        told = {"config_hash", "mapping_hash", "config_version", "seconds", "report", "runbook"}
        assert told <= shown.keys(), key
        assert shown.keys() & {"content_hash", "diff_set"}, key


def test_a_dry_run_of_a_delivered_day_still_shows_what_became_of_it(two_days: TwoDays) -> None:
    again, sent = (run.materialized[API_PUSH] for run in (two_days.rebuilt, two_days.repushed))
    assert again["dry_run"].value is True
    assert again["diff_set"] == sent["diff_set"]
    for name in ("accepted", "rejected"):
        assert _number(again[name]) == _number(sent[name])
    assert f"| accepted | {_number(sent['accepted'])} |" in str(again["ledger"].value)
