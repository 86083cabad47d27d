"""Reads a tar as it streams by: every dialect that layers are written in, bounded memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from services.converter.packing.errors import LayerInvalidError, LayerTooLargeError
from services.converter.packing.limits import MAX_LINK_TARGET, Limits
from services.converter.packing.tar_bytes import TarInput
from services.converter.packing.tar_header import (
    BLOCK,
    Header,
    Pax,
    parse_decimal,
    parse_header,
    parse_pax,
    parse_signed,
    parse_time,
)
from services.converter.packing.tar_names import normalised
from services.converter.packing.tar_sparse import (
    SparseMap,
    is_pax_sparse,
    read_old_map,
    read_pax_map,
)
from shared.image import kinds

_ZEROS: Final = bytes(BLOCK)
_KINDS: Final = {
    b"0": kinds.FILE,
    b"\0": kinds.FILE,
    b"7": kinds.FILE,
    b"S": kinds.FILE,
    b"1": kinds.HARD_LINK,
    b"2": kinds.SYMLINK,
    b"3": kinds.CHARACTER_DEVICE,
    b"4": kinds.BLOCK_DEVICE,
    b"5": kinds.DIRECTORY,
    b"D": kinds.DIRECTORY,
    b"6": kinds.FIFO,
}
# Of these a header's size says nothing: no data follow, whatever it is. A dump directory has some.
_WITHOUT_DATA: Final = frozenset((b"1", b"2", b"3", b"4", b"5", b"6"))
# The archive's own name. All other kinds might be somebody's files: no runtime unpacks them.
_LABEL: Final = b"V"
# One of pax, two of GNU, and its own: an entry has no use for more.
_HEADERS_PER_ENTRY: Final = 4
_XATTR: Final = b"SCHILY.xattr."
# All that a global header may say of every entry; nothing else of it is kept. No tool writes
# attributes there, and each entry would have them all.
_GLOBAL: Final = frozenset((b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime"))


@dataclass(slots=True)
class Member:
    """One entry; a file's content is read from the reader before the next entry."""

    path: bytes
    kind: int
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    target: bytes
    device: tuple[int, int]
    xattrs: list[tuple[bytes, bytes]]
    sparse: SparseMap | None


class TarReader:
    """Iterate for the members; `read` gives the stored bytes of the one that came last."""

    def __init__(self, data: TarInput, limits: Limits) -> None:
        self._data = data
        self._limits = limits
        self._left = 0
        self._headers = 0
        self._global_pax: Pax = {}
        self._pax: Pax = {}
        self._long_name: bytes | None = None
        self._long_link: bytes | None = None

    def __iter__(self) -> Iterator[Member]:
        while (header := self._next_header()) is not None:
            if self._is_extension(header):
                continue
            self._apply_extensions(header)
            padding = -self._left % BLOCK
            if header.flag != _LABEL:
                yield self._member(header)
            # What nobody wanted.
            self._data.skip(self._left)
            self._data.skip_padding(padding)
            self._left = 0
            self._pax = {}
            self._long_name = self._long_link = None

    def read(self, size: int) -> bytes:
        if size > self._left:
            raise LayerInvalidError("a layer's tar has a sparse file with too little data")
        self._left -= size
        return self._data.take(size)

    def _next_header(self) -> Header | None:
        if self._data.at_end():
            return None
        block = self._data.take(BLOCK)
        if block == _ZEROS:
            # Two blocks of zeros are the end, and so is one at the end of everything.
            if self._data.at_end() or self._data.take(BLOCK) == _ZEROS:
                return None
            raise LayerInvalidError("a layer's tar goes on after a block of zeros")
        self._headers += 1
        if self._headers > _HEADERS_PER_ENTRY * (self._limits.max_entries + 1):
            raise LayerTooLargeError("a layer's tar has too many headers that describe no file")
        return parse_header(block)

    def _is_extension(self, header: Header) -> bool:
        """Whether the entry was about the next one, or about all that follow."""
        flag = header.flag
        if flag not in {b"x", b"X", b"g", b"L", b"K"}:
            return False
        if not 0 <= header.size <= self._limits.max_metadata:
            raise LayerInvalidError("a layer's tar has a header that is too long")
        data = self._data.take(header.size)
        self._data.skip(-header.size % BLOCK)
        if flag == b"L":
            self._long_name = data.partition(b"\0")[0] or None
        elif flag == b"K":
            self._long_link = data.partition(b"\0")[0] or None
        elif flag == b"g":
            records = parse_pax(data).items()
            self._global_pax |= {key: value for key, value in records if key in _GLOBAL}
        else:
            self._pax = parse_pax(data)
        return True

    def _apply_extensions(self, header: Header) -> None:
        """Correct the header, and note how many bytes follow it."""
        if self._global_pax:
            self._pax = self._global_pax | self._pax
        if self._pax:
            # An empty value takes a global one back; an attribute may well be empty.
            pax = {
                key: value for key, value in self._pax.items() if value or key.startswith(_XATTR)
            }
            self._pax = pax
            header.name = pax.get(b"path", header.name)
            header.link = pax.get(b"linkpath", header.link)
            header.size = parse_decimal(pax[b"size"]) if b"size" in pax else header.size
            header.uid = parse_signed(pax[b"uid"]) if b"uid" in pax else header.uid
            header.gid = parse_signed(pax[b"gid"]) if b"gid" in pax else header.gid
            header.mtime = parse_time(pax[b"mtime"]) if b"mtime" in pax else header.mtime
        # In archives that have both, GNU's names are the ones that Go believes.
        if self._long_name is not None:
            header.name = self._long_name
        if self._long_link is not None:
            header.link = self._long_link
        header.name = self._pax.get(b"GNU.sparse.name", header.name)
        # Before there was a flag for directories, a slash marked them.
        if header.flag == b"\0" and header.name.endswith(b"/"):
            header.flag = b"5"
        if header.size < 0:
            raise LayerInvalidError("a layer's tar has an entry of negative size")
        self._left = 0 if header.flag in _WITHOUT_DATA else header.size

    def _member(self, header: Header) -> Member:
        kind = _KINDS.get(header.flag)
        if kind is None:
            raise LayerInvalidError(
                f"a layer's tar has an entry of the unknown type {header.flag!r}, "
                f"which no container runtime unpacks: {header.name[:60]!r}"
            )
        sparse = None
        if kind == kinds.FILE:
            if header.flag == b"S":
                sparse = read_old_map(header.block, self._data.take)
            elif self._pax and is_pax_sparse(self._pax):
                sparse = read_pax_map(self._pax, self.read)
        if kind == kinds.SYMLINK:
            _check_target(header.link)
        if sparse is not None and sum(length for _, length in sparse.regions) != self._left:
            raise LayerInvalidError(
                "a layer's tar has a sparse file that is not as long as its map"
            )
        return Member(
            path=normalised(header.name),
            kind=kind,
            mode=header.mode & 0o7777,
            uid=header.uid,
            gid=header.gid,
            mtime=min(max(header.mtime, 0), 0xFFFFFFFF),
            size=sparse.size if sparse else header.size,
            target=normalised(header.link) if kind == kinds.HARD_LINK else header.link,
            device=header.device if kind in kinds.DEVICES else (0, 0),
            xattrs=[
                (key[len(_XATTR) :], value)
                for key, value in self._pax.items()
                if key.startswith(_XATTR)
            ],
            sparse=sparse,
        )


def _check_target(target: bytes) -> None:
    if not 0 < len(target) <= MAX_LINK_TARGET or b"\0" in target:
        raise LayerInvalidError("a layer's tar has a symlink whose target is no path")
