"""The SPANK plugin alone: a real Slurm around it, and in the place of `dray` a script that a test
writes.
"""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.slurm import Slurm, need_slurm
from tests.support.slurm_conf import Hooks
from tests.support.slurm_hooks import build_plugin
from tests.support.users import NOBODY

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="slurmd needs root"),
]
TIMEOUT = 3
SHOW = "env | grep ^DRAY_ | sort"
ECHO = """
for word; do
    case $word in
        --image=*) echo "DRAY_IMAGE=${word#*=}"; echo "DRAY_IMAGES=list of ${word#*=}" ;;
        --volume=*) echo "DRAY_VOLUMES=${word#*=}" ;;
        --module=*) echo "DRAY_MODULES=${word#*=}" ;;
    esac
done
"""
"""Prints what it is asked for."""


@dataclass(frozen=True, slots=True)
class Bench:
    """One Slurm with the plugin, and the script that it calls."""

    slurm: Slurm
    command: Path
    state: Path
    seen: Path

    def answers(self, script: str) -> None:
        """What `dray hook submit` does from now on; it writes down that it was called."""
        self.command.write_text(f'#!/bin/sh\necho "$@" >>{self.seen}\n{script}\n')
        self.seen.write_text("")
        self.seen.chmod(0o666)

    @property
    def calls(self) -> list[str]:
        return self.seen.read_text().splitlines()

    def said(self, job_id: str, text: str, node: str = "v1") -> None:
        """What a prolog would have left."""
        path = self.state / node / f"{job_id}.images"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o400)  # as a prolog leaves it


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    need_slurm()
    slurm = Slurm(nodes=2, cores=8)
    base = slurm.directory
    plugin = build_plugin(base)
    found = Bench(slurm, base / "dray", base / "nodes", base / "calls")
    found.state.mkdir()
    found.answers(ECHO)
    found.command.chmod(0o755)
    hook = base / "hook"
    hook.write_text(
        "#!/bin/sh\n"
        f'env | grep ^SPANK_DRAY | sort >"{base}/env.${{0##*/}}.$SLURM_JOB_ID.$SLURMD_NODENAME"\n'
    )
    hook.chmod(0o755)
    slurm.hooks = Hooks(
        prolog=hook,
        plugstack=(
            f"required {plugin} dray={found.command} state={found.state}/%n timeout={TIMEOUT} "
            "--if-missing=wait\n"
        ),
    )
    with slurm:
        yield found


@pytest.fixture(autouse=True)
def _fresh(bench: Bench) -> Iterator[None]:
    bench.answers(ECHO)
    yield
    assert bench.slurm.drained() == {}


def test_it_asks_once_with_the_sites_options_and_the_users(bench: Bench) -> None:
    done = bench.slurm.srun("--image=one:1", "--volume=/a:/b;/c:/d", "sh", "-c", SHOW)
    assert bench.calls == ["hook submit --if-missing=wait --image=one:1 --volume=/a:/b;/c:/d"]
    assert done.stdout.splitlines() == [
        "DRAY_IMAGE=one:1",
        "DRAY_IMAGES=list of one:1",
        "DRAY_VOLUMES=/a:/b;/c:/d",
    ]
    (seen,) = bench.slurm.directory.glob("env.hook.*.v1")
    assert [f"SPANK_{line}" for line in done.stdout.splitlines()] == seen.read_text().splitlines()


def test_without_its_options_nobody_is_asked(bench: Bench) -> None:
    done = bench.slurm.srun("sh", "-c", f"{SHOW}; true", env={"DRAY_IMAGES": "left from before"})
    assert (done.returncode, done.stdout, bench.calls) == (0, "", [])


async def test_steps_take_over_what_their_job_has(bench: Bench) -> None:
    job = bench.slurm.sbatch(
        f"srun --overlap sh -c '{SHOW}'\n"
        f"srun --overlap --image=one:1 sh -c '{SHOW}'\n"
        f"srun --overlap --image=two:1 --module=gpu sh -c '{SHOW}'\n"
        f"sbatch --wait --wrap='{SHOW}; true' -o inner >/dev/null",
        "--image=one:1",
    )
    assert await bench.slurm.ended(job.id) == "COMPLETED", job.output()
    one = ["DRAY_IMAGE=one:1", "DRAY_IMAGES=list of one:1"]
    two = ["DRAY_IMAGE=two:1", "DRAY_IMAGES=list of two:1", "DRAY_MODULES=gpu"]
    told = [line for line in job.output().splitlines() if line.startswith("DRAY_")]
    assert told == one + one + two
    # Slurm hands a job's options to the jobs that it submits, too: those are looked up anew.
    inner = (bench.slurm.work / "inner").read_text()
    assert inner.splitlines() == one
    assert [call.partition("wait ")[2] for call in bench.calls] == [
        "--image=one:1",
        "--image=two:1 --module=gpu",
        "--image=one:1",
    ]


async def test_each_part_of_a_heterogeneous_job_has_its_own(bench: Bench) -> None:
    job = bench.slurm.sbatch("true", "-n1", "--image=one:1", ":", "-n1", "--image=two:1")
    assert await bench.slurm.ended(job.id) == "COMPLETED", job.output()
    first = int(job.id)
    seen = [
        "".join(path.read_text() for path in bench.slurm.directory.glob(f"env.hook.{number}.*"))
        for number in (first, first + 1)
    ]
    assert ["one:1" in text for text in seen] == [True, False]
    assert ["two:1" in text for text in seen] == [False, True]


def test_what_it_says_is_told_and_nothing_is_submitted(bench: Bench) -> None:
    bench.answers("echo 'dray: there is no such image' >&2; exit 1")
    done = bench.slurm.try_sbatch("true", "--image=one:1")
    assert done.returncode != 0
    assert done.stderr.startswith("dray: there is no such image\n")
    assert bench.slurm.queue() == {}


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo LD_PRELOAD=/tmp/evil.so", "no variable of ours"),
        ("echo nonsense", "no variable of ours"),
        ("exec sleep 60173", f"within {TIMEOUT} s"),
        ("exec >&-; exec sleep 60173", ""),
        ("yes DRAY_IMAGE=x", f"within {TIMEOUT} s"),
        ("kill -9 $$", ""),
    ],
)
def test_a_command_that_goes_wrong_does_no_harm(bench: Bench, script: str, why: str) -> None:
    bench.answers(script)
    done = bench.slurm.try_sbatch("true", "--image=one:1", within=30)
    assert done.returncode != 0
    assert why in done.stderr
    # No other test's, of those that run at the same time.
    sleeping = subprocess.run(["pgrep", "-u", str(NOBODY), "-f", "^sleep 60173"], check=False)
    assert sleeping.returncode == 1
    assert bench.slurm.queue() == {}


def test_a_command_that_is_not_there_is_named(bench: Bench) -> None:
    bench.command.rename(bench.command.with_name("gone"))
    try:
        done = bench.slurm.try_sbatch("true", "--image=one:1")
    finally:
        bench.command.with_name("gone").rename(bench.command)
    assert f"cannot start {bench.command}" in done.stderr


@pytest.mark.parametrize("word", ["--image=", f"--image={'x' * 4096}"])
def test_options_that_cannot_be_are_refused(bench: Bench, word: str) -> None:
    done = bench.slurm.try_sbatch("true", word)
    assert done.returncode != 0
    assert bench.calls == []


async def test_a_job_without_its_image_ends_with_the_reason_on_its_own(bench: Bench) -> None:
    for node in bench.slurm.nodes:
        for number in range(1, 100):
            bench.said(str(number), "failed\nthe image file is gone\n", node)
    try:
        srun = bench.slurm.srun("-N2", "-n4", "echo", "it runs")
        batch = bench.slurm.sbatch("echo it runs")
        assert await bench.slurm.ended(batch.id) == "FAILED"
    finally:
        for path in bench.state.glob("*/*"):
            path.unlink()
    assert srun.returncode == 1
    assert srun.stdout == ""
    assert srun.stderr.count("dray: the image file is gone") == 2  # once on each node
    assert "dray: the image file is gone" in batch.output()
    assert "it runs" not in batch.output()


def test_what_the_prolog_knows_completes_the_environment(bench: Bench) -> None:
    text = "ready\nDRAY_IMAGE_ID=abc\nDRAY_IMAGE=other\nPATH=/nowhere\nabc /some/where\n"
    for number in range(1, 100):
        bench.said(str(number), text)
    try:
        done = bench.slurm.srun("-w", "v1", "--image=one:1", "sh", "-c", SHOW)
    finally:
        for path in bench.state.glob("*/*"):
            path.unlink()
    assert done.stdout.splitlines() == [
        "DRAY_IMAGE=one:1",
        "DRAY_IMAGES=list of one:1",
        "DRAY_IMAGE_ID=abc",
    ]
