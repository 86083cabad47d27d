"""`make demo` as a newcomer runs it: twice, and gone without a trace but its cache."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.demo.site import mounts_below

PROBE = "from cli.enter import make_namespaces; make_namespaces()"


def _demo(directory: Path) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "deploy.demo", "--dir", str(directory)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def _processes_of(directory: Path) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue  # it has ended meanwhile
        if str(directory).encode() in command:
            found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found


def test_the_demonstration_shows_every_state_runs_inside_and_cleans_up(tmp_path: Path) -> None:
    probe = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=60, check=False
    )
    if probe.returncode != 0:
        pytest.skip(f"images cannot be entered here: {probe.stderr.splitlines()[-1]}")

    first = _demo(tmp_path)
    states = re.findall(r" s  (INIT|PULLING|CONVERSION|TRANSFER) ", first)
    assert states[0] == "INIT"
    assert states[-1] == "TRANSFER"
    assert re.search(r"CONVERSION .*[1-9].* MB", first)
    assert "READY  127.0.0.1:" in first
    assert "Hello from inside the image" in first
    assert "ro,nosuid,nodev" in first
    assert "This node mounts images by" in first

    second = _demo(tmp_path)
    assert "READY from an earlier run" in second
    assert second.count("unchanged") == 2
    assert "PULLING" not in second

    assert mounts_below(tmp_path) == []
    assert _processes_of(tmp_path) == []
