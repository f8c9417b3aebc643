"""Settings: where things are, read from the environment once.

Hosts, folders and secrets belong here; what is synchronised belongs in `sync.yaml`
(`sync_config`). Secrets are `SecretStr`, so that printing a setting cannot print them.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import SecretStr


class SettingsError(ValueError):
    """A setting is missing or malformed; the message names the variable and an example."""


@dataclass(frozen=True)
class ApiSettings:
    """The Vibes API. `rate_per_s` is the platform's limit per company key.

    `opt_out_share_per_s` of it is for opt-outs while they leave beside another job.
    """

    url: str
    user: str
    password: SecretStr
    rate_per_s: int
    opt_out_share_per_s: int

    @property
    def opt_out_rate_per_s(self) -> int:
        """What opt-outs beside another job may take: the share, at most half of the limit."""
        return max(1, min(self.opt_out_share_per_s, self.rate_per_s // 2))

    @property
    def bulk_rate_per_s(self) -> int:
        """What all else may take meanwhile. A limit of one a second is not shared: it cannot be."""
        return max(min(1, self.rate_per_s), self.rate_per_s - self.opt_out_rate_per_s)


@dataclass(frozen=True)
class SftpSettings:
    """The Vibes SFTP account. `gap_s`: the least seconds between two connections."""

    host: str
    port: int
    user: str
    key_file: Path
    known_hosts: Path
    gap_s: float
    import_dir: str
    report_dir: str
    extract_dir: str


@dataclass(frozen=True)
class ShareSettings:
    """The Snowflake account that sees the share; `host` and `port` only for a stand-in."""

    account: str
    user: str
    password: SecretStr | None
    private_key_path: Path | None
    private_key_passphrase: SecretStr | None
    warehouse: str | None
    role: str | None
    database: str | None
    schema: str | None
    host: str | None
    port: int | None
    protocol: str | None


@dataclass(frozen=True)
class TribeSettings:
    """The Tribe CRM application (client credentials) and how its webhooks are signed.

    `calls_per_min` is Tribe's limit per application and environment. `label_write` says how a
    label is taken off: the one alone, or by writing the list of all others; Tribe's documentation
    is silent.
    """

    api_url: str
    auth_url: str
    client_id: str
    client_secret: SecretStr
    organization_id: str | None = None
    calls_per_min: int = 1000
    label_write: Literal["one", "replace"] = "one"


@dataclass(frozen=True)
class TribeWebhookSettings:
    """The secret of the webhook, and the header in which Tribe sends the signature."""

    secret: SecretStr
    header: str


@dataclass(frozen=True)
class ApsisSettings:
    """The APSIS One account. `url` is the host of its region: EU or APAC."""

    url: str
    client_id: str
    client_secret: SecretStr


class Settings:
    """The environment, read lazily: a command needs only the settings that it uses."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = os.environ if environment is None else environment

    @property
    def home(self) -> Path:
        """The data folder: snapshots, diff sets, the ledger."""
        return Path(self._get("VIBES_HOME", ".vibes")).expanduser().absolute()

    @property
    def has_simulated_days(self) -> bool:
        """Whether the days are a sandbox's, of which the clock of this machine knows nothing."""
        return self._environment.get("VIBES_SIMULATED_DAYS") == "1"

    def of_destination(self, name: str) -> "Settings":
        """The same environment with the data folder and the ledger of another destination.

        The ledger is at `VIBES_<NAME>_LEDGER_URL`, by default a SQLite file in that folder.
        """
        home = self.home / name
        ledger_url = self._get(f"VIBES_{name.upper()}_LEDGER_URL", f"sqlite:///{home}/ledger.db")
        own = {
            "VIBES_HOME": str(home),
            "VIBES_LEDGER_URL": ledger_url,
            "VIBES_INBOX_URL": self.ledger_url,
            "VIBES_KEYS_HOME": str(self.home),
        }
        return Settings({**self._environment, **own})

    @property
    def keys_home(self) -> Path:
        """The folder with the key by which erased people are known: one for all destinations."""
        return Path(self._get("VIBES_KEYS_HOME", str(self.home)))

    @property
    def inbox_url(self) -> str:
        """The SQLAlchemy URL of the inbox: one for all destinations, in the ledger of Vibes."""
        return self._get("VIBES_INBOX_URL", self.ledger_url)

    @property
    def sync_config(self) -> Path:
        """The path of `sync.yaml`."""
        return Path(self._get("VIBES_SYNC_CONFIG", "sync.yaml")).expanduser().absolute()

    @property
    def ledger_url(self) -> str:
        """The SQLAlchemy URL of the ledger; may hold a password."""
        return self._get("VIBES_LEDGER_URL", f"sqlite:///{self.home / 'ledger.db'}")

    @property
    def crm_url(self) -> str:
        """The SQLAlchemy URL of the CRM; may hold a password."""
        return self._require("CRM_URL", "postgresql+psycopg://reader@crm.internal/crm")

    @property
    def api(self) -> ApiSettings:
        """The Vibes API account."""
        return ApiSettings(
            url=self._require("VIBES_API_URL", "https://public-api.vibescm.com"),
            user=self._require("VIBES_API_USER", "integration@your-company.com"),
            password=SecretStr(self._require("VIBES_API_PASSWORD", "from your secret store")),
            rate_per_s=self._whole("VIBES_API_RATE_PER_S", 100, least=1),
            opt_out_share_per_s=self._whole("VIBES_API_OPT_OUTS_PER_S", 2),
        )

    @property
    def sftp(self) -> SftpSettings:
        """The Vibes SFTP account."""
        return SftpSettings(
            host=self._require("VIBES_SFTP_HOST", "the host of your account"),
            port=self._whole("VIBES_SFTP_PORT", 22),
            user=self._require("VIBES_SFTP_USER", "the user of your account"),
            key_file=self._path("VIBES_SFTP_KEY_FILE", "~/.ssh/vibes_ed25519"),
            known_hosts=self._path("VIBES_SFTP_KNOWN_HOSTS", "~/.ssh/known_hosts"),
            gap_s=float(self._whole("VIBES_SFTP_GAP_S", 300)),
            import_dir=self._get("VIBES_IMPORT_DIR", "/files/in"),
            report_dir=self._get("VIBES_REPORT_DIR", "/files/reports"),
            extract_dir=self._get("VIBES_EXTRACT_DIR", "/files/out"),
        )

    @property
    def share(self) -> ShareSettings:
        """The Snowflake account of the share."""
        password = self._environment.get("SNOWFLAKE_PASSWORD")
        key = self._environment.get("SNOWFLAKE_PRIVATE_KEY_PATH")
        if not password and not key:
            msg = "set SNOWFLAKE_PASSWORD or SNOWFLAKE_PRIVATE_KEY_PATH to reach the share"
            raise SettingsError(msg)
        passphrase = self._environment.get("SNOWFLAKE_PRIVATE_KEY_PASSPHRASE")
        port = self._environment.get("SNOWFLAKE_PORT")
        return ShareSettings(
            account=self._require("SNOWFLAKE_ACCOUNT", "your-organisation-account"),
            user=self._require("SNOWFLAKE_USER", "VIBES_READER"),
            password=SecretStr(password) if password else None,
            private_key_path=Path(key).expanduser() if key else None,
            private_key_passphrase=SecretStr(passphrase) if key and passphrase else None,
            warehouse=self._environment.get("SNOWFLAKE_WAREHOUSE"),
            role=self._environment.get("SNOWFLAKE_ROLE"),
            database=self._environment.get("SNOWFLAKE_DATABASE"),
            schema=self._environment.get("SNOWFLAKE_SCHEMA"),
            host=self._environment.get("SNOWFLAKE_HOST"),
            port=self._whole("SNOWFLAKE_PORT", 0) if port else None,
            protocol=self._environment.get("SNOWFLAKE_PROTOCOL"),
        )

    @property
    def tribe(self) -> TribeSettings:
        """The Tribe CRM application."""
        return TribeSettings(
            api_url=self._get("TRIBE_API_URL", "https://api.tribecrm.nl"),
            auth_url=self._get("TRIBE_AUTH_URL", "https://auth.tribecrm.nl"),
            client_id=self._require("TRIBE_CLIENT_ID", "from Configuration > API of Tribe"),
            client_secret=SecretStr(self._require("TRIBE_CLIENT_SECRET", "from your secret store")),
            organization_id=self._environment.get("TRIBE_ORGANIZATION_ID") or None,
            calls_per_min=self._whole("TRIBE_CALLS_PER_MIN", 1000) or 1000,
            label_write=self._label_write(),
        )

    @property
    def tribe_webhook(self) -> TribeWebhookSettings | None:
        """How Tribe signs its webhooks; None when no secret is set, and none is accepted."""
        secret = self._environment.get("TRIBE_WEBHOOK_SECRET")
        if not secret:
            return None
        header = self._get("TRIBE_WEBHOOK_HEADER", "X-Tribe-Signature")
        return TribeWebhookSettings(SecretStr(secret), header)

    def _label_write(self) -> Literal["one", "replace"]:
        match self._get("TRIBE_LABEL_WRITE", "one"):
            case "one":
                return "one"
            case "replace":
                return "replace"
            case other:
                msg = f"TRIBE_LABEL_WRITE must be one or replace, not {other!r}"
                raise SettingsError(msg)

    @property
    def apsis(self) -> ApsisSettings:
        """The APSIS One account."""
        return ApsisSettings(
            url=self._require("APSIS_API_URL", "https://api.apsis.one"),
            client_id=self._require("APSIS_CLIENT_ID", "of an API key in APSIS One"),
            client_secret=SecretStr(self._require("APSIS_CLIENT_SECRET", "from your secret store")),
        )

    def _get(self, name: str, default: str) -> str:
        return self._environment.get(name) or default

    def _require(self, name: str, example: str) -> str:
        value = self._environment.get(name)
        if not value:
            msg = f"{name} is not set; example: {example}. See .env.example"
            raise SettingsError(msg)
        return value

    def _path(self, name: str, example: str) -> Path:
        return Path(self._require(name, example)).expanduser()

    def _whole(self, name: str, default: int, *, least: int = 0) -> int:
        text = self._get(name, str(default))
        if not text.isdecimal() or int(text) < least:
            msg = f"{name} must be a whole number of {least} or more, not {text!r}"
            raise SettingsError(msg)
        return int(text)
