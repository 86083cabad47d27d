"""Tables: whatever they hold, they fit, and nothing in them steers a terminal."""

import os
import pty
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.tables import GREEN, Column, Style, drawn, painted, shortened, table, width_of

COLUMNS = (
    Column("REFERENCE", worth=9, elastic=True),
    Column("SYSTEM", worth=1),
    Column("SIZE", worth=5, right=True),
)
ROWS = [("registry.example.org:5000/group/solver:2.1", "daint", "3.5 MB"), ("a:1", "x", "12 B")]

cells = st.text(max_size=40)
WIDE = "\N{CJK UNIFIED IDEOGRAPH-4E2D}"


@given(
    rows=st.lists(st.tuples(cells, cells, cells), max_size=6),
    width=st.integers(1, 120),
    header=st.booleans(),
    elastic=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_every_line_fits_and_every_row_is_one_line(
    rows: list[tuple[str, str, str]], width: int, header: bool, elastic: tuple[bool, bool, bool]
) -> None:
    columns = [Column(f"C{at}", worth=at, elastic=each) for at, each in enumerate(elastic)]
    lines = list(drawn(columns, rows, width, Style(header=header)))
    assert len(lines) == (len(rows) + header if rows else 0)
    for line in lines:
        assert width_of(line) <= width
        assert all(char.isprintable() for char in line)


@given(text=st.text(), width=st.integers(0, 60))
def test_a_shortened_text_fits_and_keeps_both_ends(text: str, width: int) -> None:
    short = shortened(text, width)
    assert width_of(short) <= width
    if width_of(text) <= width:
        assert short == text
    elif width > 2:
        head, _, tail = short.partition("…")
        assert text.startswith(head)
        assert text.endswith(tail)


def test_a_pipe_gets_everything_in_aligned_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert table(COLUMNS, ROWS, "none")
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "REFERENCE                                   SYSTEM    SIZE",
        "registry.example.org:5000/group/solver:2.1  daint   3.5 MB",
        "a:1                                         x         12 B",
    ]


def test_too_narrow_shortens_references_in_the_middle_before_it_drops_columns() -> None:
    lines = list(drawn(COLUMNS, ROWS, 40))
    assert lines[0].split() == ["REFERENCE", "SYSTEM", "SIZE"]
    reference = lines[1].split()[0]
    assert reference.startswith("registry.")
    assert reference.endswith(":2.1")
    assert "…" in reference


def test_what_matters_least_goes_first() -> None:
    assert next(drawn(COLUMNS, ROWS, 20)).split() == ["REFERENCE", "SIZE"]
    assert next(drawn(COLUMNS, ROWS, 10)).split() == ["REFERENCE"]


def test_a_column_with_a_larger_least_width_stays_readable_while_others_go() -> None:
    wide = (Column("REFERENCE", worth=9, elastic=True, least=24), *COLUMNS[1:])
    lines = list(drawn(wide, ROWS, 32))
    assert lines[0].split() == ["REFERENCE", "SIZE"]
    assert width_of(lines[1].split()[0]) == 24
    assert width_of(next(drawn(wide, ROWS, 10))) <= 10, "it may be all there is"


def test_wide_and_combining_characters_are_counted_as_a_terminal_shows_them() -> None:
    assert width_of(WIDE) == 2
    assert width_of("e\N{COMBINING ACUTE ACCENT}") == 1
    head, row = drawn([Column("A"), Column("B")], [(WIDE * 2, "x")], None)
    assert head == "A     B"
    assert row == f"{WIDE * 2}  x"


def test_scripts_get_rows_alone_or_names_alone(capsys: pytest.CaptureFixture[str]) -> None:
    table(COLUMNS, ROWS[1:], "none", Style(header=False))
    table(COLUMNS, ROWS[1:], "none", Style(quiet=True))
    assert not table(COLUMNS, [], "none", Style(quiet=True))
    assert not table(COLUMNS, [], "Nothing here.")
    assert capsys.readouterr().out == "a:1  x  12 B\na:1\nNothing here.\n"


def test_a_pipe_gets_no_colour() -> None:
    assert painted("READY", GREEN) == "READY"


@pytest.mark.parametrize(
    ("env", "coloured"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
    ],
)
def test_a_terminal_gets_colour_unless_somebody_minds(env: dict[str, str], coloured: bool) -> None:
    shown = _on_a_terminal(env | {"COLUMNS": "80"})
    assert ("\x1b[32mREADY" in shown) is coloured
    assert ("\x1b" in shown) is coloured
    assert "READY" in shown


def test_a_terminal_s_width_is_kept() -> None:
    lines = _on_a_terminal({"TERM": "dumb", "COLUMNS": "24"}).splitlines()
    assert max(map(len, lines)) <= 24


PROGRAM = """
from cli.tables import Column, state_colour, table
table((Column("STATE", paint=state_colour), Column("REF", elastic=True)), [("READY", "x" * 90)], "")
"""


def _on_a_terminal(env: dict[str, str]) -> str:
    ours, theirs = pty.openpty()
    kept = {name: os.environ[name] for name in ("PATH",) if name in os.environ}
    try:
        subprocess.run(
            [sys.executable, "-c", PROGRAM], stdout=theirs, env=kept | env, timeout=60, check=True
        )
        return os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
