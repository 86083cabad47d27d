"""Images woven without their dead data: every reader sees the very same tree as with them."""

import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.image.making.weave import weave
from shared.image.recipe import PackOptions
from tests.support.mounts import assert_same, mounted
from tests.support.noise import noise
from tests.support.overlay_model import expected_rows
from tests.support.packing import KEEP_ALL, Built, Part, build_image, hard_link, tar_of
from tests.support.trees import image_rows, mount_rows

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root"),
]

# Files in fragments, of one block or so, of many; of noise, text and holes.
SIZES = (0, 1, 900, 4096, 30_000, 131_072, 200_000, 700_000)


def contents(size: int, seed: int) -> bytes:
    if seed % 5 == 0:
        return bytes(size)
    if seed % 5 == 1:
        return (b"%d bottles of beer " % seed * (size // 15 + 1))[:size]
    return noise(size, seed)


def layers() -> list[bytes]:
    files = [(f"d{n % 7}/f{n}", contents(SIZES[n % 8], n)) for n in range(160)]
    files += [(f"large/{n}", noise(2_500_000, 2000 + n)) for n in range(4)]
    upper: list[Part] = [(f"d{n % 7}/.wh.f{n}", b"") for n in range(160) if n % 3]
    upper += [("large/.wh.0", b""), ("large/.wh.2", b"")]
    upper += [("d3/.wh..wh..opq", b""), ("d3/new", noise(300_000, 1000))]
    links: list[Part] = [hard_link(f"links/{n}", f"d{n % 7}/f{n}") for n in (0, 9, 15, 21)]
    last: list[Part] = [("d3/new", b"changed"), *links, ("d1", b"no directory any more")]
    return [tar_of(*files), tar_of(*upper), tar_of(*last)]


OPTIONS = {
    "zstd": PackOptions(),
    "gzip": PackOptions(compression="gzip"),
    "small blocks": KEEP_ALL,
    "large blocks": PackOptions(block_size=1 << 20),
}


@pytest.mark.parametrize("options", OPTIONS)
def test_the_kernel_sees_the_same_tree(tmp_path: Path, options: str) -> None:
    expected = expected_rows(layers(), OPTIONS[options])
    whole = build_image(layers(), tmp_path / "whole", OPTIONS[options])
    squeezed = build_image(layers(), tmp_path / "small", OPTIONS[options], max_dead_share=0.05)
    assert len(squeezed.recipe.segments) > len(whole.recipe.segments)
    dead = sum(layer.length - layer.live for layer in whole.recipe.layers)
    assert whole.recipe.size - squeezed.recipe.size > 0.7 * dead > 1_000_000
    assert_same(image_rows(squeezed.path), expected)
    with mounted(squeezed.path, tmp_path / "mnt") as root:
        assert_same(mount_rows(root), expected)


@pytest.mark.skipif(shutil.which("unsquashfs") is None, reason="install squashfs-tools")
@pytest.mark.parametrize("options", ["zstd", "gzip"])
def test_unsquashfs_extracts_the_same_tree(tmp_path: Path, options: str) -> None:
    squeezed = build_image(layers(), tmp_path, OPTIONS[options], max_dead_share=0.05)
    command = ["unsquashfs", "-no-progress", "-d", str(tmp_path / "out"), str(squeezed.path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert_same(mount_rows(tmp_path / "out"), expected_rows(layers(), OPTIONS[options]))


NAMES = st.sampled_from([f"{d}/{f}" for d in "ab" for f in "0123456789"])
FILES = st.builds(
    lambda name, size, seed: (name, contents(size, seed)),
    NAMES,
    st.sampled_from(SIZES),
    st.integers(0, 50),
)
WHITEOUTS = st.builds(lambda name: (f"{name[:2]}.wh.{name[2:]}", b""), NAMES)
STACKS = st.tuples(
    st.lists(FILES, max_size=20),
    st.lists(FILES, max_size=10),
    st.lists(st.one_of(FILES, WHITEOUTS, st.just(("a/.wh..wh..opq", b""))), max_size=12),
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STACKS, st.sampled_from([0, 0.2]), st.sampled_from(["zstd", "small blocks"]))
def test_random_stacks_show_the_same_tree(
    stack: tuple[list[Part], ...], limit: float, options: str
) -> None:
    tars = [tar_of(*layer) for layer in stack]
    expected = expected_rows(tars, OPTIONS[options])
    with tempfile.TemporaryDirectory() as name:
        image = build_image(tars, Path(name), OPTIONS[options], max_dead_share=limit)
        assert_same(image_rows(image.path), expected)
        with mounted(image.path, Path(name) / "mnt") as root:
            assert_same(mount_rows(root), expected)


def used(place: Path, built: Built) -> int:
    os.sync()
    before = shutil.disk_usage(place).free
    weave(
        built.recipe,
        built.store,
        place / "again",
        on_progress=lambda _: None,
        cancelled=threading.Event(),
    )
    os.sync()
    return before - shutil.disk_usage(place).free


@pytest.mark.skipif(shutil.which("mkfs.xfs") is None, reason="install xfsprogs")
def test_pieces_share_blocks_with_their_packs(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(400 << 20)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", str(disk)], check=True)
    files: list[Part] = [(f"f{n}", noise((1 << 20) + 777, n)) for n in range(30)]
    gone: list[Part] = [(f".wh.f{n}", b"") for n in range(30) if n % 4 == 1]
    with mounted(disk, tmp_path / "xfs", kind="xfs", options="rw") as place:
        built = build_image([tar_of(*files), tar_of(*gone)], place, max_dead_share=0.1)
        assert len(built.recipe.segments) > 6
        assert built.recipe.size > 20 << 20
        assert used(place, built) < 4 << 20
