"""Files that users import: made by root, and then theirs alone."""

import os
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from services.converter.imports import SETTLED_SECONDS
from tests.support.archives import archive_of, docker_members, layout_members, write_tree
from tests.support.as_user import Somebody
from tests.support.conditions import eventually
from tests.support.images import BuiltImage
from tests.support.site import Site
from tests.support.users import ordinary_environment, ordinary_python

IMPORTS = "/api/v1/imports"


def owned(path: Path, uid: int, mode: int = 0o600) -> Path:
    """Nobody else may read it."""
    os.chown(path, uid, uid, follow_symlinks=False)
    if not path.is_symlink():
        path.chmod(mode | 0o100 if path.is_dir() else mode)
    return path


def docker_archive(path: Path, image: BuiltImage, uid: int) -> Path:
    path.write_bytes(archive_of(docker_members({"some/app:1": image})))
    return owned(path, uid)


def oci_layout(path: Path, image: BuiltImage, uid: int) -> Path:
    write_tree(path, layout_members({"some/app:1": image}))
    for each in (path, *path.rglob("*")):
        owned(each, uid)
    return path


async def settled(path: Path) -> None:
    """So long after its last change that nobody can have changed it since unseen."""
    await eventually(lambda: time.time() - path.stat().st_ctime > SETTLED_SECONDS, within=10)


async def brought(user: Somebody, name: str, path: Path, **more: object) -> dict[str, Any]:
    """An import at its end."""
    status, view = await user.ask("POST", IMPORTS, {"name": name, "path": str(path), **more})
    assert status in {200, 202}, view

    async def ended() -> bool:
        nonlocal view
        _, view = await user.ask("GET", f"/api/v1/pulls/{view['id']}")
        return view["state"] in {"READY", "FAILURE"}

    await eventually(ended, within=30)
    return view


def lookup(name: str) -> str:
    return f"/api/v1/images/cluster/custom/{quote(name, safe='')}"


def dray(site: Site, uid: int, where: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command, as this user types it."""
    return subprocess.run(
        [ordinary_python(), "-c", "from cli.main import main; main()", *words],
        env=ordinary_environment() | {"DRAY_URL": f"unix://{site.socket}", "HOME": str(where)},
        cwd=where,
        user=uid,
        group=uid,
        extra_groups=(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
