"""Where packs came from: remembered, never made up."""

from pathlib import Path

from shared.store.origins import (
    MOST_BLOBS,
    NOWHERE,
    Origin,
    forget_origin,
    forget_origins_without,
    note_origin,
    origin_path,
    read_origin,
)

KEY = "a" * 64
OTHER = "b" * 64


def blob(number: int) -> tuple[str, str]:
    return "registry.example.org", f"sha256:{number:064x}"


def test_origins_add_up_and_the_public_makes_them_needless(tmp_path: Path) -> None:
    assert read_origin(tmp_path, KEY) == NOWHERE
    note_origin(tmp_path, KEY, Origin(blobs=(blob(1),)))
    note_origin(tmp_path, KEY, Origin(blobs=(blob(2), blob(1))))
    assert read_origin(tmp_path, KEY) == Origin(blobs=(blob(1), blob(2)))
    note_origin(tmp_path, KEY, Origin(public=True))
    note_origin(tmp_path, KEY, Origin(blobs=(blob(3),)))
    assert read_origin(tmp_path, KEY) == Origin(public=True)
    assert read_origin(tmp_path, OTHER) == NOWHERE


def test_they_are_bounded(tmp_path: Path) -> None:
    for number in range(MOST_BLOBS + 3):
        note_origin(tmp_path, KEY, Origin(blobs=(blob(number),)))
    known = read_origin(tmp_path, KEY).blobs
    assert (len(known), known[-1]) == (MOST_BLOBS, blob(MOST_BLOBS + 2))


def test_a_damaged_file_says_nothing_and_is_written_anew(tmp_path: Path) -> None:
    note_origin(tmp_path, KEY, Origin(public=True))
    for damage in (b"", b"{", b'{"public": "perhaps"}', b"\0" * 4096, b'{"blobs": [["x", "y"]]}'):
        origin_path(tmp_path, KEY).write_bytes(damage)
        assert read_origin(tmp_path, KEY) == NOWHERE
        note_origin(tmp_path, KEY, Origin(blobs=(blob(1),)))
        assert read_origin(tmp_path, KEY) == Origin(blobs=(blob(1),))


def test_they_go_with_their_packs(tmp_path: Path) -> None:
    for key in (KEY, OTHER):
        note_origin(tmp_path, key, Origin(public=True))
    written = origin_path(tmp_path, OTHER).stat().st_mtime
    assert forget_origins_without(tmp_path, {KEY}, written - 1) == 0  # perhaps it comes just now
    assert forget_origins_without(tmp_path, {KEY}, written + 1) == 1
    assert read_origin(tmp_path, OTHER) == NOWHERE
    forget_origin(tmp_path, KEY)
    forget_origin(tmp_path, KEY)
    assert read_origin(tmp_path, KEY) == NOWHERE
