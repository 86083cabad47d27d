"""The squashfs 4.0 superblock: 96 bytes that say where everything else is."""

import struct
from dataclasses import dataclass
from typing import Final, Literal, Self, get_args

from shared.image.errors import ImageCorruptError

SIZE: Final = 96
MAGIC: Final = 0x73717368
ABSENT: Final = 0xFFFFFFFFFFFFFFFF
NO_FRAGMENTS_FLAG: Final = 0x0010
EXPORTABLE_FLAG: Final = 0x0080
NO_XATTRS_FLAG: Final = 0x0200

# In the order of the format's numbers, from 1. We write some of them and read most.
Compressor = Literal["gzip", "lzma", "lzo", "xz", "lz4", "zstd"]

_LAYOUT = struct.Struct("<IIIIIHHHHHHQQQQQQQQ")
_COMPRESSORS: Final[tuple[Compressor, ...]] = get_args(Compressor)
_BLOCK_SIZES: Final = frozenset(1 << bits for bits in range(12, 21))


@dataclass(frozen=True, slots=True, kw_only=True)
class Superblock:
    """The fields in which images differ; positions count from the start of the file."""

    inodes: int
    block_size: int
    fragments: int
    compression: Compressor
    flags: int
    ids: int
    root: int
    bytes_used: int
    id_table: int
    xattr_table: int
    inode_table: int
    directory_table: int
    fragment_table: int
    export_table: int

    def pack(self) -> bytes:
        return _LAYOUT.pack(
            MAGIC,
            self.inodes,
            0,  # time of creation: an image's bytes depend on nothing but its content
            self.block_size,
            self.fragments,
            _COMPRESSORS.index(self.compression) + 1,
            self.block_size.bit_length() - 1,
            self.flags,
            self.ids,
            4,
            0,
            self.root,
            self.bytes_used,
            self.id_table,
            self.xattr_table,
            self.inode_table,
            self.directory_table,
            self.fragment_table,
            self.export_table,
        )

    @classmethod
    def unpack(cls, raw: bytes) -> Self:
        if len(raw) < SIZE:
            raise ImageCorruptError("the file is too short to be a squashfs image")
        (
            magic,
            inodes,
            _,
            block_size,
            fragments,
            compressor,
            log,
            flags,
            ids,
            major,
            minor,
            *rest,
        ) = _LAYOUT.unpack(raw[:SIZE])
        if magic != MAGIC:
            raise ImageCorruptError("the file is no squashfs image: its first bytes are different")
        if (major, minor) != (4, 0):
            raise ImageCorruptError(f"squashfs version {major}.{minor} is not supported, 4.0 is")
        if not 0 < compressor <= len(_COMPRESSORS):
            raise ImageCorruptError(f"squashfs compressor {compressor} does not exist")
        if block_size not in _BLOCK_SIZES or block_size != 1 << log:
            raise ImageCorruptError(f"a block size of {block_size} bytes is not valid")
        return cls(
            inodes=inodes,
            block_size=block_size,
            fragments=fragments,
            compression=_COMPRESSORS[compressor - 1],
            flags=flags,
            ids=ids,
            root=rest[0],
            bytes_used=rest[1],
            id_table=rest[2],
            xattr_table=rest[3],
            inode_table=rest[4],
            directory_table=rest[5],
            fragment_table=rest[6],
            export_table=rest[7],
        )
