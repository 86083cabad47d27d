"""The process that a job is tied to: such a job ends with it, however that ends.

`dray run` becomes the command that it runs, so nobody is left to give the mount back; the kernel
tells us, by a pidfd. A restarted agent goes on watching, by what the job's file says.
"""

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

from services.node_agent.errors import CallerUnseenError
from shared.models import Tolerant

POLL_SECONDS: Final = 1.0
# Of /proc/<pid>/stat, after the name, which may hold anything: state, threads, time of the start.
_STATE: Final = 0
_THREADS: Final = 17
_STARTED: Final = 19


class Caller(Tolerant):
    """A process. With its start in clock ticks since boot: the kernel uses process ids again."""

    pid: Annotated[int, Field(gt=0)]
    started: Annotated[int, Field(ge=0)]


def identify(pid: int) -> Caller:
    """The process that the kernel named as our peer."""
    if pid <= 0:
        raise CallerUnseenError(
            "the node's agent cannot see when your process ends: you are in another PID "
            "namespace, in a container perhaps; run the agent in the host's PID namespace"
        )
    started = _started(pid)
    if started is None:
        raise CallerUnseenError(
            f"the node's agent cannot see process {pid}: it has ended, or /proc hides the "
            "processes of others (hidepid) from the agent's user; run the agent as root"
        )
    return Caller(pid=pid, started=started)


def is_running(caller: Caller) -> bool:
    return _started(caller.pid) == caller.started


async def ended(caller: Caller) -> None:
    """Return when the process has ended, whether or not its parent has noticed."""
    try:
        watched = os.pidfd_open(caller.pid)
    except ProcessLookupError:
        return
    except (OSError, AttributeError):
        # A kernel before 5.3, a Python built for one, a filter of system calls, or no free
        # descriptor: then it is seen a little later.
        while is_running(caller):  # noqa: ASYNC110 - of another process, no event tells us
            await asyncio.sleep(POLL_SECONDS)
        return
    try:
        if is_running(caller):  # and not another one that has its id by now
            await _readable(watched)
    finally:
        os.close(watched)


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)


def _started(pid: int) -> int | None:
    """When the process was started; None if there is none that still runs."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        # Whatever the name is, the last bracket closes it.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        # A zombie is over, unless only its first thread has ended.
        if fields[_STATE] not in b"ZX" or int(fields[_THREADS]) > 1:
            return int(fields[_STARTED])
    return None
