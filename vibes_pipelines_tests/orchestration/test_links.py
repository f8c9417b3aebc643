"""Every source, step and check leads to a page that says more, and no link leads nowhere."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph

from vibes_pipelines.orchestration import links
from vibes_pipelines.orchestration.build import build_defs
from vibes_pipelines.orchestration.freshness import look


@pytest.fixture
def graph() -> BaseAssetGraph[Any]:
    """As a process of its own would load it: links are made when the definitions are."""
    return build_defs().get_repository_def().asset_graph


def _headings(page: Path) -> set[str]:
    lines = page.read_text(encoding="utf-8").splitlines()
    titles = [line.lstrip("# ").lower() for line in lines if re.match("#+ ", line)]
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", title).strip()) for title in titles}


def _assert_leads_to_a_heading(address: object) -> None:
    parts = urlsplit(str(address))
    page = Path(unquote(parts.path))
    assert parts.scheme == "file"
    assert parts.fragment in _headings(page), address


def _url(metadata: Mapping[str, Any], name: str) -> str:
    return str(metadata[name].value)


def test_every_source_and_feed_leads_to_its_contract(graph: BaseAssetGraph[Any]) -> None:
    outside = [node for node in graph.asset_nodes if node.group_name == "outside"]
    assert len(outside) == len(links.CONTRACTS)
    assert len({_url(node.metadata, "contract") for node in outside}) == len(outside)
    landed = [n for n in graph.asset_nodes if n.group_name in {"share", "extract", "crm"}]
    for node in (*outside, *landed):
        _assert_leads_to_a_heading(_url(node.metadata, "contract"))


def test_every_step_leads_to_its_runbook(graph: BaseAssetGraph[Any]) -> None:
    made = [node for node in graph.asset_nodes if node.is_materializable]
    assert made
    for node in made:
        _assert_leads_to_a_heading(_url(node.metadata, "runbook"))


def test_every_check_leads_to_its_runbook(graph: BaseAssetGraph[Any]) -> None:
    names = {key.name for key in graph.asset_check_keys}
    assert names == links.RUNBOOKS_OF_CHECKS.keys()
    for name in names:
        _assert_leads_to_a_heading(_url(links.check_link(name), "runbook"))


def test_a_check_that_fails_shows_its_runbook() -> None:
    failed = look([], datetime(2026, 1, 2, 12, tzinfo=UTC))
    assert not failed.passed
    _assert_leads_to_a_heading(_url(failed.metadata, "runbook"))


def test_where_the_documentation_is_served_the_links_lead_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(links.DOCS_URL, "https://pages.example/docs/")
    expected = "https://pages.example/docs/operations.html#a-held-diff-set"
    assert links.address_of("operations#a-held-diff-set") == expected


def test_what_holds_personal_data_is_tagged(graph: BaseAssetGraph[Any]) -> None:
    """All but the reports, which hold counts and masks."""
    tagged = {node.key for node in graph.asset_nodes if node.tags.get("pii") == "true"}
    assert {n.key for n in graph.asset_nodes} - tagged == {
        node.key for node in graph.asset_nodes if node.group_name == "report"
    }
