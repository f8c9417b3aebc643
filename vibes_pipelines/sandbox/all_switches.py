"""The switches of every stand-in together, by name.

Names of Tribe's begin with `tribe.`, of APSIS One's with `apsis.`, of the platform's with nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from vibes_pipelines.sandbox.apsis_switches import ApsisSwitches
from vibes_pipelines.sandbox.switches import Switches, read_switches
from vibes_pipelines.sandbox.tribe_switches import TribeSwitches


@dataclass(frozen=True)
class AllSwitches:
    """The readings that a whole sandbox follows."""

    platform: Switches = field(default_factory=Switches)
    tribe: TribeSwitches = field(default_factory=TribeSwitches)
    apsis: ApsisSwitches = field(default_factory=ApsisSwitches)

    @classmethod
    def from_mapping(cls, readings: Mapping[str, object]) -> Self:
        """Switches by name; raises ValueError for an unknown name or reading."""
        shares: dict[str, dict[str, object]] = {"": {}, "tribe": {}, "apsis": {}}
        for name, reading in readings.items():
            whose, dot, switch = name.partition(".")
            if dot and whose in shares:
                shares[whose][switch] = reading
            else:
                shares[""][name] = reading
        return cls(
            Switches.from_mapping(shares[""]),
            read_switches(TribeSwitches, shares["tribe"], "tribe."),
            read_switches(ApsisSwitches, shares["apsis"], "apsis."),
        )
