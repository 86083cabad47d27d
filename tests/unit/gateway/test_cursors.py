"""Cursors say nothing, cannot be made up, and are good at every gateway of the site."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from services.gateway.auth.secrets import SiteSecret
from services.gateway.cursors import Cursor, Cursors, InvalidCursorError

ONE, OTHER = SiteSecret((b"a" * 32,)), SiteSecret((b"b" * 32,))
KEYS = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=600)


@given(KEYS)
def test_what_is_sealed_is_opened_and_fits_into_a_query(key: str) -> None:
    cursor = Cursors(ONE).seal("images", key)
    assert TypeAdapter(Cursor).validate_python(cursor) == cursor
    assert Cursors(ONE).open("images", cursor) == key


@given(st.text(max_size=300))
def test_nobody_else_makes_one(cursor: str) -> None:
    with pytest.raises(InvalidCursorError):
        Cursors(ONE).open("images", cursor)


def test_it_is_good_for_its_own_list_and_site_alone() -> None:
    cursor = Cursors(ONE).seal("images", "cluster/docker/debian")
    for cursors, kind in ((Cursors(ONE), "queue"), (Cursors(OTHER), "images")):
        with pytest.raises(InvalidCursorError):
            cursors.open(kind, cursor)
    rotated = SiteSecret((b"b" * 32, b"a" * 32))
    assert Cursors(rotated).open("images", cursor) == "cluster/docker/debian"


def test_a_changed_letter_is_noticed() -> None:
    cursor = Cursors(ONE).seal("images", "cluster/docker/debian")
    for position in range(len(cursor) - 1):
        letter = "A" if cursor[position] != "A" else "B"
        with pytest.raises(InvalidCursorError):
            Cursors(ONE).open("images", cursor[:position] + letter + cursor[position + 1 :])


def test_its_length_tells_nothing(tmp_path: Path) -> None:
    lengths = {len(Cursors(ONE).seal("images", "x" * count)) for count in range(1, 64)}
    assert len(lengths) == 1
