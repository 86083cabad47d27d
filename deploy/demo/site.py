"""What the demonstration runs: a registry of one directory, and Dray itself as `dray up`."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from aiohttp import web

from deploy.demo.registry import demo_registry

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 30.0
LOG_TAIL: Final = 15
UP_LINE: Final = "Dray is up: "
"""What `dray up` says when all of its services have started."""


class DemoError(Exception):
    """The demonstration cannot go on; the message says why."""


class Site:
    """A running Dray with a data directory of its own."""

    def __init__(self, data: Path, port: int) -> None:
        self.data = data
        self.url = f"http://127.0.0.1:{port}"
        self._listen = f"127.0.0.1:{port}"
        self._log = data / "up.log"
        # The user's own settings must neither help nor disturb.
        self.env = {
            name: value for name, value in os.environ.items() if not name.startswith("DRAY_")
        } | {"DRAY_URL": self.url, "DRAY_SOCKET": str(data / "agent/agent.sock")}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Dray, started, and stopped with everything that it mounted."""
        arguments = ("up", "--listen", self._listen, "--data", str(self.data))
        with self._log.open("wb") as log:
            up = await asyncio.create_subprocess_exec(
                *_dray(),
                *arguments,
                env=self.env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is ours; it is stopped in order
            )
        try:
            await self._ready(up)
            yield
        finally:
            await stopped(up)

    @property
    def socket(self) -> Path:
        """Where the gateway knows who asks; there is none if its path is too long."""
        return self.data / "gateway.sock"

    async def dray(self, *arguments: str, shown: str | None = None) -> int:
        """Run a command as a user would type it, to where our own output goes."""
        print(f"\n$ dray {shown or ' '.join(arguments)}", flush=True)
        return await self._run(arguments, quiet=False)

    async def knows(self, reference: str) -> bool:
        return await self._run(("lookup", reference), quiet=True) == 0

    def how_it_mounts(self) -> str:
        """What the agent said when it chose its way of mounting, and why not a faster one."""
        for line in self._log.read_text(errors="replace").splitlines():
            if '"mounter_chosen"' in line:
                said = json.loads(line)
                refused = "; ".join(f"{how}: {why}" for how, why in said["refused"].items())
                return f"{said['mounter']} ({refused})" if refused else str(said["mounter"])
        raise DemoError(self._failure("chose no way of mounting images"))

    async def _run(self, arguments: Sequence[str], *, quiet: bool) -> int:
        output = asyncio.subprocess.DEVNULL if quiet else None
        command = await asyncio.create_subprocess_exec(
            *_dray(), *arguments, env=self.env, stdout=output, stderr=output
        )
        try:
            return await command.wait()
        except asyncio.CancelledError:
            await stopped(command)
            raise

    async def _ready(self, up: asyncio.subprocess.Process) -> None:
        try:
            async with asyncio.timeout(START_SECONDS):
                while up.returncode is None:
                    if UP_LINE in self._log.read_text(errors="replace"):
                        return
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise DemoError(self._failure(f"not ready after {START_SECONDS:g} s")) from None
        raise DemoError(self._failure(f"ended with code {up.returncode}"))

    def _failure(self, what: str) -> str:
        lines = self._log.read_text(errors="replace").splitlines()[-LOG_TAIL:]
        return "\n".join([f"`dray up` {what}. The end of {self._log}:", *lines])


@contextlib.asynccontextmanager
async def registry(layout: Path, port: int) -> AsyncIterator[None]:
    """Serve an OCI layout directory as a registry on this machine."""
    runner = web.AppRunner(demo_registry(layout), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield
    finally:
        await runner.cleanup()


def free_port(preferred: int) -> int:
    """The preferred port of this machine's loopback, or another that is free."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            chosen: int = probe.getsockname()[1]
            return chosen
    raise DemoError("this machine has no free port on 127.0.0.1")


def mounts_below(directory: Path) -> list[str]:
    """Mount points at or below a directory, as this process sees them."""
    lines = Path("/proc/self/mounts").read_text(errors="replace").splitlines()
    points = [line.split()[1] for line in lines]
    return [point for point in points if Path(point).is_relative_to(directory)]


def _dray() -> tuple[str, ...]:
    return (sys.executable, "-c", "from cli.main import main; main()")


async def stopped(process: asyncio.subprocess.Process, within: float = STOP_SECONDS) -> None:
    """Asked to end, and killed if it does not."""
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(within):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
