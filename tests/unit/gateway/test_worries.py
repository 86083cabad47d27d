"""From facts to worries: one row for each thing that can be wrong, and what is not worth a word."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from services.converter.disks import errors as of_disks
from services.converter.sources import errors as of_archives
from services.converter.trees import errors as of_trees
from services.gateway.directory import Entry, Flow
from services.gateway.standing.pulls import LATELY, PullStandings, pull_standings
from services.gateway.standing.worries import CODES, USERS_OWN, Facts, worries
from services.gateway.stock.storage import LowDirectory
from shared.api import JobsStanding, NodesStanding, QueueStanding
from shared.errors import InvalidInputError
from shared.models import utcnow
from shared.states import State

SYSTEMS = ("alps", "daint")
QUEUES = (
    "converter.pulls",
    "gateway.events",
    "gateway.nodes",
    *(f"distributor.{s}" for s in SYSTEMS),
)
NOW = utcnow()


def queues(**changed: dict[str, Any]) -> dict[str, QueueStanding]:
    """All are attended and empty; names are written with underscores."""
    usual = {"waiting": 0, "consumers": 2, "oldest_seconds": 0.0}
    return {
        name: QueueStanding(name=name, **{**usual, **changed.get(name.replace(".", "_"), {})})
        for name in QUEUES
    }


def pulls(**counts: Any) -> PullStandings:
    """`waiting` and `placing` are how long each pull has waited for a worker."""
    made = PullStandings()
    for state, name in ((State.INIT, "waiting"), (State.TRANSFER, "placing")):
        for seconds in counts.get(name, ()):
            made.add(entry(state, seconds), NOW)
    made.held_up = counts.get("held_up", 0)
    made.failures.update(counts.get("failures", {}))
    return made


def entry(state: State, seconds: float, **changes: Any) -> Entry:

    flow = Flow(
        since=NOW - timedelta(seconds=seconds),
        waiting=changes.pop("waiting", True),
        held_up=changes.pop("held_up", False),
        failure=changes.pop("failure", None),
    )
    given: dict[str, Any] = dict.fromkeys(Entry.__slots__)
    return Entry(**{**given, "state": state, "system": "alps", "flow": flow, **changes})


FINE = Facts(
    systems=SYSTEMS,
    pulls=pulls(),
    bus=True,
    catalog=True,
    catalog_seconds=0.01,
    queues=queues(),
    dead_letters=0,
    nodes=NodesStanding(alive=1000, lost=3),
    jobs=JobsStanding(running=5, nodes=500, pending=20, failed=0, lost=0),
    unsettled_seconds=0.0,
)
UNATTENDED = {"consumers": 0}
TROUBLES: list[tuple[str, str, dict[str, Any], str]] = [
    ("catalog_away", "critical", {"catalog": False, "catalog_seconds": None}, "catalog.url"),
    ("catalog_slow", "warning", {"catalog_seconds": 1.5}, "1.5 s"),
    ("bus_away", "critical", {"bus": False, "queues": None}, "bus.url"),
    (
        "no_converter",
        "critical",
        {"queues": queues(converter_pulls=UNATTENDED), "pulls": pulls(waiting=[20, 3])},
        "2 pulls wait",
    ),
    ("no_converter", "warning", {"queues": queues(converter_pulls=UNATTENDED)}, "until"),
    (
        # It may be one that is only coming back.
        "no_converter",
        "warning",
        {"queues": queues(converter_pulls=UNATTENDED), "pulls": pulls(waiting=[2])},
        "No converter",
    ),
    (
        "no_distributor",
        "critical",
        {"queues": queues(distributor_alps=UNATTENDED), "pulls": pulls(placing=[20])},
        "1 image waits to be placed on alps",
    ),
    (
        "no_distributor",
        "warning",
        {"queues": queues(distributor_daint=UNATTENDED), "pulls": pulls(placing=[20])},
        "No distributor runs for daint",
    ),
    ("long_waits", "warning", {"pulls": pulls(waiting=[700, 10])}, "12 minutes"),
    ("long_waits", "warning", {"pulls": pulls(placing=[9000])}, "2 hours"),
    ("registry_waits", "warning", {"pulls": pulls(held_up=1)}, "1 pull waits for a registry"),
    (
        "pulls_failing",
        "warning",
        {"pulls": pulls(failures={"registry_unreachable": 4, "store_full": 1})},
        "5 pulls failed in the last 15 minutes, most often with registry_unreachable",
    ),
    (
        "staging_failed",
        "warning",
        {
            "jobs": JobsStanding(running=5, nodes=500, pending=0, failed=7, lost=0),
            "jobs_with_failures": 2,
        },
        "7 nodes of 2 running jobs",
    ),
    (
        "nodes_lost",
        "warning",
        {"jobs": JobsStanding(running=5, nodes=500, pending=0, failed=0, lost=2)},
        "3 nodes are not heard any more; 2 of them are in running jobs",
    ),
    (
        "nodes_lost",
        "warning",
        {
            "nodes": NodesStanding(alive=99, lost=1),
            "jobs": JobsStanding(running=2, nodes=9, pending=0, failed=0, lost=2),
        },
        "1 node is not heard any more; it is in running jobs",
    ),
    ("nodes_lost", "warning", {"nodes": NodesStanding(alive=9, lost=1)}, "1 node is not heard"),
    ("dead_letters", "warning", {"dead_letters": 1}, "1 event has failed for good"),
    ("outbox_stuck", "critical", {"unsettled_seconds": 90.0}, "90 s"),
    (
        "gateway_behind",
        "warning",
        {"queues": queues(gateway_events={"waiting": 500, "oldest_seconds": 45.0})},
        "gateway.events",
    ),
    (
        "gateway_behind",
        "warning",
        {"queues": queues(gateway_nodes={"waiting": 500, **UNATTENDED, "oldest_seconds": None})},
        "gateway.nodes",
    ),
    (
        "image_directory_low",
        "critical",
        {"low": [LowDirectory("alps", 1 << 30, 4 << 30), LowDirectory("elsewhere", 0, 1)]},
        "alps has 1.0 GiB left",
    ),
]


@pytest.mark.parametrize(("code", "level", "changes", "said"), TROUBLES)
def test_what_is_wrong_is_said_once_and_nothing_else(
    code: str, level: str, changes: dict[str, Any], said: str
) -> None:
    [worry] = worries(replace(FINE, **changes))
    assert (worry.code, worry.level) == (code, level)
    assert said in worry.message
    assert worry.message.endswith(".")


def test_every_code_is_tested() -> None:
    assert {code for code, *_ in TROUBLES} == set(CODES)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pulls": pulls(waiting=[599], placing=[599])},
        {"pulls": pulls(failures={"image_not_found": 40, "registry_timeout": 4})},
        {"queues": queues(gateway_events={"waiting": 5000, "oldest_seconds": 29.0})},
        # What is not known is no worry; nor are a few of very many nodes.
        {"queues": None, "dead_letters": None, "nodes": None, "jobs": None, "low": ()},
        {"unsettled_seconds": None, "catalog_seconds": None},
    ],
)
def test_what_is_usual_worries_nobody(changes: dict[str, Any]) -> None:
    assert worries(replace(FINE, **changes)) == ()


def test_the_worst_is_said_first() -> None:
    found = worries(replace(FINE, dead_letters=3, bus=False, queues=None))
    assert [worry.code for worry in found] == ["bus_away", "dead_letters"]


async def test_pulls_are_counted_by_who_may_see_them() -> None:
    def seen(each: Entry) -> bool:
        return not each.private

    entries = [
        entry(State.INIT, 30),
        entry(State.INIT, 10, waiting=False),
        entry(State.INIT, 900, private=True),
        entry(State.PULLING, 20, waiting=False, held_up=True),
        entry(State.TRANSFER, 5, waiting=True, system="daint"),
        entry(State.FAILURE, 60, failure="store_full"),
        entry(State.FAILURE, (2 * LATELY).total_seconds(), failure="store_full"),
    ] * 200  # more than are counted at once
    found = await pull_standings(entries, seen, NOW)

    init = found.stages[State.INIT]
    assert (init.pulls, init.waiting, init.oldest_seconds, init.longest_wait) == (400, 200, 30, 30)
    assert found.stages[State.PULLING].waiting == 0
    assert found.placements["daint"].longest_wait == 5
    assert (found.failed, found.failures, found.held_up) == (400, {"store_full": 200}, 200)
    assert found.conversions_waiting == 200


def test_a_clock_that_is_ahead_makes_no_negative_age() -> None:
    made = PullStandings()
    made.add(entry(State.INIT, -60), NOW)
    assert made.stages[State.INIT].oldest_seconds == 0


def test_what_is_wrong_with_a_users_own_files_is_not_the_sites_worry() -> None:
    imports = {
        error.code
        for module in (of_archives, of_disks, of_trees)
        for error in vars(module).values()
        if isinstance(error, type) and issubclass(error, InvalidInputError)
    }
    assert imports - {InvalidInputError.code} <= USERS_OWN
