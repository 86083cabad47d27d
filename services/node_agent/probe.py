"""The smallest squashfs images, one per codec: what mounts them can mount ours.

Kernel configurations can be hidden, stale or absent; a mount that succeeded cannot lie. The probe
holds one empty directory and stores its tables uncompressed, so no codec is needed to make it,
but kernel and squashfuse look their decompressor up before they read anything else.
"""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final, get_args

from services.node_agent.errors import MounterUnavailableError, MountFailedError
from services.node_agent.mounter import Source
from shared.image.recipe import Compression

COMPRESSORS: Final[dict[int, str]] = {1: "gzip", 2: "lzma", 3: "lzo", 4: "xz", 5: "lz4", 6: "zstd"}
MAGIC: Final = 0x73717368
_RAW: Final = 0x8000
_ABSENT: Final = 0xFFFFFFFFFFFFFFFF
# inodes, data and fragments stored raw, no fragments, no xattrs, ids stored raw
_FLAGS: Final = 0x0001 | 0x0002 | 0x0008 | 0x0010 | 0x0200 | 0x0800
_LOOP_BLOCK: Final = 4096


def probe_image(codec: Compression) -> bytes:
    number = next(key for key, name in COMPRESSORS.items() if name == codec)
    root = struct.pack("<HHHHIIIIHHI", 1, 0o755, 0, 0, 0, 1, 0, 2, 3, 0, 2)
    inodes = struct.pack("<H", _RAW | len(root)) + root
    ids = struct.pack("<HI", _RAW | 4, 0)
    inode_table = 96
    directory_table = id_block = inode_table + len(inodes)
    id_table = id_block + len(ids)
    used = id_table + 8
    superblock = struct.pack(
        "<IIIIIHHHHHHQQQQQQQQ",
        *(MAGIC, 1, 0, 131072, 0, number, 17, _FLAGS, 1, 4, 0, 0, used, id_table, _ABSENT),
        *(inode_table, directory_table, _ABSENT, _ABSENT),
    )
    # A loop device has whole sectors only.
    return (superblock + inodes + ids + struct.pack("<Q", id_block)).ljust(_LOOP_BLOCK, b"\0")


def mountable_codecs(
    scratch: Path, mount: Callable[[Source, Path], None], unmount: Callable[[Path], None]
) -> frozenset[str]:
    """Try each codec in `scratch`; none mountable: MounterUnavailableError with the reason."""
    scratch.mkdir(parents=True, exist_ok=True)
    scratch = scratch.resolve()  # as the kernel names it
    image, target = scratch / "probe.squashfs", scratch / "probe"
    found: set[str] = set()
    problem = ""
    for codec in get_args(Compression):
        image.write_bytes(probe_image(codec))
        target.mkdir(exist_ok=True)
        try:
            mount(Source(image), target)
        except MountFailedError as exc:
            problem = exc.message
        else:
            found.add(codec)
        finally:
            unmount(target)
            image.unlink()
    if not found:
        raise MounterUnavailableError(problem)
    return frozenset(found)
