"""The inode and directory tables: every node of the tree as a basic or an extended inode."""

import struct
from array import array

from shared.image import kinds
from shared.image.budget import Budget, WatchedCodec
from shared.image.codecs import BlockCodec
from shared.image.directories import Listing, encode_listing
from shared.image.errors import ImageUnsupportedError
from shared.image.metadata import MetadataWriter
from shared.image.pack_index import Xattrs
from shared.image.tree import Children, Layer, Node, directories_bottom_up, number_nodes

_COMMON = struct.Struct("<HHHHII").pack
_FILE = struct.Struct("<IIII").pack
_EXTENDED_FILE = struct.Struct("<QQQIIII").pack
_DIRECTORY = struct.Struct("<IIHHI").pack
_EXTENDED_DIRECTORY = struct.Struct("<IIIIHHI").pack
_INDEX = struct.Struct("<III").pack
_ONE = struct.Struct("<I").pack

_MAX_IDS = 0xFFFF
_MAX_BASIC_LISTING = 0xFFFF
# Readers count "." and ".." as three bytes of every listing.
_LISTING_EXTRA = 3
_IMPLICIT_MODE = 0o755


class InodeTables:
    """Builds both tables bottom up, so that a directory's entries refer to inodes that exist."""

    def __init__(self, codec: BlockCodec, budget: Budget) -> None:
        self._budget = budget
        self._inodes = MetadataWriter(WatchedCodec(codec, budget))
        self._directories = MetadataWriter(codec)
        self.ids: dict[int, int] = {}
        self.xattr_sets: dict[Xattrs, int] = {}
        # By inode number, from 1: what NFS-style file handles are resolved with.
        self.references: array[int] = array("Q")
        self.root_reference = 0

    @property
    def count(self) -> int:
        return len(self.references)

    def build(self, root: Node) -> tuple[bytes, bytes]:
        """The inode table and the directory table of the tree below `root`."""
        count = number_nodes(root, self._budget)
        self.references = array("Q", bytes(8 * count))
        for directory, parent in directories_bottom_up(root):
            assert directory.children is not None
            for node in directory.children.values():
                if node.reference < 0:
                    self._add_leaf(node)
            # The parent of the root is no inode of the image.
            self._add_directory(directory, directory.children, parent or count + 1)
        self.root_reference = root.reference
        return self._inodes.finish(), self._directories.finish()

    def _place(self, node: Node) -> None:
        node.reference = self.references[node.number - 1] = self._inodes.reference

    def _id(self, number: int) -> int:
        position = self.ids.setdefault(number, len(self.ids))
        if position >= _MAX_IDS:
            raise ImageUnsupportedError("the image's files have more than 65,535 distinct owners")
        return position

    def _xattrs(self, layer: Layer, row: int) -> int:
        number = layer.index.xattrs[row]
        if not number:
            return kinds.NO_XATTRS
        return self.xattr_sets.setdefault(layer.index.xattr_sets[number - 1], len(self.xattr_sets))

    def _common(self, node: Node, layer: Layer, inode_type: int) -> bytes:
        index, row = layer.index, node.row
        return _COMMON(
            inode_type,
            index.modes[row],
            self._id(index.uids[row]),
            self._id(index.gids[row]),
            index.mtimes[row],
            node.number,
        )

    def _add_leaf(self, node: Node) -> None:
        layer = node.layer
        assert layer is not None
        self._place(node)
        xattrs = self._xattrs(layer, node.row)
        if node.kind == kinds.FILE:
            self._add_file(node, layer, xattrs)
            return
        extended = xattrs != kinds.NO_XATTRS
        inode_type = node.kind + kinds.EXTENDED if extended else node.kind
        inode = self._common(node, layer, inode_type) + _ONE(node.links)
        if node.kind == kinds.SYMLINK:
            inode += _ONE(len(node.target)) + node.target
        elif node.kind != kinds.FIFO:
            inode += _ONE(layer.index.devices[layer.index.details[node.row]])
        self._inodes.write(inode + _ONE(xattrs) if extended else inode)

    def _add_file(self, node: Node, layer: Layer, xattrs: int) -> None:
        index = layer.index
        file = index.details[node.row]
        size = index.file_sizes[file]
        fragment = index.file_fragments[file]
        if fragment != kinds.NO_FRAGMENT:
            fragment += layer.first_fragment
        fragment_offset = index.file_fragment_offsets[file]
        start = holes = 0
        blocks = b""
        if size >= index.block_size:
            sizes = index.file_block_sizes(file)
            holes = sizes.count(0) * index.block_size
            start = layer.offset + index.file_starts[file]
            blocks = sizes.tobytes()
        if (
            node.links == 1
            and xattrs == kinds.NO_XATTRS
            and not holes
            and max(size, start) >> 32 == 0
        ):
            detail = _FILE(start, fragment, fragment_offset, size)
            self._inodes.write(self._common(node, layer, kinds.FILE) + detail + blocks)
            return
        # As mksquashfs has it: never all of the file, even where all of it is holes.
        sparse = min(holes, size - 1) if holes else 0
        detail = _EXTENDED_FILE(start, size, sparse, node.links, fragment, fragment_offset, xattrs)
        inode_type = kinds.FILE + kinds.EXTENDED
        self._inodes.write(self._common(node, layer, inode_type) + detail + blocks)

    def _add_directory(self, node: Node, children: Children, parent: int) -> None:
        listing = encode_listing(
            (name, child.kind, child.number, child.reference) for name, child in children.items()
        )
        first_block = self._directories.complete_blocks
        reference = self._directories.reference
        self._directories.write(listing.data)
        start, offset = reference >> 16, reference & 0xFFFF
        size = len(listing.data) + _LISTING_EXTRA

        self._place(node)
        layer = node.layer
        xattrs = kinds.NO_XATTRS if layer is None else self._xattrs(layer, node.row)
        extended = size > _MAX_BASIC_LISTING or xattrs != kinds.NO_XATTRS or bool(listing.index)
        inode_type = kinds.DIRECTORY + (kinds.EXTENDED if extended else 0)
        if layer is None:
            owner = self._id(0)
            inode = _COMMON(inode_type, _IMPLICIT_MODE, owner, owner, 0, node.number)
        else:
            inode = self._common(node, layer, inode_type)
        if not extended:
            self._inodes.write(inode + _DIRECTORY(start, node.links, size, offset, parent))
            return
        inode += _EXTENDED_DIRECTORY(
            node.links, size, start, parent, len(listing.index), offset, xattrs
        )
        self._inodes.write(inode + self._encode_index(listing, first_block, offset))

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
