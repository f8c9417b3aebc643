"""The platform's faces in the small world of `two_sides`: each effect is judged by the witness."""

from typing import TYPE_CHECKING, Any

from vibes_pipelines_tests.support.callbacks import REMOVED
from vibes_pipelines_tests.support.deliveries import FakeAnswer, FakeCampaigns, FakePlatform

if TYPE_CHECKING:
    from vibes_pipelines_tests.support.two_sides import TwoSides


class Violation(AssertionError):  # noqa: N818 - the name says what it is
    """A law is broken; the message says by what."""


class PlatformOfTheWorld(FakePlatform):
    """The Person API of the world; `knows_joins`: its caller has heard of every join so far."""

    def __init__(self, world: "TwoSides", *, knows_joins: bool = False) -> None:
        super().__init__()
        self._world = world
        self._knows_joins = knows_joins

    async def unsubscribe(
        self,
        list_id: str,
        *,
        person_key: str | None = None,
        external_person_id: str | None = None,
    ) -> FakeAnswer:
        world = self._world
        key = external_person_id or (person_key or "").removeprefix("key-").upper()
        world.effect()
        if world.refusals:
            world.refusals -= 1
            return FakeAnswer(None, "unknown", "Timeout")
        world.pass_time(1)
        if self._knows_joins and not world.on_the_way and not world.lost:
            said, (_, changed) = world.persons[key].last_in, world.crm_of(key)
            if world.persons[key].is_active and said and changed and said > changed:
                raise Violation(f"{key}: a newer opt-in of the person was ended in real time")
        world.end(key)
        world.effect()
        return FakeAnswer()


class CampaignsOfTheWorld(FakeCampaigns):
    """The acquisition campaigns of the world; whether somebody confirms is the person's to say."""

    def __init__(self, world: "TwoSides") -> None:
        super().__init__()
        self._world = world

    async def invite(self, campaign_id: str, *, mdn: str | None = None, **named: Any) -> FakeAnswer:
        world, key = self._world, "C" + (mdn or "")[8:]
        state, changed = world.crm_of(key)
        told = [at for kind, at, whose in world.arrived if kind == REMOVED and whose == key]
        known = max([*told, *filter(None, [world.known_at_plan.get(key)])], default=None)
        if state != "yes" or changed is None:
            raise Violation(f"{key}: invited, and the CRM says {state}")
        if known is not None and changed <= known:
            raise Violation(f"{key}: invited, and a newer opt-out was known")
        world.effect()
        return await super().invite(campaign_id, mdn=mdn, **named)
