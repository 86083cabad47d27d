"""`shifter`, the drop-in, as users' scripts call it: in a job, outside of one, without an agent."""

import shutil
from pathlib import Path

import pytest

from cli.shifter.options import USAGE
from tests.support.agents import needs_root
from tests.support.run_site import Node

pytestmark = needs_root

PLAIN = "--image=docker:plain:2"


def test_the_command_is_what_is_written_and_no_entrypoint_runs(node: Node) -> None:
    with node.job() as job:
        assert job.shifter("cat", "/greeting").out == "solver\n"
        assert job.shifter(PLAIN, "cat", "/greeting").out == "plain\n"
        assert job.shifter("-i", "plain:2", "--", "cat", "/greeting").out == "plain\n"
        by_id = job.shifter(f"--image=id:{node.plain.image_id}", "cat", "/greeting")
        assert by_id.out == "plain\n", by_id.err


def test_the_entrypoint_only_where_it_is_asked_for(node: Node) -> None:
    with node.job() as job:
        assert job.shifter("--entrypoint").out == "entrypoint cat /greeting\nsolver\n"
        assert job.shifter("--entrypoint", "pwd").out.startswith("entrypoint pwd\n/")
        assert job.shifter("--entrypoint=/bin/ls", "/work").out == ""
        assert job.shifter("--entry=/bin/cat", "/greeting").out == "solver\n"
        ran = job.shifter(PLAIN, "--entrypoint")
        assert (ran.code, "no entrypoint" in ran.err) == (1, True)


def test_without_a_command_it_is_the_user_s_shell_or_sh(node: Node) -> None:
    with node.job() as job:
        for shell in ("/bin/sh", "/bin/absent", ""):
            ran = job.having(SHELL=shell).shifter(stdin="cat /greeting; exit 5\n")
            assert (ran.code, ran.out) == (5, "solver\n"), ran.err
        ran = job.having(SHELL="/bin/env").shifter()
        assert "SHIFTER_RUNTIME=1\n" in ran.out


def test_the_whole_environment_comes_along_unless_it_is_left(node: Node, tmp_path: Path) -> None:
    show = ("sh", "-c", 'echo "$OF|$MINE|$LD_PRELOAD|$TMPDIR|$PATH|$SITE"')
    with node.job() as job:
        rank = job.having(OF="host", MINE="host", TMPDIR="/absent", PATH="/absent")
        assert rank.shifter(*show).out == "image|host|||/bin|site\n"
        assert rank.shifter("-E", *show).out == "image||||/bin|site\n"
        assert rank.shifter("--clearenv", "-e", "MINE=o=p", *show).out == "image|o=p|||/bin|site\n"
        for directory in tmp_path.parents:
            directory.chmod(directory.stat().st_mode | 0o055)
        tmp_path.chmod(0o755)
        file = tmp_path / "env"
        file.write_text("MINE=file\nOF=file\n")
        ran = rank.shifter("--env-file", str(file), "--env=OF=option", *show)
        assert ran.out == "option|file|||/bin|site\n", ran.err
        told = rank.shifter(PLAIN, "sh", "-c", "echo $SHIFTER_IMAGE $SHIFTER_IMAGEREQUEST").out
        assert told == f"{node.plain.image_id} docker:plain:2\n"
        for wrong in ("MINE", "=x"):
            ran = rank.shifter("-e", wrong, "true")
            assert (ran.code, "NAME=VALUE" in ran.err) == (1, True)


def test_volumes_and_modules_by_options_or_variables(node: Node) -> None:
    a, b, c = (node.directory(name) for name in "abc")
    look = ("sh", "-c", "cat /x/name /y/name /tool/file")
    with node.job(volumes=(f"{c}:/x",)) as job:
        assert job.shifter(*look).out == "c\n"
        assert job.shifter(f"--volume={a}:/x;{b}:/y", *look).out == "a\nb\n"
        assert job.shifter("-V", f"{a}:/x", "-V", f"{b}:/y", *look).out == "a\nb\n"
        of_env = job.having(SHIFTER_VOLUME=f"{b}:/x", SHIFTER_MODULE="tool")
        assert of_env.shifter(*look).out == "b\nof the module\n"
        assert of_env.shifter(f"-V{a}:/x", "--module=none", *look).out == "a\n"
        of_spank = job.having(SLURM_SPANK_SHIFTER_VOLUME=f"{b}:/x")
        assert of_spank.shifter(*look).out == "b\n"


def test_where_it_works(node: Node) -> None:
    with node.job() as job:
        assert job.shifter("-w", "pwd").out == "/work\n"
        assert job.shifter("--workdir=/etc", "pwd").out == "/etc\n"
        assert job.shifter("-w/etc", "pwd").out == "/etc\n"
        assert job.shifter(PLAIN, "--workdir", "pwd").code == 1
        assert job.shifter("--workdir=/absent", "pwd").code == 1


def test_exit_codes_are_the_command_s_and_as_documented(node: Node) -> None:
    with node.job() as job:
        assert job.shifter("sh", "-c", "exit 42").code == 42
        assert job.shifter("absent").code == 127
        assert job.shifter("/etc/passwd").code == 127
        assert job.shifter("-V", "/a:/etc", "true").code == 1
        wrong = job.shifter("--nonsense", "true")
        assert (wrong.code, wrong.err.endswith("Try 'shifter --help'.\n")) == (1, True)
    nothing = node.login.shifter("true")
    assert (nothing.code, "no image is named" in nothing.err) == (1, True)
    helped = node.login.shifter("--help")
    assert (helped.code, helped.out) == (0, USAGE)


@pytest.mark.usefixtures("alone")
def test_outside_of_a_job_the_gateway_is_asked(node: Node) -> None:
    a, b = (node.directory(name) for name in "ab")
    look = ("sh", "-c", "cat /greeting /x/name /y/name")
    ran = node.login.shifter(PLAIN, f"--volume={a}:/x;{b}:/y", *look)
    assert (ran.code, ran.out) == (0, "plain\na\nb\n"), ran.err
    by_type = node.login.having(SHIFTER_IMAGETYPE="docker", SHIFTER_IMAGE="plain:2")
    assert by_type.shifter("cat", "/greeting").out == "plain\n"
    for variable in ("SHIFTER_IMAGEREQUEST", "SHIFTER", "SLURM_SPANK_SHIFTER_IMAGEREQUEST"):
        asked = node.login.having(**{variable: "docker:plain:2"})
        assert asked.shifter("cat", "/greeting").out == "plain\n"
    told = node.login.shifter("-v", "-i", "solver:1", "cat", "/greeting")
    assert told.out == "solver\n"
    assert told.err.startswith(f"shifter: image {node.solver.image_id} (")
    ran = node.login.shifter("-m", "tool", PLAIN, "true")
    assert (ran.code, "agent runs as root" in ran.err) == (1, True)
    ran = node.login.shifter("-V", f"{a}:/x:perNodeCache=size=1G", PLAIN, "true")
    assert (ran.code, "perNodeCache" in ran.err) == (1, True)


@pytest.mark.usefixtures("alone")
def test_the_gateway_of_udiroot_conf_is_asked_where_nobody_names_another(node: Node) -> None:
    conf = node.place.root / "udiRoot.conf"
    conf.write_text(f"imageGateway={node.url}\nsystem=local\n")
    login = node.login.having(DRAY_URL="", DRAY_UDIROOT_CONF=str(conf))
    ran = login.shifter("--image=plain:2", "cat", "/greeting")
    assert (ran.code, ran.out) == (0, "plain\n"), ran.err


@pytest.mark.usefixtures("alone")
def test_a_directory_that_somebody_unpacked(node: Node) -> None:
    tree = node.place.root / "unpacked"
    if not tree.exists():
        shutil.copytree(node.place.root / "trees/system", tree, symlinks=True)
    ran = node.login.shifter(f"--image=local:{tree}", "cat", "/etc/os-release")
    assert (ran.code, ran.out) == (0, "NAME=tiny\n"), ran.err
    for wrong in ("local:/absent", "local:relative", "local:"):
        assert node.login.shifter(f"--image={wrong}", "true").code == 1


def test_it_is_installed_under_its_name() -> None:
    project = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert 'shifter = "cli.shifter.main:main"' in project
