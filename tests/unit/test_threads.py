"""Long work in threads: none waits for the few that short work shares."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

from shared.deadline import Deadline
from shared.threads import in_thread

WHO: ContextVar[str] = ContextVar("who", default="nobody")


async def test_long_work_neither_waits_for_short_work_nor_keeps_it_waiting() -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    both = threading.Barrier(2)

    async def long() -> int:
        work = in_thread(lambda: both.wait(10), threading.Event(), Deadline.after(10), "waiting")
        return await work

    first = asyncio.create_task(long())
    assert await asyncio.to_thread(lambda: "short") == "short"
    short = asyncio.create_task(asyncio.to_thread(both.wait, 10))
    assert {await first, await short} == {0, 1}


async def test_it_logs_in_the_context_of_who_wants_it() -> None:
    WHO.set("ada")
    assert await in_thread(WHO.get, threading.Event(), Deadline.after(10), "looking") == "ada"
