"""Tables that fit: a terminal's width is kept, a pipe gets everything in aligned columns.

Where a row would not fit, columns give way: elastic ones are shortened in the middle, then those
that matter least are left out. One row is always one line.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from cli.show import plain

GAP: Final = "  "
ELLIPSIS: Final = "…"
LEAST: Final = 8
"""No column is shortened below this, unless it says so itself."""

RED, GREEN, YELLOW, BOLD = "31", "32", "33", "1"
Paint = Callable[[str], str | None]
"""The colour of a cell, by its text."""


@dataclass(frozen=True, slots=True)
class Column:
    """`worth`: where there is too little room, columns of the smallest go first.

    An elastic one is not shortened below `least` as long as others can go instead.
    """

    heading: str
    worth: int = 5
    elastic: bool = False
    right: bool = False
    paint: Paint | None = None
    least: int = LEAST


@dataclass(frozen=True, slots=True)
class Style:
    """How somebody wants a table: `quiet` is the first column alone."""

    header: bool = True
    quiet: bool = False


PLAIN: Final = Style()


def state_colour(text: str) -> str | None:
    """How a state word is painted."""
    if text in {"READY", "STAGED", "IN_PLACE", "RELEASED", "ALIVE"}:
        return GREEN
    return RED if text in {"FAILURE", "FAILED", "LOST"} else YELLOW


def table(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], empty: str, style: Style = PLAIN
) -> bool:
    """Print it; False where there was nothing but `empty` to print."""
    if not rows and style.header and not style.quiet:
        print(empty)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in drawn(columns, rows, width, style, colour=wants_colour()):
        print(line)
    return bool(rows)


def wants_colour() -> bool:
    """No colour for pipes, for terminals that cannot, and for people who will not."""
    unwanted = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not unwanted


def painted(text: str, colour: str) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if wants_colour() else text


def drawn(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    width: int | None,
    style: Style = PLAIN,
    *,
    colour: bool = False,
) -> Iterator[str]:
    """The lines, none wider than `width`."""
    if style.quiet:
        yield from (_clean(row[0]) for row in rows)
        return
    if not rows:
        return
    cells = [[_clean(cell) for cell in row] for row in rows]
    headings = [column.heading for column in columns]
    natural = [
        max(width_of(row[at]) for row in ([headings, *cells] if style.header else cells))
        for at in range(len(columns))
    ]
    widths = natural if width is None else fitted(columns, natural, width)
    if style.header:
        yield _line(columns, headings, widths, [BOLD if colour else None] * len(columns))
    for row in cells:
        colours = [
            column.paint(cell) if colour and column.paint else None
            for column, cell in zip(columns, row, strict=True)
        ]
        yield _line(columns, row, widths, colours)


def fitted(columns: Sequence[Column], natural: Sequence[int], width: int) -> list[int]:
    """The columns' widths; 0: left out."""
    shown = [at for at, wanted in enumerate(natural) if wanted]
    while True:
        least = {
            at: min(natural[at], columns[at].least) if columns[at].elastic else natural[at]
            for at in shown
        }
        room = width - len(GAP) * (len(shown) - 1) - sum(least.values())
        if room >= 0 or len(shown) == 1:
            break
        # Of those that matter equally, the last.
        shown.remove(min(reversed(shown), key=lambda at: columns[at].worth))
    widths = [0] * len(natural)
    for at, wanted in least.items():
        widths[at] = min(wanted, width)
    # The shortest get what they want first: what is left goes to the longest.
    elastic = sorted((at for at in shown if columns[at].elastic), key=lambda at: natural[at])
    for position, at in enumerate(elastic):
        given = min(natural[at] - widths[at], max(0, room) // (len(elastic) - position))
        widths[at] += given
        room -= given
    return widths


def shortened(text: str, width: int) -> str:
    """At most so wide, without its middle: both ends of a reference tell something."""
    if width_of(text) <= width:
        return text
    if width <= 1:
        return ELLIPSIS[:width]
    end = (width - 1) // 2
    head = _taken(text, width - 1 - end)
    tail = _taken(text[::-1], end)[::-1]
    return f"{head}{ELLIPSIS}{tail}"


def width_of(text: str) -> int:
    """In a terminal's cells: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(map(_cells, text))


def _cells(char: str) -> int:
    import unicodedata  # noqa: PLC0415 - most texts need no table of Unicode

    if unicodedata.combining(char) or unicodedata.category(char) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(char) in {"W", "F"} else 1


def _taken(text: str, width: int) -> str:
    taken = 0
    for at, char in enumerate(text):
        taken += _cells(char)
        if taken > width:
            return text[:at]
    return text


def _clean(cell: str) -> str:
    return plain(cell).replace("\n", " ").replace("\t", " ")


def _line(
    columns: Sequence[Column],
    cells: Sequence[str],
    widths: Sequence[int],
    colours: Sequence[str | None],
) -> str:
    shown = [
        (column, shortened(cell, width), width, colour)
        for column, cell, width, colour in zip(columns, cells, widths, colours, strict=True)
        if width
    ]
    parts = []
    for column, text, width, colour in shown:
        space = " " * (width - width_of(text))
        inked = f"\x1b[{colour}m{text}\x1b[0m" if colour else text
        parts.append(space + inked if column.right else inked + space)
    return GAP.join(parts).rstrip()
