"""Two write-backs to one Tribe: neither undoes what the other did."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from vibes_pipelines.crm.database import CrmError
from vibes_pipelines.delivery.ports import CrmOptOut
from vibes_pipelines.sandbox.faults import Fault
from vibes_pipelines.sandbox.population import build_world
from vibes_pipelines.sandbox.tribe_population import NEWS_SMS, OFFERS
from vibes_pipelines.sandbox.tribe_sandbox import TribeSandbox
from vibes_pipelines.stages.crm_side import crm_writer
from vibes_pipelines.stages.project import Project
from vibes_pipelines.stages.tribe_label_lease import label_lease, lease_name
from vibes_pipelines.store.leases import Leases
from vibes_pipelines_tests.support.loop import Loop
from vibes_pipelines_tests.support.tribe import running_tribe_loop

OFFERS_LIST, NEWS_LIST = "1234", "5678"
Both = tuple[Loop, TribeSandbox]


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    with running_tribe_loop(
        tmp_path, build_world(30, seed=3), TRIBE_LABEL_WRITE="replace"
    ) as running:
        yield running


def of_the_other_destination(project: Project) -> Project:
    """The project of APSIS One: the same Tribe, but a data folder and a ledger of its own."""
    [offers] = project.config.consents
    news = offers.model_copy(update={"from_": f"label:{NEWS_SMS}", "list": NEWS_LIST})
    return replace(
        project,
        settings=project.settings.of_destination("apsis"),
        config=project.config.model_copy(update={"consents": (news,)}),
    )


def test_two_write_backs_at_once_put_no_label_back(both: Both) -> None:
    loop, tribe = both
    person = next(tribe.world.persons())
    for name in {OFFERS, NEWS_SMS} - {one["Name"] for one in person["Labels"]}:
        tribe.world.attach(person["ID"], tribe.world.label_id(name))
    # The first list to be written is on its way for longer than the other write-back takes.
    slow = Fault("delay", re.compile("Relation_Person"), "PUT", delay_s=1.5, times=1)
    tribe.faults.replace((slow,))

    def opt_out(project: Project, subscription_list: str) -> str:
        row = CrmOptOut(person["ImportId"], subscription_list, None)
        [answer] = crm_writer(project).apply_opt_outs([row])
        return answer.outcome

    other = of_the_other_destination(loop.project)
    assert other.settings.ledger_url != loop.project.settings.ledger_url
    with ThreadPoolExecutor() as threads:
        projects, lists = (loop.project, other), (OFFERS_LIST, NEWS_LIST)
        assert list(threads.map(opt_out, projects, lists)) == ["accepted"] * 2
    held = {one["Name"] for one in tribe.world.find("Relation_Person", person["ID"])["Labels"]}  # type: ignore[index]
    assert not held & {OFFERS, NEWS_SMS}


def test_who_does_not_end_is_waited_for_only_so_long(both: Both) -> None:
    loop, _ = both
    settings = loop.project.settings
    with Leases(settings.inbox_url) as leases:
        lease = leases.take_lease(lease_name(settings.tribe), timedelta(minutes=1))
        with (
            pytest.raises(CrmError, match="nothing was written"),
            label_lease(of_the_other_destination(loop.project), wait_s=0.1),
        ):
            pytest.fail("the lease is somebody else's")
        leases.give_lease_back(lease)
        with label_lease(loop.project, wait_s=0):
            assert leases.live_leases([lease_name(settings.tribe)])
        assert not leases.live_leases([lease_name(settings.tribe)])
