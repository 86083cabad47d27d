"""What breaks around a job under a real Slurm: it starts all the same, or fails alone and says why.

Here the site starts the pull of a missing image at submission, and lets the job wait for it.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from functools import partial

import pytest
import pytest_asyncio

from tests.support.conditions import eventually
from tests.support.gate import Gate
from tests.support.rabbitmq import RabbitNode, need_rabbitmq
from tests.support.registry import DebianRegistry
from tests.support.slurm import need_slurm
from tests.support.slurm_hooks import install, need_compiler
from tests.support.slurm_site import Cluster
from tests.support.slurm_world import World, said
from tests.support.users import NOBODY

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="Slurm and loop mounts: needs root"),
    pytest.mark.asyncio(loop_scope="module"),
]
SETTINGS = {"pull": {"max_tries": 1, "lease": 30.0}}
MEGABYTE = 1 << 20
FIRST = f"in first on v1 as {NOBODY}"


@pytest.fixture(scope="module")
def own_rabbit(tmp_path_factory: pytest.TempPathFactory) -> object:
    """A broker that may be killed."""
    need_rabbitmq()
    node = RabbitNode(tmp_path_factory.mktemp("rabbitmq") / "node")
    try:
        yield node.start()
    finally:
        node.discard()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gate(registry: DebianRegistry) -> AsyncIterator[Gate]:
    async with Gate(registry.port) as gate:
        yield gate


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> object:
    with DebianRegistry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(
    own_rabbit: RabbitNode, registry: DebianRegistry, gate: Gate
) -> AsyncIterator[World]:
    need_slurm()
    need_compiler()
    cluster = Cluster.make(own_rabbit.url, cores=8, settings=SETTINGS)
    dray = install(cluster, "--if-missing=pull")
    async with cluster.running():
        world = World(cluster.slurm, cluster.site, dray, registry, gate.host)
        pull = await world.site.pull(world.push("first"))
        await world.site.reached(pull["id"], "READY")
        yield world


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def _unharmed(world: World, gate: Gate) -> AsyncIterator[None]:
    yield
    gate.open()
    await world.is_unharmed()


async def test_a_job_waits_while_its_image_is_pulled(world: World, gate: Gate) -> None:
    reference = world.push("slow", more=8 * MEGABYTE)
    gate.hold_after(2 * MEGABYTE)
    job = await world.sbatch(world.line(), f"--image={reference}", "-wv[1-2]")
    assert world.site.mounts() == []
    await eventually(lambda: world.slurm.state(job.id) == "CONFIGURING", within=30)
    gate.open()
    assert await world.slurm.ended(job.id) == "COMPLETED", job.output()
    assert sorted(said(job)) == [f"in slow on v{n} as {NOBODY}" for n in (1, 2)]
    await world.is_over(job.id)


async def test_a_pull_that_fails_tells_the_jobs_user_why(
    world: World, registry: DebianRegistry
) -> None:
    reference = world.push("doomed")
    world.site.freeze("converter")
    job = await world.sbatch("echo it runs", f"--image={reference}")
    (repository,) = registry.directory.rglob("repositories/team/doomed")
    shutil.rmtree(repository)
    world.site.thaw_all()
    assert await world.slurm.ended(job.id) == "FAILED"
    assert f"dray: {reference} cannot be had: " in job.output()
    assert "check the name and the tag" in job.output()
    assert "it runs" not in job.output()


async def test_an_image_whose_file_is_gone_fails_its_job_alone(world: World) -> None:
    other = world.push("gone")
    pull = await world.site.pull(other)
    view = await world.site.reached(pull["id"], "READY")
    file = world.site.images / f"{view['image']['id']}.squashfs"
    file.rename(file.with_suffix(".away"))
    try:
        job, good = await asyncio.gather(
            world.sbatch("echo it runs", f"--image={other}", "-N3"),
            world.sbatch(world.line(), f"--image={world.host}/team/first:1", "-wv1"),
        )
        assert await world.slurm.ended(job.id) == "FAILED"
        assert await world.slurm.ended(good.id) == "COMPLETED", good.output()
    finally:
        file.with_suffix(".away").rename(file)
    assert said(good) == [FIRST]
    assert "it runs" not in job.output()
    (reason,) = [line for line in job.output().splitlines() if line.startswith("dray: ")]
    assert view["image"]["id"] in reason


async def test_without_an_agent_the_job_fails_with_the_reason_unless_it_comes_back(
    world: World,
) -> None:
    reference = f"{world.host}/team/first:1"
    world.site.kill("v1")
    alone = await world.srun(f"--image={reference}", "-wv1", "echo", "it runs")
    assert (alone.returncode, alone.stdout) == (1, "")
    assert "dray: no node agent answers at" in alone.stderr
    assert world.slurm.drained() == {}

    job = await world.sbatch(world.line(), f"--image={reference}", "-wv1")
    await eventually(lambda: world.slurm.state(job.id) in ("CONFIGURING", "RUNNING"), within=30)
    await world.site.start_agents("v1")
    assert await world.slurm.ended(job.id) == "COMPLETED", job.output()
    assert said(job) == [FIRST]


async def test_an_agent_that_dies_under_a_job_leaves_it_its_image(world: World) -> None:
    reference = f"{world.host}/team/first:1"
    inside = world.dray.inside("--", "/bin/where", "3")
    job = await world.sbatch(f"{inside} && echo it went on", f"--image={reference}", "-wv1")
    await eventually(lambda: said(job) == [FIRST], within=60)
    world.site.kill("v1")
    assert await world.slurm.ended(job.id) == "COMPLETED", job.output()
    assert "it went on" in job.output()
    await eventually(lambda: world.slurm.states()["v1"] == "idle", within=90)
    # Nobody was there to take the mount back; the next agent hears of it.
    assert len(world.site.images_mounted("v1")) == 1
    await world.site.start_agents("v1")
    await eventually(lambda: world.site.mounts("v1") == [], within=30)
    again = await world.srun(f"--image={reference}", "-wv1", "sh", "-c", world.dray.inside())
    assert again.stdout.strip() == FIRST, again.stderr
    assert not list(world.dray.state.glob("v1/*.ended"))


async def test_without_a_gateway_jobs_start_and_end_and_their_end_is_told_later(
    world: World,
) -> None:
    reference = f"{world.host}/team/first:1"
    job = await world.sbatch(world.line(), f"--image={reference}", "--hold", "-wv1")
    running = await world.sbatch("sleep 600", f"--image={reference}", "-wv2")
    await eventually(lambda: len(world.site.images_mounted("v2")) == 1, within=60)
    await eventually(lambda: world.slurm.state(running.id) == "RUNNING", within=60)
    world.site.kill("gateway")
    try:
        refused = await asyncio.to_thread(world.slurm.try_sbatch, "true", f"--image={reference}")
        assert "dray: no gateway answers" in refused.stderr
        world.slurm.scontrol("release", job.id)
        assert await world.slurm.ended(job.id, within=120) == "COMPLETED", job.output()
        assert said(job) == [FIRST]
        world.slurm.cancel(running.id)
        noted = world.dray.spool / f"{running.id}.ended"
        await eventually(noted.exists, within=90)
        await eventually(lambda: world.site.mounts() == [], within=60)
    finally:
        await world.site.start("gateway")
    assert (await world.told(running.id))["released_at"] is None
    later = await world.sbatch(world.line(), f"--image={reference}", "-wv1")
    assert await world.slurm.ended(later.id) == "COMPLETED", later.output()
    await world.is_over(running.id)
    await eventually(lambda: not list(world.dray.spool.glob("*.ended")), within=60)


async def test_without_a_bus_jobs_start_and_end(world: World, own_rabbit: RabbitNode) -> None:
    reference = f"{world.host}/team/first:1"
    own_rabbit.kill()
    try:
        job = await world.sbatch(world.line(), f"--image={reference}", "-N3")
        assert await world.slurm.ended(job.id, within=120) == "COMPLETED", job.output()
        assert sorted(said(job)) == [f"in first on v{n} as {NOBODY}" for n in (1, 2, 3)]
        await eventually(lambda: world.site.mounts() == [], within=60)
    finally:
        own_rabbit.start()
    for node in world.site.nodes:
        await eventually(partial(world.site.serves, node), within=60)


async def test_a_full_cache_is_no_obstacle(world: World) -> None:
    big = world.push("big", more=4 * MEGABYTE)
    pull = await world.site.pull(big)
    await world.site.reached(pull["id"], "READY")
    cache = {"dir": str(world.site.directory / "cache-v3"), "policy": "copy", "max_bytes": MEGABYTE}
    await world.site.stop("v3")
    await world.site.start_agents("v3", cache=cache)
    try:
        job = await world.sbatch(world.line(), f"--image={big}", "-wv3")
        assert await world.slurm.ended(job.id) == "COMPLETED", job.output()
        assert said(job) == [f"in big on v3 as {NOBODY}"]
    finally:
        await world.site.stop("v3")
        await world.site.start_agents("v3")
