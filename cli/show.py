"""How the commands print: bytes, times, JSON, and what others have written."""

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cli.http import Json

SHORT_ID = 12
_UNUSUAL: Final = re.compile(r"[^ -~\n]")


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
    said = str(text)
    if said.isprintable():
        return said
    return "".join(
        char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}"
        for char in said
    )


def short_reference(reference: str) -> str:
    """As people write it: docker.io/library/debian:12 is debian:12."""
    for usual in ("docker.io/library/", "docker.io/"):
        if reference.startswith(usual):
            return reference.removeprefix(usual)
    return reference


def pull_command(reference: str, system: str | None, url: str | None = None) -> str:
    """What to type to pull an image."""
    where = ("--url", url) if url else ()
    named = ("--system", system) if system else ()
    return shlex.join(["dray", "pull", *where, *named, reference])


def document(value: "Json") -> None:
    """One JSON document on stdout; what could steer a terminal is escaped, as JSON may."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    print(_UNUSUAL.sub(lambda found: _escaped(found[0]), text))


def items(values: "Iterable[Json]") -> None:
    """The same of a list, as it comes: what is many is not gathered first."""
    print('{\n  "items": [', end="")
    between = "\n"
    for value in values:
        text = json.dumps(value, ensure_ascii=False)
        print(between, "    ", _UNUSUAL.sub(lambda found: _escaped(found[0]), text), sep="", end="")
        between = ",\n"
    print("\n  ]\n}")


def _escaped(char: str) -> str:
    return char if char.isprintable() else json.dumps(char)[1:-1]


def facts(lines: Mapping[str, str]) -> None:
    """Names and values; a value may have several lines."""
    for name, value in lines.items():
        first, *more = plain(value).split("\n")
        print(f"{name:<11} {first}".rstrip())
        for line in more:
            print(f"{'':<11} {line}")
