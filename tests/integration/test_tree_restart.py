"""A tree is imported part by part: what was read once, and has not changed, is not read again."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.conditions import eventually
from tests.support.dray_convert import Dray, dray_convert, partials
from tests.support.trees import image_rows
from tests.support.users import (
    AS_NOBODY,
    let_everybody_in,
    ordinary_environment,
    ordinary_python,
)

# A part has a megabyte or some files; as trees are cut that are a thousand times as large.
SMALL_PARTS = "import services.converter.trees.parts as parts; parts.LEAST_WEIGHT = 1 << 20"
DIRECTORIES, FILES = 24, 12
BYTES = 60_000


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """As old as a tree must be to be known again."""
    root = tmp_path / "tree"
    for number in range(DIRECTORIES):
        (root / f"{number:02}").mkdir(parents=True)
        for file in range(FILES):
            (root / f"{number:02}/{file}").write_bytes(os.urandom(BYTES))
    settled(root)
    return root


def settled(root: Path) -> None:
    latest = max(path.lstat().st_ctime for path in (root, *root.rglob("*")))
    asyncio.run(eventually(lambda: time.time() > latest + 2.1, within=30))


@pytest.fixture
def dray(tmp_path: Path) -> Dray:
    return dray_convert(tmp_path)


def converted(dray: Dray, tree: Path, out: Path, **options: Any) -> dict[str, Any]:
    done = dray("--json", f"dir:{tree}", out, first=SMALL_PARTS, **options)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_an_import_that_was_killed_goes_on_where_it_was(
    tmp_path: Path, dray: Dray, tree: Path
) -> None:
    cache = tmp_path / "cache"
    out = tmp_path / "out.squashfs"
    program = f"{SMALL_PARTS}\nfrom cli.main import main\nmain()"
    convert = [sys.executable, "-c", program, "convert", "--level", "19", f"dir:{tree}", str(out)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    with subprocess.Popen(convert, env=environment, stderr=subprocess.DEVNULL) as process:
        asyncio.run(eventually(lambda: len(stamps(cache)) >= 3, within=120))
        process.send_signal(signal.SIGKILL)
    done = len(stamps(cache))
    again = converted(lambda *a, **o: dray("--level", "19", *a, **o), tree, out)
    assert again["layers"] > done, "nothing was left to be read when it was killed"
    assert again["layers_reused"] == done
    assert partials(cache) == []
    assert [*cache.rglob("unnamed/*")] == []
    whole = dray_convert(tmp_path / "other")
    fresh = converted(
        lambda *a, **o: whole("--level", "19", *a, **o), tree, tmp_path / "fresh.squashfs"
    )
    assert fresh["content_digest"] == again["content_digest"]


def stamps(cache: Path) -> list[Path]:
    return [*cache.rglob("stamps/??/*.json")]


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "07/5").write_bytes(b"other"),
        lambda root: (root / "07/new").write_bytes(b"new"),
        lambda root: (root / "07/5").unlink(),
        lambda root: (root / "07/5").chmod(0o600),
    ],
)
def test_what_has_changed_is_read_again_and_little_else(
    tmp_path: Path, dray: Dray, tree: Path, change: Callable[[Path], object]
) -> None:
    first = converted(dray, tree, tmp_path / "first.squashfs")
    assert first["layers"] >= 8
    assert first["layers_reused"] == 0
    change(tree)
    second = converted(dray, tree, tmp_path / "second.squashfs")
    # Its own part; and the cut that a change of its size may have moved.
    assert second["layers_reused"] >= first["layers"] // 2 - 1
    assert second["layers_reused"] < second["layers"]
    whole = dray_convert(tmp_path / "other")
    fresh = converted(whole, tree, tmp_path / "fresh.squashfs")
    assert fresh["content_digest"] == second["content_digest"]
    found = image_rows(tmp_path / "second.squashfs")
    assert (b"07/new" in found) == (tree / "07/new").exists()


def test_what_was_changed_a_moment_ago_is_not_believed(
    tmp_path: Path, dray: Dray, tree: Path
) -> None:
    (tree / "23/0").write_bytes(b"just now")
    first = converted(dray, tree, tmp_path / "out.squashfs")
    again = converted(dray, tree, tmp_path / "out.squashfs")
    assert again["content_digest"] == first["content_digest"]


def test_files_that_may_not_be_read_are_named_before_anything_is_read(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(8):
        (tree / f"secret{number}").write_text("s")
        (tree / f"secret{number}").chmod(0o600 if os.geteuid() == 0 else 0)
    (tree / "closed").mkdir(mode=0o700 if os.geteuid() == 0 else 0)
    (tree / "open").write_text("o")
    let_everybody_in(tmp_path)
    (tmp_path / "own").mkdir()
    (tmp_path / "own").chmod(0o777)
    options: dict[str, Any] = {"env": ordinary_environment()}
    if os.geteuid() == 0:
        options |= AS_NOBODY | {"python": ordinary_python(), "cwd": "/"}
    (tree / "closed").chmod(0)
    done = dray_convert(tmp_path / "own")(f"dir:{tree}", tmp_path / "own/out.squashfs", **options)
    (tree / "closed").chmod(0o700)
    assert done.returncode != 0
    assert "9 files of the tree cannot be read: closed, secret0, secret1" in done.stderr
    assert "and 4 more" in done.stderr
    assert "[tree_unreadable]" in done.stderr
    assert not [*(tmp_path / "own").rglob("*.pack")]
