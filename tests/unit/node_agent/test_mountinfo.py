"""mountinfo as the kernel writes it."""

from pathlib import Path

import pytest

from services.node_agent import mountinfo
from services.node_agent.mountinfo import Mount, mounts_below

LINES = rb"""22 27 0:21 / /proc rw,relatime - proc proc rw
36 35 7:0 / /run/a\040b/m\134x ro,nosuid shared:1 master:2 - squashfs /dev/loop0 ro
37 35 7:1 / /run/a\040b/other ro,nosuid - fuse.squashfuse squashfuse ro
38 35 7:1 / /run/a\040bc ro,nosuid - ext4 /dev/sda1 ro
"""


def test_escaped_paths_are_found_below_their_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mountinfo").write_bytes(LINES)
    monkeypatch.setattr(mountinfo, "MOUNTINFO", tmp_path / "mountinfo")
    assert mounts_below(Path("/run/a b")) == [
        Mount(Path("/run/a b/m\\x"), "squashfs", "/dev/loop0"),
        Mount(Path("/run/a b/other"), "fuse.squashfuse", "squashfuse"),
    ]


def test_this_machine_s_own_mounts_can_be_read() -> None:
    assert any(found.fstype == "proc" for found in mounts_below(Path("/proc")))
