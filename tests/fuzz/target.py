"""What a fuzz target is: a function of bytes that raises where something is wrong, and seeds.

Refusing its input is right, by the errors that it names; all else that comes out is a finding.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.fuzz.mutate import mutated


def _nothing(data: bytes) -> bytes:
    return data


@dataclass(frozen=True, slots=True)
class Target:
    """One parser."""

    run: Callable[[bytes], None]
    seeds: Callable[[], Sequence[bytes]]
    words: tuple[bytes, ...] = ()
    """What its inputs are made of: a fuzzer would find each by chance only."""
    repair: Callable[[bytes], bytes] = _nothing
    """Puts right what would end all reading at once, such as checksums."""
    change: Callable[[bytes, Random], bytes] | None = None
    """Changes that know the format, instead of those that know bytes only."""
    largest: int = 4096
    examples: int = field(default=40, kw_only=True)
    """In the ordinary tests."""

    def changed(self, data: bytes, random: Random) -> bytes:
        """Another input, most often one that is nearly right."""
        if self.change is not None:
            return self.change(data, random)[: self.largest]
        new = mutated(data, random, self.words)[: self.largest]
        return self.repair(new) if random.randrange(8) else new


@contextmanager
def in_memory(content: bytes) -> Iterator[tuple[int, Path]]:
    """A file with this content, as a descriptor and as a path."""
    fd = os.memfd_create("fuzz")
    try:
        os.write(fd, content)
        yield fd, Path(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def require_inside(path: bytes) -> None:
    """It is below a root, by plain names; the root itself is b""."""
    names = path.split(b"/") if path else []
    assert not {b"", b".", b".."} & set(names), f"{path!r} leads elsewhere"
    assert b"\0" not in path
