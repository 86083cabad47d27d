"""Entering images on this machine's kernel: as root and as an ordinary user."""

import contextlib
import os
import pty
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cli.enter import explain_refusal
from tests.support.squashfs import is_root, mounts_in, place_image, system_tree
from tests.support.users import AS_NOBODY, REPOSITORY, ordinary_environment, ordinary_python

PATIENCE = 30.0
REFUSED = 88  # the probe's own status: this machine allows no user namespaces

RUN = """
import sys
from pathlib import Path
from cli.enter import EnterError
from cli.supervise import run_inside
root, workdir, *command = sys.argv[1:]
try:
    env = {"PATH": "/bin", "GREETING": "hello"}
    sys.exit(run_inside(Path(root), command, env=env, workdir=workdir or None))
except EnterError as exc:
    print(exc.code, exc.message, file=sys.stderr)
    sys.exit(exc.exit_code)
"""


@dataclass(frozen=True)
class Caller:
    """Who enters: root, or somebody ordinary."""

    name: str
    who: dict[str, Any]

    def start(self, *arguments: object, code: str = RUN, cwd: Path | str = "/") -> Any:
        return subprocess.Popen(
            [ordinary_python() if is_root() else "python3", "-c", code, *map(str, arguments)],
            env=ordinary_environment(),
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **self.who,
        )

    def run(
        self,
        root: Path,
        *command: str,
        workdir: str = "",
        code: str = RUN,
        cwd: Path | str = "/",
    ) -> subprocess.CompletedProcess[str]:
        process = self.start(root, workdir, *command, code=code, cwd=cwd)
        out, err = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(command, process.returncode, out, err)


ROOT = pytest.param(
    Caller("root", {}),
    id="root",
    marks=[pytest.mark.root, pytest.mark.skipif(not is_root(), reason="needs root")],
)
ORDINARY = pytest.param(Caller("ordinary", AS_NOBODY if is_root() else {}), id="ordinary")


@pytest.fixture(params=[ROOT, ORDINARY])
def caller(request: pytest.FixtureRequest) -> Caller:
    found: Caller = request.param
    if found.name == "ordinary":
        probe = "import sys; from cli import enter\ntry: enter.make_namespaces()\n"
        probe += f"except enter.NamespacesRefusedError as exc: print(exc); sys.exit({REFUSED})"
        done = found.run(Path("/"), code=probe)
        if done.returncode == REFUSED:
            pytest.skip(done.stdout)
    return found


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An unpacked image that everybody may read."""
    place = tmp_path_factory.mktemp("image")
    for directory in (place, *list(place.parents)[:2]):
        directory.chmod(0o755)
    root = system_tree(place / "root")
    (root / REPOSITORY.relative_to("/")).mkdir(parents=True, exist_ok=True)
    yield root
    assert mounts_in(root) == []


@pytest.fixture
def hostile(image: Path, tmp_path: Path) -> Path:
    """A copy of the image, to be made worse."""
    for directory in (tmp_path, *list(tmp_path.parents)[:2]):
        directory.chmod(0o755)
    return Path(shutil.copytree(image, tmp_path / "hostile", symlinks=True))


def test_output_status_environment_and_identity(caller: Caller, image: Path) -> None:
    script = "id -u; id -g; echo $GREETING $HOME; env | grep -c HOME; exit 7"
    done = caller.run(image, "sh", "-c", script)
    uid = "0" if caller.name == "root" else str(AS_NOBODY["user"] if is_root() else os.getuid())
    assert done.returncode == 7
    assert done.stdout.split()[0] == uid
    assert "hello" in done.stdout
    assert done.stdout.splitlines()[-1] == "0", "nothing of the host's environment comes along"
    assert done.stderr == ""


def test_the_image_is_read_only_and_tmp_is_not(caller: Caller, image: Path) -> None:
    done = caller.run(image, "sh", "-c", "touch /tmp/x && ls /tmp; touch /x /bin/y")
    assert done.stdout == "x\n"
    assert done.stderr.count("Read-only file system") == 2
    assert done.returncode != 0
    assert not list((image / "tmp").iterdir())


def test_host_trees_and_files_are_there_and_files_cannot_be_written(
    caller: Caller, image: Path
) -> None:
    script = "cat /etc/passwd /etc/hosts; cat /proc/sys/kernel/ostype; ls /sys /dev; : > /etc/hosts"
    done = caller.run(image, "sh", "-c", script)
    assert Path("/etc/passwd").read_text() + Path("/etc/hosts").read_text() in done.stdout
    assert "Linux\n" in done.stdout
    assert {"kernel", "null"} <= set(done.stdout.split())
    assert done.returncode != 0
    assert caller.run(image, "cat", "/etc/os-release").stdout == "NAME=tiny\n"


def test_no_privileges_can_be_gained_and_no_descriptor_leaks(caller: Caller, image: Path) -> None:
    done = caller.run(image, "sh", "-c", "grep NoNewPrivs /proc/self/status; ls /proc/self/fd")
    assert done.stdout.split() == ["NoNewPrivs:", "1", "0", "1", "2", "3"]  # 3: that of ls
    signals = caller.run(image, "grep", "SigIgn", "/proc/self/status").stdout.split()[1]
    assert int(signals, 16) & (1 << (signal.SIGPIPE - 1)) == 0


def test_the_host_s_mounts_are_untouched(caller: Caller, image: Path) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    assert caller.run(image, "cat", "/etc/os-release").returncode == 0
    assert Path("/proc/self/mountinfo").read_text() == before


def test_the_working_directory_comes_along_where_the_image_has_its_place(
    caller: Caller, image: Path
) -> None:
    if REPOSITORY.parts[1] in {"tmp", "usr", "opt", "var"}:
        pytest.skip("the repository is below a directory that images keep to themselves")
    done = caller.run(image, "sh", "-c", "pwd; ls pyproject.toml", cwd=REPOSITORY)
    assert done.stdout.splitlines() == [str(REPOSITORY), "pyproject.toml"]


@pytest.mark.parametrize("cwd", ["/", "/etc", "/usr/bin"])
def test_the_host_s_system_directories_never_replace_the_image_s(
    caller: Caller, image: Path, cwd: str
) -> None:
    done = caller.run(image, "sh", "-c", "cat /etc/os-release; ls /", cwd=cwd)
    assert done.stdout.startswith("NAME=tiny\n")
    assert "boot" not in done.stdout.split()


@pytest.mark.root
@pytest.mark.skipif(not is_root(), reason="needs a home that the image has a place for")
def test_home_comes_along(image: Path) -> None:
    done = Caller("root", {}).run(image, "stat", "-c", "%d:%i", "/root")
    here = Path("/root").stat()
    assert done.stdout == f"{here.st_dev}:{here.st_ino}\n"


def test_a_working_directory_that_was_asked_for_must_exist(caller: Caller, image: Path) -> None:
    assert caller.run(image, "pwd", workdir="/etc").stdout == "/etc\n"
    done = caller.run(image, "pwd", workdir="/nowhere")
    assert done.returncode == 125
    assert "/nowhere" in done.stderr


def test_commands_that_cannot_run_say_why_as_a_shell_does(caller: Caller, hostile: Path) -> None:
    def put(name: str, content: str, mode: int) -> None:
        (hostile / "bin" / name).write_text(content)
        (hostile / "bin" / name).chmod(mode)

    put("plain", "not a program", 0o755)
    put("closed", "#!/bin/sh\n", 0o644)
    put("orphan", "#!/no/such/interpreter\n", 0o755)
    expected = {
        "absent": (127, "no such command"),
        "/bin/absent": (127, "no such command"),
        "orphan": (127, "interpreter"),
        "plain": (126, "neither a program"),
        "closed": (126, "cannot be executed"),
        "/etc": (126, "directory"),
    }
    for command, (status, says) in expected.items():
        done = caller.run(hostile, command)
        assert (done.returncode, says in done.stderr) == (status, True), (command, done.stderr)


def test_an_image_that_is_not_there_says_so(caller: Caller, image: Path) -> None:
    done = caller.run(image / "nothing", "pwd")
    assert done.returncode == 125
    assert "not mounted" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
async def test_signals_reach_the_command_and_its_end_is_ours(
    caller: Caller, image: Path, number: signal.Signals
) -> None:
    trap = f"trap 'echo caught; exit 3' {number.name.removeprefix('SIG')}"
    process = caller.start(image, "", "sh", "-c", f"{trap}; echo ready; while :; do :; done")
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        out, _ = process.communicate(timeout=PATIENCE)
        assert (out, process.returncode) == ("caught\n", 3)
    finally:
        process.kill()
    killed = caller.run(image, "sh", "-c", "kill -9 $$")
    assert killed.returncode == 128 + signal.SIGKILL


def test_an_interrupt_from_the_terminal_is_not_doubled(caller: Caller, image: Path) -> None:
    # The terminal sends it to the command as well as to us; the second one would be ours.
    keyboard, terminal = pty.openpty()
    script = "trap 'echo caught' INT; trap 'exit 4' TERM; echo ready; while :; do :; done"
    with open(keyboard, "rb+", buffering=0) as keys:  # noqa: PTH123 - a descriptor
        process = subprocess.Popen(
            ["setsid", "--ctty", ordinary_python(), "-c", RUN, image, "", "sh", "-c", script],
            env=ordinary_environment(), cwd="/", stdin=terminal, stdout=terminal, **caller.who,
        )  # fmt: skip
        os.close(terminal)
        too_late = threading.Timer(PATIENCE, process.kill)  # ends the reads as well
        too_late.start()
        shown = b""
        while b"ready" not in shown:
            shown += keys.read(1024)
        keys.write(b"\x03")
        while b"caught" not in shown:
            shown += keys.read(1024)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 4
        too_late.cancel()
        with contextlib.suppress(OSError):  # EIO: nobody holds the terminal any more
            while more := keys.read(1024):
                shown += more
    assert shown.count(b"caught") == 1


LOOK = """
import os, sys
from pathlib import Path
from cli import enter
root = Path(sys.argv[1])
enter.make_namespaces()
known = {line.split()[4] for line in open("/proc/self/mountinfo")}
inside = enter._bind_read_only(root)
enter._furnish(inside, sys.argv[3:])
for line in open("/proc/self/mountinfo"):
    if line.split()[4] not in known:
        print(line.split()[4])
"""


def new_mounts(caller: Caller, root: Path, *own: str) -> list[str]:
    """Everything that entering mounts, as the host's paths."""
    done = caller.run(root, *own, code=LOOK)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_nothing_is_mounted_through_symbolic_links(
    caller: Caller, hostile: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    for name in ("proc", "dev", "sys", "tmp", "etc", "home/somebody"):
        (victim / name).mkdir(parents=True)
    for name in ("passwd", "group", "hosts", "resolv.conf"):
        (victim / "etc" / name).write_text("of the victim")
    own = victim / "home/somebody"
    for name in ("proc", "dev", "sys", "tmp", "etc"):
        shutil.rmtree(hostile / name)
        (hostile / name).symlink_to(victim / name)
    (hostile / victim.parent.relative_to("/")).parent.mkdir(parents=True, exist_ok=True)
    assert new_mounts(caller, hostile, str(own)) == [str(hostile)]


def test_a_link_in_the_middle_or_at_the_end_is_no_mount_point(
    caller: Caller, hostile: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    for name in ("hosts", "passwd"):
        (hostile / "etc" / name).unlink()
    (hostile / "etc/hosts").symlink_to("/etc/hosts")
    (hostile / "etc/passwd").mkdir()
    (hostile / "up").symlink_to("..")
    found = new_mounts(caller, hostile, "/up/elsewhere")
    assert all(Path(point).is_relative_to(hostile) for point in found)
    inside = {str(Path(point).relative_to(hostile)) for point in found}
    assert {"proc", "dev", "sys", "tmp", "etc/group", "etc/resolv.conf"} <= inside
    assert not {"etc/hosts", "etc/passwd"} & inside


@pytest.mark.root
@pytest.mark.skipif(not is_root(), reason="loop mounts need root")
@pytest.mark.parametrize("who", [ROOT, ORDINARY])
def test_a_mounted_squashfs_is_entered_and_outlives_its_unmount(
    who: Caller, image: Path, tmp_path: Path
) -> None:
    from services.node_agent.loop import LoopMounter  # noqa: PLC0415
    from services.node_agent.unmount import clear  # noqa: PLC0415

    for directory in (tmp_path, *list(tmp_path.parents)[:2]):
        directory.chmod(0o755)
    placed = place_image(image, tmp_path / "images", name="system", codec="zstd")
    target = tmp_path / "mnt"
    target.mkdir()
    LoopMounter(tmp_path / "probe").mount(placed.path, target)
    try:
        script = "echo ready; cat; cat /etc/os-release; touch /x"
        process = subprocess.Popen(
            [ordinary_python(), "-c", RUN, target, "", "sh", "-c", script],
            env=ordinary_environment(), cwd="/", text=True, **who.who,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    finally:
        clear(target)
    out, err = process.communicate("", timeout=PATIENCE)
    assert out == "NAME=tiny\n"
    assert "Read-only" in err
    assert mounts_in(tmp_path) == []


MOVE = """
import os, sys
from pathlib import Path
from cli import enter
enter.make_namespaces()
inside = enter._bind_read_only(Path(sys.argv[1]))
os.fchdir(inside)
enter.move_root()
os.chdir("/")
enter.execute(sys.argv[3:], {"PATH": "/bin"})
"""


def test_without_pivot_root_the_image_becomes_the_root_as_well(caller: Caller, image: Path) -> None:
    done = caller.run(image, "sh", "-c", "cat /etc/os-release; ls /..", code=MOVE)
    assert done.stdout.startswith("NAME=tiny\n"), done.stderr
    assert "boot" not in done.stdout.split()


LIMITED = """
import os
from pathlib import Path
from cli import enter
from shared import linux
linux.unshare(linux.CLONE_NEWUSER)
Path("/proc/sys/user/max_user_namespaces").write_text("0")
assert os.geteuid() != 0
try:
    enter.make_namespaces()
except enter.NamespacesRefusedError as exc:
    print(exc)
"""


def test_a_real_refusal_names_the_sysctl(caller: Caller) -> None:
    done = caller.run(Path("/"), code=LIMITED)
    assert "sysctl -w user.max_user_namespaces=15000" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("user/max_user_namespaces", "0"),
        ("kernel/unprivileged_userns_clone", "0"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1"),
    ],
)
def test_each_refusing_sysctl_is_recognised(tmp_path: Path, name: str, value: str) -> None:
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text(f"{value}\n")
    message = explain_refusal(PermissionError(1, "no"), 1000, tmp_path)
    assert f"sysctl -w {name.replace('/', '.')}=" in message


def test_a_refusal_without_such_a_sysctl_is_explained_too(tmp_path: Path) -> None:
    assert "seccomp" in explain_refusal(PermissionError(1, "no"), 1000, tmp_path)
    assert "CAP_SYS_ADMIN" in explain_refusal(PermissionError(1, "no"), 0, tmp_path)


def test_entering_loads_no_heavy_package() -> None:
    code = "import sys, cli.supervise; print(*sys.modules)"
    loaded = subprocess.run(
        ["python3", "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"pydantic", "aiohttp", "asyncio", "typer", "rich"} & set(loaded)
