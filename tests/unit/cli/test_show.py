"""How numbers, times and foreign text are printed."""

import io
import json
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli import show


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (99_940, "99.9 kB"),
        (99_960, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (3_456_789, "3.5 MB"),
        (5e15, "5000 TB"),
    ],
)
def test_sizes(count: float, text: str) -> None:
    assert show.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.94, "59.9 s"), (61, "1 min 01 s"), (7260, "2 h 01 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert show.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s ago"), (90, "90 s ago"), (300, "5 min ago"), (200_000, "2 d ago")],
)
def test_ages(seconds: float, text: str) -> None:
    assert show.age(datetime.now(UTC) - timedelta(seconds=seconds)) == text


@given(st.text())
def test_foreign_text_cannot_steer_a_terminal(text: str) -> None:
    shown = show.plain(text)
    assert len(shown) == len(text)
    assert all(char.isprintable() or char in "\n\t" for char in shown)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_json_says_the_same_without_anything_that_steers_a_terminal(
    value: dict[str, object],
) -> None:
    with redirect_stdout(io.StringIO()) as out:
        show.document(value)
    assert json.loads(out.getvalue()) == value
    assert all(char.isprintable() or char == "\n" for char in out.getvalue())
