"""Phone numbers as carriers see them: deactivated, given to somebody else; look-ups that fail.

The platform ends the subscriptions of a deactivated number with the reason `disconnect`; a number
that comes back at another carrier is somebody else's (Vibes documentation, Person; not repeated in
newer pages, see the switch `recycled_number`).
"""

from datetime import datetime
from typing import Any

from vibes_pipelines.sandbox.platform import Platform
from vibes_pipelines.sandbox.platform_refusals import CarrierLookupDownError, NoCarrierError
from vibes_pipelines.sandbox.shelf import Shelf
from vibes_pipelines.sandbox.switches import Switches


class Handsets:
    """What carriers know beyond the number itself; stands before the platform's own look-up."""

    def __init__(self, platform: Platform, switches: Switches) -> None:
        self.deactivated: Shelf[str, datetime] = Shelf("deactivated_numbers")
        self.carriers: Shelf[str, str] = Shelf("carriers")
        self._lookups_down = 0
        self._platform = platform
        self._switches = switches
        self._look_up_plainly = platform.carrier_lookup
        platform.carrier_lookup = self._look_up

    def shelves(self) -> tuple[Shelf[Any, Any], ...]:
        """What the journal saves."""
        return self.deactivated, self.carriers

    def fail_lookups(self, count: int) -> None:
        """Let the next look-ups fail for the moment; 0 ends the outage."""
        with self._platform.lock:
            self._lookups_down = count

    def deactivate(self, mdn: str) -> bool:
        """The carrier takes the number out of service; False when it was so already.

        Its owner's subscriptions end, the record keeps the number (an assumption: the documentation
        is silent).
        """
        with self._platform.lock:
            if mdn in self.deactivated:
                return False
            now = self._platform.clock()
            self.deactivated[mdn] = now
            person = self._platform.find(mdn=mdn)
            if person is not None:
                for stay in self._platform.subscriptions_of(person.person_key):
                    self._platform.opt_out(person.person_key, stay.list_id, now, "disconnect")
            return True

    def recycle(self, mdn: str, carrier_code: str) -> None:
        """The number goes into service again at this carrier."""
        with self._platform.lock:
            if mdn in self.deactivated:
                del self.deactivated[mdn]
            self.carriers[mdn] = carrier_code
            person, now = self._platform.find(mdn=mdn), self._platform.clock()
            if person is None or person.carrier_code == carrier_code:
                return
            if self._switches.recycled_number == "same_person":
                self._platform.set_carrier(person.person_key, carrier_code, now)
            else:
                self._platform.release_number(person.person_key, now)

    def _look_up(self, mdn: str) -> str:
        if self._lookups_down:
            self._lookups_down -= 1
            raise CarrierLookupDownError
        if mdn in self.deactivated:
            raise NoCarrierError
        return self.carriers.get(mdn) or self._look_up_plainly(mdn)
