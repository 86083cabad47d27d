"""What users' documents show of jobs in images, under a real Slurm: `dray run` and `shifter`."""

import io
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.images import Pusher, build_image, layer_from_tar
from tests.support.slurm import need_slurm
from tests.support.slurm_hooks import install, install_command, need_compiler
from tests.support.slurm_site import Cluster
from tests.support.slurm_world import World, running
from tests.support.squashfs import system_tree

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="Slurm and loop mounts: needs root"),
    pytest.mark.asyncio(loop_scope="module"),
]
PROGRAMS = {"dray": "cli.main", "shifter": "cli.shifter.main"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(
    module_broker_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    need_slurm()
    need_compiler()
    cluster = Cluster.make(module_broker_url, cores=32)
    dray = install(cluster, "--if-missing=wait")
    for name, module in PROGRAMS.items():
        install_command(cluster, name, module)
    async with running(cluster, dray, tmp_path_factory.mktemp("registry")) as found:
        tree = system_tree(tmp_path_factory.mktemp("system") / "tree")
        for name in ("solver", "post"):
            _push(found, tree, name)
        yield found


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def _unharmed(world: World) -> AsyncIterator[None]:
    yield
    await world.is_unharmed()


async def test_volumes_and_a_file_system_of_each_node_s_own(world: World) -> None:
    places = {name: _directory(world, name) for name in ("in", "out", "scratch")}
    (places["in"] / "case").write_text("case 1\n")
    volumes = (
        f"{places['in']}:/in:ro;{places['out']}:/out;"
        f"{places['scratch']}:/tmp:perNodeCache=size=400M"
    )
    # What is mounted last on a place is what everybody sees there.
    show = (
        "cat /in/case > /out/{}-$SLURM_PROCID; "
        "while read what where kind more; do [ $where = /tmp ] && seen=$kind; done < /proc/mounts; "
        "echo $seen"
    )
    out = await _ran(
        world,
        f"#SBATCH -N3\n#SBATCH --image={_reference(world, 'solver')}\n"
        f'#SBATCH --volume="{volumes}"\n'
        f"srun shifter sh -c '{show.format('shifter')}'\n"
        f"srun dray run --entrypoint '' -- sh -c '{show.format('dray')}'\n",
    )
    assert [line for line in out if line == "xfs"] == ["xfs"] * 6, out
    written = {path.name: path.read_text() for path in places["out"].iterdir()}
    names = {f"{program}-{rank}" for program in PROGRAMS for rank in range(3)}
    assert written == dict.fromkeys(names, "case 1\n")


async def test_two_images_in_one_job_and_a_volume_of_one_step(world: World) -> None:
    solver, post = (_reference(world, name) for name in ("solver", "post"))
    data = _directory(world, "data")
    (data / "case").write_text("case 2\n")
    out = await _ran(
        world,
        f"#SBATCH -N1\n#SBATCH --image={solver},{post}\n"
        "srun shifter cat /etc/name\n"
        f"srun shifter --image=docker:{post} cat /etc/name\n"
        f"srun dray run {post} cat /etc/name\n"
        f'srun shifter --image=docker:{post} --volume="{data}:/data:ro" cat /data/case\n',
    )
    assert out == ["solver", "post", "entrypoint post", "post", "case 2"], out


async def test_the_entrypoint_alone_and_exit_codes(world: World) -> None:
    out = await _ran(
        world,
        f"#SBATCH -N1\n#SBATCH --image={_reference(world, 'solver')}\n"
        "srun shifter --entrypoint\n"
        "srun dray run\n"
        "srun shifter --workdir --env=A=b sh -c 'pwd; echo $A $OF; exit 3' ; echo code $?\n"
        "shifter absent 2>/dev/null; echo code $?\n"
        "dray run --entrypoint '' -- sh -c 'exit 4' ; echo code $?\n",
    )
    ran = ["entrypoint solver", "solver"] * 2
    assert [line for line in out if "srun:" not in line] == [
        *ran, "/work", "b solver", "code 3", "code 127", "code 4",
    ], out  # fmt: skip


async def _ran(world: World, script: str) -> list[str]:
    """The output of a job that came to a good end; no gateway can be reached from it."""
    path = f"export PATH={world.slurm.directory / 'commands'}:$PATH DRAY_URL=http://127.0.0.1:1\n"
    options, body = script.rpartition("#SBATCH")[::2]
    last, _, commands = body.partition("\n")
    job = await world.sbatch(f"{options}#SBATCH{last}\n{path}{commands}")
    assert await world.slurm.ended(job.id) == "COMPLETED", job.output()
    return job.output().splitlines()


def _push(world: World, tree: Path, name: str) -> None:
    """A system with a shell, whose entrypoint says that it ran and which image it is."""
    (tree / "etc/name").write_text(f"{name}\n")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(tree, ".")
    run = {
        "Env": ["PATH=/bin", f"OF={name}"],
        "Entrypoint": ["sh", "-c", 'echo "entrypoint $OF"; exec "$@"', "entry"],
        "Cmd": ["cat", "/etc/name"],
        "WorkingDir": "/work",
    }
    image = build_image([layer_from_tar(packed.getvalue())], run=run)
    Pusher(world.registry.url).push(image, f"team/{name}", "1")


def _reference(world: World, name: str) -> str:
    return f"{world.host}/team/{name}:1"


def _directory(world: World, name: str) -> Path:
    made = world.slurm.work / name
    made.mkdir()
    made.chmod(0o777)
    return made
