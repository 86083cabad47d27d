"""Jobs that end with a process: each has a task that waits for it."""

import asyncio
from collections.abc import Awaitable, Callable

from services.node_agent.callers import ended, is_running
from services.node_agent.job import Job
from shared.deadline import Deadline
from shared.errors import DrayError
from shared.logging import get_logger
from shared.tasks import cancel_all

log = get_logger(__name__)


class Watches:
    """Those of one agent."""

    def __init__(self, close: Callable[[Job], Awaitable[None]]) -> None:
        self._close = close
        self._tasks: dict[Job, asyncio.Task[None]] = {}

    def watch(self, job: Job) -> None:
        """End the job with its caller, if it has one."""
        if job.caller is not None:
            task = asyncio.create_task(self._end_with(job), name=f"watch-{job.job_id}")
            self._tasks[job] = task
            task.add_done_callback(lambda _: self._tasks.pop(job, None))

    def untie(self, job: Job) -> None:
        """From now on the job ends when somebody says so."""
        job.caller = None
        self.forget(job)

    def forget(self, job: Job) -> None:
        task = self._tasks.get(job)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    async def stop(self, deadline: Deadline) -> None:
        """End what is over already, and leave the rest to the next agent."""
        over = [
            task
            for job, task in self._tasks.items()
            if job.caller is None or not is_running(job.caller)
        ]
        if over:
            await asyncio.wait(over, timeout=deadline.remaining())
        await cancel_all(*self._tasks.values())

    async def _end_with(self, job: Job) -> None:
        assert job.caller is not None
        pid = job.caller.pid
        await ended(job.caller)
        log.info("caller_ended", job=job.job_id, pid=pid)
        try:
            await self._close(job)
        except DrayError as exc:
            log.warning("job_not_released", job=job.job_id, code=exc.code, error=exc.message)
