"""What layers are made of: Debian packages, Python wheels, and text that we make up.

Packages come through this machine's own apt and pip, as files that are read and never installed:
an image that is only converted needs no scripts to have run. Nothing here needs root.
"""

import importlib.util
import io
import marshal
import platform
import random
import re
import string
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

SITE_PACKAGES: Final = "usr/local/lib/python3.11/dist-packages"

_INSTALLED = re.compile(r"^Inst (\S+) (?:\[\S+\] )?\((\S+) ", re.MULTILINE)
_UNCHECKED_HASH: Final = (1).to_bytes(4, "little")
_WORDS: Final = 3000


class ContentError(Exception):
    """The content of a sample image cannot be had here; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a layer's tar. Owner and time are left out: they are the same for all."""

    path: str
    kind: Literal["file", "directory", "symlink", "hardlink"] = "file"
    mode: int = 0o644
    data: bytes = b""
    target: str = ""


class Debian:
    """Debian packages with all that they need, as apt would install them into an empty root."""

    def __init__(self, directory: Path) -> None:
        self._archives = directory / "archives"
        self._status = directory / "status"

    def fetch(self, names: Sequence[str]) -> None:
        """Have the packages here; those of earlier runs are not fetched again."""
        self._apt(["--download-only", "install", *names])

    def closure(self, names: Sequence[str]) -> list[Path]:
        """The package files, in a fixed order."""
        text = self._apt(["--simulate", "install", *names])
        found = []
        for name, version in sorted(set(_INSTALLED.findall(text))):
            pattern = f"{name}_{version.replace(':', '%3a')}_*.deb"
            found += sorted(self._archives.glob(pattern))[:1]
        return found

    def _apt(self, arguments: Sequence[str]) -> str:
        (self._archives / "partial").mkdir(parents=True, exist_ok=True)
        self._status.touch()
        options = {
            "Dir::State::status": str(self._status),
            "Dir::Cache::archives": str(self._archives),
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
            "Debug::NoLocking": "1",
            "APT::Sandbox::User": "root",
            "APT::Get::Assume-Yes": "1",
            "APT::Install-Recommends": "0",
        }
        flags = [flag for key, value in options.items() for flag in ("-o", f"{key}={value}")]
        hint = "run apt-get update, or leave this image out with --images"
        return _run(["apt-get", "-q", *flags, *arguments], hint)


def debian_entries(packages: Sequence[Path]) -> Iterator[Entry]:
    """What the packages hold."""
    for package in packages:
        tar = subprocess.run(
            ["dpkg-deb", "--fsys-tarfile", str(package)],  # noqa: S607 - part of every Debian
            capture_output=True,
            check=True,
        ).stdout
        with tarfile.open(fileobj=io.BytesIO(tar)) as content:
            for member in content:
                yield from _tar_entry(content, member)


def _tar_entry(content: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[Entry]:
    path = member.name.removeprefix("./").strip("/")
    if path in {"", "."}:
        return
    mode = member.mode & 0o7777
    if member.isdir():
        yield Entry(path, "directory", mode)
    elif member.issym():
        yield Entry(path, "symlink", 0o777, target=member.linkname)
    elif member.islnk():
        yield Entry(path, "hardlink", mode, target=member.linkname.removeprefix("./"))
    elif member.isfile():
        file = content.extractfile(member)
        assert file is not None
        yield Entry(path, "file", mode, file.read())


class Wheels:
    """Python wheels of exactly these versions, without what they depend on."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def fetch(self, pins: Sequence[str]) -> None:
        missing = [pin for pin in pins if self._find(pin) is None]
        if not missing:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
        command += ["--disable-pip-version-check", "--only-binary=:all:", "--implementation=cp"]
        command += ["--python-version=3.11", f"--platform=manylinux2014_{platform.machine()}"]
        command += ["--dest", str(self._directory), *missing]
        _run(command, "see whether pip reaches its index, or leave this image out with --images")

    def files(self, pins: Sequence[str]) -> list[Path]:
        found = [self._find(pin) for pin in pins]
        return [path for path in found if path is not None]

    def _find(self, pin: str) -> Path | None:
        name, _, version = pin.partition("==")
        start = f"{re.sub(r'[-_.]+', '_', name)}-{version}-".lower()
        wheels = sorted(self._directory.glob("*.whl"))
        return next((path for path in wheels if path.name.lower().startswith(start)), None)


def wheel_entries(wheels: Sequence[Path], *, compiled: bool) -> Iterator[Entry]:
    """The wheels as pip lays them out; `compiled` with the bytecode that it makes."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as content:
            for name in sorted(content.namelist()):
                if name.endswith("/") or ".data/" in name:
                    continue
                data = content.read(name)
                path = f"{SITE_PACKAGES}/{name}"
                yield Entry(path, "file", 0o755 if name.endswith(".so") else 0o644, data)
                if compiled and name.endswith(".py"):
                    yield from _bytecode(path, data)


def _bytecode(path: str, source: bytes) -> Iterator[Entry]:
    try:
        # Nested deep enough for a parser's tests, or meant for another Python: pip skips it, too.
        code = compile(source, f"/{path}", "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError, RecursionError):
        return
    folder, _, name = path.rpartition("/")
    header = importlib.util.MAGIC_NUMBER + _UNCHECKED_HASH + importlib.util.source_hash(source)
    place = f"{folder}/__pycache__/{name.removesuffix('.py')}.cpython-311.pyc"
    yield Entry(place, "file", 0o644, header + marshal.dumps(code))


def copies(entries: Iterator[Entry], below: str, to: str, note: str, most: int) -> Iterator[Entry]:
    """Small files again under another path, each a little different, so that none is equal."""
    taken = 0
    for entry in entries:
        if entry.kind == "file" and entry.path.startswith(below) and len(entry.data) < 200_000:
            path = f"{to}/{entry.path.removeprefix(below).lstrip('/')}"
            yield Entry(path, "file", entry.mode, entry.data + f"\n/* {note} {taken} */\n".encode())
            taken += 1
            if taken == most:
                return


def application(version: int, size: int) -> Iterator[Entry]:
    """Python modules of made-up words, about `size` bytes together: a user's own code."""
    dice = random.Random(version)
    letters = string.ascii_lowercase + "_"
    words = ["".join(dice.choices(letters, k=dice.randint(3, 10))) for _ in range(_WORDS)]
    made = number = 0
    while made < size:
        lines = [" ".join(dice.choices(words, k=8)) for _ in range(dice.randint(50, 300))]
        text = "\n".join([f"# module {number} of version {version}", *lines, ""]).encode()
        yield Entry(f"opt/app/src/module{number}.py", data=text)
        made += len(text)
        number += 1
    yield Entry("opt/app/VERSION", data=f"{version}\n".encode())


def standard_library(first: str, last: str) -> Iterator[Entry]:
    """Modules of this very Python whose names lie between two letters: needs no network."""
    source = Path(sysconfig.get_path("stdlib"))
    for path in sorted(source.rglob("*")):
        inner = path.relative_to(source)
        if not first <= inner.parts[0][0].lower() <= last or "site-packages" in inner.parts:
            continue
        if path.is_file() and not path.is_symlink() and "__pycache__" not in inner.parts:
            yield Entry(f"opt/python/lib/{inner.as_posix()}", data=path.read_bytes())


def _run(command: Sequence[str], hint: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as exc:
        raise ContentError(f"{command[0]} is not installed here: {hint}") from exc
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-4:])
        raise ContentError(f"{command[0]} failed ({hint}):\n{tail}")
    return done.stdout
