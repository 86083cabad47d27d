"""Server-sent events: one pull, live, from now to its end.

Each event's id is the record's version, and the first event is always the state as it stands: a
client that reconnects has missed nothing that still matters.
"""

import asyncio
from contextlib import aclosing

from aiohttp import web

from services.gateway.feed import ChangeFeed
from services.gateway.views import pull_view
from shared.catalog.records import ImageRecord
from shared.deadline import Deadline
from shared.errors import DrayError
from shared.logging import get_logger
from shared.tasks import cancel_all

log = get_logger(__name__)

STREAM_SECONDS = 3600.0
KEEP_ALIVE_SECONDS = 15.0
RETRY_MILLISECONDS = 1000
HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # or a proxy would hold the news back
}


async def stream_pull(
    request: web.Request, feed: ChangeFeed, record: ImageRecord
) -> web.StreamResponse:
    async with aclosing(feed.follow(record.key, Deadline.after(STREAM_SECONDS))) as versions:
        # Before the answer begins, an error can still be told as one.
        latest = await anext(versions)
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(request)
        keep_alive = asyncio.create_task(_keep_alive(response), name="sse-keep-alive")
        try:
            await response.write(f"retry: {RETRY_MILLISECONDS}\n\n".encode())
            while latest.pull_id == record.pull_id:
                await response.write(_event(latest))
                if not latest.state.in_flight:
                    break
                latest = await anext(versions)
            await response.write_eof()
        except (ConnectionResetError, StopAsyncIteration):
            pass  # the client has gone, or has to ask again: the pull goes on
        except DrayError as exc:
            # All that can be said now is the end, and the client asks again.
            log.warning("stream_ended", pull=record.pull_id, code=exc.code, error=exc.message)
        finally:
            await cancel_all(keep_alive)
    return response


def _event(record: ImageRecord) -> bytes:
    data = pull_view(record).model_dump_json()
    return f"id: {record.version}\nevent: pull\ndata: {data}\n\n".encode()


async def _keep_alive(response: web.StreamResponse) -> None:
    """A comment now and then, so that nothing between here and the client takes us for dead."""
    while True:
        await asyncio.sleep(KEEP_ALIVE_SECONDS)
        await response.write(b": still here\n\n")
