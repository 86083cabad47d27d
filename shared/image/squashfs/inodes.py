"""The inode and directory tables: every node of the tree as a basic or an extended inode."""

import struct
from array import array
from collections.abc import Sequence
from typing import Final

from shared.image import kinds
from shared.image.codecs import BlockCodec
from shared.image.errors import ImageUnsupportedError
from shared.image.merging.budget import Budget, WatchedCodec
from shared.image.merging.live import Layer
from shared.image.merging.numbering import directories_bottom_up
from shared.image.merging.tree import ROW_BITS, ROW_MASK, Directory, Tree
from shared.image.packs.index import Xattrs
from shared.image.squashfs.directories import Entry, Listing, encode_listing
from shared.image.squashfs.metadata import MetadataWriter

_COMMON = struct.Struct("<HHHHII").pack
_FILE = struct.Struct("<HHHHIIIIII").pack
_EXTENDED_FILE = struct.Struct("<QQQIIII").pack
_DIRECTORY = struct.Struct("<IIHHI").pack
_EXTENDED_DIRECTORY = struct.Struct("<IIIIHHI").pack
_INDEX = struct.Struct("<III").pack
_ONE = struct.Struct("<I").pack

_MAX_IDS: Final = 0xFFFF
_MAX_BASIC_LISTING: Final = 0xFFFF
_MAX_BASIC_POSITION: Final = 0xFFFFFFFF
# Readers count "." and ".." as three bytes of every listing.
_LISTING_EXTRA: Final = 3
_IMPLICIT_MODE: Final = 0o755
# 0 is the reference of the first inode.
_UNWRITTEN: Final = 0xFFFFFFFFFFFFFFFF


class InodeTables:
    """Builds both tables bottom up, so that a directory's entries refer to inodes that exist."""

    def __init__(self, codec: BlockCodec, budget: Budget) -> None:
        watched = WatchedCodec(codec, budget)
        self._inodes = MetadataWriter(watched)
        self._directories = MetadataWriter(watched)
        self.ids: dict[int, int] = {}
        self.xattr_sets: dict[Xattrs, int] = {}
        # By inode number, from 1: what NFS-style file handles are resolved with.
        self.references: array[int] = array("Q")
        self.root_reference = 0

    def build(self, tree: Tree, count: int) -> tuple[bytes, bytes]:
        """The inode table and the directory table of the tree with its `count` inodes."""
        self.references = array("Q", [_UNWRITTEN]) * count
        for directory, parent in directories_bottom_up(tree.root):
            listing = encode_listing(self._written(directory, tree.layers))
            # The parent of the root is no inode of the image.
            inode = self._directory(directory, listing, parent or count + 1)
            self.references[directory.number - 1] = self._inodes.write(inode)
        self.root_reference = self.references[0]
        return self._inodes.finish(), self._directories.finish()

    def _written(self, directory: Directory, layers: Sequence[Layer]) -> list[Entry]:
        """What is in the directory, now that all of it has an inode."""
        references, write = self.references, self._inodes.write
        entries = []
        for name, node in directory.children.items():
            if isinstance(node, Directory):
                reference = references[node.number - 1]
                entries.append((name, kinds.DIRECTORY, node.number, reference))
                continue
            layer, row = layers[node >> ROW_BITS], node & ROW_MASK
            kind, number = layer.index.kinds[row], layer.numbers[row]
            reference = references[number - 1]
            if reference == _UNWRITTEN:
                is_file = kind == kinds.FILE
                inode = self._file(layer, row) if is_file else self._other(layer, row, kind)
                reference = references[number - 1] = write(inode)
            entries.append((name, kind, number, reference))
        return entries

    def _id(self, number: int) -> int:
        position = self.ids.get(number)
        if position is None:
            position = self.ids[number] = len(self.ids)
            if position >= _MAX_IDS:
                message = "the image's files have more than 65,535 distinct owners"
                raise ImageUnsupportedError(message)
        return position

    def _xattrs(self, layer: Layer, row: int) -> int:
        number = layer.index.xattrs[row]
        if not number:
            return kinds.NO_XATTRS
        return self.xattr_sets.setdefault(layer.index.xattr_sets[number - 1], len(self.xattr_sets))

    def _common(self, layer: Layer, row: int, inode_type: int, number: int) -> bytes:
        index = layer.index
        return _COMMON(
            inode_type,
            index.modes[row],
            self._id(index.uids[row]),
            self._id(index.gids[row]),
            index.mtimes[row],
            number,
        )

    def _other(self, layer: Layer, row: int, kind: int) -> bytes:
        index = layer.index
        xattrs = self._xattrs(layer, row)
        extended = xattrs != kinds.NO_XATTRS
        inode_type = kind + kinds.EXTENDED if extended else kind
        inode = self._common(layer, row, inode_type, layer.numbers[row]) + _ONE(layer.links[row])
        if kind == kinds.SYMLINK:
            target = index.target(row)
            inode += _ONE(len(target)) + target
        elif kind in kinds.DEVICES:
            inode += _ONE(index.devices[index.details[row]])
        return inode + _ONE(xattrs) if extended else inode

    def _file(self, layer: Layer, row: int) -> bytes:
        """Most inodes of an image are made here, so it is written to call little else."""
        index = layer.index
        file = index.details[row]
        size = index.file_sizes[file]
        start = layer.starts[file]
        holes = 0
        blocks = b""
        if size >= index.block_size:
            sizes = index.file_block_sizes(file)
            holes = sizes.count(0) * index.block_size
            blocks = sizes.tobytes()
        if not (
            layer.links[row] > 1
            or index.xattrs[row]
            or holes
            or size > _MAX_BASIC_POSITION
            or start > _MAX_BASIC_POSITION
        ):
            ids, uid, gid = self.ids, index.uids[row], index.gids[row]
            inode = _FILE(
                kinds.FILE,
                index.modes[row],
                ids[uid] if uid in ids else self._id(uid),
                ids[gid] if gid in ids else self._id(gid),
                index.mtimes[row],
                layer.numbers[row],
                start,
                layer.fragments[file],
                index.file_fragment_offsets[file],
                size,
            )
            return inode + blocks if blocks else inode
        # As mksquashfs has it: never all of the file, even where all of it is holes.
        sparse = min(holes, size - 1) if holes else 0
        detail = _EXTENDED_FILE(
            start,
            size,
            sparse,
            layer.links[row],
            layer.fragments[file],
            index.file_fragment_offsets[file],
            self._xattrs(layer, row),
        )
        return (
            self._common(layer, row, kinds.FILE + kinds.EXTENDED, layer.numbers[row])
            + detail
            + blocks
        )

    def _directory(self, directory: Directory, listing: Listing, parent: int) -> bytes:
        first_block = self._directories.complete_blocks
        reference = self._directories.write(listing.data)
        start, offset = reference >> 16, reference & 0xFFFF
        size = len(listing.data) + _LISTING_EXTRA

        layer, row, number = directory.layer, directory.row, directory.number
        xattrs = kinds.NO_XATTRS if layer is None else self._xattrs(layer, row)
        extended = size > _MAX_BASIC_LISTING or xattrs != kinds.NO_XATTRS or bool(listing.index)
        inode_type = kinds.DIRECTORY + (kinds.EXTENDED if extended else 0)
        if layer is None:
            owner = self._id(0)
            inode = _COMMON(inode_type, _IMPLICIT_MODE, owner, owner, 0, number)
        else:
            inode = self._common(layer, row, inode_type, number)
        if not extended:
            return inode + _DIRECTORY(start, directory.links, size, offset, parent)
        inode += _EXTENDED_DIRECTORY(
            directory.links, size, start, parent, len(listing.index), offset, xattrs
        )
        return inode + self._encode_index(listing, first_block, offset)

    def _encode_index(self, listing: Listing, first_block: int, offset: int) -> bytes:
        return b"".join(
            _INDEX(
                position,
                self._directories.start_of(
                    first_block + (offset + position) // kinds.METADATA_BLOCK
                ),
                len(name) - 1,
            )
            + name
            for position, name in listing.index
        )
