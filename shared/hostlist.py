"""Hostlists as Slurm writes them: `nid[001-128,200],login1`, to names and back.

A number keeps the width that its range begins with. Several brackets count like the digits of a
number, the last one fastest; after a bracket more text may follow. Whatever the text says, no more
is made of it than it was allowed to mean: ranges are counted before they are written out.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Final

from shared.errors import InvalidInputError

MOST_NAMES: Final = 100_000
MOST_CHARACTERS: Final = 32 << 20
"""More than so many names of the greatest length take."""
MOST_DIGITS: Final = 18
"""Of a number in brackets: what Slurm can read, too."""
LONGEST_NAME: Final = 253

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_TEXT: Final = re.compile(r"[A-Za-z0-9_.-]+")
_RANGE: Final = re.compile(rf"([0-9]{{1,{MOST_DIGITS}}})(?:-([0-9]{{1,{MOST_DIGITS}}}))?")
_LAST_NUMBER: Final = re.compile(rf"(?<![0-9])[0-9]{{1,{MOST_DIGITS}}}$")
_DIGITS: Final = re.compile(rf"(?<![0-9])[0-9]{{1,{MOST_DIGITS}}}(?![0-9])")


class HostlistError(InvalidInputError):
    """A hostlist that cannot be read; the message says where."""

    code = "invalid_hostlist"


@dataclass(frozen=True, slots=True)
class _Range:
    """Numbers from `low` to `high`, at least `width` digits each."""

    low: int
    high: int
    width: int

    def __len__(self) -> int:
        return self.high - self.low + 1

    def __iter__(self) -> Iterator[str]:
        return (str(number).zfill(self.width) for number in range(self.low, self.high + 1))


_Part = tuple[str, ...] | tuple[_Range, ...]
"""What may stand at one place of a name: one text, or what a bracket has."""


@dataclass(slots=True)
class _Reader:
    """A hostlist, and how far it was read."""

    text: str
    most: int
    at: int = 0
    names: dict[str, None] = field(default_factory=dict)
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.most

    def read(self) -> tuple[str, ...]:
        while True:
            self._entry()
            if self.at == len(self.text):
                return tuple(self.names)
            self.at += 1  # the comma

    def _entry(self) -> None:
        """One name, or as many as its brackets make of it."""
        begun = self.at
        parts: list[_Part] = []
        while self.at < len(self.text) and self.text[self.at] != ",":
            parts.append(self._bracket() if self.text[self.at] == "[" else self._literal())
        if not parts:
            raise self._wrong("a name is missing")
        count = 1
        for part in parts:
            count *= sum(map(len, part)) if isinstance(part[0], _Range) else 1
        self.left -= count
        if self.left < 0:
            raise self._wrong(f"this comes to more than {self.most} names", begun)
        for pieces in product(*(_texts(part) for part in parts)):
            self._add("".join(pieces), begun)

    def _add(self, name: str, begun: int) -> None:
        if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
            message = (
                f"'{name[:64]}' is no name of a node: it begins with a letter or a digit and has "
                f"at most {LONGEST_NAME} characters"
            )
            raise self._wrong(message, begun)
        self.names[name] = None

    def _literal(self) -> _Part:
        found = _TEXT.match(self.text, self.at)
        if found is None:
            unexpected = self.text[self.at]
            if unexpected == "]":
                raise self._wrong("']' without its '['")
            raise self._wrong(f"{unexpected!r} is in no name of a node")
        self.at = found.end()
        return (found[0],)

    def _bracket(self) -> _Part:
        opened = self.at
        closed = self.text.find("]", opened)
        if closed < 0:
            raise self._wrong("'[' without its ']'")
        self.at += 1
        ranges: list[_Range] = []
        while True:
            ranges.append(self._range())
            if self.at == closed:
                break
            if self.text[self.at] != ",":
                raise self._wrong("write numbers and ranges, as in [1-4,7]")
            self.at += 1
        self.at += 1
        return tuple(ranges)

    def _range(self) -> _Range:
        found = _RANGE.match(self.text, self.at)
        if found is None:
            raise self._wrong("a number is missing, as in [1-4,7]")
        low, high = int(found[1]), int(found[2] or found[1])
        if high < low:
            raise self._wrong(f"{found[0]} runs backwards")
        self.at = found.end()
        return _Range(low, high, len(found[1]))

    def _wrong(self, problem: str, at: int | None = None) -> HostlistError:
        at = self.at if at is None else at
        near = self.text[max(0, at - 10) : at + 20]
        return HostlistError(f"hostlist: {problem} (character {at + 1}, near '{near}')")


def expand(text: str, most: int = MOST_NAMES) -> tuple[str, ...]:
    """The names, each once, in the order of the text; HostlistError for more than so many."""
    text = text.strip()
    if not text:
        raise HostlistError("hostlist: there is no name in it")
    if len(text) > MOST_CHARACTERS:
        raise HostlistError(f"hostlist: {len(text)} characters are more than {MOST_CHARACTERS}")
    return _Reader(text, most).read()


def fold(names: Iterable[str]) -> str:
    """A short hostlist of these names, each once; one number of each is put into brackets."""
    distinct = sorted(set(names))
    shapes: Counter[tuple[str, str]] = Counter()
    for name in distinct:
        shapes.update((head, tail) for head, _, tail in _splits(name))
    groups: dict[tuple[str, str | None], list[str]] = {}
    for name in distinct:
        # Where there is a choice, the number that most names differ by; else the last.
        splits = [*_splits(name)]
        if not splits:
            groups[name, None] = []
            continue
        head, digits, tail = max(reversed(splits), key=lambda each: shapes[each[0], each[2]])
        groups.setdefault((head, tail), []).append(digits)
    return ",".join(_folded(head, numbers, tail) for (head, tail), numbers in groups.items())


def _folded(head: str, numbers: list[str], tail: str | None) -> str:
    if tail is None:
        return head
    if len(numbers) == 1:
        return f"{head}{numbers[0]}{tail}"
    runs: list[tuple[str, str]] = []
    for number in sorted(numbers, key=lambda digits: (len(digits), digits)):
        if runs and number == str(int(runs[-1][1]) + 1).zfill(len(runs[-1][0])):
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    ranges = (low if low == high else f"{low}-{high}" for low, high in runs)
    # Slurm reads on behind a bracket only up to another one.
    last = _LAST_NUMBER.search(tail)
    if last is not None:
        tail = f"{tail[: last.start()]}[{last[0]}]"
    return f"{head}[{','.join(ranges)}]{tail}"


def _splits(name: str) -> Iterator[tuple[str, str, str]]:
    """The name around each of its numbers."""
    for found in _DIGITS.finditer(name):
        yield name[: found.start()], found[0], name[found.end() :]


def _texts(part: _Part) -> list[str]:
    texts: list[str] = []
    for each in part:
        texts += [each] if isinstance(each, str) else each
    return texts
