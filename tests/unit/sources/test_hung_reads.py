"""Files on a file system that hangs: whoever reads them waits, and nobody else does."""

import asyncio
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from services.converter.registry.platforms import Platform
from services.converter.sources.files import CHUNK, stream
from services.converter.sources.plain_tar import PlainTar
from shared.deadline import Deadline
from shared.errors import DeadlineExceededError
from tests.support.conditions import eventually

# More than the loop's own executor has threads, on any machine.
MANY = 40

LEAVES_ONE_HANGING = """
import asyncio, threading
from services.converter.sources.files import stream
from shared.deadline import Deadline

class Hung:
    called = "hung"
    def size(self, name): return 1
    def read(self, name, offset, count): threading.Event().wait()

async def main():
    try:
        await anext(stream(Hung(), "x", 1, Deadline.after(0.1)))
    except Exception as exc:
        print(type(exc).__name__)

asyncio.run(main())
"""


class Hung:
    """Files that answer when they are let."""

    called = "hung"

    def __init__(self) -> None:
        self.let = threading.Event()
        self.waiting = 0

    def size(self, _: str) -> int | None:
        return 1

    def read(self, _: str, __: int, ___: int) -> bytes:
        self.waiting += 1
        self.let.wait()
        return b"x"


@pytest.fixture
def hung() -> Iterator[Hung]:
    yield (files := Hung())
    files.let.set()


async def only(chunks: AsyncGenerator[bytes, None]) -> bytes:
    async with aclosing(chunks):
        return b"".join([chunk async for chunk in chunks])


async def test_others_go_on_while_many_hang(hung: Hung) -> None:
    reads = [
        asyncio.create_task(only(stream(hung, "x", 1, Deadline.after(30)))) for _ in range(MANY)
    ]
    await eventually(lambda: hung.waiting == MANY, within=10)
    async with asyncio.timeout(10):
        assert await asyncio.to_thread(os.getpid) == os.getpid()
    hung.let.set()
    assert await asyncio.gather(*reads) == [b"x"] * MANY


async def test_a_read_that_hangs_ends_by_its_deadline(hung: Hung) -> None:
    with pytest.raises(DeadlineExceededError, match="reading hung"):
        await only(stream(hung, "x", 1, Deadline.after(0.1)))


async def test_a_tar_that_hangs_holds_nobody_up(
    hung: Hung, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "root.tar"
    path.write_bytes(bytes(10))
    fd = os.open(path, os.O_RDONLY)
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda *of: hung.let.wait() and pread(*of))
    try:
        image = await PlainTar(fd, "root.tar", "me").resolve(
            Platform("linux", "amd64"), Deadline.after(30)
        )
        [layer] = image.layers
        with pytest.raises(DeadlineExceededError, match=r"reading root\.tar"):
            await only(layer.open(Deadline.after(0.1)))
        hung.let.set()
        assert await only(layer.open(Deadline.after(30))) == bytes(10)
    finally:
        os.close(fd)


def test_a_read_that_hangs_does_not_keep_the_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEAVES_ONE_HANGING],
        timeout=30,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "DeadlineExceededError\n"


class Noting:
    """A file's bytes, and which threads asked for them."""

    called = "noting"

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.threads: set[threading.Thread] = set()

    def size(self, _: str) -> int | None:
        return len(self.content)

    def read(self, _: str, offset: int, count: int) -> bytes:
        self.threads.add(threading.current_thread())
        return self.content[offset : offset + count]


async def test_one_thread_reads_a_stream_and_ends_with_it() -> None:
    files = Noting(os.urandom(3 * CHUNK + 5))
    read = await only(stream(files, "x", len(files.content), Deadline.after(30)))
    assert hashlib.sha256(read).digest() == hashlib.sha256(files.content).digest()
    [thread] = files.threads
    await eventually(lambda: not thread.is_alive(), within=10)
