"""The agent on this machine's kernel: real mounts, a real socket, real processes."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from services.node_agent import loop
from services.node_agent.app import NodeAgent, build
from services.node_agent.mounter import Mounter
from services.node_agent.mounts import choose_mounter
from services.node_agent.unmount import clear, remove_tree
from shared.bus.connect import connect_bus
from shared.bus.interface import Bus
from shared.bus.topology import GATEWAY_EVENTS
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
from tests.support.conditions import eventually
from tests.support.rabbitmq import RabbitNode, need_rabbitmq
from tests.support.squashfs import PlacedImage, is_root, mounts_in, place_image, small_tree
from tests.support.users import (
    AS_NOBODY,
    NOBODY,
    REPOSITORY,
    ordinary_environment,
    ordinary_python,
)

PATIENCE = 30.0

needs_root = [
    pytest.mark.root,
    pytest.mark.skipif(not is_root(), reason="loop mounts need root"),
]
needs_squashfuse = pytest.mark.skipif(
    shutil.which("squashfuse") is None, reason="squashfuse is missing: install squashfuse"
)
real_mounts = [
    pytest.param("unpack"),
    pytest.param("loop", marks=needs_root),
    pytest.param("squashfuse", marks=[*needs_root, needs_squashfuse]),
]


@dataclass
class Place:
    """Directories of one node, and images in them."""

    root: Path

    @property
    def agent_dir(self) -> Path:
        return self.root / "agent"

    @property
    def socket(self) -> Path:
        return self.agent_dir / "agent.sock"

    def settings(self, mount: str) -> Settings:
        return Settings.model_validate(self.document(mount))

    def document(self, mount: str) -> dict[str, Any]:
        return {
            "data_dir": str(self.root),
            "agent": {"mount": mount, "node": "n1", "listen": "127.0.0.1:0"},
        }

    def image(self, name: str, codec: str = "gzip") -> PlacedImage:
        tree = small_tree(self.root / "trees" / name, greeting=f"this is {name}\n")
        return place_image(tree, self.root / "images", name=name, codec=codec)

    def standing(self) -> list[str]:
        """What is left of mounts and unpacked trees."""
        directory = self.agent_dir / "mounts"
        return mounts_in(self.root) + [str(path) for path in directory.glob("*")]


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("node")
    for directory in (root, *list(root.parents)[:2]):
        directory.chmod(0o755)  # ordinary users come in as well
    yield Place(root)
    left = mounts_in(root)
    for point in left:
        clear(Path(point))
    assert left == []


@contextlib.asynccontextmanager
async def running(settings: Settings, bus: Bus) -> AsyncIterator[NodeAgent]:
    agent = build(settings, bus, serve_health=False)
    try:
        await agent.start(Deadline.after(PATIENCE))
        yield agent
    finally:
        await agent.stop(Deadline.after(PATIENCE))


async def ask(
    place: Place, method: str, path: str, body: object = None
) -> tuple[int, dict[str, Any]]:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(place.socket))) as session,
        session.request(method, f"http://agent{path}", json=body) as answer,
    ):
        return answer.status, await answer.json() if answer.status != 204 else {}


def greeting(view: dict[str, Any]) -> str:
    return (Path(view["path"]) / "greeting").read_text()


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
    await bus.consume(GATEWAY_EVENTS, take, slots=1)
    return events


def allocation(job_id: str, *images: PlacedImage) -> JobAllocated:
    wanted = tuple(
        NodeImage(image_id=image.image_id, sha256=image.sha256, size=image.size) for image in images
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
        assert "compressed with xz" in answer["message"]
        status, answer = await ask(place, "POST", "/v1/mounts", broken.request("j"))
        assert (status, answer["code"]) in {(500, "mount_failed"), (500, "image_corrupt")}
        assert place.standing() == []


async def test_bad_requests_are_answered_as_json(place: Place) -> None:
    settings = place.settings("unpack")
    image = place.image("a")
    async with running(settings, connect_bus(settings, "test")):
        for body in ({}, {**image.request("../x")}, {**image.request("j"), "wait": 0}, []):
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


@contextlib.contextmanager
def agent_process(
    place: Place, mount: str, python: str = sys.executable, **user: Any
) -> Iterator[subprocess.Popen[bytes]]:
    config = place.root / "dray.yaml"
    config.write_text(yaml.safe_dump(place.document(mount)), encoding="utf-8")
    with (place.root / "agent.log").open("ab") as log:
        process = subprocess.Popen(
            [python, "-m", "services.node_agent", "--config", str(config)],
            cwd=REPOSITORY,
            env=ordinary_environment(),
            stderr=log,
            **user,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(PATIENCE)


async def serving(place: Place, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    async def answers() -> dict[str, Any] | None:
        assert process.poll() is None, (place.root / "agent.log").read_text()
        try:
            return (await ask(place, "GET", "/v1/status"))[1]
        except aiohttp.ClientError:
            return None

    found = await eventually(answers, within=PATIENCE)
    assert found is not None
    return found


@pytest.mark.parametrize("mount", real_mounts)
async def test_mounts_survive_a_killed_agent_and_end_with_their_job(
    place: Place, mount: str
) -> None:
    wanted, orphan = place.image("wanted"), place.image("orphan")
    with agent_process(place, mount) as process:
        await serving(place, process)
        for image, job in ((wanted, "j"), (orphan, "lost")):
            assert (await ask(place, "POST", "/v1/mounts", image.request(job)))[0] == 200
        before = mounts_in(place.root)
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)
    assert mounts_in(place.root) == before
    for file in (place.agent_dir / "jobs").iterdir():
        if "lost" in file.read_text():
            file.unlink()

    with agent_process(place, mount) as process:
        status = await serving(place, process)
        assert status["jobs"] == {"j": [wanted.image_id]}
        (view,) = status["mounts"]
        assert (view["how"], greeting(view)) == (mount, "this is wanted\n")
        assert mounts_in(place.root) == ([] if mount == "unpack" else [view["path"]])
        assert await ask(place, "DELETE", "/v1/jobs/j") == (204, {})
        assert place.standing() == []
        process.terminate()
        assert process.wait(PATIENCE) == 0


@pytest.mark.root
@pytest.mark.skipif(not is_root(), reason="only root can become somebody else")
async def test_an_ordinary_user_s_agent_unpacks_and_knows_its_callers(place: Place) -> None:
    image = place.image("plain")
    place.agent_dir.mkdir()
    os.chown(place.agent_dir, NOBODY, NOBODY)
    (place.root / "agent.log").touch()
    with agent_process(place, "auto", ordinary_python(), **AS_NOBODY) as process:
        status = await serving(place, process)
        assert status["mounter"] == "unpack"
        _, view = await ask(place, "POST", "/v1/mounts", image.request("of-root"))
        assert greeting(view) == "this is plain\n"
        assert Path(view["path"]).stat().st_uid == NOBODY

        def as_user(uid: int, *arguments: str) -> str:
            command = ["curl", "-s", "--unix-socket", str(place.socket), *arguments]
            return subprocess.run(
                command, user=uid, group=uid, extra_groups=(), capture_output=True, check=True
            ).stdout.decode()

        if shutil.which("curl") is None:
            pytest.skip("curl is missing")
        stranger = as_user(1234, "-X", "DELETE", "http://agent/v1/jobs/of-root")
        assert '"forbidden"' in stranger
        listing = subprocess.run(
            ["ls", str(place.agent_dir / "mounts")],
            user=1234, group=1234, extra_groups=(), capture_output=True, check=False,
        )  # fmt: skip
        assert listing.returncode != 0
        assert as_user(NOBODY, "-X", "DELETE", "http://agent/v1/jobs/of-root") == ""
        assert place.standing() == []


def test_a_mounter_that_cannot_work_says_what_is_missing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ConfigError, match="squashfuse is not installed"):
        choose_mounter(place.settings("squashfuse"))


@pytest.mark.root
@pytest.mark.skipif(not is_root(), reason="loop devices need root")
def test_kernels_without_loop_configure_are_served_too(place: Place) -> None:
    image = place.image("old-kernel")
    target = place.root / "target"
    target.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "configure", loop.configure_in_two_steps)
        mounter: Mounter = loop.LoopMounter(place.root / "probe")
        mounter.mount(image.path, target)
    assert (target / "greeting").read_text() == "this is old-kernel\n"
    device = next(
        line.split(" - ")[1].split()[1]
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if str(target) in line
    )
    clear(target)
    assert not (Path("/sys/block") / Path(device).name / "loop/backing_file").exists()


SQUASHFUSE = """
import sys
from pathlib import Path
from services.node_agent.mounts import choose_mounter, mounted_images
from services.node_agent.unmount import clear
from shared.config import Settings
image = Path(sys.argv[1])
root = image.parents[1]
settings = Settings.model_validate({"data_dir": root, "agent": {"mount": "auto"}})
mounter = choose_mounter(settings)
target = root / "agent" / "mounts" / image.stem
target.mkdir(parents=True)
mounter.mount(image, target)
print(mounter.how, sorted(mounter.codecs), mounted_images(target.parent)[image.stem])
print((target / "greeting").read_text(), end="")
clear(target)
print(target.exists())
"""


@pytest.mark.root
@pytest.mark.skipif(not is_root(), reason="a usable /dev/fuse is made by root")
def test_an_ordinary_user_mounts_by_squashfuse(place: Place) -> None:
    for program, package in (("squashfuse", "squashfuse"), ("fusermount3", "fuse3")):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is missing: install {package}")
    image = place.image("fused")
    place.agent_dir.mkdir()
    os.chown(place.agent_dir, NOBODY, NOBODY)
    # A /dev/fuse for everybody, in a mount namespace of its own.
    script = (
        "mknod $0/fuse c 10 229 && chmod 666 $0/fuse && mount --bind $0/fuse /dev/fuse && "
        f"exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups $@"
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, place.root, ordinary_python(), "-", image.path],
        cwd=REPOSITORY,
        env=ordinary_environment(),
        input=SQUASHFUSE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    how, *rest = done.stdout.splitlines()[-3:]
    assert how.startswith("squashfuse [")
    assert "gzip" in how
    assert how.endswith(" squashfuse")
    assert rest == ["this is fused", "False"]


def test_a_tree_with_closed_directories_can_be_removed(tmp_path: Path) -> None:
    closed = tmp_path / "tree" / "closed"
    closed.mkdir(parents=True)
    (closed / "file").touch()
    (tmp_path / "tree" / "away").symlink_to("/etc")
    closed.chmod(0)
    remove_tree(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()
    assert Path("/etc/passwd").exists()
