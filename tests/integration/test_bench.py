"""The bench itself, at a tiny scale: that it measures and reports, not how fast anything is."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from bench.convert.contenders import Job, Peer, run
from bench.convert.limit import Limit
from bench.convert.measure import RunFailedError, measure_commands
from bench.convert.peers import MksquashfsTar
from bench.convert.processes import anonymous_memory, tree_of, usage_of
from bench.convert.report import render
from bench.convert.rounds import Results, Run, this_machine
from tests.support.registry import BINARY
from tests.support.squashfs import is_root

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
BUSY = "import sys, time\nwhile time.process_time() < 0.2: pass\n"
HUNGRY = f"import time\nkept = b'x' * {64 * MIB}\ntime.sleep(0.5)\n"


def bench(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_dray_and_a_peer_convert_the_same_image_and_are_reported(tmp_path: Path) -> None:
    if not BINARY.exists():
        pytest.skip("needs a real registry: install Debian's package docker-registry")
    peer = MksquashfsTar()
    names = ["dray"] if peer.missing() else ["dray", peer.name]
    found = tmp_path / "results.json"
    options = ["--images", "tiny", "--scale", "0.05", "--rounds", "1"]
    options += ["--only", ",".join(names), "--work", str(tmp_path), "--json", str(found)]
    text = bench("bench.convert", *options)

    results = Results.model_validate_json(found.read_bytes())
    assert [(run.contender, run.kind) for run in results.runs] == [
        (name, kind) for name in names for kind in ("cold", "update")
    ]
    for one in results.runs:
        measured = one.measured
        assert measured.wall > 0
        assert measured.cpu > 0
        assert measured.registry_cpu is not None
        assert measured.memory > MIB
        assert measured.written >= measured.output > 100_000
    assert not results.failed
    (limit,) = results.limits["tiny"]
    assert 0 < limit.seconds < 60
    assert limit.tar_bytes > limit.blob_bytes > 100_000
    assert "### tiny, cold" in text
    assert "### tiny, update" in text
    assert "times the limit" in text
    assert list((tmp_path / "runs").iterdir()) == []


def test_what_cannot_run_here_is_skipped_with_the_package_that_it_needs() -> None:
    class Absent(Peer):
        name = "absent"
        about = "nothing"
        programs = (("there-is-no-such-program", "some-package"), ("sh", "dash"))

        def convert(self, job: Job) -> None:
            raise AssertionError(job)

    assert Absent().missing() == "needs the Debian package some-package"


def test_commands_are_measured_with_all_that_they_start(tmp_path: Path) -> None:
    def work() -> None:
        # The shell ends before its child does: an orphan counts all the same.
        run("sh", "-c", f'"{sys.executable}" -c "$0" >/dev/null 2>&1 & exit 0', BUSY)
        run("dd", "if=/dev/zero", f"of={tmp_path / 'zeros'}", "bs=1M", "count=8", "status=none")
        run(sys.executable, "-c", HUNGRY)

    measured = measure_commands(work, lambda: 7, tmp_path, None)
    assert 0.2 <= measured.cpu < 20
    assert measured.written >= 8 * MIB or not _counts_writes(tmp_path)
    assert 64 * MIB <= measured.memory < 1024 * MIB
    assert measured.output == 7
    assert measured.registry_cpu is None


def _counts_writes(place: Path) -> bool:
    """A file system in memory hands nothing to a disk."""
    kind = run("stat", "--file-system", "--format=%T", place).strip()
    return kind not in {"tmpfs", "overlayfs"}


def test_a_failing_command_is_told_with_what_it_said(tmp_path: Path) -> None:
    def work() -> None:
        run("sh", "-c", "echo no such luck >&2; exit 3")

    with pytest.raises(RunFailedError, match=r"sh ended with 3: no such luck"):
        measure_commands(work, lambda: 0, tmp_path, None)


def test_a_process_that_has_just_ended_has_no_descendants() -> None:
    child = subprocess.Popen(["/bin/true"])
    child.wait()
    assert tree_of([child.pid]) == {child.pid}


def test_living_processes_are_measured_with_their_threads_and_children() -> None:
    program = BUSY + "print(flush=True)\nsys.stdin.read()\n"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert child.pid in tree_of([os.getpid()])
        assert 0.2 <= usage_of([child.pid]).cpu < 20
        assert MIB < anonymous_memory([child.pid]) < 512 * MIB
        child.communicate()


FORKS = f"""
import os, sys
if not os.fork():
{textwrap.indent(BUSY, "    ")}
    os._exit(0)
os.wait()
print(flush=True)
sys.stdin.read()
"""


def test_what_a_living_process_forked_and_buried_counts() -> None:
    """As the packers of a converter's nursery."""
    program = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {FORKS!r}])\n"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        assert 0.2 <= usage_of(tree_of([owner.pid])).cpu < 20
        owner.communicate()


def test_medians_ratios_and_promises_are_reported(tmp_path: Path) -> None:
    def measured(wall: float) -> dict[str, Any]:
        zeros = dict.fromkeys(("memory", "disk_peak", "disk_kept", "written", "output"), 0)
        return {"wall": wall, "cpu": 2 * wall, "registry_cpu": None, **zeros}

    walls = {
        ("dray", "cold"): (2.0, 1.0, 9.0),
        ("dray", "update"): (0.5,),
        ("enroot", "cold"): (16.0,),
        ("enroot", "update"): (20.0,),
    }
    runs = [
        Run.model_validate(
            {
                "image": "sci",
                "kind": kind,
                "contender": name,
                "round": number,
                "measured": measured(wall),
            }
        )
        for (name, kind), values in walls.items()
        for number, wall in enumerate(values)
    ]
    limit = Limit(
        transfer=1.0,
        sha256_blobs=0.5,
        gunzip=0.5,
        sha256_tars=0.5,
        zstd=1.0,
        cores=2,
        blob_bytes=1,
        tar_bytes=1,
    )
    results = Results(
        machine=this_machine(tmp_path, caches_dropped=True),
        images=["sci: eight layers"],
        contenders={"dray": "ours", "enroot": "theirs"},
        skipped={"shifter": "needs the Debian package umoci"},
        failed={},
        runs=runs,
        limits={"sci": [limit]},
    )
    text = render(results)
    assert "| dray | 2.00 (1.00-9.00) | 4.00 (2.00-18.00) |" in text
    assert "| enroot | 16.00 | 32.00 |" in text
    assert "= 1.25) = **1.25 s**" in text
    assert "dray: 1.60 times the limit" in text
    assert "- sci, cold, enroot: 8.0, wanted 7: kept" in text
    assert "- sci, update, enroot: 40.0, wanted 50: NOT KEPT" in text
    assert "- shifter was skipped: needs the Debian package umoci" in text


@pytest.mark.root
def test_a_million_files_on_a_small_scale(tmp_path: Path) -> None:
    if not is_root():
        pytest.skip("needs root: it mounts the image")
    text = bench("bench.million", "--files", "2000", "--work", str(tmp_path / "million"))
    assert "2,000 files of" in text
    assert not (tmp_path / "million").exists()


def test_a_tree_on_a_small_scale(tmp_path: Path) -> None:
    options = ("--files", "2000", "--gigabytes", "0.07", "--work", str(tmp_path / "tree"))
    text = bench("bench.tree", *options)
    assert "2,022 inodes" in text
    assert "1 parts (1 re-used)" in text
    assert "For 10,116,157 inodes and 892 GB" in text
    assert not (tmp_path / "tree").exists()


def test_the_gateway_is_compared_with_a_bare_handler() -> None:
    options = ["--images", "50", "--usage", "100", "--rounds", "1", "--seconds", "0.3"]
    text = bench("bench.gateway", *options, "--settle", "0")
    for said in ("of the bare handler's rate", "list, page of 1000", "queue, 200 pulls", "timers"):
        assert said in text


@pytest.mark.root
@pytest.mark.skipif(not is_root(), reason="only root can mount images")
def test_staging_reads_little_of_an_image_that_is_known_in_part(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    short = tmp_path_factory.mktemp("s")  # agents have sockets in there
    text = bench("bench.staging", "--mib", "8", "--work", str(short))
    shares = [float(share) for share in re.findall(r"shared +([\d.]+)%", text)]
    assert shares[0] == pytest.approx(100, abs=1)
    assert shares[1] < 20
    assert "50 jobs of 5 images, copy: all ready" in text


def test_a_large_job_is_measured_from_its_announcement_to_its_end() -> None:
    text = bench("bench.jobs", "--nodes", "250")
    for said in ("announced", "answered, while it is polled", "heartbeats", "released", "polled"):
        assert said in text


def test_viewers_of_a_busy_site_are_served_and_reported() -> None:
    text = bench("bench.dashboard", "--quick")
    for said in ("nobody looks", "2 x 2 look", "loop lag p50", "of a core more"):
        assert said in text
    streams = re.findall(r"(/\S+): ([\d.]+) KiB/s and ([\d.]+) events/s each", text)
    assert [path for path, _, _ in streams] == ["/live", "/jobs/48213/events"]
    assert float(streams[0][1]) > 0.1
    assert re.search(r"pulls: \d+ seen, p50 \d+ ms", text)
