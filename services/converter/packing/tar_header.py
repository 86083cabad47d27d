"""The parts of a tar header: fields, numbers in their three notations, pax records."""

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from zlib import adler32

from services.converter.packing.errors import LayerInvalidError

BLOCK: Final = 512
_FIELDS = struct.Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12s")
_CHECKSUM = slice(148, 156)
_POSIX = b"ustar\0"
_GNU = b"ustar "
# Of a decimal number: 64 bits have no more.
_DIGITS: Final = 20
_SPARSE_KEYS: Final = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")

Pax = dict[bytes, bytes]


@dataclass(slots=True)
class Header:
    """One header block, before pax records or GNU's long names change what it says."""

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    flag: bytes
    link: bytes
    block: bytes

    @property
    def device(self) -> tuple[int, int]:
        return parse_number(self.block[329:337]), parse_number(self.block[337:345])


def parse_header(block: bytes) -> Header:
    name, mode, uid, gid, size, mtime, checksum, flag, link, magic, *_, prefix, rest = (
        _FIELDS.unpack(block)
    )
    total = _sum(block) - sum(checksum) + 8 * ord(" ")
    promised = parse_number(checksum)
    if promised != total and (block.isascii() or promised != _signed_sum(block)):
        raise LayerInvalidError("a layer's tar has a header whose checksum is wrong")
    path = name.partition(b"\0")[0]
    if magic[:6] == _POSIX:
        # Star keeps two times where others have the end of the prefix.
        prefix = prefix[:131] if rest[8:] == b"tar\0" else prefix
        path = _below(prefix, path)
    elif magic[:6] == _GNU and prefix[0] and not _are_times(prefix[:24]):
        # Go wrote long paths this way until 1.8, and so did Docker.
        path = _below(prefix, path)
    return Header(
        name=path,
        mode=_parse_repeated(mode),
        uid=_parse_repeated(uid),
        gid=_parse_repeated(gid),
        size=parse_number(size),
        mtime=_parse_repeated(mtime),
        flag=flag,
        link=link.partition(b"\0")[0],
        block=block,
    )


def parse_number(field: bytes) -> int:
    """Octal digits, or base 256 when the first bit says so; nothing at all is 0."""
    if field[0] & 0x80:
        # 0x80 is only the mark; all further bits are a two's complement number.
        value = int.from_bytes(field, "big")
        bits = 8 * len(field) - 1
        value &= (1 << bits) - 1
        return value - (1 << bits) if value >> (bits - 1) else value
    digits = field.strip(b" \0").partition(b"\0")[0].strip()
    if digits.strip(b"01234567"):
        raise LayerInvalidError("a layer's tar has a header with a number that is none")
    return int(digits, 8) if digits else 0


# Most entries of a layer have some fields in common.
_parse_repeated = lru_cache(maxsize=1024)(parse_number)


def parse_decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > _DIGITS:
        raise LayerInvalidError(f"a layer's tar has the number {text[:40]!r} in a pax record")
    return int(text)


def parse_signed(text: bytes) -> int:
    return -parse_decimal(text[1:]) if text.startswith(b"-") else parse_decimal(text)


def parse_time(text: bytes) -> int:
    """Whole seconds, rounded down; "-1.5" is -2."""
    whole, _, fraction = text.partition(b".")
    negative = whole.startswith(b"-")
    seconds = parse_decimal(whole[negative:] or b"0")
    later = parse_decimal(fraction[:_DIGITS].rstrip(b"0") or b"0")
    return -seconds - (later > 0) if negative else seconds


def parse_pax(data: bytes) -> Pax:
    """Records "<length> <key>=<value>\\n"; the pairs of sparse format 0.0 become a 0.1 map."""
    records: Pax = {}
    sparse: list[bytes] = []
    at = 0
    while at < len(data) and data[at]:
        space = data.find(b" ", at, at + 20)
        length = data[at:space]
        if space < 0 or not length.isdigit():
            raise _bad_pax()
        end = at + int(length)
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if (
            end > len(data)
            or end <= space + 1
            or data[end - 1] != ord("\n")
            or not (key and equals)
            or b"\0" in key
        ):
            raise _bad_pax()
        if key in _SPARSE_KEYS:
            # Offsets and lengths must alternate; one list of both then is what 0.1 has.
            if key != _SPARSE_KEYS[len(sparse) % 2]:
                raise _bad_pax()
            sparse.append(value)
        records[key] = value
        at = end
    if sparse:
        records[b"GNU.sparse.map"] = b",".join(sparse)
    return records


def _below(directory: bytes, path: bytes) -> bytes:
    directory = directory.partition(b"\0")[0]
    return directory + b"/" + path if directory else path


def _are_times(fields: bytes) -> bool:
    """GNU has the times of access and of change where others have the prefix."""
    try:
        parse_number(fields[:12])
        parse_number(fields[12:])
    except LayerInvalidError:
        return False
    return True


def _sum(block: bytes) -> int:
    # The lower half of this checksum is one more than the sum, as long as that has 16 bits; it is
    # ten times as fast as `sum`, which was a fifth of all work on a header.
    return (adler32(block) & 0xFFFF) - 1 if block.isascii() else sum(block)


def _signed_sum(block: bytes) -> int:
    """Some old programs summed signed characters."""
    plain = block[: _CHECKSUM.start] + b" " * 8 + block[_CHECKSUM.stop :]
    return sum(byte - 256 if byte > 127 else byte for byte in plain)


def _bad_pax() -> LayerInvalidError:
    return LayerInvalidError("a layer's tar has a pax header that cannot be understood")
