"""Access lists: what root lets single users into, and keeps as its own.

A user who owned a file could write to it, whatever its mode says: to a memory that all share.
"""

import errno
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

ENTER: Final = 5
READ: Final = 4

_ACL: Final = "system.posix_acl_access"
_HEADER: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<HHI")
_VERSION: Final = 2
_OWNER, _USER, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
_ALL, _NOTHING = 7, 0
_NO_ID: Final = 0xFFFFFFFF


def let(uid: int, place: Path, may: int) -> None:
    """And those who are let in already. OSError where the file system knows no such lists."""
    known = _users(place)
    if uid not in known:
        os.setxattr(place, _ACL, _acl((*known, uid), may))


def _users(place: Path) -> tuple[int, ...]:
    try:
        content = os.getxattr(place, _ACL)
    except OSError as exc:
        if exc.errno == errno.ENODATA:
            return ()
        raise
    entries = _ENTRY.iter_unpack(content[_HEADER.size :])
    return tuple(uid for tag, _, uid in entries if tag == _USER)


def _acl(uids: Iterable[int], may: int) -> bytes:
    entries = [
        (_OWNER, _ALL, _NO_ID),
        *((_USER, may, uid) for uid in sorted(uids)),
        (_GROUP, _NOTHING, _NO_ID),
        (_MASK, may, _NO_ID),
        (_OTHER, _NOTHING, _NO_ID),
    ]
    return _HEADER.pack(_VERSION) + b"".join(_ENTRY.pack(*entry) for entry in entries)
