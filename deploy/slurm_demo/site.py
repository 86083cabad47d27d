"""Dray on the nodes of the private Slurm, as one process beside this one."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from deploy.demo.site import DemoError, free_port, stopped
from deploy.slurm_demo.cluster import NODES, SBIN, Places
from deploy.slurm_demo.services import UP_LINE, agent_directory

GATEWAY_PORT: Final = 7600
START_SECONDS: Final = 30.0


class Site:
    """The services, and commands that know them."""

    def __init__(self, data: Path, places: Places) -> None:
        port = free_port(GATEWAY_PORT)
        self.url = f"http://127.0.0.1:{port}"
        self.dray_program = places.base / "dray"
        self._listen = f"127.0.0.1:{port}"
        self._data = data
        self._places = places
        self._log = places.log("dray.out")
        # The user's own settings must neither help nor disturb.
        given = {name: text for name, text in os.environ.items() if not _is_set_for_us(name)}
        path = f"{places.base}:{given.get('PATH', '')}:{SBIN}"
        self.env = {**given, **places.environment(), "PATH": path}

    def agent_socket(self, node: str) -> Path:
        return agent_directory(self._places.base, node) / "agent.sock"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Started, and stopped with everything that the agents mounted."""
        nodes = [f"--node={node}" for node in NODES]
        with self._log.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "deploy.slurm_demo.services", *nodes),
                *("--data", str(self._data), "--run", str(self._places.base)),
                *("--listen", self._listen, "--munge", str(self._places.munge)),
                env=self.env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is ours; it is stopped in order
            )
        try:
            await self._ready(process)
            yield
        finally:
            await stopped(process)

    async def run(self, *command: str, shown: str | None = None) -> int:
        """A command as a user would type it, to where our own output goes."""
        print(f"\n$ {shown or ' '.join(command)}", flush=True)
        process = await self.start(*command)
        return await process.wait()

    async def start(self, *command: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *command, env=self.env, cwd=self._places.base, stdin=asyncio.subprocess.DEVNULL
        )

    async def output(self, *command: str) -> str:
        """What a command prints; "" where it fails."""
        process = await asyncio.create_subprocess_exec(
            *command,
            env=self.env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        text = (await process.communicate())[0].decode(errors="replace")
        return text if process.returncode == 0 else ""

    async def _ready(self, process: asyncio.subprocess.Process) -> None:
        try:
            async with asyncio.timeout(START_SECONDS):
                while UP_LINE not in self._log.read_text(errors="replace"):
                    if process.returncode is not None:
                        raise self._failure(f"ended with code {process.returncode}")
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise self._failure(f"is not ready after {START_SECONDS:g} s") from None

    def _failure(self, what: str) -> DemoError:
        return DemoError(f"Dray {what}. {self._places.tail('dray.out')}")


def _is_set_for_us(name: str) -> bool:
    return name.startswith(("DRAY_", "SLURM_", "SBATCH_", "SRUN_", "SALLOC_", "SQUEUE_"))
