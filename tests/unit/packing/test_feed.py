"""The pipe from the event loop to a thread: order, back-pressure, and giving up on either side."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from services.converter.packing import Feed, FeedClosedError


def read_to_end(feed: Feed, size: int) -> bytes:
    return b"".join(iter(lambda: feed.read(size), b""))


async def test_bytes_arrive_in_order_whatever_the_sizes() -> None:
    feed = Feed(capacity=1000)
    reading = asyncio.create_task(asyncio.to_thread(read_to_end, feed, 700))
    chunks = [bytes([n]) * (n * 37 % 1500) for n in range(256)]
    for chunk in chunks:
        await feed.write(chunk)
    await feed.finish()
    assert await reading == b"".join(chunks)


async def test_a_full_feed_makes_the_writer_wait_and_not_the_loop() -> None:
    feed = Feed(capacity=10)
    await feed.write(b"x" * 10)
    writing = asyncio.create_task(feed.write(b"y"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not writing.done()
    assert await asyncio.to_thread(feed.read, 10) == b"x" * 10
    await asyncio.wait_for(writing, 5)
    assert await asyncio.to_thread(feed.read, 10) == b"y"


async def test_a_cancelled_write_was_not_taken() -> None:
    feed = Feed(capacity=1)
    await feed.write(b"a")
    writing = asyncio.create_task(feed.write(b"b"))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert feed.read(10) == b"a"
    await feed.write(b"c")
    assert feed.read(10) == b"c"


async def test_a_failure_reaches_a_reader_that_waits() -> None:
    feed = Feed()
    reading = asyncio.create_task(asyncio.to_thread(feed.read, 1))
    await asyncio.sleep(0)
    feed.fail(ConnectionResetError("gone"))
    with pytest.raises(ConnectionResetError, match="gone"):
        await asyncio.wait_for(reading, 5)


async def test_closing_reaches_a_writer_that_waits_and_those_to_come() -> None:
    feed = Feed(capacity=1)
    await feed.write(b"a")
    writing = asyncio.create_task(feed.write(b"b"))
    await asyncio.sleep(0)
    await asyncio.to_thread(feed.close)
    with pytest.raises(FeedClosedError):
        await asyncio.wait_for(writing, 5)
    with pytest.raises(FeedClosedError):
        await feed.write(b"c")


def test_closing_wakes_a_reader_that_waits() -> None:
    feed = Feed()
    started = threading.Event()

    def read() -> bytes:
        started.set()
        return feed.read(1)

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        assert started.wait(5)
        feed.close()
        with pytest.raises(FeedClosedError):
            reading.result(5)
