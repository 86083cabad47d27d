"""What `dray doctor` looks at on this machine: MUNGE, the agent, the kernel, room for files."""

import errno
import gzip
import os
import shutil
from pathlib import Path
from typing import Final

from cli import doctor_inside, proof, show
from cli.agent import Agent
from cli.answers import reading
from cli.defaults import own_cache_dir, own_data_dir
from cli.errors import CliError
from cli.findings import Finding, Findings, broken, note, ok
from shared.errors import DrayError
from shared.munge import Munge

SECONDS: Final = 10.0
LITTLE: Final = 1_000_000_000
FUSE: Final = "/dev/fuse"
CONFIGS: Final = ("/proc/config.gz", "/boot/config-{release}", "/lib/modules/{release}/config")


def examined(socket: Path | None) -> Findings:
    yield _munge()
    agent = _agent(socket)
    yield agent.finding
    # Only where images are run is it wrong that they cannot be.
    yield from _kernel(agent)
    yield from doctor_inside.examined(agent.socket, agent.trouble)
    yield from _room()


class _Node:
    """Whether images are mounted here, and by what."""

    def __init__(self, finding: Finding, mounter: str | None, socket: Path | None = None) -> None:
        self.finding = finding
        self.mounter = mounter
        self.socket = socket

    def trouble(self, about: str, text: str, advice: str) -> Finding:
        return (note if self.mounter is None else broken)(about, text, advice)


def _munge() -> Finding:
    named = os.environ.get(proof.MUNGE_SOCKET)
    if named == proof.NO_MUNGE:
        return note("munge", f"not used: {proof.MUNGE_SOCKET}={named}")
    munge = Munge(Path(named) if named else None)
    if not named and not munge.there():
        return note("munge", "not here", "Needed only where it shall say who users are.")
    try:
        munge.decode(munge.encode())
    except DrayError as exc:
        return broken("munge", exc.message, "Is munged running (systemctl status munge)?")
    return ok("munge", "says who you are")


def _agent(socket: Path | None) -> _Node:
    try:
        asked = Agent(socket)
        status, answering = asked.status(), asked.socket(SECONDS)
        with reading("the agent's status"):
            node, system, mounter = (str(status[key]) for key in ("node", "system", "mounter"))
            connected = bool(status["bus_connected"])
    except CliError as exc:
        text, _, advice = exc.message.partition("\n")
        if socket is None:
            return _Node(
                note("agent", "none here: `dray run` works where one runs", ""), mounter=None
            )
        return _Node(broken("agent", text, advice), mounter=None)
    text = f"serves {node} of {system}, mounts with {mounter}"
    if not connected:
        advice = "It mounts, but hears of no jobs: look at its log for why the bus refuses it."
        return _Node(
            broken("agent", f"{text}; not connected to the bus", advice), mounter, answering
        )
    return _Node(ok("agent", text), mounter, answering)


def _kernel(node: _Node) -> Findings:
    release = os.uname().release
    unpacks = "Without it, images are mounted by squashfuse or unpacked, which is slower."
    known = _squashfs_there(release)
    if known is False:
        yield note("squashfs", f"kernel {release} has none", unpacks)
    elif known is None:
        yield note("squashfs", f"cannot tell whether kernel {release} has it", unpacks)
    else:
        yield ok("squashfs", f"kernel {release} has it")
        yield from _zstd(release)
    if Path("/dev/loop-control").exists():
        yield ok("loop", "loop devices are there")
    else:
        yield note("loop", "no /dev/loop-control", "For root: modprobe loop.")
    if os.geteuid() != 0:
        yield squashfuse()


def squashfuse() -> Finding:
    """What an agent of this user's own would mount by."""
    unpacks = "an agent that is not root unpacks images"
    program = shutil.which("squashfuse")
    if not program or not (shutil.which("fusermount3") or shutil.which("fusermount")):
        return note("squashfuse", f"not here: {unpacks}", "Install squashfuse and fuse3.")
    if not os.access(FUSE, os.R_OK | os.W_OK):
        advice = "For root: modprobe fuse, and let users open it (chmod 666)."
        return note("squashfuse", f"there, but you may not use {FUSE}: {unpacks}", advice)
    return ok("squashfuse", "there")


def _squashfs_there(release: str) -> bool | None:
    """None: nobody says."""
    if any(line.split()[-1:] == ["squashfs"] for line in _lines(Path("/proc/filesystems"))):
        return True
    lists = [Path("/lib/modules", release, name) for name in ("modules.builtin", "modules.dep")]
    if not any(path.exists() for path in lists):
        return None
    return any("/squashfs.ko" in line for path in lists for line in _lines(path))


def _zstd(release: str) -> Findings:
    for path in (Path(name.format(release=release)) for name in CONFIGS):
        lines = _lines(path)
        if not lines:
            continue
        if "CONFIG_SQUASHFS_ZSTD=y" in lines:
            yield ok("zstd", "the kernel reads squashfs with zstd")
        else:
            yield note(
                "zstd",
                "the kernel cannot read squashfs with zstd (as on RHEL 8)",
                "Let the system's images be gzip: systems.NAME.pack.compression.",
            )
        return


def _lines(path: Path) -> list[str]:
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="ascii", errors="replace") as file:
                return file.read().splitlines()
        return path.read_text(encoding="ascii", errors="replace").splitlines()
    except (OSError, EOFError):
        return []


def _room() -> Findings:
    for about, directory in (("cache", own_cache_dir()), ("data", own_data_dir())):
        yield room(about, directory, must_write=False)


def room(about: str, directory: Path, *, must_write: bool) -> Finding:
    """Whether there is room where a directory is, or would be made."""
    there = directory
    try:
        while not there.exists() and there != there.parent:
            there = there.parent
        free = os.statvfs(there)
    except OSError as exc:
        return broken(about, f"{directory}: {exc.strerror}", "")
    available = free.f_bavail * free.f_frsize
    text = f"{show.size(available)} free for {directory}"
    if must_write and not os.access(there, os.W_OK | os.X_OK):
        reason = os.strerror(errno.EACCES)
        return broken(about, f"{directory}: {reason}", "Give it to the user of the services.")
    if available < LITTLE or (free.f_files and not free.f_favail):
        advice = "Images fill what is left soon: make room, or choose another place."
        return (broken if must_write else note)(about, f"only {text}", advice)
    return ok(about, text)
