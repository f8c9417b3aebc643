"""The environment: what is needed is named, and secrets are never printed."""

from pathlib import Path

import pytest

from vibes_pipelines.settings import Settings, SettingsError

API = {"VIBES_API_URL": "http://localhost", "VIBES_API_USER": "u@example.com"}


def test_a_missing_variable_is_named_with_an_example() -> None:
    with pytest.raises(SettingsError, match=r"CRM_URL is not set; example: postgresql"):
        _ = Settings({}).crm_url


def test_a_setting_that_is_not_asked_for_is_not_needed() -> None:
    assert Settings({"CRM_URL": "sqlite://"}).crm_url == "sqlite://"


def test_a_password_is_not_printed() -> None:
    api = Settings({**API, "VIBES_API_PASSWORD": "s3cret-s3cret"}).api
    assert "s3cret" not in repr(api)
    assert api.password.get_secret_value() == "s3cret-s3cret"


def test_a_home_below_the_users_is_found() -> None:
    named = Settings({"VIBES_HOME": "~/data", "VIBES_SYNC_CONFIG": "~/sync.yaml"})
    assert (named.home, named.sync_config) == (Path.home() / "data", Path.home() / "sync.yaml")


def test_a_port_must_be_a_number() -> None:
    environment = {**API, "VIBES_API_PASSWORD": "x", "VIBES_API_RATE_PER_S": "fast"}
    with pytest.raises(SettingsError, match="VIBES_API_RATE_PER_S must be a whole number"):
        _ = Settings(environment).api


@pytest.mark.parametrize("rate", ["0", "00", "-1", "\u00b2"])
def test_the_api_takes_at_least_one_call_a_second(rate: str) -> None:
    environment = {**API, "VIBES_API_PASSWORD": "x", "VIBES_API_RATE_PER_S": rate}
    with pytest.raises(SettingsError, match="must be a whole number of 1 or more"):
        _ = Settings(environment).api


def test_the_share_needs_a_password_or_a_key() -> None:
    with pytest.raises(SettingsError, match="SNOWFLAKE_PASSWORD or SNOWFLAKE_PRIVATE_KEY_PATH"):
        _ = Settings({"SNOWFLAKE_ACCOUNT": "a", "SNOWFLAKE_USER": "u"}).share
