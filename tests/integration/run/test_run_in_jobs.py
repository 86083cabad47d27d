"""`dray run` in a job whose images a root agent has put together: the users' examples."""

import os
import pty
import resource
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.agents import PATIENCE, needs_root
from tests.support.c_programs import build_enter
from tests.support.run_site import DRAY, Node
from tests.support.terminals import read_all
from tests.support.users import AS_NOBODY

pytestmark = needs_root
BECOME = "import os, sys; os.execv(sys.argv[1], sys.argv[1:])"


@pytest.fixture(scope="module")
def dray_enter(node: Node) -> Path:
    return build_enter(node.place.root)


def test_the_job_s_image_needs_neither_gateway_nor_agent(node: Node) -> None:
    with node.job() as job:
        asked = len(node.gateway.asked)
        ran = job.having(DRAY_SOCKET=str(node.place.socket)).dray("--", "cat", "/greeting")
        assert (ran.code, ran.out) == (0, "entrypoint cat /greeting\nsolver\n"), ran.err
        # Beside a socket at which nobody answers the inside is found all the same.
        silent = node.place.root / "silent"
        silent.mkdir(exist_ok=True)
        (silent / "insides").unlink(missing_ok=True)
        (silent / "insides").symlink_to(node.place.agent_dir / "insides")
        ran = job.having(DRAY_SOCKET=str(silent / "agent.sock")).dray("--", "cat", "/greeting")
        assert (ran.code, ran.out) == (0, "entrypoint cat /greeting\nsolver\n"), ran.err
        assert len(node.gateway.asked) == asked


@pytest.mark.parametrize("named", ["plain:2", "docker:plain:2", "docker.io/library/plain:2", "id:"])
def test_several_images_of_a_job_are_had_by_their_names(node: Node, named: str) -> None:
    named = named if named != "id:" else f"id:{node.plain.image_id}"
    with node.job() as job:
        assert job.dray("--").out == "entrypoint cat /greeting\nsolver\n"
        ran = job.dray(named)
        assert (ran.code, ran.out) == (0, "plain\n"), ran.err


def test_volumes_of_the_job_and_more_of_them(node: Node) -> None:
    a, b, c = (node.directory(name) for name in "abc")
    with node.job(volumes=(f"{a}:/x;{b}:/y",)) as job:
        look = ("plain:2", "sh", "-c", "cat /x/name /y/name /z/name; touch /x/made")
        assert job.dray(*look).out == "a\nb\n"
        assert (a / "made").stat().st_uid == AS_NOBODY["user"]
        assert job.dray(f"--volume={c}:/z:ro", *look).out == "a\nb\nc\n"
        assert job.dray("-V", f"{c}:/y", "-V", f"{a}:/z", *look).out == "a\nc\na\n"
        filled = job.having(MINE=str(c)).dray("-V", "$MINE:/z", *look)
        assert filled.out == "a\nb\nc\n", filled.err
        ran = job.dray("-V", f"{c}:/z:ro", "plain:2", "touch", "/z/x")
        assert "Read-only file system" in ran.err
        # The site's file system may be below it, as it is where tests have their files in /tmp.
        assert job.dray("-V", f"{c}:/tmp", "plain:2", "cat", "/tmp/name").out == "c\n"
        refusals = (f"{c}:/etc", f"{c}:{node.site}/x", f"{node.own}/absent:/z", "nonsense")
        for refused in refusals:
            ran = job.dray("-V", refused, "plain:2", "true")
            assert ran.code == 125
            assert ran.err.startswith("dray: ")


def test_a_step_s_own_volumes_and_modules_take_the_place_of_the_job_s(node: Node) -> None:
    """As `srun --volume= --module=` in a job that Slurm's plugin submitted."""
    a, b = (node.directory(name) for name in "ab")
    look = ("sh", "-c", 'cat /x/name; echo "$MODULE"')
    with node.job(volumes=(f"{a}:/x",)) as job:
        step = job.having(SLURM_SPANK_DRAY_SYSTEM="local", SLURM_SPANK_DRAY_VOLUMES=f"{a}:/x")
        assert step.dray("plain:2", *look).out == "a\n\n"
        own = step.having(DRAY_VOLUMES=f"{b}:/x", DRAY_MODULES="tool")
        ran = own.dray("plain:2", *look)
        assert ran.out == "b\nmodule\n", ran.err
        ran = own.shifter("--image=plain:2", *look)
        assert ran.out == "b\nmodule\n", ran.err


@pytest.mark.skipif(shutil.which("mkfs.xfs") is None, reason="mkfs.xfs is missing: xfsprogs")
def test_a_file_system_of_each_node_s_own(node: Node) -> None:
    scratch = node.directory("scratch")
    look = ("plain:2", "sh", "-c", "echo x > /cache/x && grep ' /cache ' /proc/mounts; ls /cache")
    with node.job(volumes=(f"{scratch}:/cache:perNodeCache=size=400M",)) as job:
        first = job.dray(*look)
        assert " xfs " in first.out, first.err
        assert job.shifter("--image=plain:2", "ls", "/cache").out.split() == ["x"]
    with node.job() as job:
        own = job.dray("-V", f"{scratch}:/cache:perNodeCache=size=400M", *look)
        assert " xfs " in own.out, own.err
        assert own.out.split()[-1] == "x"


def test_each_has_a_word_over_those_before(node: Node, tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("# mine\nOF=file\nFILE=a b 'c'\nMODULE=file\nSITE=file\n")
    file.chmod(0o644)
    for directory in file.parents:
        directory.chmod(directory.stat().st_mode | 0o055)
    show = ("sh", "-c", 'echo "$OF|$FILE|$MODULE|$SITE|$SLURM_PROCID|$MINE|$PATH"')
    with node.job() as job:
        rank = job.having(SLURM_PROCID="3", OF="host", MINE="host", SECRET="x")
        ran = rank.dray("--entrypoint", "", "--", *show)
        assert ran.out == "image||image|site|3||/bin\n", ran.err
        ran = rank.dray("--entrypoint=", f"--env-file={file}", "-e", "MINE", "--", *show)
        assert ran.out == "file|a b 'c'|file|site|3|host|/bin\n", ran.err
        ran = rank.dray("--env-file", str(file), "-e", "OF=option", "-e", "MODULE=option",
                        "-m", "tool", "--entrypoint", "", "--", *show)  # fmt: skip
        assert ran.out == "option|a b 'c'|module|site|3||/tool/bin:/bin\n", ran.err


OPTIONS = {"OF": "option", "NEW": "option", "MODULE": "option", "SITE": "option", "PATH": "/mine"}
WORDS = [
    # Modules of the job, the user's options; what becomes of the host's and the image's variables.
    ((), {}, {"OF": "image", "MODULE": "image", "SITE": "site", "OMP_HOST": "host", "NEW": "",
              "PATH": "/bin"}),
    ((), OPTIONS, {**OPTIONS, "SITE": "site", "OMP_HOST": "host"}),
    (("tool",), {}, {"OF": "image", "MODULE": "module", "SITE": "site", "PATH": "/tool/bin:/bin"}),
    (("tool",), OPTIONS, {"OF": "option", "NEW": "option", "MODULE": "module", "SITE": "site",
                          "OMP_HOST": "host", "PATH": "/tool/bin:/mine"}),
]  # fmt: skip


@pytest.mark.parametrize(("modules", "options", "expected"), WORDS)
def test_host_image_option_module_site_in_each_way(
    node: Node,
    dray_enter: Path,
    modules: tuple[str, ...],
    options: Mapping[str, str],
    expected: Mapping[str, str],
) -> None:
    show = ("/bin/sh", "-c", "; ".join(f'echo "{name}=${name}"' for name in expected))
    given = [word for name, value in options.items() for word in ("-e", f"{name}={value}")]
    with node.job(modules=modules) as job:
        rank = job.having(
            **dict.fromkeys(("OF", "MODULE", "SITE", "OMP_HOST"), "host"),
            DRAY_INSIDES=str(node.place.agent_dir / "insides"),
        )
        ways = {
            "dray run": rank.dray(*given, "--entrypoint=", "--", *show),
            "shifter": rank.shifter(*given, *show),
            "dray-enter": rank.run(BECOME, str(dray_enter), *given, "--", *show),
        }
    told = [f"{name}={value}" for name, value in expected.items()]
    assert {way: ran.out.splitlines() for way, ran in ways.items()} == dict.fromkeys(ways, told)


def test_modules_of_the_job_or_of_the_option(node: Node) -> None:
    with node.job(modules=("tool",)) as job:
        assert job.dray("plain:2", "cat", "/tool/file").out == "of the module\n"
        assert job.dray("-m", "none", "plain:2", "cat", "/tool/file").code == 1
        ran = job.dray("-m", "absent", "plain:2", "true")
        assert ran.code == 125
        assert "no module 'absent'" in ran.err


def test_where_it_works_and_what_it_runs(node: Node) -> None:
    node.directory("w")
    with node.job() as job:
        assert job.dray("--", "pwd").out == "entrypoint pwd\n/work\n"
        assert job.dray("-w", "/etc", "--entrypoint", "pwd").out == "/etc\n"
        ran = job.dray("-w", "/absent", "--", "pwd")
        assert (ran.code, "/absent" in ran.err) == (125, True)
        assert job.dray("-w", "etc", "--", "pwd").code == 125


def test_exit_codes_and_signals_are_the_command_s(node: Node) -> None:
    with node.job() as job:
        codes = {("sh", "-c", "exit 7"): 7, ("absent",): 127, ("/etc/passwd",): 126}
        for command, code in codes.items():
            assert job.dray("plain:2", *command).code == code
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            script = f"trap 'echo caught; exit 9' {number.value}; echo ready; while :; do :; done"
            with job.start(DRAY, "run", "plain:2", "sh", "-c", script) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
                process.send_signal(number)
                assert process.communicate(timeout=PATIENCE)[0] == "caught\n"
                assert process.returncode == 9
        with job.start(DRAY, "run", "plain:2", "sh", "-c", "echo ready; exec sleep 60") as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.terminate()
            process.communicate(timeout=PATIENCE)
            assert process.returncode == -signal.SIGTERM


def test_stdin_and_terminal_are_the_command_s(node: Node) -> None:
    with node.job() as job:
        assert job.dray("-i", "plain:2", "cat", stdin="through\n").out == "through\n"
        controller, terminal = pty.openpty()
        process = job.start(
            DRAY, "run", "-it", "plain:2", "sh", "-c", "[ -t 0 ] && [ -t 1 ] && echo both",
            stdin=terminal, stdout=terminal,
        )  # fmt: skip
        os.close(terminal)
        assert b"both" in read_all(controller)
        os.close(controller)
        assert process.wait(PATIENCE) == 0
        assert process.stderr is not None
        process.stderr.close()


def test_umask_limits_and_affinity_are_the_scheduler_s(node: Node) -> None:
    one = min(os.sched_getaffinity(0))

    def as_the_scheduler_does() -> None:
        os.umask(0o137)
        resource.setrlimit(resource.RLIMIT_NOFILE, (234, 345))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.sched_setaffinity(0, {one})

    script = "umask; ulimit -n; ulimit -Hn; grep Cpus_allowed_list /proc/self/status"
    with node.job() as job:
        ran = job.dray("plain:2", "sh", "-c", script, preexec_fn=as_the_scheduler_does)
        assert ran.out.split() == ["0137", "234", "345", "Cpus_allowed_list:", str(one)], ran.err


def test_a_rank_loads_no_client_and_nothing_heavy(node: Node) -> None:
    """What a rank pays is what Python has to read."""
    heavy = {"pydantic", "rich", "aiohttp", "asyncio", "structlog", "yaml", "ssl"}
    count = (
        "import os, sys\nbefore = len(sys.modules)\n"
        "def told(*_):\n"
        "    print(*sys.modules, len(sys.modules) - before); sys.stdout.flush(); os._exit(0)\n"
        "os.execve = told\n"
    )
    with node.job() as job:
        names = set(job.run(count + DRAY, "run", "--", "true").out.split())
        assert "cli.enter" in names
        assert names.isdisjoint(heavy | {"cli.agent", "cli.gateway", "http.client"})
        told = job.run(count + "from cli.shifter.main import main; main()", "true").out.split()
        assert set(told).isdisjoint(heavy | {"typer", "click", "http.client", "socket"})
        assert int(told[-1]) < 125


def test_many_ranks_enter_at_once_and_are_in_one_place(node: Node) -> None:
    ranks = 24
    script = "echo $SLURM_PROCID >> /tmp/ranks; stat -L -c %i /proc/self/ns/mnt"
    with node.job() as job:
        started = [
            job.having(SLURM_PROCID=str(rank)).start(DRAY, "run", "plain:2", "sh", "-c", script)
            for rank in range(ranks)
        ]
        ended = [
            (*process.communicate(timeout=PATIENCE), process.returncode) for process in started
        ]
        assert {code for _, _, code in ended} == {0}, ended
        assert len({out for out, _, _ in ended}) == 1
        seen = job.dray("plain:2", "cat", "/tmp/ranks").out.split()
        assert sorted(map(int, seen)) == list(range(ranks))


def test_after_the_job_its_inside_is_gone(node: Node) -> None:
    with node.job(modules=("tool",)) as job:
        assert job.dray("plain:2").code == 0
    ran = job.dray("plain:2")
    assert (ran.code, "the modules tool cannot be had here" in ran.err) == (125, True)
