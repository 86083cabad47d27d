"""A private Slurm on this machine: munged, slurmctld, and three slurmd that are nodes of one host.

All of it listens on loopback, and works in one directory: a Slurm that this machine may have is not
touched. Several nodes on one host is what Slurm's own developers test with.
"""

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.demo.site import DemoError, free_port, stopped

NODES: Final = ("n1", "n2", "n3")
START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 5.0
LOG_TAIL: Final = 15
SBIN: Final = "/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Places:
    """Everything below one short directory: paths of sockets must be short."""

    base: Path

    @property
    def conf(self) -> Path:
        return self.base / "slurm.conf"

    @property
    def munge(self) -> Path:
        return self.base / "munge.sock"

    @property
    def hooks(self) -> Path:
        return self.base / "hooks"

    @property
    def plugin(self) -> Path:
        return self.base / "plugins/spank_dray.so"

    @property
    def hooks_conf(self) -> Path:
        return self.base / "etc/hooks.conf"

    def log(self, name: str) -> Path:
        return self.base / "log" / name

    def tail(self, name: str) -> str:
        lines = self.log(name).read_text(errors="replace").splitlines()
        return "\n".join([f"The end of {name}:", *lines[-LOG_TAIL:]])

    def environment(self) -> Mapping[str, str]:
        """How Slurm's own commands find this Slurm, and `dray` its munged."""
        return {"SLURM_CONF": str(self.conf), "DRAY_MUNGE_SOCKET": str(self.munge)}


class Daemons:
    """The processes of the private Slurm, to be stopped in the end whatever happens."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._running: dict[str, asyncio.subprocess.Process] = {}

    @contextlib.asynccontextmanager
    async def running(self, plugstack: str) -> AsyncIterator[None]:
        """Started with our hooks, every node idle; stopped with all that jobs left behind."""
        configure(self._places, plugstack)
        try:
            await self._munged()
            await self._start("slurmctld", "slurmctld", "-D", "-f", str(self._places.conf))
            for node in NODES:
                await self._start(node, "slurmd", "-D", "-N", node, "-f", str(self._places.conf))
            await self._until_idle()
            yield
        finally:
            for name in reversed(self._running):
                await stopped(self._running[name], STOP_SECONDS)
            _kill_leftovers(self._places.conf)

    async def sinfo(self) -> str:
        command = await asyncio.create_subprocess_exec(
            *("sinfo", "-h", "-N", "-o", "%T"),
            env={"PATH": SBIN, **self._places.environment()},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        return (await command.communicate())[0].decode()

    async def _munged(self) -> None:
        place = self._places.base / "munged"
        place.mkdir(mode=0o700)
        key = place / "key"
        key.touch(0o400)
        key.write_bytes(secrets.token_bytes(128))
        options = {
            "key-file": key,
            "socket": self._places.munge,
            "pid-file": place / "pid",
            "log-file": place / "log",
            "seed-file": place / "seed",
        }
        words = [f"--{name}={value}" for name, value in options.items()]
        # --force: it dislikes directories below /tmp, which others may write to.
        await self._start("munged", "munged", "--foreground", "--force", *words)
        await self._until("munged", self._places.munge.is_socket)

    async def _start(self, name: str, *command: str) -> None:
        with self._places.log(f"{name}.out").open("wb") as log:
            self._running[name] = await asyncio.create_subprocess_exec(
                *command,
                env={"PATH": SBIN, **self._places.environment()},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is ours
            )

    async def _until_idle(self) -> None:
        try:
            async with asyncio.timeout(START_SECONDS):
                while (await self.sinfo()).split() != ["idle"] * len(NODES):
                    self._check()
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise self._failure("slurmctld", "has not all nodes idle") from None

    async def _until(self, name: str, condition: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(START_SECONDS):
                while not condition():
                    self._check()
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise self._failure(name, "is not ready") from None

    def _check(self) -> None:
        for name, process in self._running.items():
            if process.returncode is not None:
                raise self._failure(name, f"ended with code {process.returncode}")

    def _failure(self, name: str, what: str) -> DemoError:
        return DemoError(f"{name} {what}. {self._places.tail(f'{name}.out')}")


def configure(places: Places, plugstack: str) -> None:
    """Write slurm.conf and what belongs to it."""
    for name in ("state", "spool", "log"):
        (places.base / name).mkdir()
    (places.base / "cgroup.conf").touch()
    (places.base / "plugstack.conf").write_text(plugstack)
    host = socket.gethostname().partition(".")[0]
    base, hooks = places.base, places.hooks
    lines = [
        "ClusterName=demo",
        # Dray's catalog is kept, and knows the jobs of the last run.
        f"FirstJobId={int(time.time()) % 60_000_000}",
        f"SlurmctldHost={host}(127.0.0.1)",
        f"SlurmctldPort={free_port(0)}",
        "SlurmUser=root",
        "SlurmdUser=root",
        "AuthType=auth/munge",
        "CredType=cred/munge",
        f"AuthInfo=socket={places.munge}",
        "CommunicationParameters=NoInAddrAny,NoCtldInAddrAny",
        f"StateSaveLocation={base}/state",
        f"SlurmdSpoolDir={base}/spool/%n",
        f"SlurmctldPidFile={base}/slurmctld.pid",
        f"SlurmdPidFile={base}/%n.pid",
        f"SlurmctldLogFile={places.log('slurmctld.log')}",
        f"SlurmdLogFile={places.log('%n.log')}",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "JobAcctGatherType=jobacct_gather/none",
        "AccountingStorageType=accounting_storage/none",
        "SwitchType=switch/none",
        "MpiDefault=none",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core",
        "SchedulerParameters=bf_interval=1,sched_interval=2,batch_sched_delay=0",
        "ReturnToService=2",
        "KillWait=2",
        "SlurmdParameters=config_overrides",
        # These are what a site adds for Dray.
        f"PrologSlurmctld={hooks}/prolog_slurmctld.sh",
        f"EpilogSlurmctld={hooks}/epilog_slurmctld.sh",
        f"Prolog={hooks}/prolog.sh",
        f"Epilog={hooks}/epilog.sh",
        "PrologFlags=Alloc",
        f"PlugStackConfig={base}/plugstack.conf",
    ]
    node = f"NodeHostname={host} NodeAddr=127.0.0.1 CPUs=1 RealMemory=100 State=UNKNOWN"
    lines += [f"NodeName={name} {node} Port={free_port(0)}" for name in NODES]
    lines.append("PartitionName=demo Nodes=ALL Default=YES State=UP")
    places.conf.write_text("\n".join(lines) + "\n")


def _kill_leftovers(conf: Path) -> None:
    """Steps outlive slurmd; they are known by what stands in their environment."""
    ours = os.fsencode(f"SLURM_CONF={conf}")
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if ours in (place / "environ").read_bytes().split(b"\0"):
                os.kill(int(place.name), signal.SIGKILL)
