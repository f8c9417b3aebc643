"""A stranger's first hour: an own CRM with other names, from nothing to an approved delivery."""

import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from vibes_pipelines.cli.env_file import env_file
from vibes_pipelines.cli.main import main
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.sandbox.service import Sandbox
from vibes_pipelines.settings import Settings
from vibes_pipelines.stages.project import open_project
from vibes_pipelines_tests.support.customers import fill_customers
from vibes_pipelines_tests.support.loop import Loop

pytestmark = pytest.mark.postgresql


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_from_an_own_crm_to_the_first_approved_delivery(
    postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Sandbox(tmp_path / "sandbox", build_world(120, seed=6)) as sandbox:
        fill_customers(postgresql_url, sandbox.crm.rows())
        for name, value in sandbox.environment().items():
            if name not in {"CRM_URL", "VIBES_HOME", "VIBES_LEDGER_URL"}:
                monkeypatch.setenv(name, value)
        for name in (
            "CRM_URL",
            "VIBES_HOME",
            "VIBES_LEDGER_URL",
            "VIBES_SYNC_CONFIG",
            "DAGSTER_HOME",
        ):
            monkeypatch.delenv(name, raising=False)
        folder, day = tmp_path / "new", sandbox.today.isoformat()

        made = run(
            "init", "--crm-url", postgresql_url, "--company-key", "A1b2C3", "--out", str(folder)
        )
        assert made.exit_code == 0, made.output
        assert " fields, 1 consent; " in made.output
        assert "next: " in made.output
        assert postgresql_url not in made.output
        monkeypatch.chdir(folder)

        config = folder / "sync.yaml"
        text = config.read_text(encoding="utf-8")
        assert "table: customers" in text
        assert "key: customer_no" in text
        for guessed in (
            "from: given_name, to: first_name, type: string",
            "from: born_on, to: birthdate, type: date",
            "from: loyalty_level, to: tier, type: single_select",
            "from: hobbies, to: interests, type: multi_select",
            "column: cell_phone, default_region: US",
            'from: sms_consent, list: "1234"',
            "changed_at: sms_consent_changed_at",
            "from: post_code, to: zip_code, type: postal_code",
        ):
            assert guessed in text, text

        # The edit: whom to sync, what a lost option means, and a slip of the finger.
        text = text.replace(
            "  # conditions: [{column: customer_type, equals: A}]",
            "  conditions: [{column: knd, equals: A}]",
        )
        config.write_text(text, encoding="utf-8")
        unwell = run("doctor", "--day", day)
        assert unwell.exit_code == 1, unwell.output
        assert f"read from {folder / '.env'}" in unwell.stderr
        assert "contacts.conditions[0].column: customers has no column 'knd'" in unwell.stdout
        assert "crm/key                  waits for crm/columns" in unwell.stdout
        config.write_text(text.replace("column: knd", "column: kind"), encoding="utf-8")
        well = run("doctor", "--day", day)
        assert well.exit_code == 0, well.output
        assert "next: vibes-pipelines preview" in well.stdout

        shown = run("preview", "--day", day)
        assert shown.exit_code == 0, shown.output
        assert "held: persons: first run" in shown.stdout
        assert "nothing was landed or sent" in shown.stdout
        assert not (folder / ".vibes" / "data" / "landing").exists()

        before = sandbox.audit()
        with env_file() as read, open_project(Settings(dict(os.environ))) as project:
            assert read == folder / ".env"
            loop = Loop(sandbox, project, dict(os.environ))
            summary = loop.reconcile()
            assert f" {summary.added:,}\n" in shown.stdout
            released = run("approve", summary.diff_set[:12], "--reason", "looked at the preview")
            assert released.exit_code == 0, released.output
            loop.deliver()
            accepted = project.ledger.last_delivered()
            assert accepted is not None
            assert accepted.approved_reason == "looked at the preview"
        assert sandbox.audit() != before
        after = run("preview", "--day", day)
        told = ("went already\n  accepted ", "would go\n  nothing\n  cost: 0 API calls, 0 import")
        for line in (*told, "nothing is left of this day"):
            assert line in after.stdout, after.output
        assert not re.search("by API:|next: |samples, masked", after.stdout)


def test_the_environment_wins_over_the_file_and_is_as_it_was_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBES_HOME", "mine")
    monkeypatch.delenv("CRM_URL", raising=False)
    path = tmp_path / ".env"
    path.write_text("VIBES_HOME=theirs\nCRM_URL='sqlite:///a b.db'  # ours\nVIBES_API_URL=\n")
    with env_file(path) as read:
        assert read == path
        assert (os.environ["VIBES_HOME"], os.environ["CRM_URL"]) == ("mine", "sqlite:///a b.db")
        assert "VIBES_API_URL" not in os.environ
    assert "CRM_URL" not in os.environ


def test_the_demo_and_the_sandbox_never_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("VIBES_HOME=theirs\n")
    assert "are read from" not in run("sandbox", "up", "--persons", "0").stderr
    assert "are read from" not in run("doctor", "--help").stderr
