"""Squashfs images of any tool: listed, looked up, read, checked, unpacked, and imported."""

import errno
import io
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final
from unittest.mock import patch

from services.converter.packing.errors import LayerInvalidError, LayerTooLargeError
from services.converter.packing.limits import Limits
from services.converter.packing.tar_bytes import TarBytes
from services.converter.packing.tar_reader import Member, TarReader
from services.converter.trees.errors import TreeInvalidError, TreeTooLargeError
from services.converter.trees.squashed import SquashWalk
from shared.image import kinds
from shared.image.errors import ImageCorruptError, ImageUnsupportedError
from shared.image.reading import check, check_data, reader
from shared.image.reading.extract import extract
from shared.image.reading.inspection import read_image, verify_by_itself
from shared.image.reading.reader import SquashImage
from shared.image.tar.contents import SquashContents
from shared.image.tar.row import Row
from tests.fuzz.squash_images import changed, described, forged, images
from tests.fuzz.target import Target, in_memory, require_inside
from tests.support.reading import read_everything

# Small images may say that they are large: as they grow, so may the work, up to the same ends.
_MOST_NAMES: Final = 3000
_MOST_BLOCKS: Final = 20_000
_MOST_BYTES: Final = 1 << 20
_LIMITS: Final = Limits(max_bytes=_MOST_BYTES, max_entries=_MOST_NAMES, max_text=1 << 20)
_OURS: Final = (ImageCorruptError, ImageUnsupportedError)


@contextmanager
def _small() -> Iterator[None]:
    with ExitStack() as stack:
        for module, name, value in (
            (reader, "MAX_NAMES", _MOST_NAMES),
            (check, "MAX_NAMES", _MOST_NAMES),
            (check_data, "_MAX_LISTED", _MOST_BLOCKS),
            (check_data, "_MAX_BLOCKS", _MOST_BLOCKS),
        ):
            stack.enter_context(patch.object(module, name, value))
        yield


def _squashfs(data: bytes) -> None:
    with in_memory(data) as (fd, path), _small():
        with suppress(*_OURS):
            read_everything(path)
            _read_what_is_sound(path)
        with tempfile.TemporaryDirectory() as place:
            _unpack(path, Path(place))
        _import(fd, len(data))


def _read_what_is_sound(path: Path) -> None:
    """The full check has passed: now nothing may be wrong any more."""
    with SquashImage(path) as image:
        for found in image.walk():
            there = image.lookup(found.path)
            assert there is not None, f"{found.path!r} is listed, and cannot be looked up"
            assert there.inode == found.inode
            if found.inode.kind == kinds.FILE and found.inode.size <= _MOST_BYTES:
                try:
                    length = sum(len(piece) for piece in image.content(found.inode))
                except ImageCorruptError as exc:
                    raise AssertionError(f"{found.path!r} passed the check") from exc
                assert length == found.inode.size


def _unpack(image: Path, place: Path) -> None:
    """All is below the directory that was named, whatever the image says."""
    tree = place / "inner" / "tree"
    try:
        extract(image, tree, max_bytes=_MOST_BYTES)
    except _OURS:
        pass
    except OSError as exc:
        # A tree may be deeper than the kernel follows a path; whoever unpacks it says so.
        if exc.errno != errno.ENAMETOOLONG:
            raise
    assert {path.name for path in place.iterdir()} <= {"inner"}
    if tree.exists():
        assert [path.name for path in tree.parent.iterdir()] == ["tree"]
        assert sum(1 for _ in os.walk(tree)) <= _MOST_NAMES + 1


def _import(fd: int, size: int) -> None:
    """As a tree, the image becomes a tar, in which our reader finds the same."""
    try:
        with SquashImage(os.dup(fd)) as image:
            rows = list(SquashWalk(image, size, _LIMITS, _MOST_NAMES).rows())
            tar = io.BytesIO()
            for piece in SquashContents(image).tar(iter(rows)):
                tar.write(piece)
                assert tar.tell() <= 64 * _MOST_BYTES
    except (*_OURS, TreeInvalidError, TreeTooLargeError, LayerTooLargeError):
        return
    tar.seek(0)
    members: list[Member] = []
    try:
        members += TarReader(TarBytes(lambda: tar.read(1 << 16)), _LIMITS)
    except LayerTooLargeError:
        return
    except LayerInvalidError:
        if not _is_refused_by_the_packer(rows):
            raise
        return
    assert len(members) == len(rows)
    for member, row in zip(members, rows, strict=True):
        require_inside(row.path)
        assert (member.path, member.kind, member.mode) == (row.path, row.kind, row.mode)
        assert (member.uid, member.gid) == (row.uid, row.gid)
        if row.kind in {kinds.SYMLINK, kinds.HARD_LINK}:
            assert member.target == row.target
        if row.kind == kinds.FILE:
            assert member.size == row.size


def _is_refused_by_the_packer(rows: list[Row]) -> bool:
    """A path is too deep, say: the squashfs may have it, a layer may not."""
    return any(row.path.count(b"/") > 1000 or len(row.path) > 4000 for row in rows)


def _description(data: bytes) -> None:
    """What an image says of itself, at its end."""
    with in_memory(data) as (_, path):
        try:
            found = read_image(path)
        except _OURS:
            return
        if found.description is not None:
            with suppress(*_OURS):
                assert len(verify_by_itself(found, threading.Event())) == 64
    assert found.size == len(data)
    if found.description is not None:
        assert found.description.superblock == found.superblock.pack().hex()
        assert 0 < found.document <= found.size - found.superblock.bytes_used


TARGETS: Final = {
    "squashfs": Target(_squashfs, images, change=changed, largest=20480, examples=120),
    "description": Target(_description, described, change=forged, largest=16384),
}
