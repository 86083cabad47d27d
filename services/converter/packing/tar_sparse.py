"""Where the data of sparse files are: GNU's old map, and the pax formats 0.0, 0.1 and 1.0."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from services.converter.packing.errors import LayerInvalidError
from services.converter.packing.tar_header import BLOCK, Pax, parse_decimal, parse_number

_MAX_REGIONS: Final = 1 << 20
_LONGEST_NUMBER: Final = 20
_OLD_MAP: Final = 386
_OLD_ENTRIES: Final = 4
_OLD_MORE: Final = 482
_OLD_SIZE: Final = slice(483, 495)
_OLD_BLOCK_ENTRIES: Final = 21
_OLD_BLOCK_MORE: Final = 504
_ENTRY: Final = 24

Regions = list[tuple[int, int]]
Take = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class SparseMap:
    """A file's size, and the offsets and lengths of its data in their order."""

    size: int
    regions: Regions


def is_pax_sparse(pax: Pax) -> bool:
    return any(key in pax for key in (b"GNU.sparse.major", b"GNU.sparse.map", b"GNU.sparse.size"))


def read_old_map(header: bytes, take: Take) -> SparseMap:
    """From the header block and the extension blocks behind it."""
    regions = _old_entries(header, _OLD_MAP, _OLD_ENTRIES)
    more = header[_OLD_MORE]
    while more:
        block = take(BLOCK)
        regions += _old_entries(block, 0, _OLD_BLOCK_ENTRIES)
        more = block[_OLD_BLOCK_MORE]
        if len(regions) > _MAX_REGIONS:
            raise _bad_map()
    return _checked(parse_number(header[_OLD_SIZE]), regions)


def read_pax_map(pax: Pax, take: Take) -> SparseMap:
    """Format 1.0 has its map in front of the data, the others have it in the pax header."""
    if pax.get(b"GNU.sparse.major") == b"1":
        size = _real_size(pax)
        numbers = _numbers(take)
        count = next(numbers)
        if count > _MAX_REGIONS:
            raise _bad_map()
        flat = list(islice(numbers, 2 * count))
    else:
        size = _real_size(pax)
        text = pax.get(b"GNU.sparse.map", b"")
        flat = [parse_decimal(number) for number in text.split(b",")] if text else []
    if len(flat) % 2:
        raise _bad_map()
    return _checked(size, list(zip(flat[::2], flat[1::2], strict=True)))


def _real_size(pax: Pax) -> int:
    """Formats 0.0 and 0.1 have the one key, format 1.0 has the other."""
    return parse_decimal(pax.get(b"GNU.sparse.realsize") or pax.get(b"GNU.sparse.size") or b"")


def _old_entries(block: bytes, start: int, count: int) -> Regions:
    found = []
    for at in range(start, start + count * _ENTRY, _ENTRY):
        if not block[at]:
            break
        offset, length = block[at : at + 12], block[at + 12 : at + _ENTRY]
        found.append((parse_number(offset), parse_number(length)))
    return found


def _numbers(take: Take) -> Iterator[int]:
    """Numbers, each on its line, in whole blocks; the rest of the last block is padding."""
    text = b""
    while True:
        line, newline, rest = text.partition(b"\n")
        if newline:
            text = rest
            yield parse_decimal(line)
        elif len(text) > _LONGEST_NUMBER:
            raise _bad_map()
        else:
            text += take(BLOCK)


def _checked(size: int, regions: Regions) -> SparseMap:
    end = 0
    for offset, length in regions:
        if offset < end or length < 0 or offset + length > size:
            raise _bad_map()
        end = offset + length
    return SparseMap(size, [region for region in regions if region[1]])


def _bad_map() -> LayerInvalidError:
    return LayerInvalidError("a layer's tar has a sparse file whose map makes no sense")
