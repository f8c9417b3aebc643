"""Column lineage: whatever leaves can be followed back to a column of a landed feed."""

import dagster as dg
import pytest

from vibes_pipelines.orchestration.keys import (
    CRM_WRITE_BACK,
    FEEDS,
    OPT_OUTS,
    PERSON_CHANGES,
    PERSON_IMPORT,
)
from vibes_pipelines.orchestration.lineage import (
    delivery_lineage,
    diff_set_lineage,
    field_column,
    lineage_metadata,
    schema_of,
)
from vibes_pipelines.sync_config import load_sync_config
from vibes_pipelines_tests.support.loop import EXAMPLE

CONFIG = load_sync_config(EXAMPLE)
DIFF_SET, DELIVERIES = diff_set_lineage(CONFIG), delivery_lineage(CONFIG)
FEED_OF = {key: feed for feed, key in FEEDS.items()}


def landed(key: dg.AssetKey, column: str) -> set[tuple[str, str]]:
    """The landed columns that a column comes from, over as many steps as there are."""
    if key in FEED_OF:
        return {(FEED_OF[key], column)}
    sources = {**DIFF_SET, **DELIVERIES}[key][column]
    return {found for source in sources for found in landed(*source)}


@pytest.mark.parametrize("field", CONFIG.fields, ids=lambda field: field.to)
def test_an_import_column_comes_from_its_crm_and_share_column(field: object) -> None:
    to, from_ = getattr(field, "to"), getattr(field, "from_")  # noqa: B009 - a pydantic model
    assert [*DELIVERIES[PERSON_IMPORT][to]] == [(PERSON_CHANGES, field_column(to))]
    assert landed(PERSON_IMPORT, to) == {("crm/contacts", from_), ("share/persons", to)}


def test_everything_that_leaves_leads_to_a_landed_feed() -> None:
    for key, sources in DELIVERIES.items():
        for column in sources:
            assert landed(key, column), (key, column)


def test_an_opt_out_leads_to_the_extract_too() -> None:
    feeds = {feed for feed, _ in landed(OPT_OUTS, "subscription_list_id")}
    assert feeds == {"share/subscriptions", "extract/subscriptions"}
    written = {feed for feed, _ in landed(CRM_WRITE_BACK, CONFIG.consents[0].from_)}
    assert written == {"share/subscriptions", "extract/subscriptions", "crm/contacts"}


def test_the_ui_tells_in_words_what_a_column_is_made_from() -> None:
    sources = DELIVERIES[PERSON_IMPORT]
    shown = lineage_metadata(schema_of(sources), sources)["dagster/column_schema"]
    assert isinstance(shown, dg.TableSchemaMetadataValue)
    told = {column.name: column.description for column in shown.schema.columns}
    assert told["tier"] == "From reconcile/person_changes: changes.tier."
