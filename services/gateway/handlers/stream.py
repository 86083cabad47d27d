"""Server-sent events: one pull, live, from now to its end.

Each event's id is the record's version, and the first event is always the state as it stands: a
client that reconnects has missed nothing that still matters.
"""

import asyncio

from aiohttp import web

from services.gateway.feed import ChangeFeed
from services.gateway.views import pull_view
from shared.catalog.records import ImageRecord
from shared.deadline import Deadline
from shared.tasks import cancel_all

STREAM_SECONDS = 3600.0
KEEP_ALIVE_SECONDS = 15.0
RETRY_MILLISECONDS = 1000


async def stream_pull(
    request: web.Request, feed: ChangeFeed, record: ImageRecord
) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",  # or a proxy would hold the news back
        }
    )
    await response.prepare(request)
    await response.write(f"retry: {RETRY_MILLISECONDS}\n\n".encode())
    deadline = Deadline.after(STREAM_SECONDS)
    keep_alive = asyncio.create_task(_keep_alive(response), name="sse-keep-alive")
    try:
        async for latest in feed.follow(record.key, deadline):
            if latest.pull_id != record.pull_id:
                break
            data = pull_view(latest).model_dump_json()
            await response.write(f"id: {latest.version}\nevent: pull\ndata: {data}\n\n".encode())
            if not latest.state.in_flight:
                break
        await response.write_eof()
    except ConnectionResetError:
        pass  # the client has gone; the pull goes on
    finally:
        await cancel_all(keep_alive)
    return response


async def _keep_alive(response: web.StreamResponse) -> None:
    """A comment now and then, so that nothing between here and the client takes us for dead."""
    while True:
        await asyncio.sleep(KEEP_ALIVE_SECONDS)
        await response.write(b": still here\n\n")
