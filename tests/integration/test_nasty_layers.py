"""The table of nasty layers as the kernel, unsquashfs and squashfuse see them."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import nasty_stacks, nasty_tars
from tests.support.mounts import mounted
from tests.support.overlay_model import Inode, rows_of
from tests.support.packing import KEEP_ALL, build_image
from tests.support.trees import Rows, mount_rows

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root"),
]

CASES = nasty_stacks.CASES | nasty_tars.CASES
# More than the file systems take that images are unpacked to here.
TOO_LONG = "the longest value of an attribute"


@dataclass(frozen=True)
class Nasty:
    name: str
    image: Path
    tree: Rows


@pytest.fixture(scope="module", params=CASES)
def nasty(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Nasty:
    name: str = request.param
    case = CASES[name]
    image = build_image(case.layers, tmp_path_factory.mktemp("nasty"), KEEP_ALL)
    return Nasty(name, image.path, rows_of({b"": Inode("d"), **case.tree}))


def test_the_kernel_sees_what_nasty_layers_say(tmp_path: Path, nasty: Nasty) -> None:
    with mounted(nasty.image, tmp_path / "mnt") as root:
        assert mount_rows(root) == nasty.tree


@pytest.mark.skipif(shutil.which("unsquashfs") is None, reason="install squashfs-tools")
def test_unsquashfs_unpacks_what_nasty_layers_say(tmp_path: Path, nasty: Nasty) -> None:
    if nasty.name == TOO_LONG:
        pytest.skip("the file system below has no room for such attributes")
    command = ["unsquashfs", "-no-progress", "-d", str(tmp_path / "out"), str(nasty.image)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert mount_rows(tmp_path / "out") == nasty.tree


@pytest.mark.skipif(shutil.which("squashfuse") is None, reason="install squashfuse")
@pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="there is no FUSE here")
def test_squashfuse_shows_what_nasty_layers_say(tmp_path: Path, nasty: Nasty) -> None:
    """All but what it does otherwise with any image: attributes' prefixes, inode numbers."""
    with fused(nasty.image, tmp_path / "mnt") as root:
        found = mount_rows(root, xattrs=False)
    plain = {p: row._replace(xattrs=(), first_name=b"") for p, row in nasty.tree.items()}
    assert {p: row._replace(first_name=b"") for p, row in found.items()} == plain


@pytest.mark.skipif(shutil.which("squashfuse") is None, reason="install squashfuse")
@pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="there is no FUSE here")
def test_squashfuse_finds_attributes_whose_names_begin_alike(tmp_path: Path) -> None:
    case = CASES["attributes whose names begin alike"]
    image = build_image(case.layers, tmp_path, KEEP_ALL)
    with fused(image.path, tmp_path / "mnt") as root:
        found = {name: os.getxattr(root / "f", name) for name in os.listxattr(root / "f")}
    assert found == {"user.a": b"1", "user.ab": b"2", "user.abc": b"3"}


@contextmanager
def fused(image: Path, at: Path) -> Iterator[Path]:
    at.mkdir()
    subprocess.run(["squashfuse", str(image), str(at)], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)
