"""`srun --enter`: tasks begin inside the image. A real Slurm, and insides that a test has pinned."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shared.inside.manifest import Manifest
from tests.support.pinned import Pinned
from tests.support.slurm import Done, Slurm, need_slurm
from tests.support.slurm_conf import Hooks
from tests.support.slurm_hooks import build_plugin
from tests.support.squashfs import system_tree
from tests.support.users import NOBODY

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="slurmd needs root"),
]
ONE, TWO = "a" * 64, "b" * 64
MANIFEST = Manifest(env=("PATH=/bin", "OF=image"), workdir="/work")
SUBMIT = f"""#!/bin/sh
for word; do
    case $word in
        --image=one) echo DRAY_IMAGE=one; echo DRAY_IMAGE_ID={ONE} ;;
        --image=two) echo DRAY_IMAGE=two; echo DRAY_IMAGE_ID={TWO} ;;
    esac
done
"""
NAME = "cat /etc/os-release"
STATUS = "grep -E '^(Cap|NoNewPrivs)' /proc/self/status"


@dataclass(frozen=True, slots=True)
class Bench:
    """Slurm with the plugin, and each node's insides."""

    slurm: Slurm
    trees: dict[str, Path]
    insides: dict[str, Pinned]
    state: Path

    def next_job(self) -> str:
        found = re.search(r"NEXT_JOB_ID\s*=\s*(\d+)", self.slurm.scontrol("show", "config"))
        assert found is not None
        return found[1]

    def prepare(self, *images: str, job: str = "", nodes: tuple[str, ...] = (), uid: int = NOBODY) -> str:
        """What agent and prolog do for the next job."""
        job = job or self.next_job()
        for node in nodes or self.slurm.nodes:
            lines = ["ready"]
            for image in images or (ONE,):
                path = self.insides[node].add(job, image, self.trees[image], MANIFEST, uid=uid)
                lines.append(f"inside {image} {path}")
            self.says(job, "\n".join(lines) + "\n", node)
        return job

    def says(self, job: str, text: str, node: str = "v1") -> None:
        path = self.state / node / f"{job}.images"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def enter(self, script: str, *options: str, **how: object) -> Done:
        """A job of one step, for which all is prepared."""
        self.prepare()
        words = ("--image=one", "--enter", *options, "/bin/sh", "-c", script)
        return self.slurm.srun(*words, **how)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    need_slurm()
    slurm = Slurm(nodes=3, cores=8)
    base = slurm.directory
    plugin = build_plugin(base)
    command = base / "dray"
    command.write_text(SUBMIT)
    command.chmod(0o755)
    trees = {ONE: system_tree(base / "one"), TWO: system_tree(base / "two")}
    (trees[TWO] / "etc/os-release").write_text("NAME=second\n")
    state = base / "nodes"
    state.mkdir()
    slurm.hooks = Hooks(
        plugstack=f"required {plugin} dray={command} state={state}/%n insides={base}/insides/%n\n",
    )
    insides = {node: Pinned(base / "insides" / node) for node in slurm.nodes}
    try:
        with slurm:
            yield Bench(slurm, trees, insides, state)
    finally:
        for pinned in insides.values():
            pinned.close()
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(autouse=True)
def _unharmed(bench: Bench) -> Iterator[None]:
    yield
    assert bench.slurm.drained() == {}


def test_tasks_on_all_nodes_begin_inside(bench: Bench) -> None:
    done = bench.enter(NAME, "-N3", "-n6")
    assert done.stdout == "NAME=tiny\n" * 6, done.stderr
    job = bench.prepare()
    outside = bench.slurm.srun("--image=one", "-N3", "/bin/sh", "-c", NAME)
    assert "NAME=tiny" not in outside.stdout, job


def test_play(bench: Bench) -> None:
    done = bench.enter("tr '\\0' ' ' </proc/self/cmdline; cat /proc/self/cmdline; env; id; pwd; cat /proc/self/cgroup;"+STATUS)
    print(done.stdout, done.stderr)
    bench.prepare()
    print(bench.slurm.srun("--image=one", "--enter", "cat", "/proc/self/cmdline"))
    bench.prepare()
    print(bench.slurm.srun("--image=one", "--enter", "touch", "--version"))
    assert 0
