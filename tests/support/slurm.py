"""A private Slurm: munged, slurmctld and several slurmd on this machine, stopped with the tests.

Several nodes on one machine is what Slurm's own developers test with, and compiled in. Everything
listens on loopback, on ports of its own, and works in one directory, so that neither a real Slurm
of this machine nor another test is touched.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pytest

from tests.support.conditions import eventually
from tests.support.munged import Munged
from tests.support.ports import free_port
from tests.support.processes import ServerProcess
from tests.support.slurm_conf import LOGS, TMP, Hooks, configuration
from tests.support.users import NOBODY

PROGRAMS: Final = {"slurmctld": "slurmctld", "slurmd": "slurmd", "srun": "slurm-client"}
START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 8.0
COMMAND_SECONDS: Final = 90.0
TAIL: Final = 6000

Done = subprocess.CompletedProcess[str]


def need_slurm() -> None:
    """Skip the test where there is no Slurm, or nobody who may start slurmd."""
    if os.geteuid() != 0:
        pytest.skip("slurmd runs jobs of other users: needs root")
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            pytest.skip(f"needs a real Slurm: install Debian's package {package}")


class _Daemon(ServerProcess):
    """slurmctld or one slurmd, in the foreground."""

    def __init__(self, command: Sequence[str | Path], env: dict[str, str], out: Path) -> None:
        with out.open("ab") as file:
            # What it leaves when it crashes is left in a place that goes away.
            self._process = subprocess.Popen(
                command, env=env, cwd=out.parent, stdin=-3, stdout=file, stderr=file
            )

    @property
    def ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def end(self) -> None:
        """As a service manager does: first kindly, and not for long."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        self.kill()


class Slurm:
    """`with Slurm(nodes=3, hooks=Hooks(...)) as slurm:`: nodes v1, v2, …, all idle.

    They may have more cores than there are: jobs of tests hardly use them.
    """

    def __init__(self, nodes: int = 3, hooks: Hooks | None = None, *, cores: int = 2) -> None:
        need_slurm()
        # Short, since sockets' paths are; and open, since jobs of ordinary users work below it.
        self.directory = Path(tempfile.mkdtemp(prefix="slurm-"))
        self.directory.chmod(0o755)
        self.nodes = tuple(f"v{number}" for number in range(1, nodes + 1))
        self.work = self.directory / "work"
        self.conf = self.directory / "slurm.conf"
        self._logs = self.directory / LOGS
        self._munged = Munged()
        self._cores = cores
        self.hooks = hooks or Hooks()
        """May be set until the start: what hooks need to know may lie in our directory."""
        self._daemons: dict[str, _Daemon] = {}
        self._ports = {name: free_port() for name in ("slurmctld", *self.nodes)}

    @property
    def environment(self) -> dict[str, str]:
        """What a command needs to find this Slurm."""
        return {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
            "SLURM_CONF": str(self.conf),
            "TMPDIR": str(self.work),
        }

    @property
    def munge_socket(self) -> Path:
        """Whoever proves who he is to a gateway of the same test uses this daemon."""
        return self._munged.socket

    # -- life -------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._munged.__enter__()
        try:
            self._configure()
            self.start_controller()
            for node in self.nodes:
                self.start_node(node)
            self.wait_until_idle()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            if exc is not None:
                exc.add_note(self.tails())
            self.cancel_all()
            for daemon in reversed(self._daemons.values()):
                daemon.end()
            self._kill_leftovers()
        finally:
            self._munged.__exit__(kind, exc, tb)
            shutil.rmtree(self.directory, ignore_errors=True)

    def start_controller(self) -> None:
        """Also again, after it was killed: it finds its jobs in its state."""
        self._start("slurmctld", ["slurmctld", "-D", "-f", self.conf])

    def start_node(self, node: str) -> None:
        self._start(node, ["slurmd", "-D", "-N", node, "-f", self.conf])

    def kill(self, name: str) -> None:
        """SIGKILL to `slurmctld` or to a node's slurmd; jobs there go on."""
        self._daemons.pop(name).kill()

    def wait_until_idle(self, within: float = START_SECONDS) -> None:
        """Every node is idle: none is down, drained, or still in an epilog."""
        self._wait(lambda: set(self.states().values()) == {"idle"}, within, "nodes are not idle")

    # -- commands ---------------------------------------------------------------------------

    def run(
        self,
        *command: str | Path,
        user: int | None = None,
        env: dict[str, str] | None = None,
        text: str | None = None,
        within: float = COMMAND_SECONDS,
    ) -> Done:
        """Any command with this Slurm's environment; `user` is who runs it, else root."""
        return subprocess.run(
            command,
            input="" if text is None else text,
            capture_output=True,
            text=True,
            check=False,
            timeout=within,
            **self._how(user, env),
        )

    def start(
        self, *command: str | Path, user: int | None = None, env: dict[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """The same, without waiting for its end."""
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **self._how(user, env),
        )

    def srun(self, *arguments: str, user: int | None = NOBODY, **how: Any) -> Done:
        return self.run("srun", *arguments, user=user, **how)

    def sbatch(
        self, script: str, *arguments: str, user: int | None = NOBODY, **how: Any
    ) -> "Batch":
        """Submit a script; raises what sbatch says if it refuses."""
        done = self.try_sbatch(script, *arguments, user=user, **how)
        if done.returncode != 0:
            raise AssertionError(f"sbatch: {done.returncode}: {done.stderr}{done.stdout}")
        job_id = done.stdout.strip().partition(";")[0]
        return Batch(job_id, self.work / f"slurm-{job_id}.out")

    def try_sbatch(
        self, script: str, *arguments: str, user: int | None = NOBODY, **how: Any
    ) -> Done:
        whole = script if script.startswith("#!") else f"#!/bin/bash\n{script}\n"
        return self.run("sbatch", "--parsable", *arguments, user=user, text=whole, **how)

    def scontrol(self, *arguments: str) -> str:
        return self._output("scontrol", *arguments)

    def cancel(self, job_id: str) -> None:
        self._output("scancel", job_id)

    def states(self) -> dict[str, str]:
        """The state of each node, as sinfo writes it; {} while no controller answers."""
        done = self.run("sinfo", "-h", "-N", "-o", "%N %T")
        return dict(line.split() for line in done.stdout.splitlines())

    def drained(self) -> dict[str, str]:
        """Nodes that are down or drained, with Slurm's reason: nothing of ours may cause that."""
        done = self.run("sinfo", "-h", "-R", "-N", "-o", "%N|%E")
        return dict(line.split("|", 1) for line in done.stdout.splitlines())

    def job(self, job_id: str) -> dict[str, str]:
        """What `scontrol show job` says; JobState, Reason, ExitCode and others."""
        line = self.scontrol("show", "job", "-o", job_id).strip()
        words = re.split(r" (?=[A-Z][A-Za-z_/:]*=)", line)
        return dict(word.split("=", 1) for word in words if "=" in word)

    def state(self, job_id: str) -> str:
        """PENDING, RUNNING, COMPLETED, FAILED, CANCELLED, …"""
        return self.job(job_id).get("JobState", "")

    async def ended(self, job_id: str, within: float = 60.0) -> str:
        """The state that the job ends in."""
        over = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL"}
        await eventually(lambda: self.state(job_id) in over, within=within)
        return self.state(job_id)

    def queue(self) -> dict[str, str]:
        """Jobs that are not over, with state and reason."""
        done = self.run("squeue", "-h", "-a", "-o", "%i|%T %r")
        return dict(line.split("|", 1) for line in done.stdout.splitlines())

    # -- what happened ----------------------------------------------------------------------

    def log(self, name: str) -> str:
        """Of `slurmctld` or a node."""
        return (self._logs / f"{name}.log").read_text(errors="replace")

    def tails(self) -> str:
        """The ends of all logs, for whoever has to find out why a test failed."""
        return "\n".join(
            f"--- {log.name}\n{log.read_text(errors='replace')[-TAIL:]}"
            for log in sorted(self._logs.glob("*"))
        )

    # -- inside -----------------------------------------------------------------------------

    def _start(self, name: str, command: Sequence[str | Path]) -> None:
        self._daemons[name] = _Daemon(command, self.environment, self._logs / f"{name}.out")

    def _how(self, user: int | None, env: dict[str, str] | None) -> dict[str, Any]:
        how: dict[str, Any] = {"cwd": self.work, "env": {**self.environment, **(env or {})}}
        if user is not None:
            how |= {"user": user, "group": user, "extra_groups": ()}
        return how

    def _output(self, *command: str) -> str:
        done = self.run(*command)
        if done.returncode != 0:
            raise AssertionError(f"{' '.join(command)}: {done.returncode}: {done.stderr}")
        return done.stdout

    def _configure(self) -> None:
        for name in ("state", "spool", "run", "log"):
            (self.directory / name).mkdir()
        for place in (self.work, *(self.directory / TMP / node for node in self.nodes)):
            place.mkdir(parents=True)
            place.chmod(0o1777)
        (self.directory / "cgroup.conf").write_text("")
        (self.directory / "plugstack.conf").write_text(self.hooks.plugstack)
        if self.hooks.burst_buffer_lua is not None:
            # Slurm looks for both beside slurm.conf, and nowhere else.
            shutil.copy(self.hooks.burst_buffer_lua, self.directory / "burst_buffer.lua")
            (self.directory / "burst_buffer.conf").write_text(self.hooks.burst_buffer_conf)
        nodes = {node: self._ports[node] for node in self.nodes}
        self.conf.write_text(
            configuration(
                self.directory,
                controller=self._ports["slurmctld"],
                nodes=nodes,
                cores=self._cores,
                munge_socket=self._munged.socket,
                hooks=self.hooks,
            )
        )

    def cancel_all(self) -> None:
        """Jobs end as they would; whatever does not is killed later."""
        controller = self._daemons.get("slurmctld")
        if controller is None or controller.ended:
            return
        with contextlib.suppress(subprocess.TimeoutExpired, AssertionError):
            queued = self.queue()
            if queued:
                self.run("scancel", "-f", *queued, within=STOP_SECONDS)
                self._wait(lambda: not self.queue(), STOP_SECONDS, "jobs go on")

    def _kill_leftovers(self) -> None:
        """Steps and their tasks outlive slurmd: known by the configuration in their environment."""
        ours = os.fsencode(f"SLURM_CONF={self.conf}")
        for place in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if ours in (place / "environ").read_bytes().split(b"\0"):
                    os.kill(int(place.name), signal.SIGKILL)

    def _wait(self, condition: Any, within: float, what: str) -> None:
        end = time.monotonic() + within
        while not condition():
            dead = [name for name, daemon in self._daemons.items() if daemon.ended]
            if dead or time.monotonic() > end:
                raise AssertionError(f"{what} after {within:g} s; ended: {dead}\n{self.tails()}")
            time.sleep(0.05)


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch job."""

    id: str
    out: Path

    def output(self) -> str:
        """What it has written so far."""
        return self.out.read_text(errors="replace") if self.out.exists() else ""
