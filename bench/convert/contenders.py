"""What the bench compares: anything that turns an image of a registry into squashfs for a node."""

import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from bench.convert.measure import Measured, measure_commands
from bench.convert.registry import Registry

FLAT_SUFFIX: Final = "-flat"
"""The repository whose images are those of the one without it, merged into a single layer."""

SQUASHFS_MAGIC: Final = b"hsqs"
ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "USER": "root", "LC_ALL": "C"}
CORES: Final = len(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True)
class Source:
    """Where the image comes from."""

    registry: Registry
    repository: str

    def reference(self, tag: str) -> str:
        return f"{self.registry.host}/{self.repository}:{tag}"


class Session(Protocol):
    """A contender with storage of its own, empty at first, kept from one tag to the next."""

    def convert(self, tag: str) -> Measured: ...


class Contender(Protocol):
    """Something that converts images."""

    @property
    def name(self) -> str: ...

    @property
    def about(self) -> str:
        """What it does, in one line."""
        ...

    def missing(self) -> str | None:
        """Why it cannot run here; None if it can."""
        ...

    def session(self, source: Source, directory: Path) -> AbstractContextManager[Session]:
        """Ready to convert; `directory` is its own and empty."""
        ...


@dataclass(frozen=True, slots=True)
class Job:
    """One conversion by commands. Results lie in `out`, all else in `storage`."""

    source: Source
    tag: str
    storage: Path
    out: Path

    @property
    def image(self) -> Path:
        return self.out / f"{self.tag}.squashfs"


class Peer(ABC):
    """A contender that is a sequence of commands; whoever derives from it says which."""

    name: str
    about: str
    programs: tuple[tuple[str, str], ...]
    """What it runs, each with the Debian package that has it."""
    needs_root = False

    @abstractmethod
    def convert(self, job: Job) -> None:
        """Make the image. Runs in a process of its own; only its commands are measured."""

    def output(self, job: Job) -> int:
        """Bytes that a node would read from."""
        return squashfs_size(job.image)

    def clean_up(self, storage: Path) -> None:  # noqa: B027 - most have nothing to do
        """Leave nothing mounted; the files are removed by the caller."""

    def missing(self) -> str | None:
        path = ENVIRONMENT["PATH"]
        absent = {package for name, package in self.programs if not shutil.which(name, path=path)}
        if absent:
            return f"needs the Debian package {', '.join(sorted(absent))}"
        if self.needs_root and os.geteuid() != 0:
            return "needs root"
        return None

    @contextmanager
    def session(self, source: Source, directory: Path) -> Iterator[Session]:
        storage, out = directory / "storage", directory / "out"
        storage.mkdir(parents=True)
        out.mkdir()
        try:
            yield _PeerSession(self, source, storage, out)
        finally:
            self.clean_up(storage)


@dataclass(frozen=True, slots=True)
class _PeerSession:
    peer: Peer
    source: Source
    storage: Path
    out: Path

    def convert(self, tag: str) -> Measured:
        job = Job(self.source, tag, self.storage, self.out)
        return measure_commands(
            lambda: self.peer.convert(job),
            lambda: self.peer.output(job),
            self.storage,
            self.source.registry.pid,
        )


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a command to its end; what it wrote on its standard output."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        tail = (done.stdout[-1000:] + done.stderr[-2000:]).strip()
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {tail}")
    return done.stdout


def shell(script: str, *arguments: str | Path, cwd: Path | None = None) -> str:
    """Run a fixed script, for its pipes; what varies is passed as its arguments."""
    return run("bash", "-euo", "pipefail", "-c", script, "bench", *arguments, cwd=cwd)


def environment() -> dict[str, str]:
    """What every command sees: the system's programs, nobody's settings."""
    return {**ENVIRONMENT, "HOME": os.environ.get("HOME", "/root")}


def blob_url(source: Source, digest: str) -> str:
    return f"http://{source.registry.host}/v2/{source.repository}/blobs/{digest}"


def squashfs_size(image: Path) -> int:
    """Bytes of an image, which is one as far as its first bytes tell."""
    with image.open("rb") as file:
        if file.read(len(SQUASHFS_MAGIC)) != SQUASHFS_MAGIC:
            raise RuntimeError(f"{image.name} is no squashfs")
    return image.stat().st_size
