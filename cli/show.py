"""How the commands print: bytes, times, tables, JSON. rich is loaded only for a terminal."""

import json
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from cli.http import Json

SHORT_ID = 12


def size(count: float) -> str:
    """Bytes for people, in the decimal units that registries and disks use."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 999.5 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.95 else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def age(since: datetime) -> str:
    seconds = max(0, int((datetime.now(UTC) - since).total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"


def plain(text: object) -> str:
    """Text of others without anything that could steer a terminal."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}"
        for char in str(text)
    )


def pull_command(reference: str, system: str | None) -> str:
    """What to type to pull an image."""
    named = ("--system", system) if system else ()
    return shlex.join(["dray", "pull", *named, reference])


def document(value: Json) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], empty: str) -> None:
    """A table for a terminal; aligned columns, one line per row, for a pipe."""
    if not rows:
        print(empty)
        return
    cells = [[plain(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _drawn(headings, cells)
        return
    lines = [list(headings), *cells]
    widths = [max(len(line[at]) for line in lines) for at in range(len(headings))]
    for line in lines:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )


def _drawn(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    # As wide as for a pipe: what fits 80 columns there fits them here.
    drawn = Table(
        *headings, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for row in rows:
        drawn.add_row(*(Text(cell, overflow="fold") for cell in row))
    Console(highlight=False).print(drawn)
