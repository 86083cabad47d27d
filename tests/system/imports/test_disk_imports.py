"""A machine's disk, imported in a whole site: its root file system becomes an image."""

import random
from pathlib import Path

import pytest

from tests.support.as_user import Somebody
from tests.support.disks import MIB, converted, file_system, partitioned
from tests.support.imports import brought, owned
from tests.support.private_site import ALICE
from tests.support.site import Site
from tests.support.trees import image_rows, mount_rows

pytestmark = pytest.mark.root


async def test_the_root_of_a_qcow2_disk_becomes_ready_and_a_broken_one_says_why(
    site: Site, alice: Somebody, home: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    for name in ("etc", "usr/bin"):
        (tree / name).mkdir(parents=True)
    (tree / "etc/os-release").write_text("NAME=disk\n")
    (tree / "usr/bin/solver").write_bytes(random.Random(3).randbytes(900_000))
    root = file_system(tmp_path / "root", "ext4", "-d", tree, size=8 * MIB)
    table = "label: gpt\nstart=1MiB,size=1MiB,type=U\nstart=2MiB,type=L\n"
    disk = partitioned(tmp_path / "disk", table, {2: root}, size=12 * MIB)
    wrapped = owned(converted(disk, home / "disk.qcow2", "qcow2", "-c"), ALICE)
    view = await brought(alice, "machine:1", wrapped)
    assert view["state"] == "READY", view["failure"]
    [image] = tmp_path.rglob("*.squashfs")
    found, expected = image_rows(image), mount_rows(tree)
    assert set(found) == {*expected, b"lost+found"}
    for path in (b"etc/os-release", b"usr/bin/solver"):
        assert found[path].detail == expected[path].detail
    assert site.check_images() == 1
    # Half of it, under the same name.
    with wrapped.open("r+b") as file:
        file.truncate(wrapped.stat().st_size // 2)
    broken = await brought(alice, "machine:1", wrapped, format="qcow2")
    assert (broken["state"], broken["failure"]["code"]) == ("FAILURE", "disk_damaged")
    assert "was not copied to its end" in broken["failure"]["message"]
    assert site.leftovers() == []
