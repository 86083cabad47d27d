"""The `dray` command against a real `dray up`: pull, look up, run inside, and clean up."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from cli.agent import Agent
from cli.answers import read_image
from deploy.demo.sample_image import write_sample_image
from deploy.demo.site import Site, free_port, mounts_below, registry
from tests.support.conditions import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

DRAY = Path(sys.executable).with_name("dray")
PROBE = "from cli.enter import make_namespaces; make_namespaces()"


@dataclass(frozen=True, slots=True)
class Ran:
    """What one command came to."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Up:
    """A running `dray up`, and an image that it has pulled."""

    site: Site
    reference: str

    @property
    def env(self) -> dict[str, str]:
        """Through the socket, which tells who asks."""
        return self.site.env | {"DRAY_URL": f"unix://{self.site.data}/gateway.sock"}

    async def dray(self, *arguments: str, **env: str) -> Ran:
        process = await asyncio.create_subprocess_exec(
            DRAY, *arguments, env=self.env | env, stdout=-1, stderr=-1, stdin=-3
        )
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        assert process.returncode is not None
        return Ran(process.returncode, out.decode(), err.decode())

    async def mounted(self) -> list[str]:
        path = self.site.data / "agent/agent.sock"
        return await asyncio.to_thread(_jobs_of, path)

    async def given_back(self) -> bool:
        return not await self.mounted()


def _jobs_of(socket: Path) -> list[str]:
    return list(Agent(socket).status()["jobs"])


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def up(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Up]:
    # Short: a socket's path may have 107 bytes.
    directory = tmp_path_factory.mktemp("cli")
    layout, data = directory / "registry", directory / "data"
    name = await asyncio.to_thread(write_sample_image, layout)
    data.mkdir()
    site, port = Site(data, free_port(0)), free_port(0)
    async with registry(layout, port), site.running():
        started = Up(site, f"127.0.0.1:{port}/{name}")
        pulled = await started.dray("pull", started.reference)
        assert pulled.code == 0, pulled.err
        assert "READY" in pulled.out
        yield started
    assert mounts_below(directory) == []


@pytest.fixture
def enterable() -> None:
    """Skips where the kernel lets this user enter no image."""
    probe = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=60, check=False
    )
    if probe.returncode != 0:
        pytest.skip(f"images cannot be entered here: {probe.stderr.splitlines()[-1]}")


async def test_a_second_pull_is_unchanged_at_once(up: Up) -> None:
    again = await up.dray("pull", up.reference)
    assert again.code == 0
    assert again.out.startswith(f"READY  {up.reference}  unchanged, id ")


async def test_json_of_pull_lookup_and_images_is_about_the_same_image(up: Up) -> None:
    pulled = json.loads((await up.dray("pull", "--json", up.reference)).out)
    looked_up = json.loads((await up.dray("lookup", "--json", up.reference)).out)
    listed = json.loads((await up.dray("images", "--json")).out)["items"]
    assert pulled["state"] == "READY"
    assert looked_up == pulled["image"]
    assert looked_up in listed
    image = read_image(looked_up)
    assert (up.site.data / f"images/{image.id}.squashfs").stat().st_size == image.size


async def test_the_node_has_reported_and_the_queue_is_empty(up: Up) -> None:
    async def reported() -> bool:
        return bool(json.loads((await up.dray("nodes", "--json")).out)["items"])

    await eventually(reported, within=30)
    [node] = json.loads((await up.dray("nodes", "--json")).out)["items"]
    assert node["capacity"]["cpus"] == os.cpu_count()
    assert node["capacity"]["cache"] is None
    assert (await up.dray("queue")).out == "Nothing is being pulled.\n"
    assert (await up.dray("queue", "dead")).out == "No event has failed for good.\n"


async def test_a_pull_of_what_does_not_exist_fails_with_the_reason(up: Up) -> None:
    missing = up.reference.replace("hello", "absent")
    failed = await up.dray("pull", missing)
    assert failed.code == 1
    assert "FAILURE" in failed.err
    assert "absent" in failed.err
    assert missing in (await up.dray("queue")).out


@pytest.mark.usefixtures("enterable")
async def test_a_command_runs_inside_with_its_own_root_and_environment(up: Up) -> None:
    inside = "grep PRETTY_NAME /etc/os-release; echo $DRAY_DEMO $A $HOST $TZ; pwd; id -u; "
    inside += "ls /proc/self/fd"
    ran = await up.dray(
        *("run", "-e", "A=b", up.reference, "--", "sh", "-c", inside),
        HOST="must not come along",
        TZ="CET",
    )
    assert ran.code == 0, ran.err
    assert ran.out.splitlines() == [
        'PRETTY_NAME="Dray demo image"',
        "1 b CET",
        "/opt/hello",
        str(os.getuid()),
        *("0", "1", "2", "3"),  # 3: that of ls
    ]


@pytest.mark.usefixtures("enterable")
async def test_the_image_is_read_only_and_gives_no_privileges(up: Up) -> None:
    ran = await up.dray("run", up.reference, "sh", "-c", "grep ' / ' /proc/mounts; touch /etc/x")
    options = ran.out.split()[3].split(",")
    assert {"ro", "nosuid", "nodev"} <= set(options)
    assert ran.code != 0
    assert "Read-only file system" in ran.err


@pytest.mark.usefixtures("enterable")
async def test_without_a_command_the_image_s_own_runs(up: Up) -> None:
    ran = await up.dray("run", up.reference)
    assert ran.code == 0, ran.err
    assert ran.out.startswith("Hello from inside the image")


@pytest.mark.usefixtures("enterable")
@pytest.mark.parametrize(
    ("command", "code"),
    [(("sh", "-c", "exit 7"), 7), (("absent",), 127), (("/etc",), 126)],
)
async def test_the_exit_status_is_the_command_s_and_the_mount_is_given_back(
    up: Up, command: tuple[str, ...], code: int
) -> None:
    ran = await up.dray("run", up.reference, *command)
    assert ran.code == code, ran.err
    await eventually(up.given_back, within=5)


@pytest.mark.usefixtures("enterable")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
async def test_a_signal_ends_the_command_and_gives_the_mount_back(
    up: Up, number: signal.Signals
) -> None:
    process = await asyncio.create_subprocess_exec(
        DRAY, "run", up.reference, "sh", "-c", "echo begun; exec sleep 60",
        env=up.env, stdout=-1, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert await process.stdout.readline() == b"begun\n"
        assert len(await up.mounted()) == 1
        process.send_signal(number)
        assert await process.wait() == -number
    await eventually(up.given_back, within=5)


async def test_an_image_that_is_not_ready_is_not_run_and_pull_is_suggested(up: Up) -> None:
    ran = await up.dray("run", "127.0.0.1:1/never/pulled:1", "true")
    assert ran.code == 125
    assert "dray pull --system local 127.0.0.1:1/never/pulled:1" in ran.err


async def test_without_an_agent_run_says_who_would_mount(up: Up, tmp_path: Path) -> None:
    ran = await up.dray("run", "--socket", str(tmp_path / "absent.sock"), up.reference, "true")
    assert ran.code == 125
    assert ran.err.count("no node agent answers") == 1
    assert "stays mounted" not in ran.err


@pytest.mark.usefixtures("enterable")
async def test_in_a_job_the_image_is_that_of_the_job_and_no_gateway_is_asked(up: Up) -> None:
    image = json.loads((await up.dray("lookup", "--json", up.reference)).out)
    job = {
        "DRAY_URL": "http://127.0.0.1:1",
        "DRAY_SOCKET": str(up.site.data / "agent/agent.sock"),
        "DRAY_IMAGE": up.reference,
        "DRAY_IMAGE_ID": image["id"],
        "DRAY_IMAGES": f"{image['id']},{image['content_digest']},{image['size']}",
    }
    ran = await up.dray("run", "-e", "A=b", "--", "sh", "-c", "echo $DRAY_DEMO $A; pwd", **job)
    assert (ran.code, ran.out) == (0, "1 b\n/opt/hello\n"), ran.err
    ran = await up.dray("run", **job)
    assert ran.out.startswith("Hello from inside the image"), ran.err
    ran = await up.dray("run", "--", "true", **(job | {"DRAY_IMAGES": "not,what,it,should,be"}))
    assert ran.code == 125
    assert "DRAY_IMAGES holds 'not,what,it,should,be', which is not id,digest,size" in ran.err
    await eventually(up.given_back, within=5)


async def test_a_second_up_on_the_same_data_is_refused(up: Up) -> None:
    second = await up.dray("up", "--data", str(up.site.data), "--listen", "127.0.0.1:0")
    assert second.code == 1
    assert "another `dray up`" in second.err
