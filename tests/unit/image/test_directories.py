"""Directory listings: every entry comes back, and the limits of the format are kept."""

import struct
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from shared.image.kinds import METADATA_BLOCK
from shared.image.squashfs.directories import encode_listing

Entry = tuple[bytes, int, int, int]


def decode(data: bytes) -> list[tuple[int, list[Entry]]]:
    """The position of each run and its entries, read as the kernel does."""
    runs = []
    at = 0
    while at < len(data):
        start = at
        count, block, base = struct.unpack_from("<IIi", data, at)
        assert count < 256
        at += 12
        entries = []
        for _ in range(count + 1):
            offset, delta, kind, length = struct.unpack_from("<HhHH", data, at)
            name = data[at + 8 : at + 9 + length]
            entries.append((name, kind, base + delta, block << 16 | offset))
            at += 9 + length
        runs.append((start, entries))
    return runs


def entries_of(count: int, *, block: int = 0, width: int = 6) -> list[Entry]:
    return [(b"%0*d" % (width, n), 2, n + 1, block << 16 | n % 8192) for n in range(count)]


NUMBERS = st.one_of(st.integers(1, 300), st.integers(1, (1 << 31) - 1))
REFERENCES = st.builds(
    lambda block, offset: block << 16 | offset,
    st.sampled_from([0, 700, 9000]),
    st.integers(0, 8191),
)


@given(st.dictionaries(st.binary(min_size=1, max_size=255), st.tuples(NUMBERS, REFERENCES)))
def test_every_entry_comes_back(found: dict[bytes, tuple[int, int]]) -> None:
    entries = [(name, 2, *found[name]) for name in sorted(found)]
    runs = decode(bytes(encode_listing(entries).data))
    assert [entry for _, run in runs for entry in run] == entries


def test_a_run_has_256_entries_at_most() -> None:
    runs = decode(bytes(encode_listing(entries_of(580)).data))
    assert [len(run) for _, run in runs] == [256, 256, 68]


def test_inode_numbers_that_are_far_apart_start_a_new_run() -> None:
    numbers = (1, 32_768, 32_769, 1, 65_536, 65_537)
    entries = [(b"%d" % n, 2, number, n) for n, number in enumerate(numbers)]
    runs = decode(bytes(encode_listing(entries).data))
    assert [len(run) for _, run in runs] == [2, 3, 1]
    assert [number for _, run in runs for _, _, number, _ in run] == list(numbers)


def test_any_name_is_within_one_metadata_block_of_an_index_point() -> None:
    listing = encode_listing(entries_of(2000, width=100))
    starts = {start: run[0][0] for start, run in decode(bytes(listing.data))}
    points = [0, *(position for position, _ in listing.index), len(listing.data)]
    assert all(starts[position] == name for position, name in listing.index)
    assert all(b - a <= METADATA_BLOCK + 12 for a, b in pairwise(points))


def test_a_small_directory_has_no_index() -> None:
    assert not encode_listing(entries_of(100)).index
    assert not encode_listing([]).data
