"""What `dray doctor` looks at of entering images: by oneself, by this node's agent, in this job.

What the kernel allows is tried by another process: it cannot be undone, and only trying tells.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cli import of_job
from cli.enter import SYSCTLS
from cli.findings import Finding, Findings, broken, note, ok
from shared.errors import DrayError
from shared.inside.enter import MOUNTS

if TYPE_CHECKING:
    from shared.settings.inside import InsideSettings

Trouble = Callable[[str, str, str], Finding]
"""A note, or worse where images are run."""

SECONDS: Final = 10.0
_NAMESPACES: Final = """
import os, sys
from cli.enter import EnterError, make_namespaces
from shared import linux
root = os.geteuid() == 0
try:
    make_namespaces()
except EnterError as exc:
    sys.exit(exc.message)
"""
_OVERLAY: Final = """
linux.mount("tmpfs", "/tmp", "tmpfs")
names = ("lowerdir", "upperdir", "workdir")
for name in (*names, "merged"):
    os.mkdir(f"/tmp/{name}")
options = ",".join(f"{name}=/tmp/{name}" for name in names) + ("" if root else ",userxattr")
try:
    linux.mount("overlay", "/tmp/merged", "overlay", 0, options)
except OSError as exc:
    sys.exit(exc.strerror)
"""
_JOIN: Final = """
import pathlib, sys
from shared.inside.enter import join
try:
    join(pathlib.Path(sys.argv[1]))
except OSError as exc:
    sys.exit(exc.strerror)
"""


def examined(socket: Path | None, trouble: Trouble) -> Findings:
    """`socket` is that of the agent which answers here."""
    refused = _tried(_NAMESPACES)
    if refused:
        advice = "Without them `dray run` can enter no image here by itself."
        yield trouble("namespaces", refused, advice)
    else:
        yield ok("namespaces", "you may make those that entering an image takes")
        yield _overlays()
    yield from sysctls(Path("/proc/sys"))
    yield dray_enter(Path(sysconfig.get_path("scripts")))
    if socket is not None:
        yield agent(socket)
    yield from job(socket)


def sysctls(directory: Path) -> Findings:
    """Each that keeps ordinary users out; root may have come in all the same."""
    for name, refusing, wanted in SYSCTLS:
        try:
            found = (directory / name).read_text(encoding="ascii").strip()
        except OSError:
            continue  # this kernel has no such setting
        if found == refusing:
            key = name.replace("/", ".")
            text = f"{key} is {found}: ordinary users make no namespaces of their own"
            yield note("sysctl", text, f"For root: sysctl -w {wanted}")


def dray_enter(scripts: Path) -> Finding:
    """Whether the helper in C is there, which an installation without a compiler goes without."""
    found = shutil.which("dray-enter") or shutil.which("dray-enter", path=str(scripts))
    if found is not None:
        return ok("dray-enter", f"{found} takes ranks inside")
    return note(
        "dray-enter",
        "not here: there was no C compiler, or no make, when Dray was installed",
        "Ranks enter by `dray run`, which costs each the start of Python. Install gcc and make, "
        "and then Dray once more.",
    )


def agent(socket: Path) -> Finding:
    """Whether it puts images together for jobs; only root can."""
    if (socket.parent / "insides").is_dir():
        return ok("insides", "the agent puts jobs' images together: modules and perNodeCache work")
    return note(
        "insides",
        "the agent is not root's: `dray run` puts each image together by itself",
        "Modules and perNodeCache take an agent that runs as root.",
    )


def job(socket: Path | None) -> Findings:
    """Whether this job's images are there to be entered."""
    try:
        name, images = of_job.job_id(os.environ), of_job.images(os.environ)
    except DrayError as exc:
        yield broken("job", exc.message, "Leave the variables of the job as they are.")
        return
    if name is None:
        return
    directory = of_job.insides(socket)
    for image in images:
        yield _of_job(name, image, directory)


def of_site(settings: "InsideSettings") -> Findings:
    """What the settings say is in each image, as far as this machine has it."""
    for path in settings.site_fs:
        try:
            os.stat(path)  # noqa: PTH116 - the settings' own words
        except OSError as exc:
            text = f"inside.site_fs: {path}: {exc.strerror}"
            yield note(
                "site_fs", text, "Jobs go without it where it is not mounted, as may be here."
            )
        else:
            yield ok("site_fs", f"{path} is there")
    modules = settings.modules
    if not modules.is_dir():
        yield note(
            "modules", f"there is no directory {modules}", "So --module has nothing to offer."
        )
        return
    count = len(list(modules.glob("*.yaml")))
    yield ok("modules", f"{count} in {modules}")


def _of_job(name: str, image: of_job.JobImage, directory: Path | None) -> Finding:
    called = image.name if len(image.name) < 40 else f"{image.name[:12]}…"
    if directory is None:
        return note("job", f"{called}: no agent of root's put it together on this machine")
    place = directory / f"{name}@{image.image_id}"
    if not (place / MOUNTS).exists():
        advice = (
            "It is put together when somebody enters it. Why not before, the prolog's log says."
        )
        return note("job", f"{called} is not put together for job {name} on this node", advice)
    if not of_job.enterable(place):
        advice = "The site or its kernel has it so (inside.user_namespaces): use srun --enter."
        return note("job", f"{called}: only the scheduler's plugin takes you inside", advice)
    refused = _tried(_JOIN, str(place))
    if refused:
        advice = "Is it your job, and does it still run?"
        return broken("job", f"{called} cannot be entered in job {name}: {refused}", advice)
    return ok("job", f"{called} of job {name} can be entered")


def _overlays() -> Finding:
    refused = _tried(_NAMESPACES + _OVERLAY)
    if not refused:
        return ok("overlay", "mount points that an image lacks can be made")
    return note(
        "overlay",
        f"kernel {os.uname().release} makes no overlays for you: {refused}",
        "Volumes and working directories need a place in the image, or right below '/'. Users may "
        "mount overlays since Linux 5.11; an agent that runs as root always.",
    )


def _tried(code: str, *arguments: str) -> str:
    """Why it does not work; nothing, where it does."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"cannot tell: {exc}"
    if done.returncode == 0:
        return ""
    return done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "refused"
