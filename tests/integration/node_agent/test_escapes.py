"""Attempts to get out of an inside, or more than one's own rights: each is refused, or harmless.

They are made with all capabilities that joining the user namespace gives, and nothing dropped: a
user need not use our programs to join it.
"""

import os
import shutil
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from services.node_agent.inside.furnish import plan_of
from services.node_agent.inside.insides import Insides, Wish
from services.node_agent.inside.pins import Pins
from services.node_agent.loop import LoopMounter
from services.node_agent.mounter import Source
from services.node_agent.unmount import clear
from shared.deadline import Deadline
from shared.inside.manifest import Manifest
from shared.settings.inside import InsideSettings
from tests.support.insides import PERSON, enter
from tests.support.squashfs import is_root, place_image, system_tree
from tests.support.users import let_everybody_in

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not is_root(), reason="namespaces of others need root"),
]

LINKED = ("etc", "dev", "proc", "tmp", "sys")

PREAMBLE = """
import ctypes, os, subprocess, sys
from pathlib import Path
from shared import linux
from shared.inside.enter import join
join(Path(sys.argv[1]))
secret = sys.argv[2]
bind = linux.MS_REMOUNT | linux.MS_BIND
def attempt(what):
    try:
        return what()
    except (OSError, subprocess.SubprocessError):
        return None
"""

# Each says True where it got what it must not get.
ATTEMPTS = {
    "a device node of the image": "attempt(lambda: os.open('/zero', os.O_RDONLY)) is not None",
    "a device node of one's own": "attempt(lambda: os.mknod('/tmp/zero', 0o20666, os.makedev(1, 5))"
    " or True)",
    "a setuid program of the image": "'\\t0' in (attempt(lambda: subprocess.run("
    "['/bin/setuid-grep', 'Uid', '/proc/self/status'], capture_output=True, text=True).stdout)"
    " or '')",
    "the host's root by the first process": "attempt(lambda: os.listdir('/proc/1/root'))"
    " is not None",
    "the agent's files by its process": "attempt(lambda: os.listdir(f'/proc/{sys.argv[3]}/fd'))"
    " is not None",
    "the namespace of the first process": "attempt(lambda: linux.setns("
    "os.open('/proc/1/ns/mnt', 0), linux.CLONE_NEWNS) or True)",
    "a setting of the kernel": "attempt(lambda: os.open('/proc/sys/kernel/core_pattern',"
    " os.O_WRONLY)) is not None",
    "a way out by chroot": "attempt(lambda: (os.mkdir('/tmp/x'), os.chroot('/tmp/x'),"
    " os.chdir('../../../../..'), os.chroot('.'))) and os.path.exists(secret)",
    "what is below a mount": "attempt(lambda: linux.umount('/tmp', linux.MNT_DETACH) or True)",
    "what is below the root": "attempt(lambda: linux.umount('/', linux.MNT_DETACH) or True)",
    "an image to write to": "attempt(lambda: linux.mount('none', '/bin', flags=bind) or True)",
    "the same in a namespace of one's own": "attempt(lambda: (linux.unshare(linux.CLONE_NEWUSER"
    " | linux.CLONE_NEWNS), linux.mount('none', '/bin', flags=bind))) is not None",
    "another user's name": "attempt(lambda: os.setuid(0) or True)",
    "another user's group": "attempt(lambda: os.setgroups([0]) or True)",
    "a file of root's": "attempt(lambda: (Path('/tmp/f').touch(), os.chown('/tmp/f', 0, 0)))"
    " is not None",
    "the host's files by their names": "os.path.exists(secret)",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    let_everybody_in(tmp_path)
    root = system_tree(tmp_path / "tree")
    shutil.copy(root / "bin/grep", root / "bin/setuid-grep")
    (root / "bin/setuid-grep").chmod(0o4755)
    os.mknod(root / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    (root / "zero").chmod(0o666)
    return root


@pytest.fixture
async def insides(tmp_path: Path) -> AsyncIterator[Insides]:
    made = Insides(Pins(tmp_path / "insides"), user_namespaces=True)
    yield made
    await made.adopt(())


class Images:
    """Mounts of a test, taken away at its end."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._targets: list[Path] = []

    def mount(self, tree: Path) -> Path:
        placed = place_image(tree, self._place / "images", name="hostile", codec="zstd")
        target = self._place / f"mnt{len(self._targets)}"
        target.mkdir()
        LoopMounter(self._place / "probe").mount(Source(placed.path), target)
        self._targets.append(target)
        return target

    def close(self) -> None:
        for target in self._targets:
            clear(target)


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Images]:
    made = Images(tmp_path)
    yield made
    made.close()


async def have(insides: Insides, image: Path) -> Path:
    plan = plan_of(str(image), PERSON, InsideSettings())
    return await insides.have("7", Wish(plan, PERSON, Manifest()), Deadline.after(30))


async def test_no_attempt_succeeds(
    insides: Insides, images: Images, tree: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    pinned = await have(insides, images.mount(tree))
    # What only changes the process itself comes last; each has a process of its own.
    for name, attempt in ATTEMPTS.items():
        code = f"{PREAMBLE}\nprint(bool({attempt}))"
        done = enter(pinned, str(secret), str(os.getpid()), code=code)
        assert done.stdout == "False\n", (name, done.stdout, done.stderr)


async def test_a_hostile_image_s_links_lead_nowhere(
    insides: Insides, images: Images, tree: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    for name in LINKED:
        (victim / name).mkdir(parents=True)
        (victim / name).chmod(0o777)
        shutil.rmtree(tree / name, ignore_errors=True)
        (tree / name).symlink_to(victim / name)
    (victim / "etc/passwd").write_text("of the victim")
    before = {path: path.stat().st_mtime_ns for path in victim.rglob("*")}
    pinned = await have(insides, images.mount(tree))
    look = "from pathlib import Path; import sys; from shared.inside.enter import join\n"
    look += "join(Path(sys.argv[1])); found = Path('/etc/passwd')\n"
    look += "print(found.read_text() if found.exists() else 'nothing')\n"
    look += "print(Path('/proc/sys/kernel/ostype').read_text()); Path('/tmp/x').touch()\n"
    look += "open('/dev/null', 'w').write('gone')"
    done = enter(pinned, code=look)
    assert "of the victim" not in done.stdout
    assert "Linux" in done.stdout, done.stderr
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in victim.rglob("*")} == before


async def test_what_a_user_leaves_in_their_tmp_ends_with_the_job(
    insides: Insides, images: Images, tree: Path, tmp_path: Path
) -> None:
    """Mounts made in there, and links that would lead root elsewhere."""
    pinned = await have(insides, images.mount(tree))
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "kept").touch()
    code = f"{PREAMBLE}\nos.mkdir('/tmp/m'); linux.mount('tmpfs', '/tmp/m', 'tmpfs')\n"
    code += "os.symlink(secret, '/tmp/link')"
    assert enter(pinned, str(secret), "0", code=code).returncode == 0
    await insides.end("7")
    assert (secret / "kept").exists()
    assert not pinned.exists()
