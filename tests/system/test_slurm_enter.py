"""`srun --enter`: tasks begin inside the image. A real Slurm; a test pins the insides."""

import asyncio
import os
import re
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
MANIFEST = Manifest(env=("PATH=/opt/bin:/bin", "OF=image"), workdir="/work")
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

    def prepare(
        self, *images: str, job: str = "", nodes: tuple[str, ...] = (), uid: int = NOBODY
    ) -> str:
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
        path.chmod(0o400)  # as a prolog leaves it

    def enter(self, script: str, *options: str, **how: Any) -> Done:
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
    assert (done.returncode, done.stdout, done.stderr) == (0, "NAME=tiny\n" * 6, "")
    bench.prepare()
    outside = bench.slurm.srun("--image=one", "-N3", "/bin/sh", "-c", NAME)
    assert (outside.returncode, "NAME=tiny" in outside.stdout) == (0, False)


def test_a_node_full_of_ranks_enters_at_once(bench: Bench) -> None:
    done = bench.enter(NAME, "-wv1", "-n128", "--overcommit")
    assert (done.returncode, done.stdout, done.stderr) == (0, "NAME=tiny\n" * 128, "")


def test_they_are_the_user_without_any_privilege(bench: Bench) -> None:
    done = bench.enter(f"id; {STATUS}")
    sets = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    assert done.stdout.splitlines() == [
        f"uid={NOBODY}(nobody) gid={NOBODY}(nogroup) groups={NOBODY}(nogroup)",
        *(f"{name}:\t{0:016x}" for name in sets),
        "NoNewPrivs:\t1",
    ]


def test_root_has_none_either(bench: Bench) -> None:
    bench.prepare(uid=0)
    done = bench.slurm.srun(
        "--image=one", "--enter", "/bin/sh", "-c", f"id -u; {STATUS}", user=None
    )
    assert set(re.findall(r"Cap\w+:\s(\w+)", done.stdout)) == {"0" * 16}, done.stderr
    assert done.stdout.startswith("0\n")


def test_commands_are_looked_for_in_the_image_and_its_environment_is_theirs(bench: Bench) -> None:
    here = {"OF": "host", "LD_LIBRARY_PATH": "/host", "PYTHONPATH": "/host", "MINE": "stays"}
    tools = bench.trees[ONE] / "opt/bin"
    for name in ("only-here", "cp"):  # one that the host does not have, and one elsewhere
        tool = tools / name
        tool.parent.mkdir(parents=True, exist_ok=True)
        tool.write_text(
            "#!/bin/sh\necho $0 $OF $MINE $PATH ${LD_LIBRARY_PATH-no} ${PYTHONPATH-no}\n"
        )
        tool.chmod(0o755)
        bench.prepare()
        done = bench.slurm.srun("--image=one", "--enter", name, env=here)
        assert done.stdout == f"/opt/bin/{name} image stays /opt/bin:/bin no no\n", done.stderr


@pytest.mark.parametrize(("here", "there"), [("/etc", "/etc"), ("WORK", "/work")])
def test_where_they_work(bench: Bench, here: str, there: str) -> None:
    done = bench.enter("pwd", f"--chdir={bench.slurm.work if here == 'WORK' else here}")
    assert (done.stdout, done.stderr) == (f"{there}\n", "")


async def test_the_batch_script_stays_outside_and_its_steps_go_in(bench: Bench) -> None:
    job = bench.slurm.sbatch(
        f"echo batch $({NAME})\nsrun --overlap /bin/sh -c '{NAME}'\n"
        f"srun --overlap --enter=no /bin/sh -c 'echo again $({NAME})'\n"
        f"srun --overlap --image=two /bin/sh -c '{NAME}'\n",
        "--image=one", "--enter", "--hold",
    )  # fmt: skip
    bench.prepare(ONE, TWO, job=job.id)
    bench.slurm.scontrol("release", job.id)
    assert await bench.slurm.ended(job.id) == "COMPLETED", job.output()
    lines = job.output().splitlines()
    assert [line for line in lines if line.startswith("NAME=")] == ["NAME=tiny", "NAME=second"]
    assert "batch NAME=tiny" not in lines
    assert "again NAME=tiny" not in lines


def test_how_they_end_is_slurm_s_to_tell(bench: Bench) -> None:
    assert bench.enter("exit 42").returncode == 42
    killed = bench.enter("kill -9 $$")
    assert killed.returncode == 128 + signal.SIGKILL
    bench.prepare()
    missing = bench.slurm.srun("--image=one", "--enter", "/bin/nothing")
    assert "No such file" in missing.stderr
    # As without an image, and not by a signal of Slurm's own process.
    assert missing.returncode == bench.slurm.srun("/bin/nothing").returncode


async def test_signals_reach_them(bench: Bench) -> None:
    bench.prepare()
    script = "trap 'echo heard; exit 7' TERM; echo ready; while :; do sleep 0.1; done"
    words = ("srun", "--image=one", "--enter", "/bin/sh", "-c", script)
    running = bench.slurm.start(*words, user=NOBODY)
    assert running.stdout is not None
    assert running.stdout.readline() == "ready\n"
    (job,) = bench.slurm.queue()
    bench.slurm.run("scancel", "--signal=TERM", f"{job}.0")
    out, _ = await asyncio.to_thread(running.communicate, timeout=60)
    assert (out, running.returncode) == ("heard\n", 7)


def test_stdin_is_theirs(bench: Bench) -> None:
    assert bench.enter("cat", text="typed\n").stdout == "typed\n"


def test_umask_limits_cgroup_and_cores_are_as_slurm_has_them(bench: Bench) -> None:
    script = (
        "umask; ulimit -n; ulimit -c; cat /proc/self/cgroup; grep Cpus_allowed: /proc/self/status"
    )
    limited = ("sh", "-c", 'umask 027; ulimit -n 99; ulimit -c 0; exec "$@"', "sh")
    seen = []
    for options in (("--enter",), ()):
        bench.prepare()
        words = ("srun", "--image=one", *options, "/bin/sh", "-c", script)
        seen.append(bench.slurm.run(*limited, *words, user=NOBODY).stdout)
    assert seen[0] == seen[1]
    assert seen[0].split()[:3] == ["0027", "99", "0"]


@pytest.fixture
def always(bench: Bench) -> Iterator[None]:
    """Slurm reads the file for each step."""
    conf = bench.slurm.directory / "plugstack.conf"
    asked = conf.read_text()
    conf.write_text(asked.replace("\n", " enter=always\n"))
    yield
    conf.write_text(asked)


@pytest.mark.usefixtures("always")
async def test_where_the_site_wants_it_steps_go_in_unasked(bench: Bench) -> None:
    seen = []
    for asked in ("", "--enter"):  # a job has one interactive step at most
        job = bench.slurm.sbatch(
            f"echo batch $({NAME})\nsrun --overlap /bin/sh -c '{NAME}'\n"
            f"srun --overlap --enter=no /bin/sh -c 'echo again $({NAME})'\n"
            f"srun --interactive --overlap {asked} /bin/sh -c 'echo shell $({NAME})'\n",
            "--image=one", "--hold",
        )  # fmt: skip
        bench.prepare(job=job.id)
        bench.slurm.scontrol("release", job.id)
        assert await bench.slurm.ended(job.id) == "COMPLETED", job.output()
        seen += [line for line in job.output().splitlines() if "NAME=tiny" in line]
    assert seen == ["NAME=tiny", "NAME=tiny", "shell NAME=tiny"]
    assert bench.slurm.srun("/bin/sh", "-c", NAME).returncode == 0  # without an image


# -- what keeps them out ---------------------------------------------------------------------------


def test_without_an_inside_the_job_ends_with_the_reason(bench: Bench) -> None:
    job = bench.prepare(nodes=("v1", "v3"))
    done = bench.slurm.srun("--image=one", "--enter", "-N3", "/bin/sh", "-c", NAME)
    assert done.returncode != 0
    assert done.stderr.count("was not prepared on this node") == 1, done.stderr
    assert bench.next_job() != job


@pytest.mark.parametrize("words", [("--enter",), ("--image=one", "--enter=perhaps")])
def test_what_makes_no_sense_is_refused_before_it_is_submitted(
    bench: Bench, words: tuple[str, ...]
) -> None:
    job = bench.next_job()
    done = bench.slurm.srun(*words, "/bin/true")
    assert done.returncode != 0
    assert "dray: --enter" in done.stderr
    assert bench.next_job() == job


async def test_a_step_cannot_have_other_volumes_than_what_it_enters(bench: Bench) -> None:
    job = bench.slurm.sbatch(
        "srun --overlap --volume=/a:/b /bin/true; echo $?", "--image=one", "--enter", "--hold"
    )
    bench.prepare(job=job.id)
    bench.slurm.scontrol("release", job.id)
    await bench.slurm.ended(job.id)
    assert "a step enters what its job has" in job.output()


def forged(bench: Bench, job: str, place: Path) -> str:
    """A verdict of the user's own making; what it names looks like an inside of this job."""
    place.mkdir(parents=True)
    for name in ("env", "changes", "workdir", "entrypoint", "cmd"):
        (place / name).touch()
    (place / "mnt").symlink_to("/proc/1/ns/mnt")
    os.chown(place, NOBODY, NOBODY)
    return f"ready\ninside {ONE} {place}\n"


def test_a_verdict_leads_nowhere_but_to_insides_of_its_job(bench: Bench, tmp_path: Path) -> None:
    others = bench.insides["v1"].add("9999", ONE, bench.trees[TWO], MANIFEST)
    job = bench.next_job()
    outside = forged(bench, job, tmp_path / f"{job}.mine")
    for number, text in enumerate((outside, f"ready\ninside {ONE} {others}\n")):
        bench.says(str(int(job) + number), text)
        done = bench.slurm.srun("-wv1", "--image=one", "--enter", "/bin/sh", "-c", NAME)
        assert (done.returncode, done.stdout) == (1, ""), done.stderr
        assert "--enter: " in done.stderr
        assert done.stderr.count("dray:") == 1


def test_root_takes_nothing_that_others_could_have_made(bench: Bench) -> None:
    job = bench.next_job()
    place = bench.insides["v1"].directory / f"{job}.made"
    bench.says(job, forged(bench, job, place))
    done = bench.slurm.srun("-wv1", "--image=one", "--enter", "/bin/sh", "-c", NAME)
    assert (done.returncode, done.stdout) == (1, "")
    assert "is not root's alone" in done.stderr


def test_a_task_that_did_not_get_in_has_no_privilege_left(bench: Bench) -> None:
    place = bench.insides["v1"].directory / "0.broken"
    place.mkdir()
    for name in ("mnt", "env", "changes", "workdir", "entrypoint", "cmd"):
        (place / name).touch()
    conf = bench.slurm.directory / "plugstack.conf"
    required = conf.read_text()
    words = ("-wv1", "--image=one", "--enter", "/bin/sh", "-c", STATUS)
    try:
        for kind, status in (("required", 1), ("optional", 0)):
            conf.write_text(required.replace("required", kind))
            job = bench.next_job()
            place = place.rename(place.with_name(f"{job}.broken"))
            bench.says(job, f"ready\ninside {ONE} {place}\n")
            done = bench.slurm.srun(*words)
            assert done.returncode == status, done.stderr
            assert "cannot enter the image that was prepared" in done.stderr
    finally:
        conf.write_text(required)
    # A site that writes `optional` has tasks go on outside, as they would without us.
    told = dict(line.split(":\t") for line in done.stdout.splitlines())
    assert (told["CapPrm"], told["CapEff"], told["CapInh"]) == ("0" * 16,) * 3
