"""Disk images by real tools: file systems, with partitions around them, in qcow2 and vmdk files."""

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from shared.formats import DiskFormat
from tests.support.mounts import mounted
from tests.support.packing import KEEP_ALL, build_image
from tests.support.tree_jobs import Jobs
from tests.support.trees import Rows, image_rows

PACKAGES = {
    "mkfs.ext4": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "qemu-img": "qemu-utils",
    "sfdisk": "fdisk",
}
MIB = 1 << 20
MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-F"),
    # Smaller ones than a server should have.
    "xfs": ("mkfs.xfs", "-q", "-f", "--unsupported"),
}


def need(*tools: str) -> None:
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is missing: install {PACKAGES[tool]}")


def run(*command: object, given: str | None = None, ended: int = 0) -> None:
    words = [str(word) for word in command]
    done = subprocess.run(words, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == ended, done.stderr


def empty(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def file_system(path: Path, kind: str, *options: object, size: int = 16 * MIB) -> Path:
    need(MAKE[kind][0])
    run(*MAKE[kind], *options, empty(path, size))
    return path


@contextmanager
def filled(image: Path, kind: str) -> Iterator[Path]:
    """Its root, mounted to be written to."""
    at = image.with_name(f"{image.name}.mounted")
    with mounted(image, at, kind=kind, options="rw") as root:
        yield root
    at.rmdir()


def partitioned(path: Path, table: str, parts: dict[int, Path], *, size: int) -> Path:
    """A disk with that table in sfdisk's words; `parts` by the MiB at which they begin."""
    need("sfdisk")
    run("sfdisk", "-q", empty(path, size), given=table)
    with path.open("r+b") as disk:
        for place, part in parts.items():
            disk.seek(place * MIB)
            disk.write(part.read_bytes())
    return path


def converted(path: Path, to: Path, format_: str, *options: object) -> Path:
    need("qemu-img")
    run("qemu-img", "convert", "-f", "raw", "-O", format_, *options, path, to)
    return to


def tar_in(path: Path, format_: DiskFormat) -> bytes:
    """All that is on the disk, by our own reader."""
    with Jobs(path, disk=format_) as jobs:
        return jobs.read_all()


def rows_in(path: Path, format_: DiskFormat, scratch: Path) -> Rows:
    """What an image that is made of the disk shows."""
    image = build_image([tar_in(path, format_)], scratch, KEEP_ALL).path
    return image_rows(image)


def patched(path: Path, changes: Sequence[tuple[int, bytes]], work: Callable[[], None]) -> None:
    """Does the work while the file is different at these places."""
    before = []
    with path.open("r+b", buffering=0) as file:
        for at, data in changes:
            file.seek(at)
            before.append((at, file.read(len(data))))
            file.seek(at)
            file.write(data)
        try:
            work()
        finally:
            for at, data in reversed(before):
                file.seek(at)
                file.write(data)
