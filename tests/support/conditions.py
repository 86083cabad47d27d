"""Waiting in tests: poll a condition with a deadline, never sleep and hope."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")

POLL_SECONDS = 0.01


@overload
async def eventually(check: Callable[[], Awaitable[T]], *, within: float) -> T: ...
@overload
async def eventually(check: Callable[[], T], *, within: float) -> T: ...
async def eventually(check: Callable[[], object], *, within: float) -> object:
    """Call `check` until it returns something true, and return that."""
    end = time.monotonic() + within
    while True:
        value = check()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() >= end:
            message = f"still {value!r} after {within:g} s: {_source(check)}"
            raise AssertionError(message)
        await asyncio.sleep(POLL_SECONDS)


def _source(check: Callable[..., object]) -> str:
    """What was awaited, in the words of the test."""
    try:
        return " ".join(inspect.getsource(check).split())
    except (OSError, TypeError):
        return repr(check)
