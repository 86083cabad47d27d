"""The agent notices the first process that goes into a job's image, on the real kernel."""

import asyncio
import errno
from pathlib import Path
from typing import Any

import pytest

from services.node_agent import entries
from shared.bus.connect import connect_bus
from shared.bus.interface import Bus
from shared.bus.topology import GATEWAY_NODES
from shared.config import Settings
from shared.deadline import Deadline
from shared.events import AnyEvent, NodeHeartbeat
from tests.support.agents import PATIENCE, Place, ask, needs_root, running
from tests.support.cached import make_image
from tests.support.conditions import eventually
from tests.support.insides import NOBODY, enter
from tests.support.metrics import value
from tests.support.squashfs import PlacedImage
from tests.support.users import let_everybody_in

pytestmark = needs_root
OTHER: dict[str, Any] = {"user": 12345, "group": 12345, "extra_groups": ()}
READ = "import sys; print(open(sys.argv[1] + '/env').read())"
BEAT = 0.2


def settings(place: Place) -> Settings:
    let_everybody_in(place.root)
    document = place.document("loop")
    return Settings.model_validate({**document, "agent": {**document["agent"], "heartbeat": BEAT}})


async def heartbeats(bus: Bus) -> list[NodeHeartbeat]:
    heard: list[NodeHeartbeat] = []

    async def note(event: AnyEvent) -> None:
        if isinstance(event, NodeHeartbeat):
            heard.append(event)

    await bus.open(Deadline.after(PATIENCE))
    await bus.consume(GATEWAY_NODES, note, slots=1)
    return heard


def told(heard: list[NodeHeartbeat]) -> list[str]:
    return [entered.job_id for beat in heard for entered in beat.entered]


async def prepared(place: Place, job: str, image: PlacedImage) -> Path:
    pinned = {
        "image_id": image.image_id,
        "content_digest": image.content_digest,
        "size": image.size,
    }
    wanted = {"images": [pinned], "wait": PATIENCE, "uid": NOBODY, "gid": NOBODY}
    _, view = await ask(place, "POST", f"/v1/jobs/{job}/prepare", wanted)
    (inside,) = view["insides"]
    return Path(inside["path"])


async def rounds(heard: list[NodeHeartbeat], number: int = 2) -> None:
    """Until so many more heartbeats were heard."""
    enough = len(heard) + number
    await eventually(lambda: len(heard) >= enough, within=PATIENCE)


async def test_the_first_process_of_each_job_is_told_of_once(place: Place) -> None:
    image = make_image(place, [], "this is one\n")
    known = settings(place)
    bus = connect_bus(known, "test")
    heard = await heartbeats(bus)
    async with running(known, bus):
        seven, eight = [await prepared(place, job, image) for job in ("7", "8")]
        assert (value("dray_agent_jobs"), value("dray_agent_mounts")) == (2, 1)
        # Looking is not entering, and nobody else can say that it was.
        refused = await asyncio.to_thread(enter, seven, code=READ, who=OTHER)
        assert "PermissionError" in refused.stderr
        await rounds(heard)
        assert told(heard) == []
        for pinned in (seven, seven, eight):
            done = await asyncio.to_thread(enter, pinned, code=READ)
            assert done.returncode == 0, done.stderr
        # It is over before the next heartbeat, perhaps.
        assert (await ask(place, "DELETE", "/v1/jobs/8"))[0] == 204
        await eventually(lambda: len(told(heard)) == 2, within=PATIENCE)
        await rounds(heard)
        assert sorted(told(heard)) == ["7", "8"]
        ages = [entered.seconds_ago for beat in heard for entered in beat.entered]
        assert all(0 <= age < PATIENCE for age in ages)
        # The scheduler comes round to the number again.
        again = await prepared(place, "8", image)
        await asyncio.to_thread(enter, again, code=READ)
        await eventually(lambda: sorted(told(heard)) == ["7", "8", "8"], within=PATIENCE)
        for job in ("7", "8"):
            await ask(place, "DELETE", f"/v1/jobs/{job}")
        assert value("dray_agent_jobs") == 0


async def test_jobs_that_users_made_up_say_nothing_of_the_scheduler_s(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("")
    notices = entries.Entries()
    theirs = {"7"}
    notices.open(lambda job: job in theirs)
    try:
        for job in ("7", "42"):
            notices.watch(job, tmp_path / job)  # there is no such file: nothing to notice
            (tmp_path / job).mkdir()
            (tmp_path / job / "env").write_text("")
            notices.watch(job, tmp_path / job)
            (tmp_path / job / "env").read_text()
        await eventually(lambda: bool(notices.news()), within=PATIENCE)
        news = notices.news()
        assert [each.job_id for each in news] == ["7"]
        notices.told(news)
        assert notices.news() == ()
    finally:
        notices.close()


async def test_an_agent_that_cannot_notice_says_nothing_and_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("shared.linux.inotify", refused)
    notices = entries.Entries()
    notices.open(lambda _: True)
    notices.watch("7", tmp_path)
    notices.ended("7")
    assert notices.news() == ()
    notices.close()
