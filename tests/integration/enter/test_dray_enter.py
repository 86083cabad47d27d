"""dray-enter, the helper in C for ranks: into a pinned inside, with nothing brought along."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.inside.manifest import Manifest
from tests.support.c_programs import build_enter
from tests.support.dray_enter import IMAGE, JOB, enter
from tests.support.pinned import Pinned, pinned_in
from tests.support.squashfs import is_root
from tests.support.users import AS_NOBODY, NOBODY, let_everybody_in

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not is_root(), reason="namespaces of others need root"),
]
MANIFEST = Manifest(
    env=("PATH=/bin", "OF=image"),
    workdir="/work",
    entrypoint=("env", "VIA=entrypoint"),
    cmd=("sh", "-c", "echo $VIA $OF"),
)
AS_ROOT: dict[str, Any] = {}
AS_OTHER = {"user": 12345, "group": 12345, "extra_groups": ()}
STATUS = "grep -E '^(Cap|NoNewPrivs)' /proc/self/status"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("enter")
    let_everybody_in(directory)
    assert build_enter(directory).stat().st_mode & 0o7777 == 0o755
    return directory


@pytest.fixture(scope="module")
def pinned(place: Path, image: Path) -> Iterator[Pinned]:
    with pinned_in(place / "insides") as found:
        found.add(JOB, IMAGE, image, MANIFEST)
        yield found


@pytest.mark.parametrize(("who", "uid"), [(AS_NOBODY, NOBODY), (AS_ROOT, 0)])
def test_it_becomes_a_command_in_the_image_without_any_privilege(
    place: Path, pinned: Pinned, who: dict[str, Any], uid: int
) -> None:
    script = f"cat /etc/os-release; id -u; {STATUS}"
    done = enter(place, "--", "sh", "-c", script, who=who)
    sets = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    told = [f"{name}:\t{0:016x}" for name in sets]
    assert done.stdout.splitlines() == ["NAME=tiny", str(uid), *told, "NoNewPrivs:\t1"], done


def test_the_environment_is_the_host_s_then_the_image_s_then_the_option_s(
    place: Path, pinned: Pinned
) -> None:
    host: dict[str, Any] = {
        "OF": "host",
        "SLURM_PROCID": "3",
        "LD_PRELOAD": "/nothing.so",
        "PYTHONPATH": "/host",
    }
    done = enter(place, "-e", "MORE=a=b", "--env", "HOME=/work", "--", "env", **host)
    told = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert told.pop("PWD", None) is None
    assert {name for name in told if not name.startswith("DRAY_")} == {
        "SLURM_JOB_ID", "SLURM_PROCID", "PATH", "OF", "MORE", "HOME",
    }  # fmt: skip
    assert (told["PATH"], told["OF"], told["MORE"], told["HOME"]) == (
        "/bin", "image", "a=b", "/work",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("cwd", "options", "where"),
    [
        ("/etc", (), "/etc"),
        ("HERE", (), "/work"),  # the image does not have it
        ("/etc", ("-w", "/tmp"), "/tmp"),
    ],
)
def test_it_works_where_the_caller_does_or_else_where_the_image_wants(
    place: Path, pinned: Pinned, cwd: str, options: tuple[str, ...], where: str
) -> None:
    here = str(place) if cwd == "HERE" else cwd
    assert enter(place, *options, "--", "pwd", cwd=here).stdout.strip() == where


def test_what_the_caller_has_open_of_the_host_is_no_way_out(
    place: Path, pinned: Pinned, image: Path
) -> None:
    fd = os.open(place, os.O_RDONLY)
    lead = f"/proc/self/fd/{fd}"
    pinned.add(JOB, "leads", image, Manifest(env=("PATH=/bin",), workdir=lead))
    look = ("--", "sh", "-c", f"pwd; ls -d ../dray-enter {lead}/dray-enter; true")
    by_image = enter(place, "leads", *look, cwd=str(place), fds=(fd,))
    by_option = enter(place, "-w", lead, *look, fds=(fd,))
    os.close(fd)
    assert (by_image.stdout, by_image.returncode) == ("/home\n", 0), by_image
    assert (by_option.stdout, by_option.returncode) == ("", 125), by_option


TYPES = r"""
#include <errno.h>
#include <stdio.h>
#include <sys/ioctl.h>
int main(void)
{
    ioctl(0, TIOCGWINSZ, &(struct winsize){0});
    printf("%s ", errno == EPERM ? "refused" : "allowed");
    ioctl(0, TIOCSTI, "x"); /* of no terminal: refused before the kernel sees that */
    puts(errno == EPERM ? "refused" : "allowed");
}
"""


def test_nothing_is_typed_into_root_s_terminal(place: Path, pinned: Pinned, hostile: Path) -> None:
    (place / "types.c").write_text(TYPES)
    subprocess.run(["gcc", "-o", hostile / "bin/types", place / "types.c"], check=True)
    pinned.add(JOB, "types", hostile)
    done = enter(place, "types", "--", "/bin/types", who=AS_ROOT)
    assert done.stdout == "allowed refused\n", done


def test_the_entrypoint_is_put_before_where_it_is_asked_for(place: Path, pinned: Pinned) -> None:
    assert enter(place, "--", "sh", "-c", "echo $VIA").stdout == "\n"
    assert enter(place, "-E", "--", "sh", "-c", "echo $VIA").stdout == "entrypoint\n"
    assert enter(place, "--entrypoint").stdout == "entrypoint image\n"


def test_several_images_of_a_job_are_told_apart_and_a_job_outside_slurm_is_found(
    place: Path, pinned: Pinned, hostile: Path
) -> None:
    (hostile / "etc/os-release").write_text("NAME=second\n")
    pinned.add("run-5", "def", hostile)
    done = enter(place, "def", "--", "cat", "/etc/os-release", SLURM_JOB_ID="", DRAY_JOB_ID="run-5")
    assert done.stdout == "NAME=second\n", done.stderr


@pytest.mark.parametrize(
    ("submitted", "now", "enters"),
    [
        ({"IMAGE": "app:1"}, {}, True),
        ({"IMAGE": "app:1", "VOLUMES": "/a:/b"}, {"VOLUMES": "/a:/b"}, True),
        ({"IMAGE": "app:1"}, {"VOLUMES": "/a:/b"}, False),
        ({"IMAGE": "app:1", "VOLUMES": "/a:/b"}, {"VOLUMES": "/c:/b"}, False),
        ({"IMAGE": "app:1", "MODULES": "mpich"}, {}, False),
        ({}, {"VOLUMES": "/a:/b"}, True),
    ],
)
def test_a_step_with_wishes_of_its_own_does_not_get_the_job_s(
    place: Path, pinned: Pinned, submitted: dict[str, str], now: dict[str, str], *, enters: bool
) -> None:
    """Slurm keeps what the job was submitted with; without it, nobody can tell."""
    env: dict[str, Any] = {f"SLURM_SPANK_DRAY_{name}": text for name, text in submitted.items()}
    env |= {f"DRAY_{name}": text for name, text in now.items()}
    done = enter(place, "--", "sh", "-c", "echo in", **env)
    if enters:
        assert (done.returncode, done.stdout) == (0, "in\n"), done
    else:
        assert (done.returncode, done.stdout) == (125, "")
        assert "call it by dray run or shifter" in done.stderr


@pytest.mark.parametrize(
    ("words", "status", "why"),
    [
        (("--", "sh", "-c", "exit 42"), 42, ""),
        (("--", "sh", "-c", "kill -9 $$"), -signal.SIGKILL, ""),
        (("--", "nothing"), 127, "there is no such command in the image"),
        (("--", "/bin/nothing"), 127, "there is no such command in the image"),
        (("--", "/etc"), 126, "Permission denied"),
        (("--", "/etc/os-release"), 126, "Permission denied"),
        (("-w", "/nothing", "--", "true"), 125, "cannot work in /nothing of the image"),
        (("other", "--", "true"), 125, "has the job ended?"),
        (("../x", "--", "true"), 125, "no image is named"),
        ((), 2, "write a command"),
        (("-w",), 2, "usage"),
        (("-z", "--", "true"), 2, "usage"),
        (("-e", "=x", "--", "true"), 2, "NAME=VALUE"),
        (("-w", "etc", "--", "true"), 2, "begin with '/'"),
        (("abc", "true"), 2, "usage"),
    ],
)
def test_how_it_ends(
    place: Path, pinned: Pinned, words: tuple[str, ...], status: int, why: str
) -> None:
    done = enter(place, *words)
    assert (done.returncode, why in done.stderr) == (status, True), done
    if status in (125, 126, 127):
        assert len(done.stderr.splitlines()) == 1


def test_a_program_whose_loader_is_missing_is_told_from_one_that_is(
    place: Path, pinned: Pinned, hostile: Path
) -> None:
    script = hostile / "bin/odd"
    script.write_text("#!/nothing/at/all\n")
    script.chmod(0o755)
    pinned.add(JOB, "odd", hostile, MANIFEST)
    done = enter(place, "odd", "--", "odd")
    assert (done.returncode, "interpreter or loader" in done.stderr) == (127, True)


def test_without_a_job_or_an_image_it_says_so(place: Path, pinned: Pinned) -> None:
    assert "this is no job" in enter(place, "--", "true", SLURM_JOB_ID="").stderr
    assert "DRAY_IMAGE_ID is not set" in enter(place, "--", "true", DRAY_IMAGE_ID="").stderr


def test_stdin_is_the_command_s_and_limits_stay(place: Path, pinned: Pinned) -> None:
    inside = f"exec {place}/dray-enter -- sh -c 'cat; umask; ulimit -n'"
    done = subprocess.run(
        ["sh", "-c", f"umask 027; ulimit -n 99; {inside}"],
        env={"SLURM_JOB_ID": JOB, "DRAY_IMAGE_ID": IMAGE, "DRAY_INSIDES": f"{place}/insides",
             "PATH": os.defpath},
        input="typed\n", capture_output=True, text=True, check=False, cwd="/", timeout=60,
        **AS_NOBODY,
    )  # fmt: skip
    assert done.stdout.split() == ["typed", "0027", "99"], done


def test_many_ranks_enter_at_once(place: Path, pinned: Pinned) -> None:
    one = f"{place}/dray-enter -- cat /etc/os-release || echo FAILED"
    done = subprocess.run(
        ["sh", "-c", f"for rank in $(seq 128); do ({one}) & done; wait"],
        env={"SLURM_JOB_ID": JOB, "DRAY_IMAGE_ID": IMAGE, "DRAY_INSIDES": f"{place}/insides",
             "PATH": os.defpath},
        capture_output=True, text=True, check=False, cwd="/", timeout=60, **AS_NOBODY,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("NAME=tiny\n" * 128, "")


def test_nobody_else_enters(place: Path, pinned: Pinned) -> None:
    done = enter(place, "--", "true", who=AS_OTHER)
    assert (done.returncode, done.stdout) == (125, "")
    assert "Permission denied" in done.stderr


def test_even_with_the_files_nobody_else_enters(place: Path, pinned: Pinned) -> None:
    forged = place / "forged"
    forged.mkdir()
    target = forged / f"{JOB}@{IMAGE}"
    target.mkdir()
    for name in ("env", "changes", "workdir", "entrypoint", "cmd"):
        (target / name).write_bytes(b"")
    for name in ("user", "user-mnt"):
        (target / name).touch()
        subprocess.run(
            ["mount", "--bind", pinned.directory / f"{JOB}@{IMAGE}" / name, target / name],
            check=True,
        )
    try:
        done = enter(place, "--", "true", who=AS_OTHER, DRAY_INSIDES=str(forged))
        assert enter(place, "--", "sh", "-c", ":", DRAY_INSIDES=str(forged)).returncode == 0
    finally:
        for name in ("user", "user-mnt"):
            subprocess.run(["umount", target / name], check=True)
    assert done.returncode == 125
    assert "only the job's own user may" in done.stderr


def test_a_site_without_user_namespaces_says_who_enters(
    place: Path, pinned: Pinned, image: Path
) -> None:
    pinned.add("8", IMAGE, image, MANIFEST, user_namespaces=False)
    assert "srun --enter" in enter(place, "--", "true", SLURM_JOB_ID="8").stderr
    assert enter(place, "--", "pwd", who=AS_ROOT, SLURM_JOB_ID="8").returncode == 0


# -- a directory that somebody made ----------------------------------------------------------------


def _good(inside: Path) -> None:
    inside.mkdir()
    for name in ("user", "user-mnt", "mnt", "env", "changes", "workdir", "entrypoint", "cmd"):
        (inside / name).write_bytes(b"")


def _fifo(inside: Path) -> None:
    (inside / "env").unlink()
    os.mkfifo(inside / "env")


def _fifo_for_namespace(inside: Path) -> None:
    (inside / "user").unlink()
    os.mkfifo(inside / "user")


def _link(inside: Path) -> None:
    (inside / "env").unlink()
    (inside / "env").symlink_to("/etc/passwd")


def _link_to_namespace(inside: Path) -> None:
    (inside / "user").unlink()
    (inside / "user").symlink_to("/proc/1/ns/user")


def _huge(inside: Path) -> None:
    os.truncate(inside / "cmd", 1 << 40)


def _torn(inside: Path) -> None:
    (inside / "env").write_bytes(b"=A=B\0=C=D")


def _missing(inside: Path) -> None:
    (inside / "workdir").unlink()


def _device(inside: Path) -> None:
    (inside / "env").unlink()
    (inside / "env").symlink_to("/dev/zero")


def _plain(inside: Path) -> None:
    """Everything in its place, and yet no namespace."""


HOSTILE = [
    _fifo, _fifo_for_namespace, _link, _link_to_namespace, _huge, _torn, _missing, _device, _plain,
]  # fmt: skip


@pytest.mark.parametrize("who", [AS_NOBODY, AS_ROOT])
@pytest.mark.parametrize("spoil", HOSTILE)
def test_a_directory_that_somebody_made_does_nothing(
    place: Path, spoil: Any, who: dict[str, Any]
) -> None:
    made = place / "made"
    made.mkdir()
    try:
        inside = made / f"{JOB}@{IMAGE}"
        _good(inside)
        spoil(inside)
        done = enter(place, "--", "/bin/true", who=who, DRAY_INSIDES=str(made))
    finally:
        shutil.rmtree(made)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (125, "", 1), done
