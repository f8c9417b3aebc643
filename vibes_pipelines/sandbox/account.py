"""A company's account: everything that the platform keeps for it beside the mobile database."""

from collections.abc import Callable
from typing import Any

from vibes_pipelines.sandbox.acquisition import Acquisition
from vibes_pipelines.sandbox.activity import Activity
from vibes_pipelines.sandbox.catalogue import DEFAULT_CATALOGUE, Catalogue
from vibes_pipelines.sandbox.events import Events
from vibes_pipelines.sandbox.handsets import Handsets
from vibes_pipelines.sandbox.imports_records import ImportRecords
from vibes_pipelines.sandbox.platform import Platform
from vibes_pipelines.sandbox.push_devices import PushDevices
from vibes_pipelines.sandbox.shelf import Shelf
from vibes_pipelines.sandbox.switches import Switches
from vibes_pipelines.sandbox.wallet import Wallet


class Account:
    """The parts of one company's account, over its platform; used under the platform's lock.

    Whoever keeps the state on disk sets `save`, which is called before a change is acknowledged.
    `google_rate_per_s` is how many Google Wallet items may change a second; None lifts the limit.
    """

    def __init__(
        self,
        platform: Platform,
        catalogue: Catalogue = DEFAULT_CATALOGUE,
        switches: Switches | None = None,
        *,
        google_rate_per_s: int | None = 20,
    ) -> None:
        self.platform = platform
        self.switches = switches or Switches()
        self.catalogue = catalogue.only_for(platform.lists)
        self.activity = Activity()
        self.handsets = Handsets(platform, self.switches)
        self.acquisition = Acquisition(platform, self.catalogue.campaigns, self.activity)
        self.devices = PushDevices(platform, self.catalogue.apps)
        self.imports = ImportRecords(self.catalogue.incentive_pools)
        self.events = Events(
            platform,
            self.catalogue.event_types,
            self.devices,
            self.activity,
            self.imports.incentive_codes,
        )
        self.wallet = Wallet(
            platform, self.catalogue.wallet_campaigns, self.activity, google_rate_per_s
        )
        self.save: Callable[[], None] = lambda: None

    def erase(self, person_key: str) -> None:
        """Delete a person and all that is kept about them."""
        about: tuple[Shelf[Any, Any], ...] = (
            self.activity.messages,
            self.activity.push_messages,
            self.activity.clicks,
            self.acquisition.participations,
            self.devices.devices,
        )
        for shelf in about:
            for key in [key for key, one in shelf.items() if one.person_key == person_key]:
                del shelf[key]
        self.platform.erase(person_key)

    def shelves(self) -> tuple[Shelf[Any, Any], ...]:
        """What the journal saves."""
        return (
            *self.activity.shelves(),
            *self.handsets.shelves(),
            *self.acquisition.shelves(),
            *self.devices.shelves(),
            *self.events.shelves(),
            *self.wallet.shelves(),
            *self.imports.shelves(),
        )
