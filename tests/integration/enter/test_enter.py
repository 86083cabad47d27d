"""Entering images on this machine's kernel: as root and as an ordinary user."""

import contextlib
import os
import pty
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from tests.support.entering import PATIENCE, RUN, SHARED_PLACE, Caller
from tests.support.squashfs import is_root
from tests.support.users import AS_NOBODY, ordinary_environment, ordinary_python


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


def test_what_every_program_expects_of_its_host_is_there(caller: Caller, image: Path) -> None:
    script = "cat /etc/hosts; cat /proc/sys/kernel/ostype; ls /sys; : > /etc/hosts"
    done = caller.run(image, "sh", "-c", script)
    assert Path("/etc/hosts").read_text() in done.stdout
    assert "Linux\n" in done.stdout
    assert "kernel" in done.stdout.split()
    assert done.returncode != 0
    assert caller.run(image, "cat", "/etc/os-release").stdout == "NAME=tiny\n"


def test_devices_are_those_that_every_program_expects(caller: Caller, image: Path) -> None:
    script = "ls /dev; [ -c /dev/zero ] && echo 4; echo gone >/dev/null;[ -w /dev/shm ]"
    done = caller.run(image, "sh", "-c", f"{script} && touch /dev/x")
    *names, count = done.stdout.split()
    assert {"null", "zero", "full", "random", "urandom", "tty", "fd", "stdin", "shm"} <= set(names)
    assert not {"loop-control", "mem", "kmsg", "fuse"} & set(names)
    assert count == "4"
    assert "Read-only file system" in done.stderr
    assert done.stderr.count("\n") == 1


def test_there_are_the_user_and_root_and_no_one_else(caller: Caller, image: Path) -> None:
    done = caller.run(image, "sh", "-c", "cat /etc/passwd; echo; cat /etc/group")
    people, groups = done.stdout.split("\n\n")
    uid = 0 if caller.name == "root" else AS_NOBODY["user"] if is_root() else os.getuid()
    assert {int(line.split(":")[2]) for line in people.splitlines()} == {0, 65534, uid}
    gids = {0, 65534, *(os.getgroups() if caller.name == "root" or not is_root() else ())}
    assert {int(line.split(":")[2]) for line in groups.splitlines()} == gids


def test_no_privileges_can_be_gained_and_no_descriptor_leaks(caller: Caller, image: Path) -> None:
    done = caller.run(image, "sh", "-c", "grep NoNewPrivs /proc/self/status; ls /proc/self/fd")
    assert done.stdout.split() == ["NoNewPrivs:", "1", "0", "1", "2", "3"]  # 3: that of ls
    signals = caller.run(image, "grep", "SigIgn", "/proc/self/status").stdout.split()[1]
    assert int(signals, 16) & (1 << (signal.SIGPIPE - 1)) == 0


def test_the_host_s_mounts_are_untouched(caller: Caller, image: Path) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    assert caller.run(image, "cat", "/etc/os-release").returncode == 0
    assert Path("/proc/self/mountinfo").read_text() == before


@pytest.mark.parametrize("has_place", [True, False])
def test_the_working_directory_comes_along_but_that_of_root(
    caller: Caller, hostile: Path, has_place: bool
) -> None:
    if not has_place:
        (hostile / SHARED_PLACE.relative_to("/")).rmdir()
    done = caller.run(hostile, "sh", "-c", "pwd; stat -c %d:%i .", cwd=SHARED_PLACE)
    here = SHARED_PLACE.stat()
    same = f"{SHARED_PLACE}\n{here.st_dev}:{here.st_ino}\n"
    assert (done.stdout == same) == (caller.name != "root")


@pytest.mark.parametrize("cwd", ["/", "/etc", "/usr/bin"])
def test_the_host_s_system_directories_never_replace_the_image_s(
    caller: Caller, image: Path, cwd: str
) -> None:
    done = caller.run(image, "sh", "-c", "cat /etc/os-release; ls /", cwd=cwd)
    assert done.stdout.startswith("NAME=tiny\n")
    assert "boot" not in done.stdout.split()


@pytest.mark.root
@pytest.mark.skipif(not is_root(), reason="needs root")
def test_the_home_of_root_stays_where_it_is(image: Path) -> None:
    done = Caller("root", {}).run(image, "stat", "-c", "%d:%i", "/root")
    here = Path("/root").stat()
    assert done.stdout != f"{here.st_dev}:{here.st_ino}\n"


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
async def test_the_command_takes_our_place_with_its_signals_and_its_end(
    caller: Caller, image: Path, number: signal.Signals
) -> None:
    trap = f"trap 'echo caught; exit 3' {number.name.removeprefix('SIG')}"
    process = caller.start(image, "", "sh", "-c", f"{trap}; echo $$; while :; do :; done")
    try:
        assert process.stdout.readline() == f"{process.pid}\n"
        process.send_signal(number)
        out, _ = process.communicate(timeout=PATIENCE)
        assert (out, process.returncode) == ("caught\n", 3)
    finally:
        process.kill()
    killed = caller.run(image, "sh", "-c", "kill -9 $$")
    assert killed.returncode == -signal.SIGKILL


def test_an_image_needs_no_place_for_anything(caller: Caller, hostile: Path) -> None:
    for name in ("proc", "dev", "tmp"):
        shutil.rmtree(hostile / name)
    (hostile / "proc").symlink_to("/sys")
    script = "cat /proc/sys/kernel/ostype; echo x > /dev/null; touch /tmp/x; exit 4"
    done = caller.run(hostile, "sh", "-c", script)
    assert (done.returncode, done.stdout, done.stderr) == (4, "Linux\n", "")


def test_an_interrupt_from_the_terminal_reaches_the_command_once(
    caller: Caller, image: Path
) -> None:
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


def test_a_file_system_of_the_site_is_there_or_it_is_said(caller: Caller, hostile: Path) -> None:
    place = Path("/var/tmp")
    code = RUN.replace("workdir=workdir or None", f"workdir='/', site=Site(('{place}',))")
    code = f"from shared.inside.site import Site\n{code}"
    at = hostile / place.relative_to("/")
    at.mkdir(parents=True)
    done = caller.run(hostile, "stat", "-c", "%d %i", str(place), code=code)
    there = place.stat()
    assert (done.stdout, done.stderr) == (f"{there.st_dev} {there.st_ino}\n", "")
    at.rmdir()
    at.write_text("in the way")
    done = caller.run(hostile, "cat", str(place), code=code)
    assert (done.returncode, done.stdout) == (0, "in the way")
    assert done.stderr.startswith(f"dray: {place} of this site is not in this image")
