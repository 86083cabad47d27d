"""Makes an input that fails smaller, as long as it fails in the same place: a child of `__main__`.

python -m tests.fuzz.reduce TARGET FILE: the file is replaced, and how it fails is printed.
"""

import sys
import time
import traceback
from pathlib import Path
from typing import Final

from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

_SECONDS: Final = 60.0

How = tuple[str, str, int]


def failure(target: Target, data: bytes) -> tuple[How, str] | None:
    """Which error comes out of which line, and all that Python says of it."""
    try:
        target.run(data)
    except Exception as exc:  # noqa: BLE001 - whatever a fuzzer found
        last = traceback.extract_tb(exc.__traceback__)[-1]
        return (type(exc).__name__, last.filename, last.lineno or 0), traceback.format_exc()
    return None


def reduced(target: Target, data: bytes, how: How) -> bytes:
    """Ever smaller pieces are left out."""
    end = time.monotonic() + _SECONDS
    size = len(data) // 2
    while size:
        at = 0
        while at < len(data):
            smaller = target.repair(data[:at] + data[at + size :])
            if time.monotonic() > end:
                return data
            found = failure(target, smaller)
            if found is not None and found[0] == how and len(smaller) < len(data):
                data = smaller
            else:
                at += size
        size //= 2
    return data


def main() -> None:
    target, path = TARGETS[sys.argv[1]], Path(sys.argv[2])
    data = path.read_bytes()
    found = failure(target, data)
    if found is None:
        print("it does not fail again: it was too slow, too large, or depends on what came before")
        return
    how, text = found
    path.write_bytes(reduced(target, data, how))
    print(text, end="")


if __name__ == "__main__":
    main()
