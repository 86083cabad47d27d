"""`dray run` where no root agent puts images together: outside of jobs, and where the agent is an
ordinary user's own.
"""

import asyncio
import json
from collections.abc import Callable

import pytest

from shared.image.recipe import ImageConfig
from tests.support.agents import Place, agent_process, needs_root, serving
from tests.support.run_site import (
    Login,
    Node,
    Ran,
    RunPlace,
    begin_job,
    end_job,
    pinned,
    shell_image,
)
from tests.support.users import AS_NOBODY, let_everybody_in, ordinary_python

pytestmark = [*needs_root, pytest.mark.usefixtures("alone")]


def test_outside_of_a_job_there_are_volumes_and_no_modules(node: Node) -> None:
    a, b = (node.directory(name) for name in "ab")
    look = ("plain:2", "sh", "-c", "cat /greeting /x/name /deep/y/name")
    ran = node.login.dray(f"--volume={a}:/x;{b}:/deep/y:ro", *look)
    assert (ran.code, ran.out) == (0, "plain\na\nb\n"), ran.err
    ran = node.login.dray("-m", "tool", "plain:2")
    assert (ran.code, "agent runs as root" in ran.err) == (125, True)
    ran = node.login.dray("-V", f"{a}:/x:perNodeCache=size=1G", "plain:2")
    assert (ran.code, "no perNodeCache at /x here" in ran.err) == (125, True)


def test_all_that_the_site_has_in_images_is_there_but_for_modules(node: Node) -> None:
    look = ("sh", "-c", f"cat {node.site}/tool; echo $SITE $MINE")
    usual = node.place.root / "modules/usual.yaml"
    usual.write_text("default: true\n")
    tree = node.place.root / "trees/system"
    try:
        login, rank = node.login, node.login.having(SLURM_PROCID="1")
        ways: list[tuple[Callable[..., Ran], Callable[..., Ran], str]] = [
            (login.dray, rank.dray, "plain:2"),
            (login.shifter, rank.shifter, f"--image=local:{tree}"),
        ]
        for way, another, image in ways:
            wanted = ("-e", "SITE=x", "-e", "MINE=y", image, *look)
            ran = way(*wanted)
            assert (ran.code, ran.out) == (0, "of the module\nsite y\n"), ran.err
            assert ran.err.startswith("dray: jobs have the modules usual here")
            assert len(ran.err.splitlines()) == 1
            assert way("--module=none", *wanted).err == ""
            assert another(*wanted).err == "", "once for all ranks"
        refused = login.dray("-V", f"{node.directory('a')}:{node.site}/x", "plain:2")
        assert (refused.code, "would hide" in refused.err) == (125, True)
    finally:
        usual.unlink()


def test_an_image_that_is_none_of_the_job_s_is_asked_of_the_gateway(node: Node) -> None:
    a = node.directory("a")
    with node.job() as job:
        only_solver = job.having(
            DRAY_IMAGE="solver:1",
            DRAY_IMAGES=job.env["DRAY_IMAGES"].partition(";")[0],
            DRAY_URL=node.url,
        )
        ran = only_solver.dray("-V", f"{a}:/x", "plain:2", "cat", "/greeting", "/x/name")
        assert (ran.code, ran.out) == (0, "plain\na\n"), ran.err


def test_an_agent_of_the_user_s_own_does_for_a_job_what_it_can(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    root = tmp_path_factory.mktemp("own")
    let_everybody_in(root)
    place, own = Place(root), root / "data"
    image = shell_image(place, "mine", ImageConfig(cmd=("cat", "/greeting")))
    own.mkdir()
    (own / "name").write_text("of mine\n")
    root.chmod(0o777)
    known = pinned(image)
    job = Login(
        place.socket,
        {
            "SLURM_JOB_ID": "9",
            "DRAY_IMAGE": "mine:1",
            "DRAY_IMAGES": f"{known.image_id},{known.content_digest},{known.size}",
            "DRAY_VOLUMES": f"{own}:/data",
        },
    )
    with agent_process(place, "unpack", ordinary_python(), **AS_NOBODY) as process:
        asyncio.run(serving(place, process))
        ran = job.dray("mine:1", "cat", "/greeting", "/data/name")
        assert (ran.code, ran.out) == (0, "mine\nof mine\n"), ran.err
        assert job.shifter("cat", "/data/name").out == "of mine\n"
        ran = job.having(DRAY_MODULES="gpu").dray()
        assert (ran.code, "the modules gpu cannot be had here" in ran.err) == (125, True)
        assert _verdict(job, "insides") == "note"


def test_where_the_site_lets_only_its_plugin_in_each_enters_by_themselves(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    root = tmp_path_factory.mktemp("plugin")
    let_everybody_in(root)
    place = RunPlace(root, inside={"user_namespaces": "never"})
    image = shell_image(place, "mine", ImageConfig(cmd=("cat", "/greeting")))
    with agent_process(place, "loop") as process:
        asyncio.run(serving(place, process))
        job = begin_job(place, "7", {"mine:1": image})
        assert (place.agent_dir / f"insides/7@{image.image_id}/mnt").exists()
        ran = job.dray("mine:1")
        assert (ran.code, ran.out) == (0, "mine\n"), ran.err
        ran = job.dray("-m", "none,gpu", "mine:1")
        assert (ran.code, "no module 'gpu'" in ran.err) == (125, True)
        assert _verdict(job, "job") == "note"
        end_job(place, "7")


def test_doctor_says_in_a_job_what_will_work(node: Node) -> None:
    with node.job() as job:
        assert _verdict(job, "insides") == "ok"
        assert _verdict(job, "job") == "ok"
        assert _verdict(job.having(SLURM_JOB_ID="8"), "job") == "note"


def _verdict(login: Login, about: str) -> str:
    code = "import sys; from cli.main import main; sys.argv[0] = 'dray'; main()"
    ran = login.run(code, "doctor", "--json")
    told = json.loads(ran.out or ran.err)["items"]
    return str(next(each["verdict"] for each in told if each["about"] == about))
