"""Directory trees: what is listed, what is read, and what changes meanwhile."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from services.converter.packing.limits import Limits
from services.converter.trees import contents, walk
from services.converter.trees.errors import (
    TreeChangedError,
    TreeInvalidError,
    TreeTooLargeError,
    TreeUnreadableError,
)
from services.converter.trees.jobs import ListOrder, list_tree
from services.converter.trees.places import open_below
from shared.image import kinds
from shared.image.errors import WorkCancelledError
from tests.support.tree_jobs import Jobs, open_descriptors

LARGE = 5_000_000


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/small").write_bytes(b"small")
    (root / "a/large").write_bytes(os.urandom(LARGE))
    (root / "a.txt").write_bytes(b"sorts between a and a/b in other orders")
    (root / "z").symlink_to("a")
    return root


def _become_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def names(tar: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as found:
        return found.getnames()


def test_a_directory_comes_before_what_is_in_it_and_all_of_it_before_its_neighbour(
    tree: Path,
) -> None:
    with Jobs(tree) as jobs:
        (part,) = jobs.listed()
        paths = [row.path for row in jobs.rows(part)]
        assert paths == [b"", b"a", b"a/b", b"a/b/small", b"a/large", b"a.txt", b"z"]
        assert names(jobs.read(part)) == [".", "a", "a/b", "a/b/small", "a/large", "a.txt", "z"]


def test_the_same_tree_is_the_same_bytes_however_it_was_made(tree: Path, tmp_path: Path) -> None:
    with Jobs(tree) as jobs:
        first = jobs.read_all()
    other = tmp_path / "other"
    other.mkdir()
    os.utime(other, ns=(0, tree.stat().st_mtime_ns))
    for path in sorted(tree.rglob("*"), reverse=True):
        copy = other / path.relative_to(tree)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            copy.symlink_to(path.readlink())
        elif path.is_dir():
            copy.mkdir(exist_ok=True)
        else:
            copy.write_bytes(path.read_bytes())
    for path in (tree, *tree.rglob("*")):
        time = path.lstat().st_mtime_ns
        os.utime(other / path.relative_to(tree), ns=(time, time), follow_symlinks=False)
    with Jobs(other) as jobs:
        assert jobs.read_all() == first


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 5000])
def test_directories_of_any_size(tmp_path: Path, count: int) -> None:
    (tmp_path / "before").mkdir()
    (tmp_path / "many/in").mkdir(parents=True)
    for number in range(count):
        (tmp_path / f"many/in/{number:05}").touch()
    (tmp_path / "many/in~").touch()
    with Jobs(tmp_path) as jobs:
        (part,) = jobs.listed()
        rows = [row.path for row in jobs.rows(part)]
    inside = [f"many/in/{number:05}".encode() for number in range(count)]
    assert rows == [b"", b"before", b"many", b"many/in", *inside, b"many/in~"]


@pytest.mark.parametrize("count", [3, 40])
def test_many_directories_side_by_side_and_below_each_other(tmp_path: Path, count: int) -> None:
    for number in range(count):
        (tmp_path / f"d{number:02}/e/f").mkdir(parents=True)
        (tmp_path / f"d{number:02}/e/f/file").touch()
        (tmp_path / f"d{number:02}/e2").touch()
    with Jobs(tmp_path) as jobs:
        (part,) = jobs.listed()
        rows = [row.path for row in jobs.rows(part)]
    # As sorting the paths by their parts does.
    assert rows == sorted(rows, key=lambda path: path.split(b"/"))
    assert len(rows) == 1 + 5 * count


@pytest.mark.parametrize("path", ["a/b/small", "a/large"])
@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b"other"),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.unlink(), path.symlink_to("/etc/passwd")),
        _become_a_pipe,
        lambda path: path.chmod(0o600),
    ],
)
def test_what_changes_between_listing_and_reading_is_told(
    tree: Path, path: str, change: Callable[[Path], object]
) -> None:
    with Jobs(tree) as jobs:
        (part,) = jobs.listed()
        change(tree / path)
        with pytest.raises(TreeChangedError, match=path):
            jobs.read(part)


def test_a_directory_that_becomes_a_symlink_is_not_followed(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/small").write_bytes(b"small")
    with Jobs(tree) as jobs:
        (part,) = jobs.listed()
        (tree / "a/b").rename(tmp_path / "gone")
        (tree / "a/b").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(TreeChangedError, match="a/b/small"):
            jobs.read(part)
    root = os.open(tree, os.O_RDONLY)
    try:
        with pytest.raises(NotADirectoryError):
            open_below(root, b"a/b/small")
    finally:
        os.close(root)


@pytest.mark.parametrize("path", ["a/b/small", "a/large"])
def test_what_changes_while_it_is_read_is_told(
    tree: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = contents._read
    left = [path]

    def changing(fd: int, start: int, size: int) -> bytes:
        found = read(fd, start, size)
        if left and os.readlink(f"/proc/self/fd/{fd}").endswith(path):  # noqa: PTH115
            left.clear()
            with (tree / path).open("r+b") as file:
                file.write(b"X")
        return found

    monkeypatch.setattr(contents, "_read", changing)
    with Jobs(tree) as jobs:
        (part,) = jobs.listed()
        with pytest.raises(TreeChangedError, match=path):
            jobs.read(part)


def test_a_file_that_became_shorter_never_becomes_a_shorter_tar(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = contents._read

    def short(fd: int, start: int, size: int) -> bytes:
        return read(fd, start, size)[:-1] if start else read(fd, start, size)

    monkeypatch.setattr(contents, "_read", short)
    with Jobs(tree) as jobs:
        (part,) = jobs.listed()
        with pytest.raises(TreeChangedError, match="a/large"):
            jobs.read(part)


def test_no_descriptor_is_left_open(tree: Path) -> None:
    before = open_descriptors()
    with Jobs(tree) as jobs:
        jobs.read_all()
    assert open_descriptors() <= before


def test_what_is_too_much_is_refused_while_it_is_listed(tree: Path) -> None:
    with Jobs(tree) as jobs:
        with pytest.raises(TreeTooLargeError, match="more than 3 files"):
            jobs.listed(max_rows=3)
        with pytest.raises(TreeTooLargeError, match="a/large has 5,000,000 bytes"):
            jobs.listed(Limits(max_bytes=1_000_000))


def test_a_path_that_nobody_could_open_is_refused(tmp_path: Path) -> None:
    at = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 240, dir_fd=at)
        below = os.open("d" * 240, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    with Jobs(tmp_path) as jobs, pytest.raises(TreeInvalidError, match="a path of 4,"):
        jobs.listed()


def test_a_listing_ends_when_nobody_waits_for_it(tree: Path) -> None:
    root, spool = os.open(tree, os.O_RDONLY), os.memfd_create("spool")
    reading, writing = os.pipe()
    os.close(reading)
    order = ListOrder(scope="", threads=1, limits=Limits(), max_rows=1000, least_weight=1 << 30)
    try:
        with pytest.raises(WorkCancelledError):
            list_tree(order.model_dump_json().encode(), (root, spool, writing))
    finally:
        for fd in (root, spool, writing):
            os.close(fd)


def test_hard_links_lead_to_the_first_name_in_any_part(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/file").write_bytes(b"x" * 3000)
    (tmp_path / "b").mkdir()
    (tmp_path / "b/link").hardlink_to(tmp_path / "a/file")
    (tmp_path / "c").symlink_to("s")
    os.link(tmp_path / "c", tmp_path / "d", follow_symlinks=False)
    with Jobs(tmp_path, least_weight=1) as jobs:
        parts = jobs.listed()
        rows = [row for part in parts for row in jobs.rows(part)]
    assert len(parts) > 3
    found = {row.path: (row.kind, row.target) for row in rows}
    assert found[b"b/link"] == (kinds.HARD_LINK, b"a/file")
    assert found[b"d"] == (kinds.HARD_LINK, b"c")


def test_a_hole_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "holes").open("wb") as file:
        file.truncate(1 << 37)
        file.seek(1 << 36)
        file.write(b"here")
    with Jobs(tmp_path) as jobs:
        (part,) = jobs.listed()
        tar = jobs.read(part)
    assert part.size < 1 << 20
    assert len(tar) < 1 << 20
    assert b"here" in tar


def test_users_do_not_share_stamps(tree: Path) -> None:
    with Jobs(tree) as jobs:
        assert jobs.listed(scope="") != jobs.listed(scope="uid:1000")


def test_walks_look_ahead_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories that are too large to be listed ahead are listed in their turn."""
    monkeypatch.setattr(walk, "_MOST_AHEAD", 10)
    for number in range(40):
        (tmp_path / f"{number:02}").mkdir()
        for file in range(30):
            (tmp_path / f"{number:02}/{file:02}").touch()
    with Jobs(tmp_path) as jobs:
        (part,) = jobs.listed()
        assert part.rows == 1 + 40 * 31


@pytest.mark.parametrize(
    ("paths", "says"), [([b"a"], "1 file .*: a; make it readable"), ([b"a", b"b"], "make them")]
)
def test_what_cannot_be_read_is_told_in_its_number(paths: list[bytes], says: str) -> None:
    with pytest.raises(TreeUnreadableError, match=says):
        raise TreeUnreadableError.of(len(paths), paths)
