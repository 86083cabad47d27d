"""Agents as processes: killed and started again, run by ordinary users, on other kernels."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from services.node_agent import loop_device
from services.node_agent.loop import LoopMounter
from services.node_agent.mounter import Mounter, Source
from services.node_agent.mounts import choose_mounter
from services.node_agent.unmount import clear, remove_tree
from shared.errors import ConfigError
from tests.support.agents import PATIENCE, Place, agent_process, ask, greeting, real_mounts, serving
from tests.support.conditions import eventually
from tests.support.squashfs import is_root, mounts_in
from tests.support.users import (
    AS_NOBODY,
    NOBODY,
    REPOSITORY,
    ordinary_environment,
    ordinary_python,
)


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


CALLER = """
import http.client, json, os, socket, sys
connection = http.client.HTTPConnection("localhost")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect(sys.argv[1])
connection.request("POST", "/v1/mounts", sys.argv[2], {"Content-Type": "application/json"})
print(connection.getresponse().status, flush=True)
os.execvp("sleep", ["sleep", "600"])
"""


@pytest.mark.parametrize("mount", real_mounts)
@pytest.mark.parametrize("restart", ["none", "before", "after"])
async def test_a_killed_caller_s_mount_is_given_back_whenever_the_agent_was_restarted(
    place: Place, mount: str, restart: str
) -> None:
    """The agent is killed before, or after, the caller is."""
    image = place.image("tied")
    body = json.dumps({**image.request("tied"), "until_caller_exits": True})
    with contextlib.ExitStack() as agents:
        agent = agents.enter_context(agent_process(place, mount))
        await serving(place, agent)
        caller = subprocess.Popen(
            [sys.executable, "-c", CALLER, place.socket, body], stdout=subprocess.PIPE
        )
        with caller:
            assert caller.stdout is not None
            assert caller.stdout.readline() == b"200\n"
            if restart != "none":
                agent.kill()
                agent.wait(PATIENCE)
            if restart == "after":
                caller.kill()
            if restart != "none":
                agent = agents.enter_context(agent_process(place, mount))
                status = await serving(place, agent)
                assert list(status["jobs"]) == (["tied"] if restart == "before" else [])
            assert place.standing() == [] or restart != "after"
            assert place.standing() != [] or restart == "after"
            caller.kill()
        await eventually(lambda: not place.standing(), within=PATIENCE)
        assert list((place.agent_dir / "jobs").iterdir()) == []


async def test_an_agent_names_its_socket_and_takes_it_away_when_it_stops(place: Place) -> None:
    with agent_process(place, "unpack") as agent:
        await serving(place, agent)
        log = (place.root / "agent.log").read_text()
        assert [json.loads(line)["socket"] for line in log.splitlines() if "serving" in line] == [
            str(place.socket)
        ]
        agent.terminate()
        assert agent.wait(PATIENCE) == 0
    assert not place.socket.exists()


@pytest.mark.root
@pytest.mark.skipif(not is_root(), reason="a PID namespace is made by root")
async def test_a_caller_in_another_pid_namespace_cannot_tie_a_job(place: Place) -> None:
    image = place.image("a")
    elsewhere = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    with agent_process(place, "unpack", within=elsewhere) as agent:
        await serving(place, agent)
        body = {**image.request("j"), "until_caller_exits": True}
        status, answer = await ask(place, "POST", "/v1/mounts", body)
        assert (status, answer["code"]) == (422, "caller_unseen")
        assert "PID namespace" in answer["detail"]
        assert place.standing() == []


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
        patch.setattr(loop_device, "configure", loop_device.configure_in_two_steps)
        mounter: Mounter = LoopMounter(place.root / "probe")
        mounter.mount(Source(image.path), target)
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
from services.node_agent.mounter import Source
from services.node_agent.mounts import choose_mounter, mounted_images
from services.node_agent.unmount import clear
from shared.config import Settings
image = Path(sys.argv[1])
root = image.parents[1]
settings = Settings.model_validate({"data_dir": root, "agent": {"mount": "auto"}})
mounter = choose_mounter(settings)
target = root / "agent" / "mounts" / image.stem
target.mkdir(parents=True)
mounter.mount(Source(image), target)
standing = mounted_images(target.parent)[image.stem]
assert standing.backing == image
print(mounter.how, sorted(mounter.codecs), standing.how)
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
