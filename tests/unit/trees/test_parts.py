"""Rows in a spool, and where a tree is cut."""

import tempfile
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.converter.trees.errors import TreeChangedError
from services.converter.trees.parts import (
    LEAST_WEIGHT,
    MAX_PARTS,
    Part,
    cut,
    least_weight,
    weight_of,
)
from services.converter.trees.rows import decoded, encoded
from shared.image import kinds
from shared.image.tar.row import Row

U64 = st.integers(0, (1 << 64) - 1)
I64 = st.integers(-(1 << 63), (1 << 63) - 1)
U32 = st.integers(0, (1 << 32) - 1)
ROWS = st.builds(
    Row,
    path=st.binary(max_size=4096),
    kind=st.integers(1, 9),
    mode=st.integers(0, 0o7777),
    uid=U32,
    gid=U32,
    mtime=I64,
    changed=I64,
    size=U64,
    stored=U64,
    place=U64,
    device=U64,
    target=st.binary(max_size=4095),
)
LEAST = 1 << 20


def file(name: str, size: int = 1000, changed: int = 1) -> Row:
    path = name.encode()
    return Row(path, kinds.FILE, 0o644, 0, 0, 1, changed, size, size, 1, 0, b"")


def tree(count: int) -> list[Row]:
    return [file(f"{number:06}", number * 7919 % 300_000) for number in range(count)]


@given(rows=st.lists(ROWS, max_size=20), before=st.binary(max_size=100))
def test_rows_come_back_from_the_spool(rows: Sequence[Row], before: bytes) -> None:
    data = b"".join(map(encoded, rows))
    with tempfile.TemporaryFile() as spool:
        spool.write(before + data + b"after")
        spool.flush()
        assert list(decoded(spool.fileno(), len(before), len(data))) == rows


def test_many_rows_are_read_in_pieces() -> None:
    rows = tree(30_000)
    with tempfile.TemporaryFile() as spool:
        length = spool.write(b"".join(map(encoded, rows)))
        spool.flush()
        assert list(decoded(spool.fileno(), 0, length)) == rows


@pytest.mark.parametrize("missing", [1, 10, 60, 4000])
def test_a_spool_that_was_cut_is_no_shorter_tree(missing: int) -> None:
    data = b"".join(map(encoded, tree(100)))
    with tempfile.TemporaryFile() as spool:
        spool.write(data[:-missing])
        spool.flush()
        with pytest.raises(TreeChangedError):
            list(decoded(spool.fileno(), 0, len(data)))


def test_parts_are_all_of_the_tree() -> None:
    rows = tree(3000)
    parts = cut(rows, LEAST, b"tree")
    assert sum(part.rows for part in parts) == len(rows)
    assert sum(part.size for part in parts) == sum(row.stored for row in rows)
    end = 0
    for part in parts:
        assert part.start == end
        end += part.length
    assert end == sum(len(encoded(row)) for row in rows)
    assert all(weight_of(part.rows, part.size) >= LEAST for part in parts[:-1])
    assert all(weight_of(part.rows, part.size) < 4 * LEAST for part in parts)


@pytest.mark.parametrize("at", [0, 700, 1500])
@pytest.mark.parametrize("size", [0, 1 << 19, 1 << 26])
def test_a_file_more_changes_few_parts(at: int, size: int) -> None:
    rows = tree(3000)
    before = stamps(cut(rows, LEAST, b"tree"))
    rows.insert(at, file(f"{at:06}~", size))
    after = stamps(cut(rows, LEAST, b"tree"))
    assert len(before) > 100
    assert len(after - before) <= 6


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row._replace(size=5),
        lambda row: row._replace(changed=7),
        lambda row: row._replace(mode=0),
        lambda row: row._replace(place=2),
    ],
)
def test_whatever_changes_changes_one_stamp(change: Callable[[Row], Row]) -> None:
    rows = tree(500)
    before = stamps(cut(rows, LEAST, b"tree"))
    rows[250] = change(rows[250])
    assert len(stamps(cut(rows, LEAST, b"tree")) - before) == 1


def test_what_a_file_takes_on_disk_is_no_change() -> None:
    rows = [file(f"{number}") for number in range(8)]
    later = [row._replace(stored=0) for row in rows]
    assert stamps(cut(rows, LEAST, b"")) == stamps(cut(later, LEAST, b""))


def test_equal_rows_of_another_tree_are_others() -> None:
    rows = tree(10)
    assert not stamps(cut(rows, LEAST, b"one")) & stamps(cut(rows, LEAST, b"other"))


@pytest.mark.parametrize(
    ("rows", "size"), [(0, 0), (1, 0), (10_116_157, 892 << 30), (16_000_000, 1 << 50)]
)
def test_there_are_never_too_many_parts(rows: int, size: int) -> None:
    least = least_weight(rows, size)
    assert least >= LEAST_WEIGHT
    assert weight_of(rows, size) / least <= MAX_PARTS


def stamps(parts: Sequence[Part]) -> set[str]:
    return {part.stamp for part in parts}
