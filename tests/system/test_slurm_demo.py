"""`make slurm-demo` as a newcomer runs it: a job in an image on three nodes, and no trace after."""

import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.slurm import need_slurm
from tests.support.slurm_hooks import need_compiler

pytestmark = pytest.mark.root

PLACE = re.compile(re.escape(tempfile.gettempdir()) + r"/dray-slurm-\w+")


def left_over() -> list[str]:
    """Mounts and processes of any such demonstration that is over."""
    found = PLACE.findall(Path("/proc/mounts").read_text())
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += PLACE.findall(path.read_text(errors="replace"))
        except OSError:
            continue  # it has ended meanwhile
    return found


def test_a_job_runs_in_its_image_on_three_nodes_and_nothing_is_left(tmp_path: Path) -> None:
    need_slurm()
    need_compiler()
    ran = subprocess.run(
        [sys.executable, "-m", "deploy.slurm_demo", "--dir", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for rank in range(3):
        assert f"{rank}: rank {rank} on n{rank + 1} is in Dray demo image\n" in ran.stdout
    assert "#SBATCH --image=127.0.0.1:" in ran.stdout
    # What sbatch is told while it waits; whether the queue is looked at in time is luck.
    assert re.search(r"demo/hello:1.0: (PULLING|INIT|CONVERSION|TRANSFER)", ran.stderr)
    # What squeue, `dray jobs` and `dray nodes` showed while it ran.
    assert re.search(r"^ +\d+ +demo +hello +root +R .* n\[1-3\]$", ran.stdout, re.MULTILINE)
    before, _, after = ran.stdout.partition("Waiting for its end")
    assert "$ dray nodes" in before
    assert len(re.findall(r"^n[123] .* loop .* 1 ", before, re.MULTILINE)) == 3
    assert re.search(r"^\d+ .*running$", before, re.MULTILINE)
    assert re.search(r"^\d+ .*released$", after, re.MULTILINE)
    assert len(re.findall(r"^n[123] idle$", after, re.MULTILINE)) == 3
    assert left_over() == []


def test_whoever_breaks_it_off_finds_nothing_left_either(tmp_path: Path) -> None:
    need_slurm()
    need_compiler()
    demo = subprocess.Popen(
        [sys.executable, "-m", "deploy.slurm_demo", "--dir", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert demo.stdout is not None
    seen = []
    for line in demo.stdout:  # the job runs, and its image is mounted
        seen.append(line)
        if line.startswith("While the job runs"):
            break
    demo.send_signal(signal.SIGTERM)
    rest, _ = demo.communicate(timeout=120)
    assert demo.returncode == 0, "".join(seen) + rest
    assert "Stopped." in rest
    assert left_over() == []
