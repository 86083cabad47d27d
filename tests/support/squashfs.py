"""Squashfs images made by mksquashfs, and what of them is mounted."""

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

MOUNTINFO = Path("/proc/self/mountinfo")


@dataclass(frozen=True)
class PlacedImage:
    """An image under the name that an agent looks for."""

    path: Path
    image_id: str
    content_digest: str
    size: int

    def request(self, job_id: str, wait: float = 30.0) -> dict[str, Any]:
        """The body of POST /v1/mounts."""
        return {
            "job_id": job_id,
            "image_id": self.image_id,
            "content_digest": self.content_digest,
            "size": self.size,
            "wait": wait,
        }


def place_image(tree: Path, image_dir: Path, *, name: str, codec: str = "gzip") -> PlacedImage:
    """Make `tree` an image in `image_dir`; its id is derived from `name`."""
    if shutil.which("mksquashfs") is None:
        pytest.skip("mksquashfs is missing: install squashfs-tools")
    image_dir.mkdir(parents=True, exist_ok=True)
    image_id = hashlib.sha256(name.encode()).hexdigest()
    path = image_dir / f"{image_id}.squashfs"
    subprocess.run(
        ["mksquashfs", tree, path, "-comp", codec, "-noappend", "-quiet", "-no-progress"],
        check=True,
        capture_output=True,
    )
    path.chmod(0o644)
    sidecar = path.with_suffix(".json")
    sidecar.write_text("{}")  # for everybody
    sidecar.chmod(0o644)
    # Nothing but its owner's word, where there is no recipe.
    content_digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return PlacedImage(path, image_id, content_digest, path.stat().st_size)


def small_tree(root: Path, **files: str) -> Path:
    """A directory with the given files in it, readable by everybody."""
    root.mkdir(parents=True, exist_ok=True)
    root.chmod(0o755)
    for name, content in files.items():
        (root / name).write_text(content, encoding="utf-8")
    return root


PROGRAMS = ("sh", "cat", "ls", "id", "touch", "pwd", "sleep", "env", "grep", "stat", "mkdir", "ln")
MOUNT_POINTS = ("dev", "etc", "home", "proc", "root", "sys", "tmp", "work")


def system_tree(root: Path) -> Path:
    """A small image in which a shell runs: this machine's programs and the usual mount points."""
    for name in ("bin", *MOUNT_POINTS):
        (root / name).mkdir(parents=True)
        (root / name).chmod(0o755)
    root.chmod(0o755)
    for name in PROGRAMS:
        program = shutil.which(name)
        assert program is not None
        shutil.copy(program, root / "bin" / name)
        for library in libraries_of(program):
            inside = root / str(library).lstrip("/")
            inside.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, inside)
    for name in ("passwd", "group", "hosts", "resolv.conf"):
        (root / "etc" / name).write_text("of the image\n", encoding="utf-8")
    (root / "etc/os-release").write_text("NAME=tiny\n", encoding="utf-8")
    return root


def libraries_of(program: str | Path) -> list[Path]:
    """What the loader takes for it, itself included."""
    listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    return [Path(word) for word in listed.split() if word.startswith("/")]


def mounts_in(directory: Path) -> list[str]:
    """The mount points at or below `directory` in this process's namespace."""
    points = [line.split()[4] for line in MOUNTINFO.read_text().splitlines()]
    resolved = directory.resolve()
    return [point for point in points if Path(point).is_relative_to(resolved)]


def is_root() -> bool:
    return os.geteuid() == 0
