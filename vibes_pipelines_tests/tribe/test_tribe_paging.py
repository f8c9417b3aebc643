"""Reading while users of Tribe work: who was there all the while is never missed."""

import asyncio
import json
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vibes_pipelines.sandbox.tribe_sandbox import TribeSandbox
from vibes_pipelines.sandbox.tribe_switches import TribeSwitches
from vibes_pipelines.tribe.api import Reply
from vibes_pipelines.tribe.errors import TribeMovedError
from vibes_pipelines.tribe.persons import Paging, read_pages
from vibes_pipelines_tests.support.tribe import tribe_client

PEOPLE = 330


def read_while(
    tribe: TribeSandbox, disturb: Any, paging: Paging | None = None
) -> list[dict[str, Any]]:
    """Reads everybody; `disturb` is called after each answer of Tribe."""
    tribe.audit.log = lambda _: disturb()

    async def read() -> list[dict[str, Any]]:
        async with tribe_client(tribe) as client:
            pages = read_pages(client._api, "Relation_Person", ("ID",), None, paging or Paging())
            return [person async for page in pages for person in page]

    return asyncio.run(read())


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 10_000),
    deleted=st.integers(0, 25),
    created=st.integers(0, 25),
    switches=st.sampled_from(
        [
            TribeSwitches(),
            TribeSwitches(guid_order="last_bytes_first", count="ignored"),
            TribeSwitches(next_link=True),
            TribeSwitches(page_rows=60),
        ]
    ),
)
def test_whoever_was_there_all_the_while_is_found_once(
    seed: int, deleted: int, created: int, switches: TribeSwitches
) -> None:
    chance = Random(seed)
    with TribeSandbox.of_people(PEOPLE, switches, seed=seed) as tribe:
        world = tribe.world
        stayed = {one["ID"] for one in world.persons()}

        def disturb() -> None:
            with world.lock:
                for _ in range(min(deleted, len(world.rows("Relation_Person")))):
                    gone = chance.choice(world.rows("Relation_Person"))["ID"]
                    world.delete("Relation_Person", gone)
                    stayed.discard(gone)
                for _ in range(created):
                    world.create("Relation_Person", {"LastName": "New"})

        try:
            found = read_while(tribe, disturb)
        except TribeMovedError:
            return  # it said so, which is allowed; a wrong list would not be
        ids = [one["ID"] for one in found]
        assert len(ids) == len(set(ids))
        assert stayed <= set(ids)


@pytest.mark.parametrize(
    "switches", [TribeSwitches(), TribeSwitches(next_link=True, page_rows=40, count="ignored")]
)
def test_a_person_deleted_in_an_earlier_page_hides_nobody(switches: TribeSwitches) -> None:
    with TribeSandbox.of_people(PEOPLE, switches) as tribe:
        world = tribe.world
        done: list[str] = []

        def disturb() -> None:
            if len(done) < 3:
                done.append(world.rows("Relation_Person")[0]["ID"])
                world.delete("Relation_Person", done[-1])

        found = read_while(tribe, disturb, Paging(in_flight=1))
        assert {one["ID"] for one in world.persons()} <= {one["ID"] for one in found}


class CutShort:
    """A Tribe that counts more records than it sends, whatever is asked."""

    def __init__(self, rows: int, count: int) -> None:
        self._body = {
            "@odata.count": count,
            "value": [{"ID": f"{number:04d}", "Labels": []} for number in range(rows)],
        }

    async def get(self, path: str) -> Reply:
        skip = int(path.partition("$skip=")[2].partition("&")[0])
        rows = self._body["value"][skip:]  # type: ignore[index]
        return Reply("/persons", 200, json.dumps({**self._body, "value": rows}).encode())


@pytest.mark.parametrize("rows", [0, 1, 50, 100, 150])
def test_fewer_persons_than_tribe_counts_are_no_complete_list(rows: int) -> None:
    async def read(count: int) -> int:
        tribe: Any = CutShort(rows, count)
        pages = read_pages(tribe, "Relation_Person", (), None, Paging())
        return sum([len(page) async for page in pages])

    assert asyncio.run(read(rows)) == rows
    with pytest.raises(TribeMovedError, match=f"5000 records were counted, and only {rows} came"):
        asyncio.run(read(5000))


class Followed:
    """A Tribe that links pages of 40, does not count, and gets 39 in front once two were read."""

    def __init__(self, size: int = 40) -> None:
        self.size = size
        self.ids = [f"{number:04d}" for number in range(330)]
        self._asked = 0

    async def get(self, path: str) -> Reply:
        self._asked += 1
        if self._asked == 3:
            self.ids = [f"!{number}" for number in range(10, 49)] + self.ids
        skip = int(path.partition("$skip=")[2].partition("&")[0])
        rows = [{"ID": one, "Labels": []} for one in self.ids[skip : skip + self.size]]
        link = {"@odata.nextLink": "on"} if skip + self.size < len(self.ids) else {}
        return Reply("/persons", 200, json.dumps({"value": rows, **link}).encode())


async def _read_followed(tribe: Any) -> int:
    pages = read_pages(tribe, "Relation_Person", (), None, Paging())
    return sum([len(page) async for page in pages])


def test_a_linked_page_of_persons_that_were_all_seen_is_not_the_last() -> None:
    assert asyncio.run(_read_followed(Followed())) == 330


def test_links_that_lead_nowhere_are_no_end() -> None:
    with pytest.raises(TribeMovedError, match="no complete list came about"):
        asyncio.run(_read_followed(Followed(size=1)))


def test_a_set_that_never_comes_to_rest_is_an_error() -> None:
    with TribeSandbox.of_people(PEOPLE) as tribe:
        world = tribe.world

        def disturb() -> None:
            with world.lock:
                for person in list(world.rows("Relation_Person"))[:200]:
                    world.delete("Relation_Person", person["ID"])
                for _ in range(250):
                    world.create("Relation_Person", {"LastName": "New"})

        with pytest.raises(TribeMovedError, match="quieter hour"):
            read_while(tribe, disturb, Paging(max_steps_back=0))
