"""Squashfs images as trees, above all hostile ones: errors of ours, bounded work."""

import os
import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.converter.packing.errors import LayerTooLargeError
from services.converter.packing.limits import Limits
from services.converter.sources.errors import ArchiveInvalidError
from services.converter.trees.errors import TreeTooLargeError
from shared.errors import DrayError
from shared.image.squashfs.superblock import Superblock
from tests.support.packing import KEEP_ALL, build_image, directory, hard_link, member, symlink
from tests.support.packing import tar_of as tar
from tests.support.planned import Stored
from tests.support.tree_jobs import Jobs

XATTRS = {"SCHILY.xattr.user.a": "1" * 40, "SCHILY.xattr.trusted.b": "2"}
TAR = tar(
    directory("d/e"),
    (member("d/file", pax_headers=XATTRS), os.urandom(5000) + bytes(9000) + b"text" * 3000),
    hard_link("d/name", "d/file"),
    symlink("d/link", "file"),
    member("d/device", b"3", devmajor=5, devminor=300),
    *[(f"big/{n:03}-{'long name' * 20}", b"") for n in range(60)],
    ("small", b"x" * 100),
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Its tables are not compressed, so that damage gets to where it matters."""
    return build_image([TAR], tmp_path_factory.mktemp("sound"), codec=Stored()).path.read_bytes()


def test_an_image_of_ours_comes_back_as_it_was(sound: bytes, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(sound)
    with Jobs(tmp_path / "image", least_weight=1) as jobs:
        parts = jobs.listed()
        layers = [jobs.read(part) for part in parts]
    assert len(layers) > 20
    again = build_image(layers, tmp_path, codec=Stored())
    with Jobs(again.path) as jobs, Jobs(tmp_path / "image") as before:
        assert jobs.read_all() == before.read_all()


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    changes=st.lists(
        st.tuples(
            st.booleans(),
            st.floats(0, 1),
            st.sampled_from([1, 2, 4, 8]),
            st.one_of(
                st.sampled_from([0, 1, 2, 96, 255, 4096, 8192, 0xFFFF, 1 << 24, (1 << 32) - 1]),
                st.integers(0, (1 << 64) - 1),
            ),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_damage_of_any_kind_ends_in_an_error_of_ours_or_in_another_tree(
    sound: bytes, tmp_path: Path, changes: list[tuple[bool, float, int, int]]
) -> None:
    image = bytearray(sound)
    tables = Superblock.unpack(sound).inode_table - 600
    for in_superblock, place, width, value in changes:
        start, end = (0, 96) if in_superblock else (max(0, tables), len(image))
        at = start + int(place * (end - start - 8))
        image[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, "little")
    (tmp_path / "image").write_bytes(image)
    limits = Limits(max_bytes=64 << 20, ratio_from=1 << 20)
    with Jobs(tmp_path / "image") as jobs, suppress(DrayError):
        for part in jobs.listed(limits):
            with suppress(ArchiveInvalidError):
                jobs.read(part)


def test_every_error_of_a_damaged_image_says_whose_fault_it_is(
    sound: bytes, tmp_path: Path
) -> None:
    found = set()
    for place in range(0, len(sound), max(1, len(sound) // 300)):
        image = bytearray(sound)
        image[place] ^= 0xFF
        (tmp_path / "image").write_bytes(image)
        try:
            with Jobs(tmp_path / "image") as jobs:
                jobs.read_all()
        except DrayError as exc:
            found.add((exc.code, exc.retryable))
    assert ("archive_invalid", False) in found
    assert not any(retryable for _, retryable in found)
    codes = {code for code, _ in found}
    assert codes <= {"archive_invalid", "image_unsupported", "tree_too_large", "layer_too_large"}


def test_a_file_with_more_data_than_it_says_is_refused(tmp_path: Path) -> None:
    """It says that most of it is holes, so as to be below the limits."""
    size = 64 * 4096
    plain = build_image(
        [tar(("file", os.urandom(size - 4096) + bytes(4096)))], tmp_path / "p", codec=Stored()
    ).path
    data = bytearray(plain.read_bytes())
    # An extended file: its size, then the bytes of its holes.
    fields = struct.pack("<QQ", size, 4096)
    assert data.count(fields) == 1
    at = data.index(fields)
    data[at + 8 : at + 16] = struct.pack("<Q", size - 1)
    (tmp_path / "image").write_bytes(data)
    with Jobs(tmp_path / "image") as jobs:
        (part,) = jobs.listed()
        with pytest.raises(ArchiveInvalidError, match="more data than it says"):
            jobs.read(part)


def test_bombs_are_refused_while_they_are_listed(tmp_path: Path) -> None:
    options = KEEP_ALL.model_copy(update={"block_size": 1 << 20})
    packed = build_image([tar(("file", b"a" * (30 << 20)))], tmp_path / "image", options)
    with Jobs(packed.path) as jobs:
        with pytest.raises(LayerTooLargeError, match="250 times its size"):
            jobs.listed(Limits(ratio_from=1 << 20))
        with pytest.raises(LayerTooLargeError, match="more than 20 MiB"):
            jobs.listed(Limits(max_bytes=20 << 20))
        with pytest.raises(TreeTooLargeError, match="more than 1 files"):
            jobs.listed(max_rows=1)
        assert len(jobs.listed()) == 1


def test_holes_are_no_bomb_and_are_not_read(tmp_path: Path) -> None:
    size = 1 << 30
    (tmp_path / "tree").mkdir()
    with (tmp_path / "tree/hole").open("wb") as file:
        file.truncate(size)
    with Jobs(tmp_path / "tree") as jobs:
        layer = jobs.read_all()
    image = build_image([layer], tmp_path / "image")
    tracemalloc.start()
    with Jobs(image.path) as jobs:
        again = jobs.read_all()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(again) < 1 << 20
    assert peak < 16 << 20


def test_what_is_no_squashfs_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"hsqs" + bytes(10))
    with Jobs(tmp_path / "image") as jobs, pytest.raises(ArchiveInvalidError, match="squashfs"):
        jobs.listed()
