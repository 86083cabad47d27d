"""Exports at a time, and files that hang or are none."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from services.gateway import exports
from services.gateway.exports import (
    ExportUnavailableError,
    ImageFile,
    TooManyExportsError,
    Turns,
)
from shared.errors import DeadlineExceededError
from tests.support.lifecycle import ADA, ADMIN, BOB, NOBODY

ID = "a" * 64


def test_each_user_has_turns_and_all_together() -> None:
    turns = Turns(1, in_all=3)
    with turns.taken(ADA, None), turns.taken(NOBODY, "192.0.2.1"):
        for user, remote in ((ADA, None), (NOBODY, "192.0.2.1")):
            with pytest.raises(TooManyExportsError) as refused, turns.taken(user, remote):
                pass
            assert refused.value.headers == {"Retry-After": "5"}
        with turns.taken(ADMIN, None):
            pass
        with turns.taken(BOB, None), pytest.raises(TooManyExportsError), turns.taken(ADMIN, None):
            pass
    with turns.taken(ADA, None), turns.taken(ADMIN, None), turns.taken(ADMIN, None):
        pass


async def test_a_file_is_read_where_it_is_asked(tmp_path: Path) -> None:
    (tmp_path / f"{ID}.squashfs").write_bytes(b"0123456789")
    async with ImageFile.opened(tmp_path, ID, 10) as file:
        assert await file.read(3, 4) == b"3456"
        assert await file.read(8, 4) == b"89"


async def test_what_is_no_image_is_not_given_out(tmp_path: Path) -> None:
    path = tmp_path / f"{ID}.squashfs"
    (tmp_path / "secret").write_bytes(b"0123456789")
    for make in (
        lambda: None,
        lambda: path.symlink_to(tmp_path / "secret"),
        lambda: path.write_bytes(b"012"),
        lambda: os.mkfifo(path),
        path.mkdir,
    ):
        make()
        with pytest.raises(ExportUnavailableError):
            async with ImageFile.opened(tmp_path, ID, 10):
                pass
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)


async def test_a_file_system_that_hangs_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{ID}.squashfs").write_bytes(b"0123456789")
    reading, writing = os.pipe()
    closed = asyncio.Event()
    loop, real = asyncio.get_running_loop(), os.close

    def hang(*_: object) -> int:
        os.read(reading, 1)
        return os.open(tmp_path / f"{ID}.squashfs", os.O_RDONLY)

    def close(fd: int) -> None:
        real(fd)
        loop.call_soon_threadsafe(closed.set)

    monkeypatch.setattr(exports, "READ_SECONDS", 0.05)
    monkeypatch.setattr(exports, "_open", hang)
    threads = threading.Semaphore(1)
    monkeypatch.setattr(ImageFile, "_threads", threads)
    with pytest.raises(DeadlineExceededError):
        async with ImageFile.opened(tmp_path, ID, 10):
            pass
    with pytest.raises(ExportUnavailableError, match="does not answer"):
        async with ImageFile.opened(tmp_path, ID, 10):
            pass
    monkeypatch.setattr(os, "close", close)
    os.write(writing, b"x")
    async with asyncio.timeout(5):
        await closed.wait()
    assert await asyncio.to_thread(threads.acquire, timeout=5), "who comes back is counted out"
    monkeypatch.undo()
    os.close(reading)
    os.close(writing)
