"""Changes to bytes that know nothing of a format but its words.

The random numbers come from outside: from Hypothesis, which can then make an example smaller, or
from a seed of the fuzzer's.
"""

import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

MOST_EDITS: Final = 4
_WIDTHS: Final = (1, 1, 2, 4, 4, 8)
_SMALL: Final = (0, 1, 2, 3, 7, 8, 16, 96, 127, 128, 255, 256, 511, 512, 4095, 4096, 8191, 8192)
_LIMITS: Final = tuple(
    (1 << bits) + more for bits in (15, 16, 24, 31, 32, 48, 62, 63, 64) for more in (-1, 0, 1)
)
_NUMBER: Final = re.compile(rb"[0-9]+")
_JSON_NUMBER: Final = re.compile(rb"(?<=:)[0-9]+")
_NUMBERS: Final = (b"", b"0", b"1", b"-1", b"08", b"0x1", b"1e9", b"65536", b"9" * 18, b"9" * 20)
_LONGEST_PIECE: Final = 64
_LONG: Final = 300

Edit = Callable[[bytearray, Random, Sequence[bytes]], None]


def mutated(data: bytes, random: Random, words: Sequence[bytes] = ()) -> bytes:
    """Some edits, which may follow upon each other."""
    content = bytearray(data)
    for _ in range(random.randint(1, MOST_EDITS)):
        random.choice(_EDITS)(content, random, words)
    return bytes(content)


def renumbered(data: bytes, random: Random) -> bytes:
    """Only numbers of a JSON document are others: it stays one."""
    content = data
    for _ in range(random.randint(1, MOST_EDITS)):
        numbers = list(_JSON_NUMBER.finditer(content))
        if numbers:
            found = random.choice(numbers)
            number = str(interesting(random)).encode()
            content = content[: found.start()] + number + content[found.end() :]
    return content


def interesting(random: Random) -> int:
    """A number that makes a field lie."""
    return random.choice(random.choice((_SMALL, _LIMITS, (random.getrandbits(32),))))


def _place(content: bytearray, random: Random) -> int:
    return random.randint(0, len(content))


def _piece(content: bytearray, random: Random) -> slice:
    start = _place(content, random)
    return slice(start, start + random.randint(1, _LONGEST_PIECE))


def _write_number(content: bytearray, random: Random, _: Sequence[bytes]) -> None:
    at, width = _place(content, random), random.choice(_WIDTHS)
    number = interesting(random) % (1 << 8 * width)
    end = min(at + width, len(content))
    content[at:end] = number.to_bytes(width, random.choice(("little", "big")))[: end - at]


def _flip(content: bytearray, random: Random, _: Sequence[bytes]) -> None:
    if content:
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)


def _overwrite(content: bytearray, random: Random, _: Sequence[bytes]) -> None:
    piece = content[_piece(content, random)]
    at = _place(content, random)
    content[at : at + len(piece)] = piece


def _repeat(content: bytearray, random: Random, _: Sequence[bytes]) -> None:
    piece = content[_piece(content, random)]
    at = _place(content, random)
    content[at:at] = piece * random.choice((1, 1, 2, _LONG // max(1, len(piece))))


def _remove(content: bytearray, random: Random, _: Sequence[bytes]) -> None:
    del content[_piece(content, random)]


def _cut(content: bytearray, random: Random, _: Sequence[bytes]) -> None:
    del content[_place(content, random) :]


def _insert_word(content: bytearray, random: Random, words: Sequence[bytes]) -> None:
    word = random.choice(words) if words else random.randbytes(random.randint(1, 4))
    at = _place(content, random)
    content[at:at] = word


def _replace_word(content: bytearray, random: Random, words: Sequence[bytes]) -> None:
    there = [word for word in words if word in content]
    if there:
        old, new = random.choice(there), random.choice(words)
        content[:] = content.replace(old, new, random.choice((1, -1)))


def _replace_decimal(content: bytearray, random: Random, _: Sequence[bytes]) -> None:
    numbers = list(_NUMBER.finditer(content))
    if numbers:
        found = random.choice(numbers)
        content[found.start() : found.end()] = random.choice(_NUMBERS)


_EDITS: Final[tuple[Edit, ...]] = (
    _write_number,
    _write_number,
    _flip,
    _overwrite,
    _repeat,
    _remove,
    _cut,
    _insert_word,
    _insert_word,
    _replace_word,
    _replace_decimal,
)
