"""`python -m bench.enter`: what it costs that 128 ranks of a node enter an image at once.

All begin at the same moment and run `true`: on the node itself, and inside an image in each way
that there is. The ways take turns, so that each meets the same machine; what counts is the ratio to
the bare start in the same round. As root, since namespaces for a job are root's to make.
"""

import argparse
import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.node_agent.inside.furnish import plan_of
from services.node_agent.inside.insides import Insides, Wish
from services.node_agent.inside.pins import Pins
from services.node_agent.loop import LoopMounter
from services.node_agent.mounter import Source
from services.node_agent.unmount import clear
from shared.deadline import Deadline
from shared.inside.manifest import Manifest
from shared.inside.people import Person
from shared.settings.inside import InsideSettings

USER: Final = 65534
JOB, IMAGE = "1", "1" * 64
CHECKOUT: Final = Path(__file__).resolve().parents[2]
SECONDS: Final = 120.0
TRUE: Final = "/bin/true"
_DRAY: Final = "from cli.main import main; main()"
_SHIFTER: Final = "from cli.shifter.main import main; main()"
_ALONE: Final = (
    "import sys; from pathlib import Path; from cli.enter import enter; "
    f"enter(Path(sys.argv[1]), ['{TRUE}'], env={{'PATH': '/bin'}}, workdir='/')"
)


@dataclass(frozen=True, slots=True)
class Way:
    """One way into the image."""

    name: str
    command: tuple[str, ...]
    inside: str = "-"


@dataclass(frozen=True, slots=True)
class Cost:
    """Of all ranks together; `memory` is one rank's, in KiB."""

    wall: float
    cpu: float
    memory: int
    failed: int


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.enter", description=__doc__)
    parser.add_argument("--ranks", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--without", nargs="*", default=[], help="ways, such as python")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("as root, please: only root makes namespaces for a job")
    with tempfile.TemporaryDirectory(prefix="dray-bench-") as made:
        place = Path(made)
        place.chmod(0o755)
        start = _built(place)
        with _image(place) as root, _pinned(place, root) as pinned:
            ways = [
                way
                for way in _ways(place, root, pinned)
                if not any(way.name.startswith(name) for name in arguments.without)
            ]
            costs = _measured(start, ways, arguments.ranks, arguments.rounds, _environment(place))
    _report(costs, arguments.ranks)
    return int(any(cost.failed for each in costs.values() for cost in each))


def _built(place: Path) -> Path:
    """The program that starts ranks, and dray-enter."""
    enter = CHECKOUT / "deploy/enter"
    _run("make", "-s", "-C", enter, f"OUT={place}")
    sources = (CHECKOUT / "bench/enter/start.c", enter / "dray_inside.c")
    _run("gcc", "-O2", "-o", place / "start", *sources)
    return place / "start"


def _run(program: str, *words: str | Path) -> str:
    found = shutil.which(program)
    if found is None:
        sys.exit(f"{program} is missing")
    return subprocess.run([found, *words], check=True, stdout=subprocess.PIPE, text=True).stdout


@contextmanager
def _image(place: Path) -> Iterator[Path]:
    """A mounted squashfs that holds `true` and what it needs."""
    tree, target = place / "tree", place / "mnt"
    for name in ("bin", "dev", "etc", "home", "proc", "root", "sys", "tmp"):
        (tree / name).mkdir(parents=True)
    shutil.copy(TRUE, tree / "bin/true")
    listed = _run("ldd", TRUE)
    for library in (word for word in listed.split() if word.startswith("/")):
        (tree / library[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, tree / library[1:])
    file = place / "image.squashfs"
    _run("mksquashfs", tree, file, "-comp", "zstd", "-quiet", "-no-progress")
    target.mkdir()
    LoopMounter(place / "probe").mount(Source(file), target)
    try:
        yield target
    finally:
        clear(target)


@contextmanager
def _pinned(place: Path, root: Path) -> Iterator[Path]:
    """The job's inside, as a node's agent makes it."""
    pins = Pins(place / "insides")
    person = Person.of(USER, USER, ())
    plan = plan_of(str(root), person, InsideSettings())
    wish = Wish(plan, person, Manifest(env=("PATH=/bin",)))

    async def made() -> Path:
        insides = Insides(pins, user_namespaces=True)
        return await insides.have(JOB, wish, Deadline.after(SECONDS), image=IMAGE)

    try:
        yield asyncio.run(made())
    finally:
        clear(pins.directory)


def _ways(place: Path, root: Path, pinned: Path) -> list[Way]:
    """Those that this machine has; others are left out, by name."""
    python = _ordinary_python(place)
    found = [
        Way("bare", (TRUE,)),
        Way("plugin", (TRUE,), str(pinned)),
        Way("dray-enter", (str(place / "dray-enter"), IMAGE, "--", TRUE)),
    ]
    if python:
        found += [
            Way("dray run", (python, "-c", _DRAY, "run", "--", TRUE)),
            Way("shifter", (python, "-c", _SHIFTER, TRUE)),
            Way("python that does nothing", (python, "-c", "pass")),
            Way("python, own namespace", (python, "-c", _ALONE, str(root))),
        ]
    peers = {
        "unshare": ("-U", "-m", "-c", "-R", str(root), TRUE),
        "bwrap": ("--ro-bind", str(root), "/", "--proc", "/proc", "--dev", "/dev", TRUE),
    }
    for name, words in peers.items():
        if (program := shutil.which(name)) is None:
            print(f"{name} is missing, and left out", file=sys.stderr)
        else:
            found.append(Way(name, (program, *words)))
    return found


def _environment(place: Path) -> dict[str, str]:
    return {
        "PATH": os.defpath,
        "SLURM_JOB_ID": JOB,
        "DRAY_INSIDES": str(place / "insides"),
        "DRAY_SOCKET": str(place / "agent.sock"),
        "DRAY_IMAGE_ID": IMAGE,
        "DRAY_IMAGES": f"{IMAGE},{IMAGE},4096",
        "PYTHONPATH": os.pathsep.join((str(CHECKOUT), sysconfig.get_path("purelib"))),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _ordinary_python(place: Path) -> str | None:
    """Of this version, and such that others than root may run our code with it."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for program in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        words = [program, "-c", "import cli.enter"]
        try:
            done = subprocess.run(
                words, env=_environment(place), check=False, user=USER, capture_output=True
            )
        except OSError:
            continue
        if done.returncode == 0:
            return program
    print("no Python here is every user's: its ways are left out", file=sys.stderr)
    return None


def _measured(
    start: Path, ways: list[Way], ranks: int, rounds: int, environment: Mapping[str, str]
) -> dict[str, list[Cost]]:
    """Each way once in each round; the first round only warms up."""
    costs: dict[str, list[Cost]] = {way.name: [] for way in ways}
    for number in range(rounds + 1):
        for way in ways:
            words = [str(start), str(ranks), str(USER), way.inside, *way.command]
            done = subprocess.run(
                words, env=dict(environment), check=True, capture_output=True, text=True, cwd="/"
            )
            wall, cpu, memory, failed = done.stdout.split()
            if number:
                costs[way.name].append(Cost(float(wall), float(cpu), int(memory), int(failed)))
    return costs


def _report(costs: Mapping[str, list[Cost]], ranks: int) -> None:
    bare = costs["bare"]
    print(f"{ranks} ranks at once, {len(bare)} rounds, {os.cpu_count()} cores; medians")
    print(f"{'way':<24}  all, ms  x bare  CPU/rank, ms    more    MiB  failed")
    for name, found in costs.items():
        pairs = list(zip(found, bare, strict=True))
        wall = statistics.median(cost.wall for cost in found) * 1e3
        ratio = statistics.median(cost.wall / other.wall for cost, other in pairs)
        cpu = statistics.median(cost.cpu for cost in found) / ranks * 1e3
        more = statistics.median(cost.cpu - other.cpu for cost, other in pairs) / ranks * 1e3
        memory = max(cost.memory for cost in found) / 1024
        failed = sum(cost.failed for cost in found)
        print(
            f"{name:<24}{wall:>9.1f}{ratio:>8.2f}{cpu:>14.2f}{more:>8.2f}{memory:>7.1f}{failed:>8}"
        )


if __name__ == "__main__":
    sys.exit(main())
