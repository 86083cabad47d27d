"""Collects files of this machine that also work elsewhere: links and libraries come along."""

import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

MAX_LINKS: Final = 40

_LIBRARY = re.compile(r"^\s*(?:\S+ => )?(/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)
_MISSING = re.compile(r"^\s*(\S+) => not found$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class HostFile:
    """The content of a file of this machine, and how it shall be in the image."""

    source: Path
    executable: bool


@dataclass(frozen=True, slots=True)
class SymbolicLink:
    target: str


@dataclass(frozen=True, slots=True)
class Folder:
    mode: int = 0o755


@dataclass(frozen=True, slots=True)
class Text:
    """A file that we write ourselves."""

    content: bytes
    executable: bool = False


Entry = HostFile | SymbolicLink | Folder | Text


@dataclass(slots=True)
class FileSet:
    """What one layer holds: absolute paths and what lies there."""

    entries: dict[PurePosixPath, Entry] = field(default_factory=dict)

    def put(self, path: str, entry: Entry) -> None:
        """Add an entry of ours, and the folders above it."""
        where = PurePosixPath(path)
        for folder in list(where.parents)[-2::-1]:
            self.entries.setdefault(folder, Folder())
        self.entries[where] = entry

    def add_host_path(self, path: str | Path) -> None:
        """Add a file under its own path, with every link on the way to it."""
        links = MAX_LINKS
        todo = list(Path(path).parts[1:])
        at = PurePosixPath("/")
        while todo:
            part = todo.pop(0)
            if part == "..":
                at = at.parent
                continue
            at /= part
            here = Path(at)
            if here.is_symlink():
                links -= 1
                if links < 0:
                    raise OSError(f"too many symbolic links on the way to {path}")
                target = PurePosixPath(here.readlink())
                self.entries[at] = SymbolicLink(str(target))
                at = PurePosixPath("/") if target.is_absolute() else at.parent
                todo[:0] = [piece for piece in target.parts if piece != "/"]
            elif here.is_dir():
                self.entries.setdefault(at, Folder())
            else:
                self.entries[at] = HostFile(here, os.access(here, os.X_OK))

    def without(self, lower: Iterable["FileSet"]) -> "FileSet":
        """Only what the layers below do not hold already, and the folders that lead to it."""
        present = {path: entry for layer in lower for path, entry in layer.entries.items()}
        new = {path for path, entry in self.entries.items() if present.get(path) != entry}
        needed = new | {folder for path in new for folder in path.parents}
        return FileSet({path: entry for path, entry in self.entries.items() if path in needed})


def libraries_of(programs: Iterable[Path]) -> list[Path]:
    """The shared libraries that programs need, the dynamic loader among them.

    `ldd` runs the loader, and the loader knows best. It may not know static programs: they need
    none, and its complaint about them is not an error.
    """
    names = sorted({str(program) for program in programs})
    answer = subprocess.run(
        ["ldd", *names],  # noqa: S607 - wherever this system has it
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    if missing := sorted(set(_MISSING.findall(answer.stdout))):
        raise OSError(f"libraries are missing on this machine: {', '.join(missing[:5])}")
    return sorted({Path(path) for path in _LIBRARY.findall(answer.stdout)})


def interpreter_of(program: Path) -> Path | None:
    """What a script's first line names, if it is a script."""
    with program.open("rb") as file:
        first = file.readline(256)
    words = first[2:].split() if first.startswith(b"#!") else []
    return Path(os.fsdecode(words[0])) if words and words[0].startswith(b"/") else None
