"""Jobs that run inside their images under a real Slurm, from the pull to a node without a mount."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.c_programs import build_enter
from tests.support.conditions import eventually
from tests.support.slurm import need_slurm
from tests.support.slurm_hooks import install, need_compiler
from tests.support.slurm_images import WHERE
from tests.support.slurm_site import Cluster
from tests.support.slurm_world import World, running, said

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="Slurm and loop mounts: needs root"),
    pytest.mark.asyncio(loop_scope="module"),
]
ARRIVALS = ("first_node", "half_of_nodes", "most_nodes", "all_nodes")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(
    module_broker_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    need_slurm()
    need_compiler()
    cluster = Cluster.make(module_broker_url, cores=32)
    dray = install(cluster, "--if-missing=wait")
    build_enter(cluster.slurm.directory)
    async with running(cluster, dray, tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def _unharmed(world: World) -> AsyncIterator[None]:
    yield
    await world.is_unharmed()


async def test_tasks_of_a_job_begin_inside_without_a_command_for_it(world: World) -> None:
    reference = world.push("entered")
    for more in ((), ("--export=NONE",)):
        done = await world.srun(f"--image={reference}", "--enter", "-N3", "-n6", *more, WHERE)
        assert said_by(done.stdout) == ["in entered"] * 6, done.stderr


async def test_each_rank_enters_by_the_helper_as_well(world: World) -> None:
    first, second = world.push("helped"), world.push("helped-too")
    helper = enter_helper(world)
    job = await world.sbatch(
        f"#SBATCH -N3\n#SBATCH --image={first},{second}\n#SBATCH --enter\nsrun {WHERE}\n"
        f"srun --enter=no /bin/sh -c '{helper} -- {WHERE}'\n"
        "other=${DRAY_IMAGES##*;} other=${other%%,*}\n"
        f'srun --enter=no /bin/sh -c "{helper.replace("$", chr(92) + "$")} $other -- {WHERE}"\n'
    )
    assert await world.slurm.ended(job.id) == "COMPLETED", job.output()
    names = [line.rpartition(" on ")[0] for line in said(job)]
    assert names == ["in helped"] * 6 + ["in helped-too"] * 3, job.output()
    await world.is_over(job.id)
    await eventually(lambda: entered(world, job.id), within=30)
    marks = await time_line(world, job.id)
    assert sorted(marks) == sorted([*ARRIVALS, "announced", "first_rank", "released"])
    assert marks[0] == "announced"


async def test_volumes_of_the_job_are_there_and_ranks_share_its_tmp(
    world: World, tmp_path: Path
) -> None:
    data = world.slurm.work / "data"
    data.mkdir()
    (data / "image-name").write_text("volume")
    reference = world.push("volumes")
    # The image's program tells what /etc/image-name says: the volume is over it.
    options = (f"--image={reference}", f"--volume={data}/image-name:/etc/image-name")
    refused = await world.srun(*options, "--enter", WHERE)
    assert refused.returncode != 0
    done = await world.srun(f"--image={reference}", f"--volume={data}:/data", "--enter", WHERE)
    assert said_by(done.stdout) == ["in volumes"], done.stderr


async def test_what_an_agent_could_not_put_together_is_told_by_the_job(world: World) -> None:
    reference = world.push("furnished")
    done = await world.srun(
        f"--image={reference}", "--volume=/nowhere/at/all:/data", "--enter", "-N3", WHERE
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("No such file") == 3, done.stderr


async def test_a_job_that_is_killed_leaves_no_inside(world: World) -> None:
    reference = world.push("killed")
    words = (f"--image={reference}", "--enter", "-N3", WHERE, "600")
    running = world.slurm.start("srun", *words, user=65534)
    assert running.stdout is not None
    assert (await asyncio.to_thread(running.stdout.readline)).startswith("in killed")
    (job,) = world.slurm.queue()
    running.kill()
    await asyncio.to_thread(running.communicate)
    world.slurm.cancel(job)
    await world.is_over(job)
    places = [insides(world, node) for node in world.site.nodes]
    await eventually(lambda: not any(any(place.iterdir()) for place in places), within=30)


async def time_line(world: World, job: str) -> list[str]:
    """What happened to a job, in that order."""
    _, told = await world.site.ask("GET", f"/api/v1/jobs/{job}/timeline")
    return [mark["moment"] for mark in told["marks"]]


async def entered(world: World, job: str) -> bool:
    """Nodes tell of it with their next heartbeat."""
    return "first_rank" in await time_line(world, job)


def insides(world: World, node: str) -> Path:
    return world.site.run_dir(node) / "insides"


def enter_helper(world: World) -> str:
    place = insides(world, "$SLURMD_NODENAME")
    return f"DRAY_INSIDES={place} {world.slurm.directory}/dray-enter"


def said_by(output: str) -> list[str]:
    return [line.rpartition(" on ")[0] for line in output.splitlines()]
