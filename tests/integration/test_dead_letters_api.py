"""Dead letters over REST: seen, replayed and discarded by number, by admins, who are named."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from shared.bus.embedded import EmbeddedBus, _Delivery
from shared.bus.interface import Consumer
from shared.bus.topology import CONVERTER_CHECKS, CONVERTER_PULLS, work_queues
from tests.support.bus import Recorder, soon
from tests.support.conditions import eventually
from tests.support.gateways import Running, gateway


@dataclass(slots=True)
class Dead:
    """A gateway, and a bus on which some events have died."""

    running: Running
    bus: EmbeddedBus
    consumer: Consumer
    """What lets everything die that is put into its queue."""

    async def die(self, *bodies: bytes) -> None:
        before = (await self.bus.standings(soon())).dead_letters
        for body in bodies:
            self.bus._queues[CONVERTER_PULLS.name].append(_Delivery(None, body))

        async def all_dead() -> bool:
            return (await self.bus.standings(soon())).dead_letters == before + len(bodies)

        await eventually(all_dead, within=5)

    async def ids(self) -> list[str]:
        answer = await self.running.ask_locally("/admin/dead-letters")
        assert answer.status == 200
        return [letter["id"] for letter in answer.body["items"]]


@pytest.fixture
async def dead(tmp_path: Path) -> AsyncIterator[Dead]:
    bus = EmbeddedBus(work_queues(("local",)))
    async with gateway(tmp_path / "data", bus=bus) as running:
        consumer = await bus.consume(CONVERTER_PULLS, Recorder(), slots=1)
        yield Dead(running, bus, consumer)


async def test_all_of_a_queue_go_at_once_and_who_did_it_is_logged(dead: Dead) -> None:
    await dead.die(*(f"no event {number}".encode() for number in range(205)))
    listing = (await dead.running.ask_locally("/admin/dead-letters")).body
    assert (len(listing["items"]), listing["total"]) == (200, 205)
    await dead.consumer.stop(soon())
    replay = "/admin/dead-letters/replay"
    none = await dead.running.ask_locally(replay, "POST", {"queue": CONVERTER_CHECKS.name})
    assert none.body == {"replayed": 0, "left": 205}
    two = (await dead.ids())[3:5]
    with capture_logs() as logs:
        some = await dead.running.ask_locally(replay, "POST", {"ids": two})
        rest = await dead.running.ask_locally(replay, "POST", {"queue": CONVERTER_PULLS.name})
    assert some.body == {"replayed": 2, "left": 203}
    assert rest.body == {"replayed": 203, "left": 0}
    said = [each for each in logs if each["event"] == "dead_letters_replayed"]
    assert sum(len(each["letters"]) for each in said) == 205
    assert said[0]["letters"] == two
    assert {(each["queue"], each["uid"] is None, bool(each["by"])) for each in said} == {
        (CONVERTER_PULLS.name, False, True)
    }
    [depth] = [
        each for each in (await dead.bus.standings(soon())).queues if each.name == "converter.pulls"
    ]
    assert (depth.waiting, depth.consumers) == (205, 0)


async def test_everything_is_replayed_where_nothing_is_named(dead: Dead) -> None:
    await dead.die(b"one", b"two")
    await dead.consumer.stop(soon())
    answer = await dead.running.ask_locally("/admin/dead-letters/replay", "POST", {})
    assert answer.body == {"replayed": 2, "left": 0}
    wrong = {"ids": ["x"], "queue": "y"}
    answer = await dead.running.ask_locally("/admin/dead-letters/replay", "POST", wrong)
    assert answer.status == 400


async def test_one_is_discarded_for_good(dead: Dead) -> None:
    await dead.die(b"one", b"two")
    first, second = await dead.ids()
    with capture_logs() as logs:
        answer = await dead.running.ask_locally(f"/admin/dead-letters/{first}", "DELETE")
    assert answer.status == 204
    [said] = [each for each in logs if each["event"] == "dead_letter_discarded"]
    assert (said["letter"], said["queue"]) == (first, CONVERTER_PULLS.name)
    assert said["uid"] is not None
    assert await dead.ids() == [second]
    again = await dead.running.ask_locally(f"/admin/dead-letters/{first}", "DELETE")
    assert (again.status, again.code) == (404, "not_found")


async def test_nobody_else_may(dead: Dead) -> None:
    await dead.die(b"one")
    [letter] = await dead.ids()
    for path, method in (
        ("/admin/dead-letters/replay", "POST"),
        (f"/admin/dead-letters/{letter}/replay", "POST"),
        (f"/admin/dead-letters/{letter}", "DELETE"),
    ):
        assert (await dead.running.ask(path, method, {})).status == 401
    assert await dead.ids() == [letter]


async def test_a_letter_whose_queue_is_gone_says_what_is_left_to_do(dead: Dead) -> None:
    await dead.die(b"one")
    del dead.bus._queues[CONVERTER_PULLS.name]
    dead.bus._work = ()
    [letter] = await dead.ids()
    answer = await dead.running.ask_locally(f"/admin/dead-letters/{letter}/replay", "POST")
    assert (answer.status, answer.code) == (503, "undeliverable")
    assert "discard" in answer.body["detail"]
    assert await dead.ids() == [letter]
