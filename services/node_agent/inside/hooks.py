"""Hooks: programs of the site's that run around the making of an inside, as root, on the node.

Nothing of the user's reaches them but names that we know the form of; they get no shell, bounded
time, and are killed with all that they started. What they say on stderr is what a user is told.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from services.node_agent.errors import InsideRefusedError
from services.node_agent.inside.module import Hook
from shared.deadline import Deadline
from shared.logging import get_logger
from shared.models import ImageId, JobId

log = get_logger(__name__)

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MOST_WORDS: Final = 8192
_LONGEST_REASON: Final = 300


@dataclass(frozen=True, slots=True)
class HookCall:
    """What hooks are told."""

    job_id: JobId
    uid: int
    image_id: ImageId
    root: Path
    """Where the image is mounted."""
    inside: Path | None = None
    """Where its inside is pinned, once it is there."""

    def environment(self) -> Mapping[str, str]:
        pinned = {"DRAY_INSIDE": str(self.inside)} if self.inside else {}
        return {
            **pinned,
            "PATH": _PATH,
            "DRAY_JOB_ID": self.job_id,
            "DRAY_USER_ID": str(self.uid),
            "DRAY_IMAGE_ID": self.image_id,
            "DRAY_IMAGE_ROOT": str(self.root),
        }


@dataclass(frozen=True, slots=True)
class Hooks:
    """Of one inside."""

    call: HookCall
    before: tuple[Hook, ...] = ()
    after: tuple[Hook, ...] = ()

    async def run_before(self, deadline: Deadline) -> None:
        await run_hooks(self.before, self.call, deadline)

    async def run_after(self, inside: Path, deadline: Deadline) -> None:
        """In the agent's own namespace, not in the image's; nobody was let in yet."""
        await run_hooks(self.after, replace(self.call, inside=inside), deadline)


async def run_hooks(hooks: Sequence[Hook], call: HookCall, deadline: Deadline) -> None:
    """One after the other; the first that fails ends it, with InsideRefusedError."""
    for hook in hooks:
        await _run(hook, call, deadline.sooner(hook.seconds))


async def _run(hook: Hook, call: HookCall, deadline: Deadline) -> None:
    try:
        process = await asyncio.create_subprocess_exec(
            *hook.run,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=dict(call.environment()),
            cwd="/",
            start_new_session=True,
        )
    except OSError as exc:
        raise _failed(hook, f"cannot be run: {exc.strerror}") from exc
    assert process.stderr is not None
    try:
        async with asyncio.timeout(deadline.remaining()) as timer:
            said = await _beginning(process.stderr)
            status = await process.wait()
    except TimeoutError as exc:
        if not timer.expired():
            raise
        raise _failed(hook, f"did not end within {deadline.budget:g} s") from exc
    finally:
        await _end(process)
    if status != 0:
        lines = said.decode("utf-8", "replace").strip().splitlines()
        reason = "".join(c for c in lines[0] if c.isprintable())[:_LONGEST_REASON] if lines else ""
        how = f"status {status}" if status > 0 else f"signal {-status}"
        log.warning("hook_failed", hook=hook.run[0], job_id=call.job_id, how=how, said=reason)
        raise _failed(hook, reason or f"ended with {how}")


async def _beginning(stream: asyncio.StreamReader) -> bytes:
    """What it says first; the rest is read as well, lest it wait for us."""
    kept = b""
    while piece := await stream.read(1 << 16):
        kept += piece[: _MOST_WORDS - len(kept)]
    return kept


async def _end(process: asyncio.subprocess.Process) -> None:
    """With everything that it started; whoever hangs in the kernel ends when that lets go."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(TimeoutError):
        async with asyncio.timeout(1):
            await process.wait()


def _failed(hook: Hook, reason: str) -> InsideRefusedError:
    return InsideRefusedError(f"a hook of this site, {hook.run[0]}, failed: {reason}")
