"""The blob of tables at the end of an image, and the superblock that points into it."""

import struct
from dataclasses import dataclass

from shared.image.codecs import BlockCodec
from shared.image.errors import ImageUnsupportedError
from shared.image.kinds import XATTR_PREFIXES
from shared.image.merging.budget import Budget
from shared.image.merging.tree import Tree
from shared.image.packs.index import Xattrs
from shared.image.recipe import Compression
from shared.image.squashfs.inodes import InodeTables
from shared.image.squashfs.metadata import MetadataWriter, lookup_table, pack_starts
from shared.image.squashfs.superblock import (
    ABSENT,
    EXPORTABLE_FLAG,
    NO_FRAGMENTS_FLAG,
    NO_XATTRS_FLAG,
    Superblock,
)

_XATTR_KEY = struct.Struct("<HH")
_XATTR_SET = struct.Struct("<QII")
_XATTR_HEADER = struct.Struct("<QII")


@dataclass(frozen=True, slots=True)
class ImageTables:
    """All metadata of one image."""

    superblock: Superblock
    blob: bytes


class _Blob:
    """Parts that follow each other from a position on."""

    def __init__(self, position: int) -> None:
        self.position = position
        self._parts: list[bytes] = []

    def add(self, part: bytes) -> int:
        start = self.position
        self._parts.append(part)
        self.position += len(part)
        return start

    def join(self) -> bytes:
        return b"".join(self._parts)


def build_tables(
    tree: Tree,
    *,
    inodes: int,
    fragments: bytes,
    position: int,
    codec: BlockCodec,
    compression: Compression,
    block_size: int,
    budget: Budget,
) -> ImageTables:
    """Tables of the tree's `inodes` inodes, which will stand at `position`."""
    builder = InodeTables(codec, budget)
    inode_data, directory_data = builder.build(tree, inodes)
    if inodes >= 1 << 32 or len(fragments) >= 16 << 32:
        raise ImageUnsupportedError("the image has too many files for one squashfs")
    blob = _Blob(position)
    inode_table = blob.add(inode_data)
    directory_table = blob.add(directory_data)
    fragment_table = _add_lookup(blob, codec, fragments) if fragments else ABSENT
    export_table = _add_lookup(blob, codec, builder.references.tobytes())
    ids = struct.pack(f"<{len(builder.ids)}I", *builder.ids)
    id_table = _add_lookup(blob, codec, ids)
    xattr_table = _add_xattrs(blob, codec, list(builder.xattr_sets))
    flags = EXPORTABLE_FLAG
    flags |= 0 if fragments else NO_FRAGMENTS_FLAG
    flags |= NO_XATTRS_FLAG if xattr_table == ABSENT else 0
    superblock = Superblock(
        inodes=inodes,
        block_size=block_size,
        fragments=len(fragments) // 16,
        compression=compression,
        flags=flags,
        ids=len(builder.ids),
        root=builder.root_reference,
        bytes_used=blob.position,
        id_table=id_table,
        xattr_table=xattr_table,
        inode_table=inode_table,
        directory_table=directory_table,
        fragment_table=fragment_table,
        export_table=export_table,
    )
    return ImageTables(superblock, blob.join())


def _add_lookup(blob: _Blob, codec: BlockCodec, raw: bytes) -> int:
    data, starts = lookup_table(codec, raw, blob.position)
    blob.add(data)
    return blob.add(pack_starts(starts))


def _add_xattrs(blob: _Blob, codec: BlockCodec, sets: list[Xattrs]) -> int:
    if not sets:
        return ABSENT
    pairs = MetadataWriter(codec)
    rows = []
    for xattrs in sets:
        reference = pairs.write(b"".join(_encoded_pair(name, value) for name, value in xattrs))
        # What listxattr() will return: names with their terminators.
        listed = sum(len(name) + 1 for name, _ in xattrs)
        rows.append(_XATTR_SET.pack(reference, len(xattrs), listed))
    start = blob.add(pairs.finish())
    data, starts = lookup_table(codec, b"".join(rows), blob.position)
    blob.add(data)
    return blob.add(_XATTR_HEADER.pack(start, len(sets), 0) + pack_starts(starts))


def _encoded_pair(name: bytes, value: bytes) -> bytes:
    prefix = next(n for n, p in enumerate(XATTR_PREFIXES) if name.startswith(p))
    short = name[len(XATTR_PREFIXES[prefix]) :]
    key = _XATTR_KEY.pack(prefix, len(short)) + short
    return key + struct.pack("<I", len(value)) + value
