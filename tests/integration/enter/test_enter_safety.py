"""Entering what is hostile, and machines that refuse: nothing is mounted where it must not be."""

import errno
import shutil
import subprocess
from pathlib import Path

import pytest

from cli.enter import explain_refusal
from tests.support.entering import ORDINARY, PATIENCE, ROOT, RUN, Caller
from tests.support.squashfs import is_root, mounts_in, place_image
from tests.support.users import REPOSITORY, let_everybody_in, ordinary_environment, ordinary_python

LOOK = """
import os, sys
from cli import enter
from shared.inside.assemble import assemble
from shared.inside.host import host_mounts
from shared.inside.people import Person
from shared.inside.plan import Bind, Plan
root, _, *own = sys.argv[1:]
person = Person.here()
mounts = (*host_mounts(person), *(Bind(path, path, optional=True) for path in own))
enter.make_namespaces()
known = {line.split()[4] for line in open("/proc/self/mountinfo")}
assemble(Plan(root, mounts), in_user_namespace=person.uid != 0)
for line in open("/proc/self/mountinfo"):
    if line.split()[4] not in known:
        print(line.split()[4])
"""


def new_mounts(caller: Caller, root: Path, *own: str) -> set[str]:
    """Where entering mounts something, as seen in the image."""
    done = caller.run(root, *own, code=LOOK)
    assert done.returncode == 0, done.stderr
    found = [Path(point) for point in done.stdout.split()]
    assert [point for point in found if not point.is_relative_to(root)] == []
    return {str(point.relative_to(root)) for point in found}


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
    before = sorted(victim.rglob("*"))
    assert {"proc", "dev", "sys", "tmp"} <= new_mounts(caller, hostile, str(own))
    done = caller.run(hostile, "sh", "-c", "cat /etc/passwd /etc/hosts; cat /proc/version")
    assert "of the victim" not in done.stdout
    assert "Linux" in done.stdout
    assert sorted(victim.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "to"),
    [("etc", "/etc"), ("etc", "etc"), ("etc", "../../../../etc"), ("etc/hosts", "hosts")],
)
def test_links_that_lead_round_or_out_are_harmless(
    caller: Caller, hostile: Path, name: str, to: str
) -> None:
    if (hostile / name).is_dir():
        shutil.rmtree(hostile / name)
    else:
        (hostile / name).unlink()
    (hostile / name).symlink_to(to)
    done = caller.run(hostile, "sh", "-c", "cat /etc/hosts; echo in")
    assert done.stdout == "in\n", done.stderr


def test_what_is_of_another_kind_in_the_image_is_no_place(caller: Caller, hostile: Path) -> None:
    (hostile / "etc/passwd").unlink()
    (hostile / "etc/passwd").mkdir()
    found = new_mounts(caller, hostile)
    assert {"proc", "dev", "sys", "tmp", "etc/group", "etc/resolv.conf"} <= found
    assert "etc/passwd" not in found


def test_a_link_on_the_way_is_followed_within_the_image(caller: Caller, hostile: Path) -> None:
    (hostile / "etc/hosts").unlink()
    (hostile / "etc/hosts").symlink_to("../../run/names/hosts")
    assert "run/names/hosts" in new_mounts(caller, hostile)
    done = caller.run(hostile, "cat", "/etc/hosts")
    assert done.stdout == Path("/etc/hosts").read_text()


@pytest.mark.root
@pytest.mark.skipif(not is_root(), reason="loop mounts need root")
@pytest.mark.parametrize("who", [ROOT, ORDINARY])
def test_a_mounted_squashfs_is_entered_and_outlives_its_unmount(
    who: Caller, image: Path, tmp_path: Path
) -> None:
    from services.node_agent.loop import LoopMounter  # noqa: PLC0415
    from services.node_agent.mounter import Source  # noqa: PLC0415
    from services.node_agent.unmount import clear  # noqa: PLC0415

    let_everybody_in(tmp_path)
    placed = place_image(image, tmp_path / "images", name="system", codec="zstd")
    target = tmp_path / "mnt"
    target.mkdir()
    LoopMounter(tmp_path / "probe").mount(Source(placed.path), target)
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


LED = f"""
import os
os.dup2(os.open("/usr", os.O_RDONLY), 9)
{RUN}
"""


def test_what_the_caller_has_open_of_the_host_is_no_way_out(caller: Caller, image: Path) -> None:
    done = caller.run(image, "sh", "-c", "pwd; ls -d /proc/self/fd/9/share; true", code=LED)
    assert done.stdout == "/\n", done
    by_name = caller.run(image, "pwd", workdir="/proc/self/fd/9", code=LED)
    assert (by_name.stdout, by_name.returncode) == ("", 125), by_name


TYPES = """
import fcntl, pty, termios
from cli import enter
_, terminal = pty.openpty()
enter._give_up_privileges()
fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8))
try:
    fcntl.ioctl(terminal, termios.TIOCSTI, b"x")
except OSError as exc:
    print(exc.errno)
"""


@pytest.mark.root
@pytest.mark.skipif(not is_root(), reason="others' shells have no more rights than the image")
def test_nothing_is_typed_into_root_s_terminal() -> None:
    # With the capability to do so, which the kernel asks for where it is not one's own terminal.
    code = f"from shared import linux; linux.drop_capabilities = lambda: None\n{TYPES}"
    done = Caller("root", {}).run(Path("/"), code=code)
    assert done.stdout == f"{errno.EPERM}\n", done.stderr


MOVE = """
import os, sys
from cli import enter
from shared import linux
from shared.inside.enter import move_root
enter.make_namespaces()
os.chdir(sys.argv[1])
linux.mount(".", ".", flags=linux.MS_BIND)
os.chdir(sys.argv[1])
move_root()
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
    code = "import sys, cli.enter; print(*sys.modules)"
    loaded = subprocess.run(
        ["python3", "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"pydantic", "aiohttp", "asyncio", "typer", "rich"} & set(loaded)


def test_no_capability_is_left(caller: Caller, image: Path) -> None:
    status = caller.run(image, "cat", "/proc/self/status").stdout.splitlines()
    sets = dict(line.split(":\t") for line in status if line.startswith("Cap"))
    assert {name: int(value, 16) for name, value in sets.items()} == dict.fromkeys(
        ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), 0
    )


@pytest.mark.root
@pytest.mark.skipif(not is_root(), reason="others may not write there anyhow")
def test_root_inside_cannot_change_the_kernel_s_settings(image: Path) -> None:
    # Opened only, and nothing written.
    script = (
        "for file in /proc/sys/kernel/domainname /proc/sysrq-trigger /sys/kernel/profiling; do "
        '[ -e "$file" ] && ( : >> "$file" ); done; echo done'
    )
    done = Caller("root", {}).run(image, "sh", "-c", script)
    assert done.stdout == "done\n"
    assert done.stderr.count("Read-only file system") == sum(
        Path(path).exists()
        for path in ("/proc/sys/kernel/domainname", "/proc/sysrq-trigger", "/sys/kernel/profiling")
    )
    mounts = Caller("root", {}).run(image, "cat", "/proc/self/mountinfo").stdout.splitlines()
    kernel = [line.split() for line in mounts if line.split()[4].startswith(("/proc", "/sys"))]
    assert {"/proc", "/sys"} <= {fields[4] for fields in kernel}
    assert [fields[4] for fields in kernel if "ro" not in fields[5].split(",")] == []


DROPPED = """
import os, sys
from cli import enter
enter.make_namespaces()
enter._give_up_privileges()
mount = "from shared import linux; linux.mount('none', '/srv', 'tmpfs')"
os.execv(sys.executable, [sys.executable, "-c", mount])
"""


def test_a_command_cannot_mount(caller: Caller) -> None:
    done = caller.run(Path("/"), code=DROPPED)
    assert "PermissionError: [Errno 1]" in done.stderr
