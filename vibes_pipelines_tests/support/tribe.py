"""A Tribe of the sandbox for tests: served on the loopback, with a client that keeps its clock."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vibes_pipelines.sandbox.tribe_sandbox import TribeSandbox
from vibes_pipelines.sandbox.tribe_schema import CUSTOM
from vibes_pipelines.sandbox.tribe_switches import TribeSwitches
from vibes_pipelines.sandbox.world import World
from vibes_pipelines.settings import Settings
from vibes_pipelines.tribe.api import Patience
from vibes_pipelines.tribe.client import TribeClient
from vibes_pipelines.tribe.clock import MachineClock
from vibes_pipelines_tests.support.loop import EXAMPLE, Loop, running_loop

OFFERS_LABEL = "Offers by SMS"
OFFERS = f"label:{OFFERS_LABEL}"


def tribe_settings(tribe: TribeSandbox, **environment: str) -> Settings:
    return Settings({**tribe.environment(), **environment})


def tribe_client(
    tribe: TribeSandbox, speed: float = 1.0, patience: Patience | None = None, **environment: str
) -> TribeClient:
    """A client whose clock runs as fast as the sandbox's limits."""
    settings = tribe_settings(tribe, **environment)
    return TribeClient(settings.tribe, MachineClock(speed), patience=patience)


def tribe_sync_config(folder: Path, extra: str = "") -> Path:
    """The example's sync config with Tribe's persons as its contacts.

    They are known by the key of the other CRM, so that the sandbox's persons at Vibes are theirs.
    """
    text = EXAMPLE.read_text(encoding="utf-8")
    begin, end = text.index("contacts:"), text.index("guards:")
    mapped = f"""contacts:
  source: tribe
  key: ImportId
  mdn: {{column: MobilePhoneNumber, default_region: US}}
  conditions: [{{column: {CUSTOM["customer_type"]}, equals: A}}]
  tribe: {{labels: [VIP]{extra}}}
fields:
  - {{from: FirstName, to: first_name, type: string}}
  - {{from: LastName,  to: last_name,  type: string}}
  - {{from: BirthDate, to: birthdate,  type: date}}
  - {{from: {CUSTOM["score"]}, to: score, type: number, authority: fill}}
  - from: {CUSTOM["tier"]}
    to: tier
    type: single_select
    options: {{Gold: gold, Silver: silver, Bronze: bronze}}
  - {{from: {CUSTOM["zip"]}, to: zip_code, type: postal_code}}
consents:
  - {{from: "{OFFERS}", list: "1234", channel: sms, changed_at: "label_since:{OFFERS_LABEL}"}}
"""
    path = folder / "sync.yaml"
    path.write_text(text[:begin] + mapped + text[end:], encoding="utf-8")
    return path


@contextmanager
def running_tribe_loop(
    home: Path, world: World, switches: TribeSwitches | None = None, *, extra: str = "", **env: str
) -> Iterator[tuple[Loop, TribeSandbox]]:
    """The Vibes loop whose contacts come from a Tribe with a person for each of the world's."""
    config = tribe_sync_config(home, extra)
    with (
        running_loop(home, world, config) as loop,
        TribeSandbox(world.contacts, switches, now=loop.sandbox.clock) as tribe,
        loop.changed(**tribe.environment(), **env) as changed,
    ):
        yield changed, tribe
