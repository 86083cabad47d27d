"""Trees, plain tars and other tools' squashfs images become images that show the same."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.dray_convert import Done, Dray, dray_convert, left_beside, partials
from tests.support.mounts import mounted
from tests.support.squashfs import is_root
from tests.support.tree_files import add_socket, as_squashfs_has_it, rich_tree
from tests.support.trees import Rows, image_rows, mount_rows

KEEPING = ("--owners", "image", "--setuid", "keep", "--devices", "keep", "--xattrs", "all")
COMPRESSIONS = {
    "plain": [],
    "gzip": ["--gzip"],
    "bzip2": ["--bzip2"],
    "xz": ["--xz"],
    "zstd": ["--zstd"],
}
PACKAGES = {"bsdtar": "libarchive-tools", "mksquashfs": "squashfs-tools", "xz": "xz-utils"}
READABLE = ["gzip", "lzma", "xz", "lz4", "zstd", "xz -Xbcj x86 -b 1M", "zstd -b 4K -noI -noF"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rich_tree(tmp_path_factory.mktemp("rich") / "tree")


@pytest.fixture(scope="module")
def rows(tree: Path) -> Rows:
    return as_squashfs_has_it(mount_rows(tree))


@pytest.fixture
def dray(tmp_path: Path) -> Dray:
    return dray_convert(tmp_path)


def ended_well(done: Done) -> None:
    assert done.returncode == 0, done.stderr


def need(*tools: str) -> None:
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is missing: install {PACKAGES.get(tool, tool)}")


@pytest.mark.root
@pytest.mark.skipif(not is_root(), reason="mounting needs root")
def test_the_kernel_shows_the_tree_that_an_image_was_made_of(
    tmp_path: Path, dray: Dray, tree: Path, rows: Rows
) -> None:
    out = tmp_path / "out.squashfs"
    ended_well(dray(*KEEPING, f"dir:{tree}", out))
    with mounted(out, tmp_path / "mnt") as root:
        assert mount_rows(root) == rows
    assert left_beside(out) == []
    assert partials(tmp_path / "cache") == []


def test_a_tree_becomes_root_s_where_nothing_else_is_asked_for(
    tmp_path: Path, dray: Dray, tree: Path, rows: Rows
) -> None:
    out = tmp_path / "out.squashfs"
    ended_well(dray(f"dir:{tree}", out))
    found = image_rows(out)
    kept = {path for path, row in rows.items() if row.kind not in "bc"}
    assert set(found) == kept
    assert {(row.uid, row.gid) for row in found.values()} == {(0, 0)}
    assert found[b"usr/bin/program"].mode == 0o755
    assert found[b"holes"].detail == rows[b"holes"].detail


def test_a_socket_is_left_out_and_told(tmp_path: Path, dray: Dray) -> None:
    (tmp_path / "tree/run").mkdir(parents=True)
    add_socket(tmp_path / "tree/run/socket")
    (tmp_path / "tree/.snapshot/hourly").mkdir(parents=True)
    out = tmp_path / "out.squashfs"
    done = dray(f"dir:{tmp_path / 'tree'}", out)
    ended_well(done)
    assert set(image_rows(out)) == {b"", b"run"}
    assert "sockets are left out: 1" in done.stderr
    assert "snapshots are left out: /.snapshot" in done.stderr


@pytest.mark.root
@pytest.mark.skipif(not is_root(), reason="mounting needs root")
def test_other_file_systems_in_a_tree_stay_empty_directories(tmp_path: Path, dray: Dray) -> None:
    (tmp_path / "tree/proc").mkdir(parents=True)
    (tmp_path / "tree/file").write_text("x")
    subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path / "tree/proc"], check=True)
    try:
        (tmp_path / "tree/proc/inside").touch()
        done = dray(f"dir:{tmp_path / 'tree'}", tmp_path / "out.squashfs")
    finally:
        subprocess.run(["umount", tmp_path / "tree/proc"], check=True)
    ended_well(done)
    assert set(image_rows(tmp_path / "out.squashfs")) == {b"", b"file", b"proc"}
    assert "/proc" in done.stderr


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("tool", ["tar", "bsdtar"])
def test_plain_tars(
    tmp_path: Path, dray: Dray, tree: Path, rows: Rows, tool: str, compression: str
) -> None:
    need(tool, *([] if compression == "plain" else [compression]))
    archive = tmp_path / "root.tar"
    packing = [*COMPRESSIONS[compression], "-cf", str(archive), "-C", str(tree), "."]
    dialect = (
        ["--format=pax", "--xattrs", "--xattrs-include=*", "--sparse", "--numeric-owner"]
        if tool == "tar"
        else ["--format=pax", "--xattrs"]
    )
    subprocess.run([tool, *dialect, *packing], check=True, capture_output=True)
    out = tmp_path / "out.squashfs"
    ended_well(dray(*KEEPING, f"tar:{archive}", out))
    assert image_rows(out) == rows
    again = dray(*KEEPING, "--json", archive, out)
    ended_well(again)
    assert json.loads(again.stdout)["layers_reused"] == 1


@pytest.mark.parametrize("options", READABLE)
def test_squashfs_images_of_mksquashfs(
    tmp_path: Path, dray: Dray, tree: Path, rows: Rows, options: str
) -> None:
    need("mksquashfs")
    image, out = tmp_path / "foreign.sqsh", tmp_path / "out.squashfs"
    command = [
        "mksquashfs",
        str(tree),
        str(image),
        "-quiet",
        "-no-progress",
        "-comp",
        *options.split(),
    ]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    expected = image_rows(image)
    assert set(expected) == set(rows)
    ended_well(dray(*KEEPING, image, out))
    assert image_rows(out) == expected


def test_a_squashfs_of_lzo_is_refused_with_a_way_out(
    tmp_path: Path, dray: Dray, tree: Path
) -> None:
    need("mksquashfs")
    image = tmp_path / "lzo.sqsh"
    command = ["mksquashfs", str(tree), str(image), "-quiet", "-no-progress", "-comp", "lzo"]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this mksquashfs has no lzo")
    done = dray(f"squashfs:{image}", tmp_path / "out.squashfs")
    assert done.returncode != 0
    assert "lzo" in done.stderr
    assert "mksquashfs -comp zstd" in done.stderr


def test_a_damaged_squashfs_leaves_nothing(tmp_path: Path, dray: Dray, tree: Path) -> None:
    need("mksquashfs")
    image, out = tmp_path / "cut.sqsh", tmp_path / "out.squashfs"
    subprocess.run(["mksquashfs", tree, image, "-quiet", "-no-progress"], check=True)
    data = bytearray(image.read_bytes())
    data[200:2000] = os.urandom(1800)
    image.write_bytes(data)
    done = dray(image, out)
    assert done.returncode != 0
    assert "the squashfs is damaged" in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()
    assert partials(tmp_path / "cache") == []


def test_what_a_path_is_must_be_plain(tmp_path: Path, dray: Dray) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_text("x")
    done = dray(tmp_path / "tree", tmp_path / "out")
    assert done.returncode != 0
    assert f"say dir:{tmp_path / 'tree'}" in done.stderr
    subprocess.run(["tar", "-cf", "some.tar", "tree"], cwd=tmp_path, check=True)
    done = dray(tmp_path / "some.tar", tmp_path / "out")
    assert done.returncode != 0
    assert f"say tar:{tmp_path / 'some.tar'}" in done.stderr
    (tmp_path / "tree/version").write_text("Directory Transport Version: 1.1\n")
    done = dray(f"dir:{tmp_path / 'tree'}", tmp_path / "out")
    assert done.returncode != 0
    assert "skopeo copy" in done.stderr
