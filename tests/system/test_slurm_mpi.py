"""MPI over nodes, in images, under a real Slurm: by PMIx and PMI, the image's MPI or the site's."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from tests.support.c_programs import build_enter
from tests.support.images import Pusher
from tests.support.mpi_image import PROGRAM_PATH, Family, mpi_image, site_mpi
from tests.support.slurm import need_slurm
from tests.support.slurm_hooks import install, install_command, need_compiler
from tests.support.slurm_site import Cluster
from tests.support.slurm_world import World, running
from tests.support.users import REPOSITORY

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="Slurm and loop mounts: needs root"),
    pytest.mark.asyncio(loop_scope="module"),
]
SHIPPED = REPOSITORY / "deploy/modules"
PMI: dict[Family, str] = {"mpich": "pmi2", "openmpi": "pmix"}
OVER_NODES = ("v1", "v1", "v2", "v2", "v3", "v3")
ONE_ON_EACH = ("v1", "v2", "v3")
ON_ONE = ("v2",) * 4
YIELDING = {"OMPI_MCA_mpi_yield_when_idle": "1"}
LAUNCHES: tuple[tuple[Family, str, tuple[str, ...]], ...] = (
    ("openmpi", "enter", OVER_NODES),
    ("openmpi", "dray-enter", ONE_ON_EACH),
    ("openmpi", "shifter", ONE_ON_EACH),
    ("mpich", "enter", OVER_NODES),
    ("mpich", "dray-enter", ONE_ON_EACH),
    ("mpich", "shifter", ONE_ON_EACH),
    ("mpich", "dray-enter", ON_ONE),
)
SITE_LIBRARIES: dict[Family, set[str]] = {
    "mpich": {"/.dray/mpich"},
    "openmpi": {
        "/opt/site/openmpi/lib",
        f"/opt/site/openmpi/lib/{os.uname().machine}-linux-gnu/openmpi/lib/openmpi3",
    },
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(
    module_broker_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    need_slurm()
    need_compiler()
    modules = tmp_path_factory.mktemp("modules")
    cluster = Cluster.make(
        module_broker_url, cores=8, settings={"inside": {"modules": str(modules)}}
    )
    _write_modules(modules, cluster.slurm.directory)
    dray = install(cluster, "--if-missing=wait")
    build_enter(cluster.slurm.directory)
    install_command(cluster, "shifter", "cli.shifter.main")
    async with running(cluster, dray, tmp_path_factory.mktemp("registry")) as found:
        for family in PMI:
            Pusher(found.registry.url).push(mpi_image(family), f"team/{family}", "1")
        yield found


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def _unharmed(world: World) -> AsyncIterator[None]:
    yield
    await world.is_unharmed()


async def test_ranks_find_each_other_however_they_come_in(world: World) -> None:
    if "pmix" not in (known := (await world.srun("--mpi=list")).stdout):
        pytest.skip(f"Slurm finds no PMIx, only {known.split()}: install Debian's libpmix-dev")
    images = ",".join(_reference(world, family) for family in PMI)
    # One after another: ranks that wait do not sleep, and there are few cores.
    steps = [f"{_step(world, number, *launch)}\n" for number, launch in enumerate(LAUNCHES)]
    job = await world.sbatch(f"#SBATCH -N3 -n24 --image={images}\n{''.join(steps)}", env=YIELDING)
    assert await world.slurm.ended(job.id, within=120) == "COMPLETED", job.output()
    for number, (family, how, nodes) in enumerate(LAUNCHES):
        out = (world.slurm.work / f"ranks-{number}").read_text()
        assert sorted(out.splitlines()) == _ranks(nodes), (family, how, out, job.output())
    # Nothing that PMIx would miss, nor the MPIs.
    assert job.output() == ""


@pytest.mark.parametrize("family", PMI)
async def test_the_site_s_mpi_is_what_ranks_load(world: World, family: Family) -> None:
    done = await world.srun(
        *(f"--image={_reference(world, family)}", f"--module={family}", f"--mpi={PMI[family]}"),
        *("-N3", "-n6", "--ntasks-per-node=2", "--enter", PROGRAM_PATH),
        env={"HOMES": "1", **YIELDING},
    )
    told = [line.split() for line in done.stdout.splitlines()]
    assert sorted(" ".join(words[:6]) for words in told) == _ranks(OVER_NODES), done.stderr
    assert [set(words[6:]) for words in told] == [SITE_LIBRARIES[family]] * len(told)
    other = next(each for each in PMI if each != family)
    done = await world.srun(
        f"--image={_reference(world, family)}", f"--module={other}", "--enter", PROGRAM_PATH
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert f"and the module {other} brings" in done.stderr


def _step(world: World, number: int, family: Family, how: str, nodes: tuple[str, ...]) -> str:
    """A line of a job's script, whose ranks write to a file of their own."""
    base = world.slurm.directory
    insides = world.site.run_dir("$SLURMD_NODENAME") / "insides"
    begin = {
        "enter": f"--enter {PROGRAM_PATH}",
        "dray-enter": f"sh -c 'DRAY_INSIDES={insides} {base}/dray-enter -- {PROGRAM_PATH}'",
        "shifter": f"{base}/commands/shifter --image={_reference(world, family)} {PROGRAM_PATH}",
    }[how]
    # These three nodes are one machine, and MPICH knows: of the ways to share memory, System V's
    # is the one that leads from one user namespace to another.
    apart = how != "enter" and nodes is ONE_ON_EACH and family == "mpich"
    places = f"-w{nodes[0]} -N1" if nodes is ON_ONE else "-N3"
    return (
        f"{'UCX_TLS=sysv,self ' if apart else ''}srun --mpi={PMI[family]} {places} "
        f"-n{len(nodes)} --distribution=block --image={_reference(world, family)} "
        f"-o ranks-{number} {begin}"
    )


def _ranks(nodes: tuple[str, ...]) -> list[str]:
    total = sum(range(len(nodes)))
    return [f"{rank} of {len(nodes)} on {node}: {total}" for rank, node in enumerate(nodes)]


def _reference(world: World, family: Family) -> str:
    return f"{world.host}/team/{family}:1"


def _write_modules(into: Path, base: Path) -> None:
    """Those that we ship, with this site's paths in place of those that a site would put in."""
    sites = {f"/opt/site/{family}": site_mpi(family, base / "site-mpi" / family) for family in PMI}
    sites["/var/spool/slurmd"] = base / "spool"
    for name in ("mpich", "openmpi", "pmix"):
        module = yaml.safe_load((SHIPPED / f"{name}.yaml").read_text())
        for bind in module["binds"]:
            own = next(path for path in sites if Path(bind["from"]).is_relative_to(path))
            if own.startswith("/opt"):
                bind.setdefault("to", bind["from"])
            bind["from"] = str(sites[own] / Path(bind["from"]).relative_to(own))
        if name == "pmix":
            # TmpFS is not /tmp here.
            module["binds"].append({"from": str(base / "tmp"), "read_only": False})
        (into / f"{name}.yaml").write_text(yaml.safe_dump(module))
