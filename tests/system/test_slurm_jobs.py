"""Jobs with images under a real Slurm: from `#SBATCH --image=` to a node without a mount."""

import asyncio
import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.conditions import eventually
from tests.support.slurm import need_slurm
from tests.support.slurm_hooks import install, need_compiler
from tests.support.slurm_site import Cluster
from tests.support.slurm_world import World, running, said
from tests.support.users import NOBODY

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="Slurm and loop mounts: needs root"),
    pytest.mark.asyncio(loop_scope="module"),
]
NODES = ("v1", "v2", "v3")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(
    module_broker_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    need_slurm()
    need_compiler()
    cluster = Cluster.make(module_broker_url, cores=32)
    dray = install(cluster, "--if-missing=wait")
    async with running(cluster, dray, tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def _unharmed(world: World) -> AsyncIterator[None]:
    yield
    await world.is_unharmed()


async def test_a_job_over_three_nodes_runs_in_an_image_that_was_not_there(world: World) -> None:
    reference = world.push("first")
    job = await world.sbatch(
        f"#SBATCH -N3\n#SBATCH --image={reference}\n{world.line()}echo $DRAY_IMAGE"
    )
    assert await world.slurm.ended(job.id) == "COMPLETED", job.output()
    *lines, image = job.output().splitlines()
    assert sorted(lines) == [f"in first on {node} as {NOBODY}" for node in NODES]
    assert image == reference
    await world.is_over(job.id)
    view = await world.told(job.id)
    assert (view["uid"], view["node_count"]) == (NOBODY, 3)
    assert view["counts"]["FAILED"] == 0, view


async def test_srun_alone_and_inside_of_jobs(world: World) -> None:
    one, two = world.push("one"), world.push("two")
    alone = await world.srun(f"--image={one}", "-wv[1-2]", "sh", "-c", world.dray.inside())
    assert sorted(alone.stdout.splitlines()) == [f"in one on {n} as {NOBODY}" for n in NODES[:2]]

    # A step with an image of its own in a job with another, and a step that takes over the job's,
    # which comes from the node where the environment does not.
    job = await world.sbatch(
        f"#SBATCH -w v1\n#SBATCH --image={one}\n#SBATCH --export=NONE\n"
        f"srun --export=ALL --image={two} /bin/sh -c '{world.dray.inside()}'\n"
        f"srun --export=ALL /bin/sh -c '{world.dray.inside()}'\n"
    )
    assert await world.slurm.ended(job.id) == "COMPLETED", job.output()
    assert said(job) == [f"in two on v1 as {NOBODY}", f"in one on v1 as {NOBODY}"]

    plain = await world.sbatch(f"srun --image={two} sh -c '{world.dray.inside()}'", "-wv1")
    assert await world.slurm.ended(plain.id) == "COMPLETED", plain.output()
    assert said(plain) == [f"in two on v1 as {NOBODY}"]


async def test_salloc_arrays_and_heterogeneous_jobs(world: World) -> None:
    one, two = world.push("one"), world.push("two")
    inside = world.dray.inside()
    salloc = await asyncio.to_thread(
        world.slurm.run, "salloc", "-wv1", f"--image={one}", "srun", "sh", "-c", inside, user=NOBODY
    )
    assert salloc.stdout == f"in one on v1 as {NOBODY}\n", salloc.stderr

    array = await world.sbatch(f"srun sh -c '{inside}'", f"--image={two}", "--array=1-3", "-oa%a")
    outputs = [world.slurm.work / f"a{number}" for number in (1, 2, 3)]
    await eventually(lambda: all(out.exists() and out.read_text() for out in outputs), within=60)
    assert {out.read_text().split(" on ")[0] for out in outputs} == {"in two"}
    await eventually(lambda: array.id not in str(world.slurm.queue()), within=30)

    both = await world.sbatch(
        f"srun --het-group=0 sh -c '{inside}'\nsrun --het-group=1 --image={two} sh -c '{inside}'\n",
        *("-N1", f"--image={one}", ":", "-N1", f"--image={two}"),
    )
    assert await world.slurm.ended(both.id) == "COMPLETED", both.output()
    assert [line.split(" on ")[0] for line in said(both)] == ["in one", "in two"]
    told = [await world.told(str(int(both.id) + number)) for number in (0, 1)]
    assert told[0]["images"] != told[1]["images"]


async def test_why_a_job_cannot_be_is_told_where_it_is_submitted(world: World) -> None:
    there = world.push("first")
    for options, why in (
        ((f"--image={world.host}/team/nothing:1",), "check the name and the tag"),
        (("--image=Not/Good",), "must be in lower case"),
        ((f"--image=id:{'e' * 64}",), "no READY image with the id"),
        ((f"--image={there}", "--volume=/tmp:/etc/cron.d"), "/etc"),
        ((f"--image={there}", "--module=../escape"), "is no module's name"),
    ):
        done = await asyncio.to_thread(world.slurm.try_sbatch, "true", *options)
        assert done.returncode != 0, options
        told = [line for line in done.stderr.splitlines() if why in line]
        assert len(told) == 1, done.stderr
    assert world.slurm.queue() == {}


async def test_a_cancelled_job_gives_everything_back(world: World) -> None:
    reference = world.push("first")
    job = await world.sbatch(
        f"#SBATCH -N3\n#SBATCH --image={reference}\n{world.line('--', '/bin/where', '600')}"
    )
    await eventually(lambda: job.output().count("in first") == 3, within=60)
    assert len(world.site.images_mounted()) == 3
    world.slurm.cancel(job.id)
    assert await world.slurm.ended(job.id) == "CANCELLED"
    await world.is_over(job.id)


async def test_a_requeued_job_is_announced_again(world: World) -> None:
    reference = world.push("first")
    job = await world.sbatch(
        f"#SBATCH -N2\n#SBATCH --image={reference}\n#SBATCH --requeue --open-mode=append\n"
        f"{world.line()}[ $SLURM_RESTART_COUNT = 1 ] || sleep 600"
    )
    await eventually(lambda: job.output().count("in first") == 2, within=60)
    first = await world.told(job.id)
    world.slurm.scontrol("requeue", job.id)
    await eventually(lambda: world.slurm.state(job.id) == "PENDING", within=30)
    # Not in two minutes, as Slurm has it; but in the same second its nodes would take the second
    # run for the first, whose credential was revoked then: no prolog, and "already killed".
    world.slurm.scontrol("update", f"JobId={job.id}", "StartTime=now+3")
    await eventually(lambda: job.output().count("in first") == 4, within=90)
    assert await world.slurm.ended(job.id) == "COMPLETED", job.output()
    await world.is_over(job.id)
    assert (await world.told(job.id))["announced_at"] > first["announced_at"]


async def test_an_image_that_moves_leaves_a_running_job_its_own(world: World) -> None:
    reference = world.push("moving", tells="before")
    job = await world.sbatch(
        f"#SBATCH -w v1 --image={reference}\n{world.line()}"
        f"while [ ! -e go ]; do sleep 0.2; done\n{world.line()}"
    )
    await eventually(lambda: "in before" in job.output(), within=60)
    world.push("moving", tells="after")
    pull = await world.site.pull(reference)
    await world.site.reached(pull["id"], "READY")
    newer = await world.srun(f"--image={reference}", "-wv1", "sh", "-c", world.dray.inside())
    assert newer.stdout == f"in after on v1 as {NOBODY}\n", newer.stderr
    (world.slurm.work / "go").touch()
    assert await world.slurm.ended(job.id) == "COMPLETED"
    assert said(job) == [f"in before on v1 as {NOBODY}"] * 2
    await world.is_over(job.id)


async def test_fifty_jobs_with_five_images_stage_each_once_on_a_node(world: World) -> None:
    references = [world.push(f"many{number}") for number in range(5)]
    for pull in [await world.site.pull(reference) for reference in references]:
        await world.site.reached(pull["id"], "READY")
    mounted = [world.site.log(node).count('"image_mounted"') for node in NODES]
    go = world.slurm.work / "fifty"
    script = f"while [ ! -e {go} ]; do sleep 0.3; done\n{world.dray.inside()}"
    for reference in references:
        options = (f"--image={reference}", "--output=fifty-%A-%a")
        for node, number in zip(NODES, (4, 3, 3), strict=True):
            await world.sbatch(script, *options, f"--array=1-{number}", f"-w{node}")

    def running() -> int:
        return sum(state.startswith("RUNNING") for state in world.slurm.queue().values())

    await eventually(lambda: running() == 50, within=120)
    for node, before in zip(NODES, mounted, strict=True):
        assert len(world.site.images_mounted(node)) == len(references)
        assert world.site.log(node).count('"image_mounted"') - before == len(references)
    go.touch()
    await eventually(lambda: world.slurm.queue() == {}, within=120)
    outputs = sorted(world.slurm.work.glob("fifty-*"))
    told = [out.read_text().split(" on ")[0] for out in outputs]
    assert sorted(told) == sorted(f"in many{number}" for number in range(5) for _ in range(10))
