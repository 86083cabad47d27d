"""The agent on this machine's kernel: requests, events and real mounts."""

import asyncio
import contextlib
import errno
import os
import signal
from pathlib import Path

import pytest

from services.node_agent.app import build
from shared.bus.connect import connect_bus
from shared.bus.interface import Bus
from shared.bus.topology import GATEWAY_NODES
from shared.config import Settings
from shared.deadline import Deadline
from shared.errors import ConfigError
from shared.events import (
    AnyEvent,
    JobAllocated,
    JobReleased,
    NodeFailed,
    NodeHeartbeat,
    NodeImage,
    NodeStaged,
)
from tests.support.agents import (
    PATIENCE,
    Place,
    ask,
    greeting,
    real_mounts,
    running,
)
from tests.support.conditions import eventually
from tests.support.rabbitmq import RabbitNode, need_rabbitmq
from tests.support.squashfs import PlacedImage, is_root


@pytest.mark.parametrize("mount", real_mounts)
async def test_twenty_requests_for_one_image_share_one_mount(place: Place, mount: str) -> None:
    image = place.image("shared")
    settings = place.settings(mount)
    async with running(settings, connect_bus(settings, "test")):
        answers = await asyncio.gather(
            *(ask(place, "POST", "/v1/mounts", image.request(f"job{n}")) for n in range(20))
        )
        assert {status for status, _ in answers} == {200}
        assert {view["how"] for _, view in answers} == {mount}
        assert {greeting(view) for _, view in answers} == {"this is shared\n"}
        assert len(place.standing()) == (1 if mount == "unpack" else 2)
        _, status = await ask(place, "GET", "/v1/status")
        assert len(status["jobs"]) == 20
        assert [view["image_id"] for view in status["mounts"]] == [image.image_id]
        for n in range(20):
            assert place.standing() != []
            assert await ask(place, "DELETE", f"/v1/jobs/job{n}") == (204, {})
        assert place.standing() == []


@pytest.mark.root
@pytest.mark.skipif(not is_root(), reason="loop mounts need root")
async def test_a_loop_mount_is_read_only_without_devices_and_setuid(place: Place) -> None:
    image = place.image("strict", codec="zstd")
    settings = place.settings("auto")
    async with running(settings, connect_bus(settings, "test")):
        _, view = await ask(place, "POST", "/v1/mounts", image.request("4711[3]"))
        assert view["how"] == "loop"
        line = next(
            line
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if view["path"] in line
        )
        assert {"ro", "nosuid", "nodev"} <= set(line.split()[5].split(","))
        device = line.split(" - ")[1].split()[1]
        backing = Path("/sys/block") / Path(device).name / "loop/backing_file"
        assert backing.read_text().strip() == str(image.path)
        assert await ask(place, "DELETE", "/v1/jobs/4711%5B3%5D") == (204, {})
        await eventually(lambda: not backing.exists(), within=PATIENCE)


async def collect(bus: Bus) -> list[AnyEvent]:
    events: list[AnyEvent] = []

    async def take(event: AnyEvent) -> None:
        events.append(event)

    await bus.open(Deadline.after(PATIENCE))
    await bus.consume(GATEWAY_NODES, take, slots=1)
    return events


def allocation(job_id: str, *images: PlacedImage) -> JobAllocated:
    wanted = tuple(
        NodeImage(image_id=image.image_id, content_digest=image.content_digest, size=image.size)
        for image in images
    )
    return JobAllocated(
        correlation_id=job_id, node="n1", job_id=job_id, system="local", images=wanted
    )


@pytest.mark.parametrize("mount", real_mounts)
async def test_the_scheduler_s_events_mount_report_and_unmount(place: Place, mount: str) -> None:
    settings = place.settings(mount)
    bus = connect_bus(settings, "test")
    events = await collect(bus)
    one, two = place.image("one"), place.image("two")
    soon = Deadline.after(PATIENCE)
    async with running(settings, bus):
        await eventually(lambda: any(isinstance(e, NodeHeartbeat) for e in events), within=PATIENCE)
        beat = next(event for event in events if isinstance(event, NodeHeartbeat))
        assert (beat.node, beat.mounter, beat.kernel) == ("n1", mount, os.uname().release)
        assert "gzip" in beat.codecs
        assert beat.start_id
        assert beat.capacity is not None
        assert beat.capacity.cpus == os.cpu_count()
        assert beat.capacity.memory_bytes > 1 << 20
        assert beat.capacity.booted_at < beat.time
        assert beat.capacity.cache is None

        event = allocation("j1", one, two)
        await bus.publish(event, soon)
        await eventually(lambda: any(isinstance(e, NodeStaged) for e in events), within=PATIENCE)
        staged = next(found for found in events if isinstance(found, NodeStaged))
        assert (staged.job_id, staged.causation_id) == ("j1", event.id)
        assert staged.seconds > 0
        assert {path.name for path in (place.agent_dir / "mounts").iterdir()} == {
            one.image_id,
            two.image_id,
        }
        await bus.publish(JobReleased(correlation_id="j1", node="n1", job_id="j1"), soon)
        await eventually(lambda: not place.standing(), within=PATIENCE)


async def test_an_image_that_is_not_there_is_reported_with_its_reason(place: Place) -> None:
    settings = place.settings("unpack")
    bus = connect_bus(settings, "test")
    events = await collect(bus)
    image = place.image("gone")
    image.path.unlink()
    async with running(settings, bus):
        await bus.publish(allocation("j1", image), Deadline.after(PATIENCE))
        await eventually(lambda: any(isinstance(e, NodeFailed) for e in events), within=PATIENCE)
        failed = next(event for event in events if isinstance(event, NodeFailed))
        assert (failed.code, failed.job_id) == ("image_not_placed", "j1")
        assert "image_dir" in failed.message
        status, answer = await ask(place, "POST", "/v1/mounts", image.request("j2"))
        assert (status, answer["code"]) == (404, "image_not_placed")
        assert (await ask(place, "GET", "/v1/status"))[1]["jobs"] == {}


@pytest.mark.parametrize("mount", real_mounts)
async def test_damaged_and_foreign_images_are_refused(place: Place, mount: str) -> None:
    settings = place.settings(mount)
    short, foreign, broken = place.image("short"), place.image("foreign", "xz"), place.image("b")
    os.truncate(short.path, short.size - 1)
    content = bytearray(broken.path.read_bytes())
    content[96:] = b"\xff" * (len(content) - 96)
    broken.path.write_bytes(content)
    async with running(settings, connect_bus(settings, "test")):
        status, answer = await ask(place, "POST", "/v1/mounts", short.request("j"))
        assert (status, answer["code"]) == (500, "image_corrupt")
        status, answer = await ask(place, "POST", "/v1/mounts", foreign.request("j"))
        assert (status, answer["code"]) == (422, "image_not_mountable")
        assert "compressed with xz" in answer["detail"]
        status, answer = await ask(place, "POST", "/v1/mounts", broken.request("j"))
        assert (status, answer["code"]) in {(500, "mount_failed"), (500, "image_corrupt")}
        assert place.standing() == []


async def test_bad_requests_are_answered_as_json(place: Place) -> None:
    settings = place.settings("unpack")
    image = place.image("a")
    async with running(settings, connect_bus(settings, "test")):
        bodies: list[object] = [{}, image.request("../x"), {**image.request("j"), "wait": 0}, []]
        for body in bodies:
            status, answer = await ask(place, "POST", "/v1/mounts", body)
            assert (status, answer["code"]) == (400, "invalid_input")
        status, answer = await ask(place, "DELETE", "/v1/jobs/%2E%2E%2Fx")
        assert (status, answer["code"]) in {(400, "invalid_input"), (404, "invalid_input")}
        assert (await ask(place, "GET", "/nothing"))[0] == 404
        assert (await ask(place, "DELETE", "/v1/jobs/unknown"))[0] == 204


async def test_an_agent_without_its_broker_serves_and_connects_when_it_comes(
    place: Place, tmp_path: Path
) -> None:
    need_rabbitmq()
    broker = RabbitNode(tmp_path / "rabbitmq")  # has its port, and does not listen yet
    document = {**place.document("unpack"), "bus": {"url": broker.url}}
    settings = Settings.model_validate(document)
    image = place.image("a")
    gateway = connect_bus(settings, "gateway")
    try:
        async with running(settings, connect_bus(settings, "agent")) as agent:
            assert (await agent.checks())["bus"] is not None
            assert (await ask(place, "POST", "/v1/mounts", image.request("local")))[0] == 200
            assert (await ask(place, "GET", "/v1/status"))[1]["bus_connected"] is False

            await asyncio.to_thread(broker.start)
            events = await collect(gateway)
            await eventually(
                lambda: any(isinstance(e, NodeHeartbeat) for e in events), within=PATIENCE
            )
            assert (await agent.checks())["bus"] is None
            soon = Deadline.after(PATIENCE)
            await gateway.publish(allocation("j", image), soon)
            await eventually(
                lambda: any(isinstance(e, NodeStaged) for e in events), within=PATIENCE
            )
            for job in ("j", "local"):
                await gateway.publish(JobReleased(correlation_id=job, node="n1", job_id=job), soon)
            await eventually(lambda: not place.standing(), within=PATIENCE)
    finally:
        await gateway.close()
        await asyncio.to_thread(broker.discard)


async def test_two_agents_never_share_a_directory(place: Place) -> None:
    settings = place.settings("unpack")
    async with running(settings, connect_bus(settings, "test")):
        with pytest.raises(ConfigError, match="another agent"):
            async with running(settings, connect_bus(settings, "test")):
                pass


def test_a_socket_path_that_linux_cannot_take_names_the_setting(place: Place) -> None:
    settings = Settings.model_validate(
        {"data_dir": place.root, "agent": {"run_dir": place.root / ("x" * 100)}}
    )
    with pytest.raises(ConfigError, match=r"agent\.run_dir.*107"):
        build(settings, connect_bus(settings, "test"))


async def test_a_held_job_is_in_the_heartbeat_until_it_is_released(place: Place) -> None:
    settings = Settings.model_validate(
        {**place.document("unpack"), "agent": {**place.document("unpack")["agent"], "heartbeat": 1}}
    )
    bus = connect_bus(settings, "test")
    events = await collect(bus)
    image = place.image("a")
    soon = Deadline.after(PATIENCE)

    def last_jobs() -> tuple[str, ...] | None:
        beats = [event for event in events if isinstance(event, NodeHeartbeat)]
        return beats[-1].jobs if beats else None

    async with running(settings, bus):
        assert (await ask(place, "POST", "/v1/mounts", image.request("local")))[0] == 200
        await bus.publish(allocation("77", image), soon)
        await eventually(lambda: last_jobs() == ("77",), within=PATIENCE)
        await bus.publish(JobReleased(correlation_id="77", node="n1", job_id="77"), soon)
        await eventually(lambda: last_jobs() == (), within=PATIENCE)
        assert (await ask(place, "GET", "/v1/status"))[1]["jobs"] == {"local": [image.image_id]}
        await ask(place, "DELETE", "/v1/jobs/local")


async def test_a_reconnected_agent_is_heard_at_once(place: Place, tmp_path: Path) -> None:
    need_rabbitmq()
    broker = RabbitNode(tmp_path / "rabbitmq")
    document = place.document("unpack")
    document["agent"] |= {"heartbeat": 300}
    settings = Settings.model_validate({**document, "bus": {"url": broker.url}})
    gateway = connect_bus(settings, "gateway")
    try:
        await asyncio.to_thread(broker.start)
        events = await collect(gateway)
        async with running(settings, connect_bus(settings, "agent", spread=2.0)) as agent:
            await eventually(
                lambda: any(isinstance(e, NodeHeartbeat) for e in events), within=PATIENCE
            )
            await asyncio.to_thread(broker.kill)

            async def connected() -> bool:
                return (await agent.checks())["bus"] is None

            async def disconnected() -> bool:
                return not await connected()

            await eventually(disconnected, within=PATIENCE)
            events.clear()
            await asyncio.to_thread(broker.start)
            await eventually(
                lambda: any(isinstance(e, NodeHeartbeat) for e in events), within=PATIENCE
            )
    finally:
        await gateway.close()
        await asyncio.to_thread(broker.discard)


def kill_squashfuse(target: str) -> None:
    """The process that serves this mount, as found by its command line."""
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (directory / "cmdline").read_bytes().split(b"\0")
            if b"squashfuse" in words[0] and target.encode() in words:
                os.kill(int(directory.name), signal.SIGKILL)


def is_dead(target: str) -> bool:
    try:
        Path(target).stat()
    except OSError as exc:
        return exc.errno == errno.ENOTCONN
    return False


@pytest.mark.parametrize("mount", [param for param in real_mounts if "squashfuse" in param.values])
@pytest.mark.parametrize("restarted", [False, True])
async def test_a_dead_squashfuse_mount_is_made_again_at_the_same_place(
    place: Place, mount: str, restarted: bool
) -> None:
    settings = place.settings(mount)
    image = place.image("a")
    async with running(settings, connect_bus(settings, "test")):
        _, view = await ask(place, "POST", "/v1/mounts", image.request("first"))
        kill_squashfuse(view["path"])
        await eventually(lambda: is_dead(view["path"]), within=PATIENCE)
        if not restarted:
            assert (await ask(place, "POST", "/v1/mounts", image.request("second")))[0] == 200
            assert greeting(view) == "this is a\n"
            await ask(place, "DELETE", "/v1/jobs/second")
    async with running(settings, connect_bus(settings, "test")):
        assert greeting(view) == "this is a\n"
        assert (await ask(place, "GET", "/v1/status"))[1]["jobs"] == {"first": [image.image_id]}
        await ask(place, "DELETE", "/v1/jobs/first")
        assert place.standing() == []
