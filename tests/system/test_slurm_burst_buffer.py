"""Images come while their job is pending: burst_buffer.lua in a real Slurm, with a whole site."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.conditions import eventually
from tests.support.gate import Gate
from tests.support.images import Pusher
from tests.support.registry import DebianRegistry
from tests.support.slurm import Batch, need_slurm
from tests.support.slurm_hooks import SOURCE, Installed, install
from tests.support.slurm_images import telling_image
from tests.support.slurm_site import Cluster
from tests.support.users import NOBODY

pytestmark = pytest.mark.root

STAGING = "BurstBufferStageIn"
FIRST_BYTES = 64 << 10
"""Enough for manifest and config: then a layer is on its way."""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[DebianRegistry]:
    with DebianRegistry(tmp_path / "registry") as registry:
        yield registry


@pytest.fixture
async def gate(registry: DebianRegistry) -> AsyncIterator[Gate]:
    async with Gate(int(registry.host.rpartition(":")[2])) as gate:
        yield gate


@pytest.fixture
def reference(registry: DebianRegistry, gate: Gate) -> str:
    Pusher(registry.url).push(telling_image("late", more=1_000_000), "team/app", "1")
    return f"{gate.host}/team/app:1"


@pytest.fixture
async def cluster(broker_url: str) -> Cluster:
    need_slurm()
    return Cluster.make(broker_url, nodes=2)


@pytest.fixture
async def installed(cluster: Cluster) -> AsyncIterator[Installed]:
    """All of deploy/slurm, whose plugin starts pulls and leaves it to us to wait for them."""
    directory = cluster.slurm.directory
    lua = directory / "dray.lua"
    installed = install(
        cluster,
        "--if-missing=pull",
        burst_buffer_lua=lua,
        burst_buffer_conf=(SOURCE / "burst_buffer.conf.example").read_text(),
        extra=("BatchStartTimeout=60", "PrologEpilogTimeout=60", "JobSubmitPlugins=lua"),
    )
    text = (SOURCE / "burst_buffer.lua").read_text()
    assert '"/etc/dray/hooks.conf"' in text
    lua.write_text(text.replace("/etc/dray/hooks.conf", str(installed.conf)))
    shutil.copy(SOURCE / "job_submit.lua", directory)
    async with cluster.running():
        yield installed


def wanting(reference: str) -> str:
    return f"--bb=#BB_LUA dray image={reference}"


async def staging(cluster: Cluster, gate: Gate, reference: str, script: str = "true") -> Batch:
    """A job whose image is on its way, and goes no further."""
    gate.hold_after(FIRST_BYTES)
    job = await asyncio.to_thread(
        cluster.slurm.sbatch, f"#!/bin/bash\n#SBATCH -N2 --image={reference}\n{script}\n"
    )
    await eventually(lambda: gate.holding, within=30)
    waiting = {job.id: f"PENDING {STAGING}"}
    await eventually(lambda: cluster.slurm.queue() == waiting, within=10)
    return job


def left_in_state(cluster: Cluster) -> list[Path]:
    return list((cluster.slurm.directory / "state").rglob("dray.*"))


def stagers(cluster: Cluster) -> list[str]:
    """Processes that wait for an image on behalf of this Slurm."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"stage" in words and str(cluster.slurm.directory).encode() in b" ".join(words):
            found.append(place.parent.name)
    return found


async def test_a_job_waits_for_its_image_then_runs(
    installed: Installed, cluster: Cluster, gate: Gate, reference: str
) -> None:
    slurm, site = cluster.slurm, cluster.site
    script = f"echo $DRAY_IMAGES; srun --ntasks-per-node=1 sh -c '{installed.inside()}' | sort"
    job = await staging(cluster, gate, reference, script)
    _, queue = await site.ask("GET", "/api/v1/queue")
    (pull,) = queue["items"]
    # Asked for as the job's user, and not as slurmctld's.
    assert pull["requested_by"] == "nobody"
    gate.open()
    await eventually(lambda: slurm.state(job.id) == "COMPLETED", within=60)
    _, images = await site.ask("GET", "/api/v1/images")
    (image,) = images["items"]
    pinned = f"{image['id']},{image['content_digest']},{image['size']}"
    await eventually(lambda: job.output() != "", within=5)
    told = [f"in late on {node} as {NOBODY}" for node in slurm.nodes]
    assert job.output().splitlines() == [pinned, *told]

    async def released() -> bool:
        status, view = await site.ask("GET", f"/api/v1/jobs/{job.id}")
        assert status == 200, view
        assert view["uid"] == NOBODY
        return view["released_at"] is not None

    await eventually(released, within=30)
    await eventually(lambda: not site.mounts(), within=30)
    await eventually(lambda: not left_in_state(cluster), within=10)
    assert slurm.drained() == {}


async def test_a_failed_pull_is_the_reason_that_the_user_sees(
    installed: Installed, cluster: Cluster, registry: DebianRegistry
) -> None:
    slurm = cluster.slurm
    refused = slurm.try_sbatch("true", "--bb=#BB_LUA dray image=$(reboot)")
    assert refused.returncode != 0
    assert "'$(reboot)' names no image" in refused.stderr

    missing = f"{registry.host}/team/nothing:1"
    job = slurm.sbatch("true", wanting(missing))
    await eventually(lambda: "slurm_bb_data_in" in slurm.queue()[job.id], within=60)
    reason = slurm.queue()[job.id]
    assert reason.startswith("PENDING ")
    assert missing in reason
    assert "[" not in reason.partition(missing)[0]
    shown = slurm.run("scontrol", "show", "job", job.id, user=NOBODY).stdout
    assert missing in shown
    assert slurm.drained() == {}

    slurm.cancel(job.id)
    await eventually(lambda: slurm.state(job.id) == "CANCELLED", within=10)
    await eventually(lambda: not left_in_state(cluster), within=10)
    # Those without an image have nothing to do with it.
    other = slurm.sbatch("echo done")
    await eventually(lambda: slurm.state(other.id) == "COMPLETED", within=30)


async def test_a_job_that_is_cancelled_while_it_waits_leaves_nothing(
    installed: Installed, cluster: Cluster, gate: Gate, reference: str
) -> None:
    slurm, site = cluster.slurm, cluster.site
    job = await staging(cluster, gate, reference)
    await eventually(lambda: stagers(cluster), within=30)
    slurm.cancel(job.id)
    await eventually(lambda: slurm.state(job.id) == "CANCELLED", within=10)
    # Slurm's teardown follows; but 22.05 may kill that along with what waits for the image.
    await eventually(lambda: not stagers(cluster), within=10)
    status, _ = await site.ask("GET", f"/api/v1/jobs/{job.id}")
    assert status == 404
    # The pull goes on for whoever asks next, and the next job has its image.
    gate.open()
    again = await asyncio.to_thread(slurm.sbatch, installed.inside(), f"--image={reference}")
    await eventually(lambda: slurm.state(again.id) == "COMPLETED", within=60)
    assert again.output() == f"in late on v1 as {NOBODY}\n"


async def test_a_controller_that_is_killed_begins_to_wait_anew(
    installed: Installed, cluster: Cluster, gate: Gate, reference: str
) -> None:
    slurm = cluster.slurm
    job = await staging(cluster, gate, reference, installed.inside())
    await eventually(lambda: stagers(cluster), within=30)
    slurm.kill("slurmctld")
    await eventually(lambda: not stagers(cluster), within=10)
    slurm.start_controller()
    slurm.wait_until_idle()
    # Slurm puts such a job off for a minute, which the test need not wait for.
    slurm.scontrol("update", f"JobId={job.id}", "StartTime=now")
    await eventually(lambda: stagers(cluster), within=60)
    assert slurm.state(job.id) == "PENDING"
    gate.open()
    await eventually(lambda: slurm.state(job.id) == "COMPLETED", within=90)
    assert job.output() == f"in late on v1 as {NOBODY}\n"
    assert slurm.drained() == {}
