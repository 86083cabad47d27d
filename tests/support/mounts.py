"""Images mounted by the kernel, and trees compared path by path."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.trees import Rows


@contextmanager
def mounted(
    image: Path, at: Path, *, kind: str = "squashfs", options: str = "ro,nosuid,nodev"
) -> Iterator[Path]:
    at.mkdir()
    mount = ["mount", "-t", kind, "-o", f"loop,{options}", str(image), str(at)]
    result = subprocess.run(mount, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)


def assert_same(found: Rows, expected: Rows) -> None:
    assert set(found) == set(expected)
    different = {path: (found[path], row) for path, row in expected.items() if found[path] != row}
    assert not different
