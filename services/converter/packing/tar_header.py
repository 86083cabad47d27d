"""The parts of a tar header: fields, numbers in their three notations, pax records."""

import struct
from dataclasses import dataclass
from typing import Final

from services.converter.packing.errors import LayerInvalidError

BLOCK: Final = 512
_FIELDS = struct.Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12s")
_CHECKSUM = slice(148, 156)
_POSIX = b"ustar\0"
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
    total = sum(block) - sum(checksum) + 8 * ord(" ")
    if parse_number(checksum) not in {total, _signed_sum(block) if max(block) > 127 else total}:
        raise LayerInvalidError("a layer's tar has a header whose checksum is wrong")
    path = name.partition(b"\0")[0]
    if magic[:6] == _POSIX:
        # Star keeps two times where others have the end of the prefix.
        prefix = prefix[:131] if rest[8:] == b"tar\0" else prefix
        directory = prefix.partition(b"\0")[0]
        path = directory + b"/" + path if directory else path
    return Header(
        name=path,
        mode=parse_number(mode),
        uid=parse_number(uid),
        gid=parse_number(gid),
        size=parse_number(size),
        mtime=parse_number(mtime),
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
    digits = field.partition(b"\0")[0].strip()
    try:
        return int(digits, 8) if digits else 0
    except ValueError as exc:
        raise LayerInvalidError("a layer's tar has a header with a number that is none") from exc


def parse_decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 20:
        raise LayerInvalidError(f"a layer's tar has the number {text[:40]!r} in a pax record")
    return int(text)


def parse_time(text: bytes) -> int:
    """Whole seconds, rounded down; "-1.5" is -2."""
    whole, _, fraction = text.partition(b".")
    negative = whole.startswith(b"-")
    seconds = parse_decimal(whole[negative:] or b"0")
    if not negative:
        return seconds
    return -seconds - (1 if fraction.strip(b"0") else 0)


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


def _signed_sum(block: bytes) -> int:
    """Some old programs summed signed characters."""
    plain = block[: _CHECKSUM.start] + b" " * 8 + block[_CHECKSUM.stop :]
    return sum(byte - 256 if byte > 127 else byte for byte in plain)


def _bad_pax() -> LayerInvalidError:
    return LayerInvalidError("a layer's tar has a pax header that cannot be understood")
