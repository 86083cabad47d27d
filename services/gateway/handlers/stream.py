"""Server-sent events: one pull to its end, or the queue for as long as somebody looks.

A stream says what its follower may see at that moment, whatever it was allowed before, and begins
with the state as it stands, unless Last-Event-ID shows that the client has it. Whoever reads too
slowly misses states in between; whoever does not read at all is dropped. Nothing piles up here.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from aiohttp import web

from services.gateway.access import may_use
from services.gateway.auth.identity import Principal
from services.gateway.feed import ChangeFeed
from services.gateway.views import pull_view
from shared.catalog.records import ImageRecord
from shared.deadline import Deadline
from shared.errors import DrayError
from shared.http.request_ids import request_id_headers
from shared.logging import get_logger

log = get_logger(__name__)

STREAM_SECONDS: Final = 3600.0
KEEP_ALIVE_SECONDS: Final = 15.0
WRITE_SECONDS: Final = 20.0
"""For whoever does not read: then the connection is closed."""
RETRY_MILLISECONDS: Final = 1000
LAST_EVENT_ID: Final = "Last-Event-ID"
HEADERS: Final = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # or a proxy would hold the news back
}

Events = AsyncGenerator[bytes, None]


async def stream(request: web.Request, events: Events) -> web.StreamResponse:
    """Send what `events` yields until it ends or the client is gone."""
    async with aclosing(events):
        # Before the answer begins, an error can still be told as one.
        try:
            first = await anext(events)
        except StopAsyncIteration:
            return web.Response(status=204)  # tells an EventSource not to come back
        response = web.StreamResponse(headers=HEADERS | request_id_headers(request))
        try:
            await response.prepare(request)
            await _send(response, f"retry: {RETRY_MILLISECONDS}\n\n".encode() + first)
            await _pass_on(events, response)
            async with asyncio.timeout(WRITE_SECONDS):
                await response.write_eof()
        except ConnectionResetError:
            pass  # the client has gone: what it followed goes on
        except TimeoutError:
            log.info("stream_dropped", reason="its client does not read")
            if request.transport is not None:
                request.transport.abort()
        except DrayError as exc:
            # All that can be said now is the end, and the client asks again.
            log.warning("stream_ended", code=exc.code, error=exc.message)
    return response


def seconds_for(principal: Principal) -> float:
    """How long somebody may follow: what proves who they are may end before."""
    return max(0.0, min(STREAM_SECONDS, principal.until - time.time()))


async def pull_events(
    feed: ChangeFeed, record: ImageRecord, principal: Principal, last: str | None
) -> Events:
    """Each state of one pull; the id of an event is the record's version."""
    seen = int(last) if last is not None and last.isascii() and last.isdigit() else -1
    deadline = Deadline.after(seconds_for(principal))
    async with aclosing(feed.follow(record.key, deadline)) as versions:
        async for latest in versions:
            if latest.pull_id != record.pull_id or not may_use(principal, latest):
                return
            if latest.version > seen:
                data = pull_view(latest).model_dump_json()
                yield f"id: {latest.version}\nevent: pull\ndata: {data}\n\n".encode()
            elif latest.state.in_flight:
                yield b": nothing new\n\n"  # it has begun, though there is nothing to say yet
            if not latest.state.in_flight:
                return


async def _pass_on(events: Events, response: web.StreamResponse) -> None:
    """With a comment now and then, so that nothing on the way takes us for dead."""
    while True:
        upcoming = asyncio.ensure_future(anext(events))
        try:
            while not (await asyncio.wait({upcoming}, timeout=KEEP_ALIVE_SECONDS))[0]:
                await _send(response, b": still here\n\n")
            try:
                event = upcoming.result()
            except StopAsyncIteration:
                return
        finally:
            if not upcoming.done():
                upcoming.cancel()
                await asyncio.wait({upcoming})
        await _send(response, event)


async def _send(response: web.StreamResponse, event: bytes) -> None:
    async with asyncio.timeout(WRITE_SECONDS):
        await response.write(event)
