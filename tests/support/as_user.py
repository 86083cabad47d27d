"""HTTP over a UNIX socket as somebody else, for tests that root starts: the kernel says who.

Linux keeps credentials for each thread, and the C library's calls change them for all; so the raw
system calls are made, in a thread that connects and ends.
"""

import asyncio
import ctypes
import json
import platform
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler

_CALLS = {"x86_64": (119, 116, 117), "aarch64": (149, 159, 147)}
"""setresgid, setgroups, setresuid."""

Answer = tuple[int, dict[str, Any]]


def connected_as(uid: int, gids: Sequence[int], path: Path) -> socket.socket:
    calls = _CALLS.get(platform.machine())
    if calls is None:
        pytest.skip(f"the numbers of system calls of {platform.machine()} are not known here")
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            _become(uid, gids, calls)
            connection.connect(str(path))
        except BaseException as exc:  # noqa: BLE001 - raised again where it was asked for
            failed.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if failed:
        connection.close()
        raise failed[0]
    connection.setblocking(False)
    return connection


def _become(uid: int, gids: Sequence[int], calls: tuple[int, int, int]) -> None:
    """This thread alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    setresgid, setgroups, setresuid = calls
    for call in (
        (setgroups, len(gids), (ctypes.c_uint * len(gids))(*gids)),
        (setresgid, gids[0], gids[0], gids[0]),
        (setresuid, uid, uid, uid),
    ):
        if libc.syscall(*call) != 0:
            raise OSError(ctypes.get_errno(), "cannot become another user")


class _Connector(aiohttp.UnixConnector):
    def __init__(self, uid: int, gids: Sequence[int], path: Path) -> None:
        super().__init__(path=str(path))
        self._who = uid, tuple(gids)

    async def _create_connection(self, *_: Any, **__: Any) -> ResponseHandler:
        connection = await asyncio.to_thread(connected_as, *self._who, Path(self.path))
        transport_and_protocol = await self._loop.create_unix_connection(
            self._factory, sock=connection
        )
        return transport_and_protocol[1]


class Somebody:
    """A user of a machine, at one socket of it. `async with`. The first group is the process's."""

    def __init__(self, path: Path, uid: int, *groups: int) -> None:
        self.uid = uid
        self._path = path
        self._gids = groups or (uid,)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            "http://localhost",
            connector=_Connector(self.uid, self._gids, self._path),
            timeout=aiohttp.ClientTimeout(total=40),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def ask(self, method: str, path: str, body: object = None) -> Answer:
        status, text = await self.raw(method, path, body)
        return status, json.loads(text) if text else {}

    async def raw(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        assert self._session is not None
        async with self._session.request(method, path, json=body) as response:
            return response.status, await response.text()
