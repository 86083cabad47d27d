"""The owner's side: a process for each layer, from a nursery that is started when first needed."""

import asyncio
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from services.converter.crossing import encoded
from services.converter.packers.errors import PackerDiedError
from services.converter.packers.messages import PackOrder
from services.converter.packers.work import Work, writable
from services.converter.packing.limits import Limits
from services.converter.packing.stream import LayerDigests
from shared.files import remove_stale_partials_of
from shared.image.recipe import PackOptions

# A packer and its owner then seldom wait for each other; some kernels allow their users less.
_PIPE_BYTES: Final = 1 << 20
# Twice what the largest layers within the limits take, and what threads have besides.
_MEMORY: Final = 2 << 30
_MEMORY_PER_THREAD: Final = 32 << 20
_PROGRAM: Final = "services.converter.packers.nursery"
_END_SECONDS: Final = 10.0
_GONE: Final = (BrokenPipeError, ConnectionResetError)


@dataclass(frozen=True, slots=True)
class _Nursery:
    process: subprocess.Popen[bytes]
    socket: socket.socket


class Packers:
    """Packs layers, each with `threads` threads that compress; 0 is one per core."""

    def __init__(self, threads: int = 0, *, memory: int = _MEMORY) -> None:
        self._threads = threads or len(os.sched_getaffinity(0))
        self._memory = memory + self._threads * _MEMORY_PER_THREAD
        self._nursery: _Nursery | None = None
        # A loop tells one at a time that there is room.
        self._sending = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """No process is left; no layer may be in work any more."""
        nursery, self._nursery = self._nursery, None
        if nursery is None:
            return
        nursery.socket.close()
        try:
            await asyncio.to_thread(nursery.process.wait, _END_SECONDS)
        except subprocess.TimeoutExpired:
            _kill(nursery)

    @asynccontextmanager
    async def packing(
        self,
        layer: str,
        *,
        expected: LayerDigests,
        options: PackOptions,
        limits: Limits,
        out_path: Path,
        literal: bool = False,
    ) -> AsyncIterator[Work]:
        """The work on one layer: to be fed, and finished. Leaving by an error gives it up."""
        order = PackOrder(
            expected=expected,
            options=options,
            limits=limits,
            out_path=str(out_path),
            literal=literal,
            threads=self._threads,
            memory=self._memory,
        )
        work = await self._begun(layer, order)
        try:
            yield work
        except BaseException:
            await work.give_up()
            # One that was killed has left what it had begun, and a service may live for months.
            with suppress(OSError):  # what went wrong before is what counts
                await asyncio.to_thread(remove_stale_partials_of, out_path)
            raise
        finally:
            work.close()
            self._bury_dead()

    async def _begun(self, layer: str, order: PackOrder) -> Work:
        try:
            with ExitStack() as here:
                reading, writing = os.pipe()
                here.callback(os.close, reading)
                with ExitStack() as kept:
                    kept.callback(os.close, writing)
                    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                    here.enter_context(theirs)
                    kept.enter_context(ours)
                    _prepare(writing, ours)
                    await self._hand_over(encoded(order), [reading, theirs.fileno()])
                    kept.pop_all()
        except OSError as exc:
            raise PackerDiedError.unstarted(layer, str(exc)) from exc
        return Work(layer, writing, ours)

    async def _hand_over(self, order: bytes, fds: list[int]) -> None:
        async with self._sending:
            try:
                await self._send(order, fds)
            except _GONE:  # the nursery was killed since
                await self._send(order, fds)

    async def _send(self, order: bytes, fds: list[int]) -> None:
        nursery = self._nursery = self._nursery or _started()
        try:
            while True:
                try:
                    socket.send_fds(nursery.socket, [order], fds)
                except BlockingIOError:
                    await writable(nursery.socket.fileno())
                else:
                    return
        except _GONE:
            self._nursery = None
            _kill(nursery)
            raise

    def _bury_dead(self) -> None:
        """Of a nursery that was killed no zombie is left until the next layer comes."""
        nursery = self._nursery
        if nursery is None or self._sending.locked() or nursery.process.poll() is None:
            return
        self._nursery = None
        nursery.socket.close()


def _prepare(pipe: int, results: socket.socket) -> None:
    os.set_blocking(pipe, False)
    results.settimeout(0)
    with suppress(OSError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _started() -> _Nursery:
    """In a process group of its own: a terminal's Ctrl-C is the owner's affair."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(0)
    # No directory is looked into but ours: -P, since -m would begin with the current one.
    command = [sys.executable, "-P", "-m", _PROGRAM, str(theirs.fileno())]
    try:
        with theirs:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=_environment(),
                process_group=0,
            )
    except BaseException:
        ours.close()
        raise
    return _Nursery(process, ours)


def _environment() -> dict[str, str]:
    """Ours, without settings and the secrets in them; it finds the modules where we found them."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DRAY_")}
    return {**kept, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}


def _kill(nursery: _Nursery) -> None:
    nursery.socket.close()
    nursery.process.kill()
    nursery.process.wait()
